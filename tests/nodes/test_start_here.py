"""The way in: the templates "Start here" in an empty ComfyUI with a person's own models, and the demo where it is."""

import io
import json
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from devtools.start_here.captioning import CAPTIONING, DESCRIBER, KIND, OFFICIAL
from devtools.start_here.following import FOLLOWING
from devtools.start_here.layout import YOURS
from devtools.start_here.models import MODELS
from devtools.start_here.write import BLUEPRINT, OTHERS, names
from harness.clips import write_clip
from harness.cut_text import cut_text
from harness.damage import ALL, many
from harness.folders import anywhere, folder_settings
from harness.frontends import OWN, VUE_NODES, cases
from harness.frontends import name as named
from harness.official_files import WITHOUT_ENCODER, offer_official_files
from harness.official_graphs import official_graph
from harness.own_folders import offer_example, own_data, own_pictures
from harness.walking import overlap, walk
from masklora.dataset.loading import load_dataset
from masklora.dataset.moving import examine_frames

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = "1 Start here - SDXL"
# All that a person must touch before Run, whose nodes are green; each of the others is as it should be.
DECISIONS = [("MLT_LoadDataset", "folder"), ("MLT_TrainLoRA", "name"), ("CLIPTextEncode", "text")]
OF_PAIRS = [*DECISIONS[:2], ("PrimitiveStringMultiline", "value"), ("LoadImage", "image")]
# Pictures alone, and pairs; clips are those of the template for masks that follow one.
USUAL = ("Z-Image", "FLUX.2 klein Edit")
TRAINED = [
    (name, model)
    for name, model in zip(names(), MODELS, strict=True)
    # The first one has a test of its own; a small one of ERNIE-Image reads no texts.
    if name != TEMPLATE and model.title not in WITHOUT_ENCODER and (ALL or model.title in USUAL)
]
MISSING = """() => document.body.innerText.match(/[^\\n]* (is|are) missing|[^\\n]*(error|issue)s? found/g) ?? []"""
SET = """([type, name, value]) => {
    for (const node of window.app.graph.nodes.filter(n => n.type === type)) {
        node.widgets.find(w => w.name === name).value = value
    }
}"""
DECIDE = """([type, name, value, green]) => {
    const node = window.app.graph.nodes.find(n => n.type === type && n.bgcolor === green)
    node.widgets.find(w => w.name === name).value = value
}"""
# So that it ends within the test; a person leaves these as they are.
SHORTEN = """side => {
    for (const node of window.app.graph.nodes) {
        const steps = node.widgets?.find(w => w.name === "steps")
        if (steps) steps.value = node.type === "MLT_TrainLoRA" ? 3 : 2
        if (node.title === "Resolution") node.widgets[0].value = side
        // An empty clip has its size and length of its own, of sound and pictures that of one number.
        const set = (name, value) => { for (const one of node.widgets ?? []) if (one.name === name) one.value = value }
        if (node.widgets?.some(one => one.name === "length")) for (const name of ["width", "height"]) set(name, side)
        set("length", 9)
        set("megapixels", side * side / 1048576)
        if (node.title === "Frames") node.widgets[0].value = 9
    }
}"""
ONLY_ON_THE_PAGE = {"MarkdownNote", "Note"}
BOXES = """() => window.app.graph.nodes.map(
    n => [n.title, n.pos[0], n.pos[1] - 30, n.pos[0] + n.size[0], n.pos[1] + n.size[1]]
)"""
# A person's graph with the blueprint: a checkpoint, and one node that trains.
AROUND_BLUEPRINT = """async ([blueprint, checkpoint, folder]) => {
    await window.app.loadGraphData(blueprint)
    const [whole] = window.app.graph.nodes
    const loader = window.LiteGraph.createNode("CheckpointLoaderSimple")
    window.app.graph.add(loader)
    loader.widgets[0].value = checkpoint
    for (const [output, input] of [[0, "model"], [1, "clip"], [2, "vae"]]) {
        loader.connect(output, whole, whole.inputs.findIndex(one => one.name === input))
    }
    const set = (name, value) => { whole.widgets.find(w => w.name === name).value = value }
    set("folder", folder)
    set("name", "from the blueprint")
    set("resolution", 128)
    const train = whole.subgraph.nodes.find(n => n.type === "MLT_TrainLoRA")
    train.widgets.find(w => w.name === "steps").value = 3
}"""
INTO_BLUEPRINT = """() => window.app.canvas.setGraph(window.app.graph.nodes.find(n => n.subgraph).subgraph)"""
# What Nodes 2.0 draws, whatever size the graph says that its nodes have.
ELEMENTS = """() => [...document.querySelectorAll("[data-node-id]")].map(element => {
    const { left, top, right, bottom } = element.getBoundingClientRect()
    return [window.app.graph.getNodeById(element.dataset.nodeId)?.title, left, top, right, bottom]
})"""
# Screens on which a template is opened; a usual run sees the larger one.
SCREENS = many([(1920, 1080)], [(1920, 1080), (1280, 800)])
LONGEST = (
    "1 Start here - SDXL",
    "11 Start here - Ideogram 4",
    "13 Start here - LTX-2",
    "14 Start here - Qwen-Image-Edit",
    *OTHERS,
)
# In the classic canvas text is drawn from this scale on.
READABLE = 0.58


