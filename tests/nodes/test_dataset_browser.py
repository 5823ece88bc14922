"""The data set browser in the real page: what a person sees of pictures and masks before anything is trained."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

VUE_NODES = "Comfy.VueNodes.Enabled"
BROWSER = ".mlt-browser"
DIALOG = ".mlt-dialog"
SHOTS = os.environ.get("MASKLORA_SHOTS")


class Browser:
    """The browser on the page's Inspect Dataset node, and its larger view."""

    def __init__(self, page):
        self.page, self.tab = page, page.page

    def run(self, prompt):
        self.page.evaluate("async graph => { await window.app.loadApiJson(graph, 'looking') }", prompt)
        self.page.evaluate("() => window.app.extensionManager.command.execute('Comfy.Canvas.FitView')")
        if SHOTS:
            self.shot("start")
        self.tab.wait_for_selector(BROWSER)
        self.page.queue()
        return self

    def shows(self, count):
        self.tab.wait_for_function(
            f"n => document.querySelectorAll('{BROWSER} .mlt-tile:not([hidden]) img[src]').length >= n", arg=count
        )
        return self

    def open(self, position=0):
        self.tab.locator(f"{BROWSER} .mlt-tile:not([hidden])").nth(position).click()
        self.tab.wait_for_selector(DIALOG)
        self.drawn()
        return self

    def drawn(self):
        self.tab.wait_for_function(
            f"""() => {{
                const canvas = document.querySelector('{DIALOG} canvas')
                return canvas?.width && canvas.getContext('2d').getImageData(
                    canvas.width / 2, canvas.height / 2, 1, 1).data[3] === 255
            }}"""
        )
        return self

    def button(self, name):
        return self.tab.locator(DIALOG).get_by_role("button", name=name, exact=True)

    def shot(self, name):
        if SHOTS:
            self.tab.wait_for_timeout(700)
            self.page.screenshot(Path(SHOTS) / f"{name}.png")


@pytest.fixture(params=[False, True], ids=["classic canvas", "Nodes 2.0"])
def looker(request, page, comfy_server):
    comfy_server.post("/settings", {VUE_NODES: request.param})
    page.page.reload(wait_until="domcontentloaded")
    page.open()
    yield Browser(page)
    comfy_server.post("/settings", {VUE_NODES: False})


@pytest.fixture
def looking(defaults, folders, demo_inputs):
    """The graph of a person who looks at the demo's pictures with their cache."""
    return {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": demo_inputs}},
        "2": {
            "class_type": "MLT_LoadDataset",
            "inputs": defaults("MLT_LoadDataset", folder="train demo/masks/images", mask_folder="train demo/masks/masks"),
        },
        "3": {"class_type": "MLT_TransformMasks", "inputs": defaults("MLT_TransformMasks", dataset=["2", 0])},
        "4": {
            "class_type": "MLT_CacheDataset",
            "inputs": defaults(
                "MLT_CacheDataset", dataset=["3", 0], vae=["1", 2], clip=["1", 1], resolution=128, bucket_step=16
            ),
        },
        "5": {"class_type": "MLT_InspectDataset", "inputs": defaults("MLT_InspectDataset", dataset=["3", 0], cache=["4", 0])},
    }


def test_every_view_is_shown(looker, looking, request):
    mode = "new" if "2.0" in request.node.name else "classic"
    looker.run(looking).shows(6)
    looker.shot(f"node-{mode}")
    looker.open(1)
    for view in ("Overlay", "Mask", "Cut-out", "Latent grid", "Infill", "Crop box", "Picture"):
        looker.button(view).click()
        looker.drawn()
        looker.shot(f"{view}-{mode}")
    looker.button("Statistics").click()
    looker.shot(f"statistics-{mode}")
    assert looker.page.problems == []
