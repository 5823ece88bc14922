"""What a person does with each example, in the real page: look, paint, train, watch, stop, come back, use the LoRA.

A usual run takes one example in each of ComfyUI's two ways to draw nodes; `MASKLORA_EVERY_MODE=1` takes all in both.
That each example trains from the page is in test_workflows.py.
"""

import os
import re
import shutil
from pathlib import Path

import pytest

from demo.placing import FOLDER

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / "demo" / "workflows").glob("*.json"))
VUE_NODES = "Comfy.VueNodes.Enabled"
VIEWS = ("Mask", "Cut-out", "Latent grid", "Infill", "Crop box", "Picture", "Overlay")
# What is drawn of the curves, as a text: empty where there is nothing.
CHART = """() => {
    const canvas = document.querySelector(".mlt-panel canvas")
    if (!canvas?.width) return ""
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height)
    return data.some((value, i) => i % 4 === 3 && value > 0) ? canvas.toDataURL() : ""
}"""
# With alpha, and with masks that are made.
USUAL = {"Demo - 1 Masks from transparency": False, "Demo - 4 Masks without a model": True}


def cases():
    """Every example in the canvases that it is tried in."""
    for path in WORKFLOWS:
        for vue in (False, True):
            if USUAL.get(path.stem) is vue or os.environ.get("MASKLORA_EVERY_MODE"):
                yield pytest.param(path, vue, id=f"{path.stem}-{'Nodes 2.0' if vue else 'classic canvas'}")


class Person:
    """Somebody at the page."""

    def __init__(self, page):
        self.page, self.tab = page, page.page

    def wait(self, script, argument=None, timeout=60_000):
        self.tab.wait_for_function(script, arg=argument, timeout=timeout)

    def opens(self, workflow, name):
        self.page.load_workflow(workflow)
        self.page.evaluate(
            """name => {
                const train = window.app.graph.nodes.find(n => n.type === "MLT_TrainLoRA")
                const set = (key, value) => { train.widgets.find(w => w.name === key).value = value }
                set("steps", 3000)
                set("name", name)
            }""",
            name,
        )

    def node_id(self, node_type):
        return self.page.evaluate("type => window.app.graph.nodes.find(n => n.type === type).id", node_type)

    def queues(self, *types):
        """Presses run, for some output nodes only if types are given: the id of the prompt."""
        with self.tab.expect_response(lambda r: r.url.endswith("/prompt") and r.request.method == "POST") as caught:
            self.page.evaluate(
                "async ids => { await window.app.queuePrompt(0, 1, ids.length ? ids : undefined) }",
                [self.node_id(one) for one in types],
            )
        assert caught.value.ok, caught.value.text()
        return caught.value.json()["prompt_id"]

    def shows(self, node_type):
        """Moves the canvas until a node fills most of it, as a person does to work on it."""
        self.page.evaluate(
            """type => {
                const canvas = window.app.canvas, node = window.app.graph.nodes.find(n => n.type === type)
                canvas.ds.scale = 1
                canvas.ds.offset[0] = 120 - node.pos[0]
                canvas.ds.offset[1] = 120 - node.pos[1]
                canvas.setDirty(true, true)
            }""",
            node_type,
        )

    def presses(self, name, *, inside):
        self.tab.locator(inside).last.get_by_role("button", name=name, exact=True).click()

    def drawn(self):
        self.wait(
            """() => {
                const canvas = document.querySelector(".mlt-dialog canvas")
                if (!canvas?.width) return false
                return canvas.getContext("2d").getImageData(canvas.width / 2, canvas.height / 2, 1, 1).data[3] === 255
            }"""
        )

    def facts(self):
        return self.tab.locator(".mlt-dialog .mlt-lines").text_content()

    def stale_kinds(self):
        """Which kinds of cache entry are stale, for each picture."""
        return self.page.evaluate(
            """async () => {
                const node = window.app.graph.nodes.find(n => n.type === "MLT_InspectDataset")
                const path = `/masked_lora/datasets/${node.properties.masked_lora_dataset}/pictures`
                return (await (await window.app.api.fetchApi(path)).json()).stale
            }"""
        )

    def looks_at_every_view(self):
        self.shows("MLT_InspectDataset")
        self.wait("() => document.querySelectorAll('.mlt-browser .mlt-tile:not([hidden]) img[src]').length >= 3")
        self.tab.locator(".mlt-browser .mlt-tile:not([hidden])").first.click()
        self.drawn()
        for view in VIEWS:
            self.presses(view, inside=".mlt-dialog")
            self.drawn()

    def paints_a_stroke(self):
        """Erases across the middle of the picture, and saves."""
        self.presses("Edit mask", inside=".mlt-dialog")
        canvas = self.tab.locator(".mlt-editor-canvas")
        self.tab.locator(".mlt-editor[aria-busy=false]").wait_for()
        self.presses("Eraser", inside=".mlt-editor")
        box = canvas.bounding_box()
        middle = box["y"] + box["height"] / 2
        self.tab.mouse.move(box["x"] + box["width"] * 0.3, middle)
        self.tab.mouse.down()
        self.tab.mouse.move(box["x"] + box["width"] * 0.7, middle, steps=15)
        self.tab.mouse.up()
        save = self.tab.locator(".mlt-editor").last.get_by_role("button", name="Save", exact=True)
        self.wait("button => !button.disabled", save.element_handle())
        with self.tab.expect_response(lambda r: r.url.endswith("/mask") and r.request.method == "POST") as caught:
            self.tab.keyboard.press("Control+s")
        assert caught.value.ok, caught.value.text()
        self.presses("Close", inside=".mlt-editor")
        self.tab.wait_for_selector(".mlt-editor", state="detached")

    def step(self, least):
        self.wait(
            """least => {
                const words = document.querySelector(".mlt-panel .mlt-numbers")?.textContent ?? ""
                return Number(words.match(/step (\\d+)/)?.[1] ?? 0) >= least
            }""",
            least,
        )

    def state(self, state):
        self.wait("state => document.querySelector('.mlt-panel .mlt-state')?.dataset.state === state", state)


