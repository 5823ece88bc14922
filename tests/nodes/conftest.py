"""Graphs in API form and small real folders for the tests of the nodes."""

import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.damage import many

VUE_NODES = "Comfy.VueNodes.Enabled"
ROOT = Path(__file__).resolve().parents[2]


class Folders:
    """Makes picture folders below the input folder of the running ComfyUI."""

    def __init__(self, server):
        self.input = server.base / "input"

    def empty(self, name):
        """A folder without what another test with the same server may have left there."""
        folder = self.input / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def make(self, name, count=3, *, size=(96, 64), alpha=False, captions=True):
        folder = self.empty(name)
        for i in range(1, count + 1):
            self.picture(folder / f"cat {i}.png", size=size, alpha=alpha, value=40 * i)
            if captions:
                (folder / f"cat {i}.txt").write_text(f"a cät, number {i}", encoding="utf-8")
        return folder

    def picture(self, path, *, size=(96, 64), alpha=False, value=120):
        pixels = np.full((size[1], size[0], 4 if alpha else 3), value % 256, np.uint8)
        if alpha:
            pixels[..., 3] = 0
            pixels[: size[1] // 2, :, 3] = 255
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
        return path

    def mask(self, path, *, size=(96, 64), rows=0.5):
        pixels = np.zeros((size[1], size[0]), np.uint8)
        pixels[: round(size[1] * rows)] = 255
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
        return path


@pytest.fixture
def folders(comfy_server):
    return Folders(comfy_server)


@pytest.fixture(autouse=True)
def queue_left_empty(request):
    """After each test: what it left running would keep the next ones waiting, and one failure would become ten."""
    yield
    if "comfy_server" in request.fixturenames:
        request.getfixturevalue("comfy_server").empty_queue()


@pytest.fixture
def forgotten_graphs(comfy_server):
    """Takes the graphs of a test out of the queue's history: a page cannot read the NaN in them."""
    yield
    comfy_server.post("/history", {"clear": True})


@pytest.fixture(scope="session")
def small_models(comfy_server):
    """Small SAM 3, BiRefNet and face models in the server's folders, under their published names."""
    from harness.segmentation_models import offer_small_models

    return offer_small_models(comfy_server.base / "models")


@pytest.fixture(scope="session")
def defaults(comfy_server):
    """A function that gives a node's required widgets their defaults, as the page would."""
    info = comfy_server.object_info()

    def widgets(node_id, **changes):
        values = {}
        for name, (kind, *options) in info[node_id]["input"].get("required", {}).items():
            settings = options[0] if options else {}
            if "default" in settings:
                values[name] = settings["default"]
            elif kind == "COMBO" and settings["options"]:
                values[name] = settings["options"][0]
        return values | changes

    return widgets


@pytest.fixture
def graph(defaults):
    """Builds a graph in API form: `graph.add(node_id, **inputs)` gives the node's id."""
    return Graph(defaults)


class Graph:
    """Nodes by id; a link is `graph.out(node, index)`."""

    def __init__(self, defaults):
        self.defaults = defaults
        self.nodes = {}

    def add(self, node_id, **inputs):
        name = str(len(self.nodes) + 1)
        self.nodes[name] = {"class_type": node_id, "inputs": self.defaults(node_id, **inputs)}
        return name

    def text(self, link):
        """Shows a STRING output, so that it can be read from the history; gives the node's id."""
        return self.add("PreviewAny", source=link)


@pytest.fixture
def routes(comfy_server):
    """Asks the pack's routes."""
    from harness.routes import Routes

    return Routes(comfy_server)


@pytest.fixture(scope="session")
def demo_inputs(comfy_server):
    """The demo's checkpoint and pictures where ComfyUI looks for them."""
    from demo.assemble import build_checkpoint

    folder = comfy_server.base / "models" / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(ROOT / "demo" / "pictures", comfy_server.base / "input" / "train demo", dirs_exist_ok=True)
    return build_checkpoint(folder).name


@pytest.fixture(scope="session")
def restarts(comfy_server, demo_inputs, tmp_path_factory):
    """ComfyUIs that may be ended: each goes on in the folder of the one before."""
    from harness.restarts import Restarts

    made = Restarts(comfy_server, tmp_path_factory.mktemp("restarts"))
    yield made
    made.stop()


@pytest.fixture
def train_graph(demo_inputs, defaults):
    """The smallest graph, in API form; changes to the train node as keywords, to its sample pictures as `samples`."""

    def make(*, samples=None, **train):
        settings = {"steps": 3, "batch_size": 2, "name": "probe", "leak_every": -1, **train}
        # A run is known by what it learns: another name alone would find the one of another test.
        settings.setdefault("seed", zlib.crc32(settings["name"].encode("utf-8", "surrogatepass")))
        graph = {
            "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": demo_inputs}},
            "2": {"class_type": "MLT_LoadDataset", "inputs": defaults("MLT_LoadDataset", folder="train demo/alpha")},
            "3": {
                "class_type": "MLT_CacheDataset",
                "inputs": defaults(
                    "MLT_CacheDataset", dataset=["2", 0], vae=["1", 2], clip=["1", 1], resolution=128, bucket_step=16
                ),
            },
            "4": {
                "class_type": "MLT_TrainLoRA",
                "inputs": defaults("MLT_TrainLoRA", model=["1", 0], cache=["3", 0], **settings),
            },
        }
        if samples is not None:
            small = {"prompts": "a red star\na zibble", "width": 128, "height": 128, "every": 0, "steps": 4, "cfg": 1.0}
            inputs = defaults("MLT_Samples", clip=["1", 1], vae=["1", 2], **small | samples)
            graph["5"] = {"class_type": "MLT_Samples", "inputs": inputs}
            graph["4"]["inputs"]["samples"] = ["5", 0]
        return graph

    return make


# A usual run goes the whole way in Nodes 2.0, see test_from_pictures_to_lora.py, and looks at the parts on one canvas.
@pytest.fixture(params=many([False], [False, True]), ids=lambda vue: "Nodes 2.0" if vue else "classic canvas")
def both_canvases(request, page, comfy_server):
    """The page, once with each of ComfyUI's two ways to draw nodes."""
    comfy_server.post("/settings", {VUE_NODES: request.param})
    page.page.reload(wait_until="domcontentloaded")
    yield page.open()
    comfy_server.post("/settings", {VUE_NODES: False})
