"""The way in: the first template with a person's own checkpoint in an empty ComfyUI, and the demo where it is there."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = "1 Start here - SDXL"
OFFICIAL = "sd_xl_base_1.0.safetensors"
SET = """([type, name, value]) => {
    for (const node of window.app.graph.nodes.filter(n => n.type === type)) {
        node.widgets.find(w => w.name === name).value = value
    }
}"""
BOXES = """() => window.app.graph.nodes.map(
    n => [n.title, n.pos[0], n.pos[1] - 30, n.pos[0] + n.size[0], n.pos[1] + n.size[1]]
)"""
# In the classic canvas text is drawn from this scale on.
READABLE = 0.58


def small_sdxl(server):
    """A small SDXL with random weights as one checkpoint file, written by ComfyUI's own nodes."""
    from harness.models import offer_small_unet, offer_unet_companions

    models = server.base / "models"
    unet, files = offer_small_unet(models, "sdxl"), offer_unet_companions(models)
    clips = {"clip_name1": files["clip_l"], "clip_name2": files["clip_g"], "type": "sdxl"}
    parts = {"model": ["1", 0], "clip": ["2", 0], "vae": ["3", 0]}
    server.run(
        {
            "1": {"class_type": "UNETLoader", "inputs": {"unet_name": unet, "weight_dtype": "default"}},
            "2": {"class_type": "DualCLIPLoader", "inputs": clips},
            "3": {"class_type": "VAELoader", "inputs": {"vae_name": files["vae"]}},
            "4": {"class_type": "CheckpointSave", "inputs": {**parts, "filename_prefix": "start here"}},
        }
    )
    (made,) = (server.base / "output").glob("start here*.safetensors")
    return made


@pytest.fixture(scope="module")
def empty_server(comfy_server, comfy_host, tmp_path_factory):
    """A ComfyUI of somebody who has the pack and one checkpoint."""
    from devtools.comfy import ComfyServer

    base = tmp_path_factory.mktemp("empty")
    (base / "models" / "checkpoints").mkdir(parents=True)
    shutil.move(small_sdxl(comfy_server), base / "models" / "checkpoints" / OFFICIAL)
    with ComfyServer(comfy_host, base, packs=[ROOT / "tests" / "harness" / "small_models_pack"]) as server:
        yield server


@pytest.fixture(scope="module")
def at_home(browser, empty_server):
    from harness.page import ComfyPage

    context = browser.new_context(viewport={"width": 1920, "height": 1080}, permissions=["clipboard-read"])
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    yield ComfyPage(context.new_page(), empty_server).open()
    context.close()


def own_pictures(folder, count=4):
    folder.mkdir(parents=True)
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (160, 160, 4), np.uint8)
        pixels[..., 3] = 0
        pixels[40:120, 30:130, 3] = 255
        Image.fromarray(pixels).save(folder / f"cat {number}.png")


def overlaps(boxes):
    return [
        (a[0], b[0])
        for i, a in enumerate(boxes)
        for b in boxes[i + 1 :]
        if a[1] < b[3] and b[1] < a[3] and a[2] < b[4] and b[2] < a[4]
    ]


def opened(page):
    """The template as the template list of the page opens it."""
    graph = page.evaluate(
        """async name => {
            const answer = await fetch(`/api/workflow_templates/masked-lora/${encodeURIComponent(name)}.json`)
            const graph = await answer.json()
            await window.app.loadGraphData(graph, true, true, name)
            return graph
        }""",
        TEMPLATE,
    )
    page.page.wait_for_timeout(800)
    return graph


def test_the_first_template_trains_with_a_person_s_own_checkpoint_and_folder(at_home, empty_server):
    page, tab = at_home, at_home.page
    assert empty_server.get("/workflow_templates") == {"masked-lora": [TEMPLATE]}
    opened(page)
    assert page.unknown_nodes() in ([], ["MarkdownNote"])
    assert overlaps(page.evaluate(BOXES)) == []
    assert page.evaluate("() => window.app.canvas.ds.scale") >= READABLE
    own_pictures(empty_server.base / "input" / "my cat")
    page.evaluate(SET, ["CheckpointLoaderSimple", "ckpt_name", OFFICIAL])
    page.evaluate(SET, ["MLT_LoadDataset", "folder", "my cat"])
    # So that it ends within the test; a person leaves these as they are.
    page.evaluate(SET, ["MLT_TrainLoRA", "steps", 3])
    page.evaluate(SET, ["KSampler", "steps", 2])
    page.evaluate(SET, ["PrimitiveInt", "value", 128])
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
    # The newest frontend's check of a workflow refuses keys without a value, except links.
    parts = [part for node in graph["nodes"] for part in (node, *node["inputs"], *node["outputs"])]
    assert {key for part in parts for key, value in part.items() if value is None} <= {"link"}


@pytest.fixture(scope="module")
def server_with_demo(comfy_host, tmp_path_factory):
    from devtools.comfy import ComfyServer

    with ComfyServer(comfy_host, tmp_path_factory.mktemp("with demo"), demo=True) as server:
        yield server


def test_the_demo_brings_its_pictures_and_its_model_where_it_lies_beside_the_pack(browser, server_with_demo):
    from harness.page import ComfyPage

    server = server_with_demo
    assert server.get("/workflow_templates") == {"masked-lora": [TEMPLATE]}
    tab = browser.new_page(viewport={"width": 1400, "height": 900})
    page = ComfyPage(tab, server).open()
    page.evaluate("() => window.app.extensionManager.command.execute('Workspace.ToggleSidebarTab.masked_lora.runs')")
    tab.locator(".mlt-demos").wait_for(state="attached")
    tab.get_by_text("Demo", exact=True).click()
    names = tab.locator(".mlt-demos button").all_text_contents()
    assert names == sorted(path.stem for path in (ROOT / "demo" / "workflows").glob("*.json"))
    tab.locator(".mlt-demos button").first.click()
    tab.wait_for_function("() => window.app.graph.nodes.some(n => n.type === 'MLT_TrainLoRA')", timeout=60_000)
    page.evaluate(SET, ["MLT_TrainLoRA", "steps", 2])
    page.queue(timeout=200)
    assert page.problems == []
    tab.close()


def test_without_the_demo_none_is_offered(empty_server):
    assert empty_server.get("/masked_lora/demo") == {"graphs": []}


def test_the_template_has_its_picture():
    shot = Image.open(ROOT / "workflows" / f"{TEMPLATE}.jpg")
    assert shot.width >= 600
    assert (ROOT / "workflows" / f"{TEMPLATE}.jpg").stat().st_size < 400_000
