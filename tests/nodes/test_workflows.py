"""Every example workflow, opened in the real page, converted and run there."""

import io
import json
import os
import re
from pathlib import Path

import pytest
from PIL import Image

from harness.damage import many

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / "demo" / "workflows").glob("*.json"))
# The number of steps after which the thumbnails are taken anew.
UPDATE = "MASKLORA_UPDATE_THUMBNAILS"
ONLY_ON_THE_PAGE = {"MarkdownNote", "Note"}
HAS_MODEL = (ROOT / "demo" / "base.safetensors").is_file()

TEMPLATES = sorted((ROOT / "workflows").glob("*Start here*.json"))
FOLLOWING = ROOT / "workflows" / "Masks that follow a clip.json"

each = pytest.mark.parametrize("path", WORKFLOWS, ids=[path.stem for path in WORKFLOWS])
# The first and the fourth train in test_from_pictures_to_lora.py, too.
TRAINED = many([path for path in WORKFLOWS if path.stem[7] in "67"], WORKFLOWS)
trains = pytest.mark.parametrize("path", TRAINED, ids=[path.stem for path in TRAINED])


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def widget_index(page, node_type, widget):
    """Where a widget's value stands in the `widgets_values` of a saved node."""
    return page.evaluate(
        """([type, widget]) => window.app.graph.nodes.find(n => n.type === type)
            .widgets.filter(w => w.serialize !== false).findIndex(w => w.name === widget)""",
        [node_type, widget],
    )


# A picture for everyone names no folder of where it was taken.
NAMELESS = """folder => {
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
    while (texts.nextNode()) texts.currentNode.data = texts.currentNode.data.replaceAll(folder, "ComfyUI")
}"""


def thumbnail(page, path):
    """The graph with its results as the page draws it, as the example's picture in the template list."""
    page.evaluate(NAMELESS, str(page.server.base))
    shot = page.graph_picture()
    shot.thumbnail((1000, 1000), Image.Resampling.LANCZOS)
    shot.save(path.with_suffix(".jpg"), quality=85)


def test_there_are_the_examples_that_the_documents_name():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    nodes = (ROOT / "docs" / "node-reference.md").read_text(encoding="utf-8")
    assert {path.stem for path in WORKFLOWS} == set(re.findall(r"`(Demo - [^`]+)`", nodes))
    assert {path.stem for path in TEMPLATES} >= set(re.findall(r"`(\d+ Start [^`]+)`", readme)) > set()
    named = re.search(r"Start here[^:]*: ([^\n]+(?:\n[^\n]+)*?)\.\n", nodes)[1].replace("\n", " ")
    assert [path.stem.split(" - ")[1] for path in TEMPLATES if path.stem.split(" - ")[1] not in named] == []


@pytest.mark.parametrize("path", [*TEMPLATES, FOLLOWING, *WORKFLOWS], ids=lambda path: path.stem)
def test_the_cache_is_given_the_model_that_is_trained(path):
    """So that what does not fit is told before anything is encoded; a LoRA before it would have it made anew."""
    saved = read(path)
    nodes = {node["id"]: node for node in saved["nodes"]}
    ends = {number: (start, output) for number, start, output, *_ in saved["links"]}
    given = {}
    for kind in ("MLT_CacheDataset", "MLT_TrainLoRA"):
        (node,) = (one for one in saved["nodes"] if one["type"] == kind)
        (slot,) = (one for one in node["inputs"] if one["name"] == "model")
        given[kind] = ends[slot["link"]]
        assert slot["link"] in nodes[given[kind][0]]["outputs"][given[kind][1]]["links"]
    start, output = given["MLT_CacheDataset"]
    assert given["MLT_TrainLoRA"] == (start, output)
    loaders = ("CheckpointLoaderSimple", "UNETLoader", "ModelSamplingAuraFlow", "ModelSamplingSD3", "CFGNorm")
    assert nodes[start]["type"] in loaders
    assert nodes[start]["outputs"][output]["type"] == "MODEL"


@each
def test_it_opens_without_missing_nodes_and_converts_completely(small_models, page, path):
    saved = read(path)
    page.load_workflow(saved)
    assert set(page.unknown_nodes()) <= ONLY_ON_THE_PAGE
    prompt = page.api_prompt()
    run_nodes = [node for node in saved["nodes"] if node["type"] not in ONLY_ON_THE_PAGE]
    ids = {str(node["id"]) for node in run_nodes}
    assert {i for i, node in prompt.items() if node["class_type"] not in ONLY_ON_THE_PAGE} == ids
    for node in run_nodes:
        sockets = {slot["name"] for slot in node["inputs"] if slot["link"] is not None}
        linked = {name for name, value in prompt[str(node["id"])]["inputs"].items() if isinstance(value, list)}
        assert linked == sockets, node["type"]
    assert page.problems == []


@each
def test_its_files_are_where_the_nodes_list_them(demo_server, path):
    known = demo_server.object_info()
    offered = {}
    for kind, name in (("LoadImage", "image"), ("CheckpointLoaderSimple", "ckpt_name")):
        choices, *options = known[kind]["input"]["required"][name]
        offered[kind] = choices if isinstance(choices, list) else options[0]["options"]
    named = [(node["type"], node["widgets_values"][0]) for node in read(path)["nodes"] if node["type"] in offered]
    # Models that a person downloads are not the demo's.
    named = [one for one in named if not one[1].startswith("sam3")]
    assert named and [one for one in named if one[1] not in offered[one[0]]] == []


@each
def test_its_widgets_hold_the_values_that_their_names_say(small_models, page, path):
    page.load_workflow(path)
    prompt = page.api_prompt()
    train = next(node["inputs"] for node in prompt.values() if node["class_type"] == "MLT_TrainLoRA")
    cache = next(node["inputs"] for node in prompt.values() if node["class_type"] == "MLT_CacheDataset")
    assert (cache["resolution"], cache["bucket_step"], cache["crop"]) == (128, 16, "centre")
    assert train["name"].startswith("masked-lora-demo")
    assert train["checkpointing"] == "per block"


@pytest.mark.skipif(not HAS_MODEL, reason="the demo's model is not in this checkout")
@trains
def test_it_trains_and_paints_from_the_page(demo_server, small_models, page, path):
    saved = read(path)
    page.load_workflow(saved)
    steps = widget_index(page, "MLT_TrainLoRA", "steps")
    name = widget_index(page, "MLT_TrainLoRA", "name")
    for node in saved["nodes"]:
        if node["type"] == "MLT_TrainLoRA":
            node["widgets_values"][steps] = int(os.environ.get(UPDATE, "2"))
            node["widgets_values"][name] = f"from the page/{path.stem}"
            train = str(node["id"])
        if node["type"] == "SaveImage":
            save = str(node["id"])
    page.load_workflow(saved)
    outputs = page.queue(timeout=1200)["outputs"]
    if os.environ.get(UPDATE):
        thumbnail(page, path)
    assert (demo_server.base / "output" / "loras" / "from the page" / f"{path.stem}.safetensors").is_file()
    assert ".safetensors" in json.dumps(outputs[train])
    picture = Image.open(io.BytesIO(demo_server.picture(outputs[save]["images"][0])))
    assert picture.size == (128, 128)
    assert page.problems == []
