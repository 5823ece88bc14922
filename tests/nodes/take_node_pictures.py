"""A picture of each node between its neighbours, from the real page, for the help pages.

`python dev.py pictures tests/nodes/take_node_pictures.py`; look at them afterwards.
"""

import shutil
import tempfile
from pathlib import Path

import pytest

from devtools.comfy import ComfyServer
from devtools.demo import CHECKPOINT, offer_demo_inputs
from devtools.start_here.captioning import DESCRIBER, KIND
from harness.help_pictures import build, offer_pictures, store
from harness.page import ComfyPage

CUT = "astronaut.png"
SMALL = {"width": 128, "height": 128, "cfg": 1.0, "scheduler": "simple"}


def load(x=40, y=60, **widgets):
    return {"type": "MLT_LoadDataset", "at": [x, y], **widgets}


def inspect(x, y=60, **widgets):
    return {"type": "MLT_InspectDataset", "at": [x, y], "size": [420, 560]} | widgets


def loaded(data):
    nodes = {
        "load": load(**data),
        "images": {"type": "PreviewImage", "at": [460, 60], "size": [420, 250]},
        "masks": {"type": "MaskPreview", "at": [460, 360], "size": [420, 250]},
    }
    return nodes, [["load", "images", "images", "images"], ["load", "masks", "masks", "mask"]]


def handed_over(_):
    nodes = {
        "image": {"type": "LoadImage", "at": [40, 60], "size": [300, 330], "image": CUT},
        "make": {"type": "MLT_DatasetFromImages", "at": [410, 60], "invert_masks": True, "trigger_word": "anna"},
        "words": {
            "type": "PrimitiveString",
            "title": "Text",
            "at": [40, 460],
            "size": [300, 0],
            "value": "a photo of anna",
        },
        "look": inspect(820, size=[420, 470]),
    }
    links = [
        ["image", "IMAGE", "make", "images"],
        ["image", "MASK", "make", "masks"],
        ["words", "STRING", "make", "captions"],
        ["make", "dataset", "look", "dataset"],
    ]
    return nodes, links


def merged(data):
    nodes = {
        "first": load(**data),
        "second": load(y=640, folder="masked-lora-demo/alpha", regularisation=True),
        "merge": {"type": "MLT_MergeDatasets", "at": [450, 60], "weight_1": 1.0, "weight_2": 0.5},
        "look": inspect(860),
    }
    links = [
        ["first", "dataset", "merge", "dataset_1"],
        ["second", "dataset", "merge", "dataset_2"],
        ["merge", "dataset", "look", "dataset"],
    ]
    return nodes, links


def transformed(data):
    nodes = {
        "load": load(**data),
        "change": {"type": "MLT_TransformMasks", "at": [450, 60], "grow": 12, "feather": 6.0},
        "look": inspect(860),
    }
    return nodes, [["load", "dataset", "change", "dataset"], ["change", "dataset", "look", "dataset"]]


def refined(_):
    nodes = {
        "image": {"type": "LoadImage", "at": [40, 60], "size": [300, 330], "image": CUT},
        "change": {"type": "MLT_RefineMask", "at": [410, 60], "invert": True, "grow": 4, "feather": 3.0},
        "mask": {"type": "MaskPreview", "at": [820, 60], "size": [300, 330]},
    }
    return nodes, [["image", "MASK", "change", "mask"], ["change", "mask", "mask", "mask"]]


def described(data):
    nodes = {
        "load": load(**data),
        "pictures": {"type": "MLT_PicturesToCaption", "at": [450, 60], "part": "masked part alone"},
        "seen": {"type": "PreviewImage", "at": [860, 60], "size": [420, 460]},
    }
    nodes["pictures"]["only_missing"] = False
    return nodes, [["load", "dataset", "pictures", "dataset"], ["pictures", "images", "seen", "images"]]


def cached(data):
    nodes = {
        "load": load(**data),
        "model": {"type": "CheckpointLoaderSimple", "at": [40, 620]},
        "cache": {
            "type": "MLT_CacheDataset",
            "at": [450, 60],
            "resolution": 128,
            "bucket_step": 16,
            "storage": "memory",
        },
        "report": {"type": "PreviewAny", "at": [860, 60], "size": [420, 330]},
    }
    links = [
        ["load", "dataset", "cache", "dataset"],
        ["model", "VAE", "cache", "vae"],
        ["model", "CLIP", "cache", "clip"],
        ["model", "MODEL", "cache", "model"],
        ["cache", "report", "report", "source"],
    ]
    return nodes, links


