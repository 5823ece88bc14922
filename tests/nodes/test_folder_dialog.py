"""The way in, as a person takes it: the folder of the pictures is chosen from a list, or filled from the page."""

import base64
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.damage import many
from harness.frontends import VUE_NODES, cases, name
from harness.page import ComfyPage

DIALOG = "dialog.mlt-folders"
ROWS = f"{DIALOG} .mlt-folder-list li"
BLUEPRINT = Path(__file__).resolve().parents[2] / "subgraphs" / "Masked LoRA from a folder.json"
SHOTS = os.environ.get("MASKLORA_SHOTS")

LOAD = """async graph => {
    await window.app.loadApiJson(graph, "way in")
    const { app } = window
    app.canvas.ds.scale = 1
    app.canvas.ds.offset = [-app.graph.nodes[0].pos[0] + 380, -app.graph.nodes[0].pos[1] + 120]
    app.canvas.setDirty(true, true)
}"""
# Where the button is drawn on the classic canvas, in pixels of the page; a node that undo has just made is not drawn
# yet.
PLACE = """async () => {
    for (let frames = 0; frames < 2; frames++) await new Promise(done => requestAnimationFrame(done))
    const { canvas } = window.app
    const node = canvas.graph.nodes.find(one => one.type === "MLT_LoadDataset")
    const widget = node.widgets.find(one => one.name === "masked_lora_choose_folder")
    const box = canvas.canvas.getBoundingClientRect()
    const at = (x, y) => [x + canvas.ds.offset[0] + box.left, y + canvas.ds.offset[1] + box.top]
    return at(node.pos[0] + node.size[0] / 2, node.pos[1] + widget.y + 10)
}"""
# The blueprint, its inside shown at the node that loads.
INTO_BLUEPRINT = """async graph => {
    const { app } = window
    await app.loadGraphData(graph)
    app.canvas.setGraph(app.graph.nodes.find(one => one.subgraph).subgraph)
    await new Promise(done => setTimeout(done, 300))
    const { pos } = app.canvas.graph.nodes.find(one => one.type === "MLT_LoadDataset")
    app.canvas.ds.scale = 1
    app.canvas.ds.offset = [380 - pos[0], 120 - pos[1]]
    app.canvas.setDirty(true, true)
}"""
VALUE = "() => window.app.graph.nodes.find(one => one.type === 'MLT_LoadDataset').widgets[0].value"
SAVED = "() => window.app.graph.serialize().nodes.find(one => one.type === 'MLT_LoadDataset').widgets_values"
# Files by what lies in them, dropped on an element or at a place of the page as a browser drops them.
DROP = """async ([target, files, x, y]) => {
    const transfer = new DataTransfer()
    for (const [name, base64] of files) {
        const bytes = Uint8Array.from(atob(base64), letter => letter.charCodeAt(0))
        transfer.items.add(new File([bytes], name))
    }
    const element = document.querySelector(target)
    for (const kind of ["dragenter", "dragover", "drop"]) {
        const options = { bubbles: true, cancelable: true, dataTransfer: transfer, clientX: x, clientY: y }
        element.dispatchEvent(new DragEvent(kind, options))
        await new Promise(done => requestAnimationFrame(done))
    }
}"""


class WayIn:
    """The Load Dataset node on the page, and its dialog."""

    def __init__(self, page, vue, folders):
        self.page, self.tab, self.vue, self.folders = page, page.page, vue, folders

    def load(self, graph):
        self.page.evaluate(LOAD, graph.nodes)
        self.tab.wait_for_timeout(400)
        return self

    def press(self):
        """The button on the node."""
        if self.vue:
            self.tab.locator("[data-node-id]").get_by_role("button", name="Choose folder…").first.click()
        else:
            self.tab.mouse.click(*self.page.evaluate(PLACE))
        self.tab.wait_for_selector(ROWS)
        return self

    def value(self):
        return self.page.evaluate(VALUE)

    def rows(self):
        return self.tab.locator(ROWS).all_inner_texts()

    def button(self, name):
        return self.tab.locator(DIALOG).get_by_role("button", name=name, exact=True)

    def drop(self, target, files, point=(0, 0)):
        self.page.evaluate(DROP, [target, [[name, encoded(content)] for name, content in files], *point])
        return self

    def drop_on_node(self, files):
        point = self.page.evaluate(PLACE)
        return self.drop("[data-node-id]" if self.vue else "#graph-canvas", files, point)

    def says(self, words):
        self.tab.locator(DIALOG).get_by_text(words).first.wait_for()
        return self

    def shot(self, name):
        if SHOTS:
            self.tab.screenshot(path=f"{SHOTS}/{name}{' vue' if self.vue else ''}.png")


def encoded(content):
    return base64.b64encode(content).decode()


