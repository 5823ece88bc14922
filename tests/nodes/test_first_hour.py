"""The first hour as a person spends it: a template, a folder, Run, the LoRA's file, and the LoRA beside the base model.

Everything is clicked and typed where a person clicks and types; only the view of the graph is moved by the test.
"""

import os
import time

import numpy as np
import pytest
from PIL import Image

from harness.frontends import NEWEST, VUE_NODES, cases, name
from harness.official_files import offer_official_files
from harness.page import ComfyPage

from .test_start_here import ROOT, own_pictures

TEMPLATE = "1 Start here - SDXL"
SHOTS = os.environ.get("MASKLORA_SHOTS")
CASES = cases([(NEWEST, True)])
# Moves the view until a node fills it, as a person does to work on it.
LOOK = """async title => {
    const { canvas, graph } = window.app, node = graph.nodes.find(one => one.title === title || one.type === title)
    canvas.ds.scale = 1
    canvas.ds.offset = [420 - node.pos[0], 140 - node.pos[1]]
    canvas.setDirty(true, true)
    await new Promise(done => setTimeout(done, 400))
    return node.id
}"""
# Where a widget is drawn on the classic canvas, in pixels of the page.
PLACE = """([id, name]) => {
    const { canvas, graph } = window.app, node = graph.getNodeById(id)
    const widget = node.widgets.find(one => one.name === name || one.label === name)
    const box = canvas.canvas.getBoundingClientRect()
    return [
        node.pos[0] + node.size[0] / 2 + canvas.ds.offset[0] + box.left,
        node.pos[1] + widget.y + 10 + canvas.ds.offset[1] + box.top,
    ]
}"""
VALUE = "([id, name]) => window.app.graph.getNodeById(id).widgets.find(one => one.name === name).value"
# Whether each node that shows a picture lies within the view.
SEEN = """() => {
    const { canvas, graph } = window.app, [left, top, width, height] = canvas.ds.visible_area
    return graph.nodes.filter(one => one.type === "PreviewImage").map(({ pos: [x, y], size: [w, h] }) =>
        x >= left && y >= top && x + w <= left + width && y + h <= top + height)
}"""
# Pairs of nodes of which one lies on the other, as Nodes 2.0 draws them.
OVERLAPS = """() => {
    const boxes = [...document.querySelectorAll("[data-node-id]")].map(one => one.getBoundingClientRect())
    return boxes.flatMap((a, i) => boxes.slice(i + 1).filter(b =>
        a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1)).length
}"""


class Newcomer:
    """Somebody at the page, who has a mouse and a keyboard."""

    def __init__(self, page, vue):
        self.page, self.tab, self.vue, self.shots = page, page.page, vue, 0

    def shot(self, name):
        self.shots += 1
        if SHOTS:
            self.tab.screenshot(path=f"{SHOTS}/{self.shots} {name}.png")

    def open_template(self, name):
        self.tab.get_by_role("button", name="Templates").click()
        search = self.tab.get_by_placeholder("Search ...")
        search.fill(name)
        self.tab.wait_for_timeout(1500)
        self.shot("search")
        self.tab.get_by_text(name, exact=True).first.wait_for()
        self.shot("templates")
        self.tab.get_by_text(name, exact=True).first.click()
        self.tab.wait_for_function("() => window.app.graph.nodes.some(one => one.type === 'MLT_TrainLoRA')")
        search.wait_for(state="detached")
        self.tab.wait_for_timeout(1000)
        self.shot("template")

    def press(self, node, label):
        """A button among a node's widgets."""
        id_ = self.page.evaluate(LOOK, node)
        if self.vue:
            self.tab.locator(f'[data-node-id="{id_}"]').get_by_role("button", name=label).click()
        else:
            self.tab.mouse.click(*self.page.evaluate(PLACE, [id_, label]))

    def fill(self, node, widget, value):
        """Types a value into a widget."""
        id_ = self.page.evaluate(LOOK, node)
        if self.vue:
            row = self.tab.locator(f'[data-node-id="{id_}"] [data-testid="node-widget"]').filter(has_text=widget).first
            field = (
                (row if row.count() else self.tab.locator(f'[data-node-id="{id_}"]')).locator("input, textarea").first
            )
            # A number is dragged, or typed after a click.
            box = field.bounding_box()
            self.tab.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
            field.press("ControlOrMeta+a")
            field.press_sequentially(str(value))
            field.press("Enter")
        else:
            self.tab.mouse.dblclick(*self.page.evaluate(PLACE, [id_, widget]))
            field = self.tab.locator(".graphdialog input")
            field.wait_for()
            field.fill(str(value))
            field.press("Enter")
        self.tab.wait_for_timeout(200)
        assert str(self.page.evaluate(VALUE, [id_, widget])) == str(value)

    def run(self):
        self.tab.get_by_role("button", name="Run", exact=True).first.click()