def weighed(data):
    nodes = {
        "load": load(**data),
        "loss": {"type": "MLT_MaskedLoss", "at": [40, 600], "preset": "masked lora"},
        "report": {"type": "PreviewAny", "at": [450, 460], "size": [340, 240]},
        "look": inspect(860, resolution=512, view="latent grid"),
    }
    links = [
        ["load", "dataset", "look", "dataset"],
        ["loss", "loss", "look", "loss"],
        ["loss", "report", "report", "source"],
    ]
    return nodes, links


def estimated(_):
    nodes = {
        "model": {"type": "CheckpointLoaderSimple", "at": [40, 60]},
        "adapter": {"type": "MLT_Adapter", "at": [40, 240], "rank": 16, "alpha": 16.0},
        "estimate": {"type": "MLT_EstimateMemory", "at": [440, 60], "size": [460, 320], "card": "8 GB"},
    }
    nodes["estimate"] |= {"width": 512, "height": 512}
    links = [["model", "MODEL", "estimate", "model"], ["adapter", "adapter", "estimate", "adapter"]]
    return nodes, links


GRAPHS = {
    "MLT_LoadDataset": loaded,
    "MLT_DatasetFromImages": handed_over,
    "MLT_MergeDatasets": merged,
    "MLT_TransformMasks": transformed,
    "MLT_RefineMask": refined,
    "MLT_PicturesToCaption": described,
    "MLT_CacheDataset": cached,
    "MLT_MaskedLoss": weighed,
    "MLT_EstimateMemory": estimated,
}


@pytest.mark.parametrize("node_id", GRAPHS)
def take_a_node_in_a_graph_that_has_run(demo_server, page, node_id):
    data = offer_pictures(demo_server.base)
    page.page.reload(wait_until="domcontentloaded")
    page.open()
    build(page, *GRAPHS[node_id](data))
    page.queue()
    if node_id == "MLT_MaskedLoss":
        page.page.get_by_label("View", exact=True).select_option("latent grid")
    store(page.graph_picture(), node_id)


def trained():
    """Every node of a training, its settings and its export."""
    nodes = {
        "model": {"type": "CheckpointLoaderSimple", "at": [40, 60]},
        "load": load(y=220, folder="masked-lora-demo/alpha", trigger_word="zibble"),
        "cache": {"type": "MLT_CacheDataset", "at": [440, 60], "resolution": 128, "bucket_step": 16},
        "samples": {"type": "MLT_Samples", "at": [440, 480], "prompts": "a zibble\na zibble by the sea", "every": 40},
        "adapter": {"type": "MLT_Adapter", "at": [40, 640], "rank": 16, "alpha": 16.0},
        "optimizer": {"type": "MLT_Optimizer", "at": [40, 920], "learning_rate": 0.002, "warmup_steps": 10},
        "train": {"type": "MLT_TrainLoRA", "at": [840, 60], "size": [460, 0], "name": "zibble", "steps": 240},
        "export": {"type": "MLT_ExportLoRA", "at": [1360, 60], "name": "zibble export", "trigger": "zibble"},
    }
    nodes["samples"] |= {"width": 128, "height": 128, "cfg": 3.0}
    links = [
        ["load", "dataset", "cache", "dataset"],
        *(["model", output, key, output.lower()] for key in ("cache", "samples") for output in ("VAE", "CLIP")),
        *(["model", "MODEL", key, "model"] for key in ("cache", "train")),
        ["cache", "cache", "train", "cache"],
        ["samples", "samples", "train", "samples"],
        ["adapter", "adapter", "train", "adapter"],
        ["optimizer", "optimizer_settings", "train", "optimizer"],
        ["train", "lora", "export", "lora"],
    ]
    return nodes, links


def beside_the_training(page, key):
    """A node of `trained` alone with the training, whose panel finds the finished run by its name."""
    nodes, links = trained()
    nodes = {one: nodes[one] for one in (key, "train")}
    nodes["train"]["size"] = [460, 660]
    nodes[key]["at"], nodes["train"]["at"] = ([560, 60], [40, 60]) if key == "export" else ([40, 60], [440, 60])
    build(page, nodes, [link for link in links if {link[0], link[2]} == set(nodes)])
    page.page.wait_for_timeout(2500)
    store(page.graph_picture(), nodes[key]["type"])