@pytest.fixture(scope="module")
def empty_server(comfy_server, comfy_host, tmp_path_factory):
    """A ComfyUI of somebody who has the pack and the models, but no pictures and no LoRA."""
    from devtools.comfy import ComfyServer

    base = tmp_path_factory.mktemp("empty")
    offer_official_files(comfy_server, base / "models")
    with ComfyServer(comfy_host, base, packs=[ROOT / "tests" / "harness" / "small_models_pack"]) as server:
        offer_example(comfy_host, base)
        yield server


@pytest.fixture(scope="module")
def at_home(browser, empty_server):
    from harness.page import ComfyPage

    context = browser.new_context(viewport={"width": 1920, "height": 1080}, permissions=["clipboard-read"])
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    yield ComfyPage(context.new_page(), empty_server).open()
    context.close()


def check_clips(folder, side, *, sound):
    """A clip of the base model and one with the LoRA, taken out of the folder."""
    files = sorted(folder.glob("*.mp4"))
    assert [file.name.rsplit("_", 2)[0] for file in files] == ["Base model", "With the LoRA"]
    seen = []
    for file in files:
        with av.open(file) as opened:
            seen.append(np.stack([frame.to_ndarray(format="rgb24") for frame in opened.decode(video=0)]))
            assert bool(opened.streams.audio) == sound
        file.unlink()
    assert {one.shape for one in seen} == {(9, side, side, 3)}
    assert not np.array_equal(*seen)


def check_pairs(server, outputs, run):
    """The training was shown the references, and sample pictures were drawn with a reference too."""
    told = [line["text"] for one in outputs.values() for line in one.get("masked_lora_report", ())]
    assert "4 pictures with every reference, 0 without." in told and "references made now: 4" in told
    assert any("is shown the reference pictures" in text for text in told)
    (folder,) = (server.base / "user" / "masked_lora" / "runs").glob(f"{run.replace(' ', '_')}-*/samples")
    assert {file.name for file in folder.glob("*.png")} == {"step_000000_0.png", "step_000003_0.png"}
    assert json.loads((folder / "samples.json").read_text(encoding="utf-8"))["references"]


def official_loader(name):
    """The loader of the text model in a template of ComfyUI's own, and the file that it offers."""
    (loader,) = (node for node in official_graph(name)["nodes"] if node["type"] == "CLIPLoader")
    return loader, loader["properties"]["models"][0]


def overlaps(boxes):
    return [
        (a[0], b[0])
        for i, a in enumerate(boxes)
        for b in boxes[i + 1 :]
        if a[1] < b[3] and b[1] < a[3] and a[2] < b[4] and b[2] < a[4]
    ]


def lying_on_another(page, *, modern):
    """Pairs of nodes of which one lies on the other, by their saved sizes and as Nodes 2.0 draws them."""
    return overlaps(page.evaluate(BOXES)) + (overlaps(page.evaluate(ELEMENTS)) if modern else [])


def opened(page, name=TEMPLATE):
    """The template as the template list of the page opens it."""
    graph = page.evaluate(
        """async name => {
            const answer = await fetch(`/api/workflow_templates/masked-lora/${encodeURIComponent(name)}.json`)
            const graph = await answer.json()
            await window.app.loadGraphData(graph, true, true, name)
            return graph
        }""",
        name,
    )
    page.page.wait_for_timeout(800)
    return graph