def finished(server, count, timeout=200):
    """Waits until so many jobs have come to their end."""
    deadline = time.monotonic() + timeout
    while len(server.get("/history")) < count:
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.5)


@pytest.fixture(scope="module")
def official_models(comfy_server, tmp_path_factory):
    models = tmp_path_factory.mktemp("official") / "models"
    offer_official_files(comfy_server, models)
    return models


@pytest.mark.parametrize("case", CASES, ids=name)
def test_from_the_template_to_pictures_with_the_new_lora(case, browser, host_with, official_models, tmp_path):
    from devtools.comfy import ComfyServer

    frontend, vue = case
    base = tmp_path / "empty"
    own_pictures(base / "input" / "my cat", count=10)
    packs = [ROOT / "tests" / "harness" / "small_models_pack"]
    with ComfyServer(host_with(frontend), base, packs=packs, models=official_models) as server:
        server.post("/settings", {VUE_NODES: vue})
        context = browser.new_context(viewport={"width": 1600, "height": 1000})
        page = ComfyPage(context.new_page(), server).open()
        person = Newcomer(page, vue)
        person.open_template(TEMPLATE)
        person.press("MLT_LoadDataset", "Choose folder…")
        rows = page.page.locator("dialog.mlt-folders .mlt-folder-list li")
        rows.first.wait_for()
        assert "my cat" in rows.first.inner_text() and "10" in rows.first.inner_text()
        person.shot("folder")
        rows.first.click()
        page.page.locator("dialog.mlt-folders").wait_for(state="detached")
        person.fill("MLT_TrainLoRA", "name", "my-cat")
        # So that it ends within the test; a person leaves these as they are.
        person.fill("MLT_TrainLoRA", "steps", 3)
        person.fill("Resolution", "value", 128)
        person.page.evaluate(LOOK, "MLT_TrainLoRA")
        person.shot("before run")
        person.run()
        page.page.wait_for_function(
            "() => document.querySelector('.mlt-panel .mlt-state')?.dataset.state === 'finished'", timeout=280_000
        )
        person.shot("trained")
        told = page.page.locator(".mlt-panel .mlt-file").first.text_content()
        file = base / told.removeprefix("Written: ")
        assert file.is_file() and file.name == "my-cat.safetensors"
        page.page.locator(".mlt-panel").get_by_role("button", name="Use this LoRA").first.click()
        page.page.wait_for_function("() => window.app.graph.nodes.filter(one => one.type === 'KSampler').length === 2")
        # The view moves there.
        page.page.wait_for_function(f"() => ({SEEN})().join() === 'true,true'")
        page.page.wait_for_timeout(500)
        assert page.evaluate(OVERLAPS) == 0
        before = set((base / "temp").glob("*")) if (base / "temp").is_dir() else set()
        person.shot("use")
        person.run()
        finished(server, 2)
        page.page.wait_for_timeout(1500)
        person.shot("compared")
        drawn = sorted(set((base / "temp").glob("*.png")) - before)
        assert len(drawn) >= 2
        pictures = [np.asarray(Image.open(path).convert("RGB")) for path in drawn]
        assert all(picture.std() > 1 for picture in pictures[-2:])
        assert page.problems == []
        context.close()