def png(value, *, size=(96, 64), grey=False):
    file = io.BytesIO()
    shape = (size[1], size[0]) if grey else (size[1], size[0], 3)
    Image.fromarray(np.full(shape, value, np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module", params=cases(), ids=name)
def opened(request, browser, server_with):
    frontend, vue = request.param
    server = server_with(frontend)
    server.post("/settings", {VUE_NODES: vue})
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    yield ComfyPage(context.new_page(), server).open(), vue
    context.close()
    server.post("/settings", {VUE_NODES: False})


@pytest.fixture
def way_in(opened, folders):
    page, vue = opened
    page.problems.clear()
    yield WayIn(page, vue, type(folders)(page.server))
    page.evaluate(f"() => document.querySelector('{DIALOG}')?.close()")


@pytest.fixture
def loader(graph):
    graph.add("MLT_LoadDataset", folder="typed by hand", trigger_word="zib")
    return graph


def test_a_folder_is_chosen_from_the_list_and_the_choice_can_be_undone(way_in, loader):
    way_in.folders.make("early felines")
    newer = way_in.folders.make("newer felines", count=2)
    way_in.folders.mask(newer / "masks" / "cat 1.png")
    way_in.load(loader).press()
    way_in.shot("folders")
    assert "newer felines" in way_in.rows()[0] and "2 pictures" in way_in.rows()[0] and "1 mask" in way_in.rows()[0]
    search = way_in.tab.locator(f"{DIALOG} [role=combobox]")
    search.fill("FELINES")
    assert [row.split("\n")[0] for row in way_in.rows()] == ["newer felines", "early felines"]
    search.press("ArrowDown")
    search.press("Enter")
    way_in.tab.wait_for_selector(DIALOG, state="detached")
    assert way_in.value() == "early felines"
    way_in.press().tab.locator(ROWS).filter(has_text="newer felines").click()
    assert way_in.value() == "newer felines"
    way_in.tab.keyboard.press("Control+z")
    way_in.tab.wait_for_function(f"() => ({VALUE})() === 'early felines'")
    way_in.tab.keyboard.press("Control+z")
    way_in.tab.wait_for_function(f"() => ({VALUE})() === 'typed by hand'")
    # Escape leaves it as it is.
    way_in.press().tab.keyboard.press("Escape")
    way_in.tab.wait_for_selector(DIALOG, state="detached")
    assert way_in.value() == "typed by hand" and way_in.page.problems == []


def test_inside_of_a_subgraph_the_folder_of_the_node_around_it_is_chosen(way_in):
    way_in.folders.make("newer felines")
    way_in.page.evaluate(INTO_BLUEPRINT, json.loads(BLUEPRINT.read_text(encoding="utf-8")))
    way_in.tab.wait_for_timeout(400)
    way_in.press().tab.locator(ROWS).filter(has_text="newer felines").click()
    (loads,) = (one for one in way_in.page.api_prompt().values() if one["class_type"] == "MLT_LoadDataset")
    assert loads["inputs"]["folder"] == "newer felines"


def test_a_saved_graph_knows_nothing_of_the_button(way_in, loader):
    way_in.load(loader)
    saved = way_in.page.evaluate(SAVED)
    inputs = way_in.page.server.object_info()["MLT_LoadDataset"]["input"]
    assert len(saved) == len(inputs["required"]) + len(inputs.get("optional", {}))
    assert saved[0] == "typed by hand" and None not in saved
    before = way_in.page.api_prompt()
    assert "masked_lora_choose_folder" not in json.dumps(before)
    way_in.page.evaluate("async () => { await window.app.loadGraphData(window.app.graph.serialize()) }")
    assert way_in.page.api_prompt() == before and way_in.page.evaluate(SAVED) == saved
    copied = way_in.page.evaluate("""() => {
        const copy = window.app.graph.nodes[0].clone()
        window.app.graph.add(copy)
        return copy.serialize().widgets_values
    }""")
    assert copied == saved


def test_dropped_pictures_come_into_a_new_folder_and_are_shown(way_in, loader):
    loader.add("MLT_InspectDataset", dataset=["1", 0], resolution=64)
    way_in.folders.empty("my cat").rmdir()
    way_in.load(loader).press()
    files = [("a.png", png(50)), ("b.png", png(150)), ("a_mask.png", png(255, grey=True)), ("a.txt", b"a cat")]
    way_in.drop(DIALOG, [*files, ("notes.pdf", b"%PDF")])
    way_in.says("4 files").says("notes.pdf is left out: no picture, clip, mask or caption.")
    way_in.shot("ready")
    way_in.tab.locator(f"{DIALOG} input[type=text]").fill("my cat")
    way_in.button("Upload").click()
    way_in.says("4 files have come into my cat, which is chosen now.")
    row = way_in.tab.locator(ROWS).filter(has_text="my cat")
    row.wait_for()
    way_in.shot("sent")
    assert way_in.value() == "my cat"
    assert {path.name: path.read_bytes() for path in (way_in.folders.input / "my cat").iterdir()} == dict(files)
    assert "2 pictures" in row.inner_text() and "1 mask" in row.inner_text()
    way_in.tab.keyboard.press("Enter")
    way_in.tab.wait_for_selector(DIALOG, state="detached")
    # The browser runs by itself: nothing else of the graph is queued.
    way_in.tab.wait_for_function(
        "() => document.querySelectorAll('.mlt-browser .mlt-tile:not([hidden]) img[src]').length === 2"
    )
    way_in.shot("shown")
    assert way_in.page.problems == []


def test_a_folder_that_is_there_is_asked_about_and_what_it_holds_stays(way_in, loader):
    folder = way_in.folders.make("taken", count=1)
    before = (folder / "cat 1.png").read_bytes()
    way_in.load(loader).press().drop(DIALOG, [("cat 1.png", png(3)), ("cat 2.png", png(4))])
    name = way_in.tab.locator(f"{DIALOG} input[type=text]")
    name.fill("taken")
    name.press("Enter")
    way_in.tab.get_by_role("button", name="Choose another name").click()
    assert name.is_enabled() and not (folder / "cat 2.png").exists()
    way_in.button("Upload").click()
    way_in.tab.get_by_role("button", name="Add to it").click()
    way_in.says("1 of 2 files have come into taken.").says("cat 1.png: a file of this name is there already")
    assert (folder / "cat 1.png").read_bytes() == before and (folder / "cat 2.png").exists()
    assert way_in.value() == "taken"


def test_files_that_are_dropped_on_the_node_open_the_dialog(way_in, loader):
    way_in.folders.empty("pictures").rmdir()
    way_in.load(loader).drop_on_node([("a.png", png(50))])
    way_in.says("One file")
    way_in.button("Upload").click()
    way_in.says("One file has come into pictures")
    assert way_in.value() == "pictures" and (way_in.folders.input / "pictures" / "a.png").is_file()
    assert way_in.page.problems == []


def test_a_whole_folder_is_picked_with_the_folders_in_it(way_in, loader, tmp_path):
    way_in.folders.empty("my set").rmdir()
    (tmp_path / "my set" / "masks").mkdir(parents=True)
    (tmp_path / "my set" / "a.png").write_bytes(png(9))
    (tmp_path / "my set" / "masks" / "a.png").write_bytes(png(255, grey=True))
    way_in.load(loader).press()
    way_in.tab.locator(f"{DIALOG} input[webkitdirectory], {DIALOG} input[type=file]").last.set_input_files(
        tmp_path / "my set"
    )
    way_in.says("2 files")
    assert way_in.tab.locator(f"{DIALOG} input[type=text]").input_value() == "my set"
    way_in.button("Upload").click()
    way_in.says("2 files have come into my set")
    assert (way_in.folders.input / "my set" / "masks" / "a.png").is_file()


@pytest.mark.parametrize("by", many(["button"], ["button", "Escape"]))
def test_an_upload_is_stopped_and_what_has_come_stays_whole(way_in, loader, by):
    way_in.folders.empty("stopped").rmdir()
    waiting = []
    way_in.tab.route(
        "**/files?path=*",
        lambda route: route.continue_() if "path=0.png" in route.request.url else waiting.append(route),
    )
    way_in.load(loader).press().drop(DIALOG, [(f"{i}.png", png(i)) for i in range(6)])
    way_in.tab.locator(f"{DIALOG} input[type=text]").fill("stopped")
    way_in.button("Upload").click()
    way_in.says("Uploading: 1 of 6.")
    way_in.shot("sending")
    if by == "button":
        way_in.button("Cancel").click()
    else:
        way_in.tab.keyboard.press("Escape")
    way_in.says("Stopped: 1 of 6 files have come into stopped, and stay there.")
    way_in.tab.unroute("**/files?path=*")
    arrived = way_in.folders.input / "stopped"
    # What was on its way is taken away once the server has noticed.
    for _ in range(100):
        if [path.name for path in arrived.iterdir()] == ["0.png"]:
            break
        way_in.tab.wait_for_timeout(100)
    assert [path.name for path in arrived.iterdir()] == ["0.png"]
    assert way_in.value() == "typed by hand"


def test_a_folder_that_another_node_gives_is_not_chosen_here(way_in, loader):
    loader.add("PrimitiveString", value="from elsewhere")
    loader.nodes["1"]["inputs"]["folder"] = ["2", 0]
    way_in.load(loader).drop_on_node([("a.png", png(50))])
    way_in.tab.get_by_text("The folder comes from another node.").wait_for()
    way_in.tab.keyboard.press("Escape")
    assert way_in.tab.locator("dialog[open]").count() == 0