def test_the_first_template_trains_with_a_person_s_own_checkpoint_and_folder(at_home, empty_server):
    page, tab = at_home, at_home.page
    assert sorted(empty_server.get("/workflow_templates")["masked-lora"]) == sorted([*names(), *OTHERS])
    opened(page)
    own_pictures(empty_server.base / "input" / "my cat")
    page.evaluate(SET, ["MLT_LoadDataset", "folder", "my cat"])
    page.evaluate(SHORTEN, 128)
    outputs = page.queue(timeout=280)["outputs"]
    tab.wait_for_function("() => document.querySelector('.mlt-panel .mlt-state')?.dataset.state === 'finished'")
    last = tab.locator(".mlt-panel > :last-child")
    assert last.locator(".mlt-file").text_content() == "Written: output/loras/my-lora.safetensors"
    assert (empty_server.base / "output" / "loras" / "my-lora.safetensors").is_file()
    page.evaluate("() => { window.app.canvas.ds.scale = 1 }")
    copy = last.get_by_role("button", name="Copy", exact=True)
    copy.evaluate("button => button.click()")
    tab.wait_for_function("() => document.querySelector('.mlt-panel .mlt-written button').textContent === 'Copied'")
    assert page.evaluate("() => navigator.clipboard.readText()") == "output/loras/my-lora.safetensors"
    pictures = [one["images"][0] for one in outputs.values() if "images" in one and one["images"][0]["type"] == "temp"]
    compared = [np.asarray(Image.open(io.BytesIO(empty_server.picture(one)))) for one in pictures]
    same = [one for one in compared if one.shape[:2] == (128, 128)]
    assert len(same) == 2
    assert page.problems == []


def test_the_first_template_holds_the_nodes_own_defaults_and_nothing_of_the_demo(at_home, empty_server):
    page = at_home
    graph = opened(page)
    text = json.dumps(graph)
    assert "masked-lora-demo" not in text and "zibble" not in text
    info, wrong = empty_server.object_info(), []
    for node in page.api_prompt().values():
        if not node["class_type"].startswith("MLT_"):
            continue
        declared = info[node["class_type"]]["input"]
        for name, (kind, *more) in {**declared.get("required", {}), **declared.get("optional", {})}.items():
            value, default = node["inputs"].get(name), (more[0] if more else {}).get("default")
            fixed = default is None or isinstance(value, list) or name in ("folder", "name")
            if not fixed and value != default:
                wrong.append((node["class_type"], name, kind, value, default))
    assert wrong == []
    titles = [group["title"][0] for group in graph["groups"] if group["title"][0].isdigit()]
    assert sorted(titles) == ["1", "2", "3", "4", "5"]


@pytest.mark.parametrize("name", [*names(), *OTHERS])
def test_a_template_opens_without_a_message_and_comfyui_takes_it(name, at_home, empty_server):
    page = at_home
    graph = opened(page, name)
    assert set(page.unknown_nodes()) <= ONLY_ON_THE_PAGE
    assert overlaps(page.evaluate(BOXES)) == []
    assert page.evaluate("() => window.app.canvas.ds.scale") >= READABLE
    assert page.evaluate(MISSING) == []
    prompt = {id: node for id, node in page.api_prompt().items() if node["class_type"] not in ONLY_ON_THE_PAGE}
    assert len(prompt) == sum(node["type"] not in ONLY_ON_THE_PAGE for node in graph["nodes"])
    # Submitting checks every value; what runs then is of no interest here.
    number = empty_server.submit(prompt)
    empty_server.interrupt()
    empty_server.wait(number, timeout=120, check=False)
    assert page.problems == []


@pytest.mark.parametrize(("name", "model"), list(zip(names(), MODELS, strict=True)), ids=names())
def test_what_a_person_decides_is_green_and_there_are_three_or_of_pairs_four(name, model):
    graph = json.loads((ROOT / "workflows" / f"{name}.json").read_text(encoding="utf-8"))
    green = [node["type"] for node in graph["nodes"] if (node.get("color"), node.get("bgcolor")) == YOURS]
    assert sorted(green) == sorted(kind for kind, _ in (OF_PAIRS if model.pair else DECISIONS))


