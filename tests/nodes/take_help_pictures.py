"""The pictures of the help pages: each page has one; this file takes those of the mask nodes anew.

`python dev.py pictures tests/nodes/take_help_pictures.py`; look at them afterwards. Those of the
other nodes come from take_node_pictures.py, those of the browser, the editor and the panels from take_view_pictures.py.
"""

import io
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from harness.help_pictures import ROOT, build, outline, store
from masklora.loss.masks import reduce_mask, transform_mask
from masklora.settings import MaskTransform
from masklora.viewing.views import contact_sheet, latent_grid, overlay

PLAIN, FIGURES = "masked-lora-demo/plain", "masked-lora-demo/alpha"
SHEETS = {
    "MLT_RandomMasks": ({"coverage_min": 0.15, "coverage_max": 0.5, "seed": 4}, FIGURES),
    "MLT_ShapeMasks": ({"shape": "brush", "seed": 2}, FIGURES),
    "MLT_ColorMasks": ({"colours": "#08b8b8, #f87818, #f8f8f8", "tolerance": 15.0}, FIGURES),
    "MLT_GrabCutMasks": ({"start": "margin", "margin": 0.06}, PLAIN),
}
# Page: the node that loads its model, the model's file, which output goes where, and widgets.
LOADERS = {
    "MLT_TextMasks": (
        "CheckpointLoaderSimple",
        {"ckpt_name": "sam3.1_multiplex_fp16.safetensors"},
        {"MODEL": "model", "CLIP": "clip"},
        {"phrases": "zibble"},
    ),
    "MLT_SubjectMasks": (
        "LoadBackgroundRemovalModel",
        {"bg_removal_name": "birefnet.safetensors"},
        {"bg_model": "model"},
        {},
    ),
}


def sheet_of(client, run, node):
    return Image.open(io.BytesIO(client.server.picture(run.outputs[node]["images"][0])))


@pytest.mark.parametrize("node_id", SHEETS)
def take_the_sheet_of_a_generator(demo_server, comfy_client, graph, node_id):
    widgets, folder = SHEETS[node_id]
    load = graph.add("MLT_LoadDataset", folder=folder, mask_source="none")
    node = graph.add(node_id, dataset=[load, 0], **widgets)
    graph.add("PreviewImage", images=[node, 2])
    store(sheet_of(comfy_client, comfy_client.run(graph.nodes), node), node_id)


def take_the_sheet_of_replaced_backgrounds(demo_server, comfy_client, graph):
    few = demo_server.base / "input" / "infill picture"
    shutil.rmtree(few, ignore_errors=True)
    few.mkdir()
    for name in ("plain/coffee.jpg", "plain/chelsea.jpg"):
        shutil.copy2(ROOT / "demo" / "pictures" / name, few)
    load = graph.add("MLT_LoadDataset", folder="infill picture", mask_source="none")
    cut = graph.add("MLT_GrabCutMasks", dataset=[load, 0], start="margin", margin=0.06)
    view = graph.add("MLT_InspectDataset", dataset=[cut, 0], view="infill", infill_variants=4)
    store(sheet_of(comfy_client, comfy_client.run(graph.nodes), view), "infill")


@pytest.mark.parametrize("node_id", LOADERS)
def take_a_generator_that_needs_a_model(demo_server, small_models, page, node_id):
    loader, file, outputs, widgets = LOADERS[node_id]
    nodes = {
        "load": {"type": "MLT_LoadDataset", "at": [40, 60], "size": [360, 0], "mask_source": "none"},
        "model": {"type": loader, "at": [40, 520], "size": [360, 0], **file},
        "masks": {"type": node_id, "at": [450, 60], "size": [400, 0], **widgets},
        "look": {"type": "MLT_InspectDataset", "at": [900, 60], "size": [420, 580]},
    }
    nodes["load"]["folder"] = "masked-lora-demo/masks/images"
    links = [["load", "dataset", "masks", "dataset"], ["masks", "dataset", "look", "dataset"]]
    links += [["model", output, "masks", name] for output, name in outputs.items()]
    page.page.reload(wait_until="domcontentloaded")
    page.open()
    build(page, nodes, links)
    page.queue()
    page.page.wait_for_timeout(2000)
    store(page.graph_picture(), node_id)


def photograph():
    """The astronaut of the tests' photographs, 512×512, and the mask of her head."""
    path, mask = outline("astronaut's head and neck")
    return np.asarray(Image.open(path).convert("RGB")), np.asarray(mask, np.float32) / 255


def enlarged(rgb, times):
    return np.kron(rgb, np.ones((times, times, 1), np.uint8))


def take_the_picture_of_feathers():
    rgb, mask = photograph()
    tiles = []
    for feather in (0.0, 8.0, 32.0):
        soft = transform_mask(mask, MaskTransform(feather=feather))
        cells = reduce_mask(torch.from_numpy(soft)[None, None], grid=(64, 64))[0, 0].numpy()
        tiles += [enlarged(view[:192, 112:304], 2) for view in (overlay(rgb, soft), latent_grid(rgb, cells))]
        # Twelve cells of 8 px where hair meets background.
        tiles.append(latent_grid(enlarged(rgb[96:192, 216:312], 4), cells[12:24, 27:39]))
    store(Image.fromarray(contact_sheet(tiles, 3, side=384)), "feathers")


def take_the_picture_of_edges():
    rgb, mask = photograph()
    moved = [transform_mask(mask, MaskTransform(grow=grow)) for grow in (-12, 0, 12)]
    tiles = [overlay(rgb, one)[:256, 96:352] for one in moved]
    store(Image.fromarray(contact_sheet(tiles, 3, side=256)), "edges")