def take_a_training_and_its_settings(demo_server, page):
    build(page, *trained())
    with page.page.expect_response(lambda r: r.url.endswith("/prompt") and r.request.method == "POST") as caught:
        page.evaluate("async () => { await window.app.queuePrompt(0, 1) }")
    for part in page.page.locator(".mlt-panel summary").all():
        part.evaluate("one => { one.parentElement.open = true }")
    page.page.wait_for_function(
        "() => Number(document.querySelector('.mlt-numbers')?.textContent.match(/step (\\d+)/)?.[1] ?? 0) > 150",
        timeout=240_000,
    )
    store(page.graph_picture(types=["MLT_CacheDataset", "MLT_Samples", "MLT_TrainLoRA"]), "MLT_TrainLoRA", side=1400)
    demo_server.wait(caught.value.json()["prompt_id"], timeout=300)
    for key in ("export", "adapter", "optimizer"):
        beside_the_training(page, key)


def newest_run(base):
    """The folder of the training that has just ended; one of another picture may have its name, too."""
    return max((base / "user").glob("**/runs/zibble-*"), key=lambda folder: folder.stat().st_mtime)


def compared(run):
    """What a run had learned at two of its steps, painted from one seed."""
    nodes = {
        "model": {"type": "CheckpointLoaderSimple", "at": [40, 60]},
        "text": {"type": "CLIPTextEncode", "at": [40, 240], "size": [340, 120], "text": "a zibble"},
        "latent": {"type": "EmptyLatentImage", "at": [40, 440], "width": 128, "height": 128},
    }
    links = [["model", "CLIP", "text", "clip"]]
    for at, step in ((60, 20), (560, 0)):
        load, sampler, decoder, shown = (f"{name} {step}" for name in ("load", "sampler", "decoder", "shown"))
        nodes[load] = {"type": "MLT_LoadRun", "at": [440, at], "size": [340, 0], "run": run, "step": step}
        nodes[sampler] = {"type": "KSampler", "at": [840, at], "seed": 7, "control_after_generate": "fixed"}
        nodes[sampler] |= {"steps": 20, "cfg": 3.0, "scheduler": "simple"}
        nodes[decoder] = {"type": "VAEDecode", "at": [440, at + 320]}
        nodes[shown] = {"type": "PreviewImage", "at": [1200, at], "size": [300, 320]}
        links += [
            ["model", "MODEL", load, "model"],
            [load, "model_with_lora", sampler, "model"],
            *(["text", "CONDITIONING", sampler, key] for key in ("positive", "negative")),
            ["latent", "LATENT", sampler, "latent_image"],
            [sampler, "LATENT", decoder, "samples"],
            ["model", "VAE", decoder, "vae"],
            [decoder, "IMAGE", shown, "images"],
        ]
    return nodes, links


@pytest.fixture
def tidy_page(comfy_host, browser):
    """The page of a ComfyUI without anything from other pictures, in a folder whose path may be seen."""
    base = Path(tempfile.gettempdir()) / "ComfyUI"
    base.mkdir()
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    try:
        with ComfyServer(comfy_host, base) as server:
            offer_demo_inputs(comfy_host, base)
            yield ComfyPage(context.new_page(), server).open()
            context.close()
    finally:
        shutil.rmtree(base)


def take_two_steps_of_a_run(tidy_page):
    page = tidy_page
    nodes, links = trained()
    nodes = {name: node for name, node in nodes.items() if name not in ("samples", "adapter", "export")}
    nodes["train"] |= {"name": "zibble", "steps": 60, "save_every": 20, "keep_last": 8}
    nodes["optimizer"] |= {"schedule": "constant"}
    build(page, nodes, [link for link in links if {link[0], link[2]} <= set(nodes)])
    page.queue()
    folder = newest_run(page.server.base)
    page.page.reload(wait_until="domcontentloaded")
    page.open()
    build(page, *compared(folder.name))
    page.queue()
    store(page.graph_picture(), "MLT_LoadRun", side=1400)


@pytest.mark.parametrize("node_id", ["MLT_SampleRun"])
def take_a_run_at_several_strengths(demo_server, page, train_graph, node_id):
    demo_server.run(train_graph(name="zibble", steps=24, save_every=8, keep_last=8, learning_rate=0.004))
    folder = newest_run(demo_server.base)
    page.page.reload(wait_until="domcontentloaded")
    page.open()
    nodes = {
        "model": {"type": "CheckpointLoaderSimple", "at": [40, 60], "ckpt_name": CHECKPOINT},
        "samples": {"type": "MLT_Samples", "at": [40, 240], "prompts": "a zibble"} | SMALL | {"cfg": 3.0},
        "draw": {"type": node_id, "at": [440, 60], "run": folder.name, "steps": "8, 24", "strengths": "0.5, 0.8, 1"},
        "shown": {"type": "PreviewImage", "at": [840, 60], "size": [460, 360]},
    }
    links = [
        *(["model", output, "samples", output.lower()] for output in ("VAE", "CLIP")),
        ["model", "MODEL", "draw", "model"],
        ["samples", "samples", "draw", "samples"],
        ["draw", "pictures", "shown", "images"],
    ]
    build(page, nodes, links)
    page.queue()
    store(page.graph_picture(), node_id)