@pytest.mark.parametrize(("name", "model"), TRAINED, ids=[name for name, _ in TRAINED])
def test_these_decisions_train_and_compare(name, model, at_home, empty_server):
    page = at_home
    opened(page, name)
    folder = f"my cat, {model.title}"
    own_data(model)(empty_server.base / "input" / folder)
    values = [folder, f"lora of {model.title}", "a cat on a sofa", f"{folder}/before/cat 1.jpg"]
    for (kind, widget), value in zip(OF_PAIRS if model.pair else DECISIONS, values, strict=False):
        page.evaluate(DECIDE, [kind, widget, value, YOURS[1]])
    side = 256 if model.title == "Ideogram 4" else 128
    page.evaluate(SHORTEN, side)
    # That one brings any picture to one of its model's own sizes.
    side = 1024 if model.latent == "VAEEncode" else side
    outputs = page.queue(timeout=280)["outputs"]
    assert (empty_server.base / "output" / "loras" / f"lora of {model.title}.safetensors").is_file()
    if model.clip:
        check_clips(empty_server.base / "output" / "video", side, sound=model.clip.sound)
    else:
        shown = [one["images"][0] for one in outputs.values() if "images" in one and one["images"][0]["type"] == "temp"]
        compared = [np.asarray(Image.open(io.BytesIO(empty_server.picture(one)))) for one in shown]
        alike = [one for one in compared if one.shape[:2] == (side, side)]
        assert len(alike) == 2
    if model.pair:
        check_pairs(empty_server, outputs, f"lora of {model.title}")
    assert page.problems == []


def test_two_decisions_write_captions_beside_the_pictures(at_home, empty_server):
    page = at_home
    opened(page, CAPTIONING)
    green = page.evaluate("bg => window.app.graph.nodes.filter(n => n.bgcolor === bg).map(n => n.type)", YOURS[1])
    assert sorted(green) == ["MLT_LoadDataset", "TextGenerate"]
    folder = empty_server.base / "input" / "to caption"
    own_pictures(folder, count=20)
    (folder / "cat 1.txt").write_text("my own words", encoding="utf-8")
    page.evaluate(DECIDE, ["MLT_LoadDataset", "folder", "to caption", YOURS[1]])
    page.evaluate(DECIDE, ["TextGenerate", "max_length", 6, YOURS[1]])
    page.queue(timeout=280)
    texts = {path.stem: path.read_text(encoding="utf-8") for path in folder.glob("*.txt")}
    # More than the lists of Load Dataset hold, each in words of the model, and none over a person's own.
    assert len(texts) == 20 and texts.pop("cat 1") == "my own words"
    assert all(text.strip() for text in texts.values()) and len(set(texts.values())) > 1
    assert page.problems == []


def test_masks_that_follow_a_clip_are_saved_beside_it_and_trained(at_home, empty_server):
    page = at_home
    opened(page, FOLLOWING)
    green = page.evaluate("bg => window.app.graph.nodes.filter(n => n.bgcolor === bg).map(n => n.type)", YOURS[1])
    assert sorted(green) == ["MLT_GrabCutMasks", "MLT_LoadDataset", "MLT_TrainLoRA"]
    folder = empty_server.base / "input" / "my walk"
    pictures, truth = walk(17, (160, 128))
    write_clip(folder / "walk.mkv", pictures, rate=24)
    decisions = [("MLT_LoadDataset", "folder", "my walk"), ("MLT_TrainLoRA", "name", "walk")]
    decisions += [("MLT_GrabCutMasks", "start", "box"), ("MLT_GrabCutMasks", "box", "14, 26, 76, 76")]
    for kind, widget, value in decisions:
        page.evaluate(DECIDE, [kind, widget, value, YOURS[1]])
    page.evaluate(SHORTEN, 128)
    page.queue(timeout=280)
    assert (empty_server.base / "output" / "loras" / "walk.safetensors").is_file()
    (sample,) = load_dataset(folder_settings(folder), allowed=anywhere).samples
    assert sample.mask_path == folder / "walk_mask.mkv" and sample.mask_moving
    found = [one.mask for one in examine_frames(sample, range(len(truth)))]
    assert [round(overlap(*pair), 2) for pair in zip(found, truth, strict=True) if overlap(*pair) < 0.9] == []
    assert page.problems == []


def test_the_captions_template_has_the_file_and_the_kind_of_the_official_one():
    loader, link = official_loader(OFFICIAL)
    assert loader["widgets_values"][:2] == [DESCRIBER.name, KIND] and link == DESCRIBER.as_json()