@pytest.fixture
def fresh_pictures(demo_server):
    """The examples' pictures as they were: what one erases must still be there for the next."""
    folder = demo_server.base / "input" / FOLDER
    shutil.rmtree(folder)
    shutil.copytree(ROOT / "demo" / "pictures", folder)


@pytest.fixture
def person(page, demo_server, small_models, fresh_pictures):
    yield Person(page)
    demo_server.post("/settings", {VUE_NODES: False})
    # A training that was not stopped would hold up every test after it.
    demo_server.interrupt()


def coverage(words):
    return float(re.search(r"Coverage([\d.]+) %", words)[1])


@pytest.mark.parametrize(("path", "vue"), list(cases()))
def test_from_the_pictures_to_a_lora_that_loads(person, demo_server, path, vue):
    demo_server.post("/settings", {VUE_NODES: vue})
    person.tab.reload(wait_until="domcontentloaded")
    person.page.open()
    name = f"by hand/{path.stem} {vue}"
    person.opens(path, name)
    demo_server.wait(person.queues("MLT_InspectDataset"), timeout=180)
    person.looks_at_every_view()
    before = person.facts()
    assert "Stale" not in before
    person.paints_a_stroke()
    person.wait("() => document.querySelector('.mlt-dialog .mlt-lines').textContent.includes('Stale in the cache')")
    after = person.facts()
    assert coverage(after) < coverage(before)
    first, *others = person.stale_kinds()
    # Pictures that borrow the first one's background have to be encoded again, their masks not.
    assert "mask" in first and all("mask" not in kinds for kinds in others)
    person.presses("Close", inside=".mlt-dialog")

    prompt_id = person.queues()
    person.shows("MLT_TrainLoRA")
    person.step(3)
    early = person.page.evaluate(CHART)
    person.step(15)
    person.wait(f"early => ({CHART})() && ({CHART})() !== early", early)
    person.presses("Stop and save", inside=".mlt-panel")
    outputs = demo_server.wait(prompt_id, timeout=180)["outputs"]
    person.state("stopped")
    assert ".safetensors" in "".join(outputs[str(person.node_id("MLT_TrainLoRA"))]["text"])
    # The run has made them anew.
    assert set(map(tuple, person.stale_kinds())) == {()}
    saved = person.page.evaluate("() => window.app.graph.serialize()")

    person.tab.reload(wait_until="domcontentloaded")
    person.page.open()
    person.page.load_workflow(saved)
    person.shows("MLT_TrainLoRA")
    person.state("stopped")
    person.wait(f"() => ({CHART})()")

    checkpoint = next(n for n in saved["nodes"] if n["type"] == "CheckpointLoaderSimple")["widgets_values"][0]
    assert loads_in_core(demo_server, checkpoint, f"{name}.safetensors")
    assert person.page.problems == []


def loads_in_core(server, checkpoint, lora):
    """Whether core's LoraLoader finds a place for every key of the file."""
    graph = {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": checkpoint}},
        "2": {
            "class_type": "LoraLoader",
            "inputs": {
                "model": ["1", 0],
                "clip": ["1", 1],
                "lora_name": lora,
                "strength_model": 1.0,
                "strength_clip": 1.0,
            },
        },
        "3": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["2", 1], "text": "a zibble"}},
        "4": {"class_type": "EmptySD3LatentImage", "inputs": {"width": 128, "height": 128, "batch_size": 1}},
        "5": {
            "class_type": "KSampler",
            "inputs": {
                "model": ["2", 0],
                "positive": ["3", 0],
                "negative": ["3", 0],
                "latent_image": ["4", 0],
                "seed": 1,
                "steps": 2,
                "cfg": 1.0,
                "sampler_name": "euler",
                "scheduler": "simple",
                "denoise": 1.0,
            },
        },
        "6": {"class_type": "VAEDecode", "inputs": {"samples": ["5", 0], "vae": ["1", 2]}},
        "7": {"class_type": "PreviewImage", "inputs": {"images": ["6", 0]}},
    }
    before = len(server.log.read_text(encoding="utf-8", errors="replace"))
    server.wait(server.submit(graph), timeout=120)
    said = server.log.read_text(encoding="utf-8", errors="replace")[before:]
    return "lora key not loaded" not in said