def take_sample_pictures_and_the_training_that_draws_them(demo_server, page):
    nodes, links = trained()
    nodes = {name: node for name, node in nodes.items() if name not in ("adapter", "optimizer", "export")}
    words = "a red star, striped background\na zibble on a dotted background"
    nodes["samples"] = {"type": "MLT_Samples", "at": [440, 480], "prompts": words, "every": 80} | SMALL
    nodes["train"] |= {"name": "zibble with pictures", "learning_rate": 0.001}
    links = [link for link in links if link[0] in nodes and link[2] in nodes]
    build(page, nodes, links)
    page.queue()
    # New nodes find the finished run, and show no folders of where the picture is taken.
    build(page, nodes, links)
    page.page.wait_for_selector(".mlt-gallery summary")
    page.page.locator(".mlt-gallery summary").first.dispatch_event("click")
    page.page.wait_for_selector(".mlt-compare img")
    page.page.locator(".mlt-gallery select").first.select_option(index=1)
    page.page.wait_for_timeout(2000)
    store(page.graph_picture(types=["MLT_Samples", "MLT_TrainLoRA"]), "MLT_Samples")


@pytest.mark.parametrize(
    "types",
    [
        ["MLT_LoadDataset", "MLT_GrabCutMasks", "MLT_SaveMasks"],
        ["MLT_LoadDataset", "MLT_Florence2Sam2Masks", "MLT_InspectDataset"],
    ],
)
def take_a_node_between_its_neighbours(demo_server, page, types):
    # Wide enough for the longest of their titles.
    nodes = {kind: {"type": kind, "at": [40 + 470 * i, 60], "size": [400, 0]} for i, kind in enumerate(types)}
    nodes[types[0]]["folder"] = "people and things"
    build(page, nodes, [[types[i], "dataset", types[i + 1], "dataset"] for i in (0, 1)])
    store(page.graph_picture(), next(kind for kind in types if kind in ("MLT_SaveMasks", "MLT_Florence2Sam2Masks")))


def take_a_text_encoder_between_its_neighbours(demo_server, page):
    nodes = {
        "model": {"type": "CheckpointLoaderSimple", "at": [40, 60]},
        "encoder": {"type": "MLT_TextEncoder", "at": [440, 60], "new_word": True, "word_start": "a toy"},
        "train": {"type": "MLT_TrainLoRA", "at": [840, 60], "size": [460, 0], "name": "zibble"},
    }
    links = [
        ["model", "CLIP", "encoder", "clip"],
        ["model", "MODEL", "train", "model"],
        ["encoder", "text_encoder", "train", "text_encoder"],
    ]
    build(page, nodes, links)
    store(page.graph_picture(), "MLT_TextEncoder")


def take_captions_on_their_way_to_the_files(demo_server, page):
    # A node that names a file which is not there is framed in red.
    named = demo_server.base / "models" / "text_encoders" / DESCRIBER.name
    named.parent.mkdir(parents=True, exist_ok=True)
    named.touch()
    page.page.reload(wait_until="domcontentloaded")
    page.open()
    nodes = {
        "load": load(folder="people and things"),
        "pictures": {"type": "MLT_PicturesToCaption", "at": [430, 60]},
        "model": {"type": "CLIPLoader", "at": [430, 330], "size": [370, 0], "clip_name": DESCRIBER.name},
        "text": {"type": "TextGenerate", "at": [820, 60], "prompt": "Describe this picture in one plain sentence."},
        "save": {"type": "MLT_SaveCaptions", "at": [1210, 60]},
    }
    links = [
        ["load", "dataset", "pictures", "dataset"],
        ["pictures", "images", "text", "image"],
        ["pictures", "dataset", "save", "dataset"],
        ["model", "CLIP", "text", "clip"],
        ["text", "generated_text", "save", "captions"],
    ]
    # BUILD takes `type` for the node's.
    build(page, nodes, links)
    page.evaluate("kind => { window.app.graph.nodes.find(n => n.type === 'CLIPLoader').widgets[1].value = kind }", KIND)
    store(page.graph_picture(), "MLT_SaveCaptions")