@pytest.mark.skipif(not ALL, reason="with --all: the first template trains in a usual run")
def test_the_blueprint_is_listed_and_trains_as_one_node(at_home, empty_server):
    page, tab = at_home, at_home.page
    listed = {one["name"]: number for number, one in empty_server.get("/global_subgraphs").items()}
    blueprint = json.loads(empty_server.get(f"/global_subgraphs/{listed[BLUEPRINT.stem]}")["data"])
    own_pictures(empty_server.base / "input" / "blueprint")
    page.evaluate(AROUND_BLUEPRINT, [blueprint, MODELS[0].network.name, "blueprint"])
    page.queue(timeout=280)
    assert (empty_server.base / "output" / "loras" / "from the blueprint.safetensors").is_file()
    page.evaluate(INTO_BLUEPRINT)
    panel = "[...document.querySelectorAll('.mlt-panel .mlt-state')].some(e => e.dataset.state === 'finished')"
    tab.wait_for_function(f"() => {panel}")
    assert page.problems == []


def test_without_the_files_comfyui_offers_to_download_them_and_nothing_else_is_told(page):
    opened(page, "2 Start here - Z-Image")
    page.page.wait_for_function(f"() => ({MISSING})().length > 0")
    assert page.problems == []


@pytest.fixture(params=cases([(OWN, True)]), ids=named)
def modern(request):
    """Whether Nodes 2.0 draws the nodes, in the frontend of the session."""
    return request.param[1]


def look_at_each(templates, server, browser, *, modern, screen=SCREENS[0]):
    """Opens templates as somebody with this screen does: the page with each of them, its name and the graph."""
    from harness.page import ComfyPage

    server.post("/settings", {VUE_NODES: modern})
    tab = browser.new_page(viewport={"width": screen[0], "height": screen[1]})
    page = ComfyPage(tab, server).open()
    drawn = "count => document.querySelectorAll('[data-node-id]').length === count"
    for name in templates:
        graph = opened(page, name)
        if modern:
            tab.wait_for_function(drawn, arg=len(graph["nodes"]))
        yield page, name
    tab.close()
    server.post("/settings", {VUE_NODES: False})


@pytest.mark.parametrize("screen", SCREENS, ids=lambda screen: "x".join(map(str, screen)))
def test_each_template_opens_without_an_error_an_overlap_or_a_text_that_is_cut(modern, screen, browser, empty_server):
    for page, name in look_at_each([*names(), *OTHERS], empty_server, browser, modern=modern, screen=screen):
        assert page.evaluate(MISSING) == [] and page.problems == [], name
        assert lying_on_another(page, modern=modern) == [], name
        assert cut_text(page, modern=modern) == [], name


def test_no_node_lies_on_another_where_models_are_missing_and_nodes_say_so(modern, browser, comfy_server):
    for page, name in look_at_each([*names(), *OTHERS] if ALL else LONGEST, comfy_server, browser, modern=modern):
        assert lying_on_another(page, modern=modern) == [], name
        assert page.problems == []


@pytest.fixture(scope="module")
def server_with_demo(comfy_host, tmp_path_factory):
    from devtools.comfy import ComfyServer

    with ComfyServer(comfy_host, tmp_path_factory.mktemp("with demo"), demo=True) as server:
        yield server


def test_the_demo_brings_its_pictures_and_its_model_where_it_lies_beside_the_pack(browser, server_with_demo):
    from harness.page import ComfyPage

    server = server_with_demo
    assert sorted(server.get("/workflow_templates")["masked-lora"]) == sorted([*names(), *OTHERS])
    tab = browser.new_page(viewport={"width": 1400, "height": 900})
    page = ComfyPage(tab, server).open()
    page.evaluate("() => window.app.extensionManager.command.execute('Workspace.ToggleSidebarTab.masked_lora.runs')")
    tab.locator(".mlt-demos").wait_for(state="attached")
    tab.get_by_text("Demo", exact=True).click()
    offered = tab.locator(".mlt-demos button").all_text_contents()
    assert offered == sorted(path.stem for path in (ROOT / "demo" / "workflows").glob("*.json"))
    tab.locator(".mlt-demos button").first.click()
    tab.wait_for_function("() => window.app.graph.nodes.some(n => n.type === 'MLT_TrainLoRA')", timeout=60_000)
    page.evaluate(SET, ["MLT_TrainLoRA", "steps", 2])
    page.queue(timeout=200)
    assert page.problems == []
    tab.close()


def test_without_the_demo_none_is_offered(empty_server):
    assert empty_server.get("/masked_lora/demo") == {"graphs": []}


@pytest.mark.parametrize("name", [*names(), *OTHERS])
def test_a_template_has_its_picture(name):
    file = ROOT / "workflows" / f"{name}.jpg"
    with Image.open(file) as shot:
        assert shot.width == shot.height >= 600
    assert file.stat().st_size < 100_000
