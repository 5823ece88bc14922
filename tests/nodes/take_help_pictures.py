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

from harness.help_pictures import ROOT, outline, store
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
# Page: example workflow, node types that the picture shows.
GRAPHS = {
    "MLT_TextMasks": (
        "Demo - 6 Masks from words",
        ["MLT_LoadDataset", "CheckpointLoaderSimple", "MLT_TextMasks", "MLT_InspectDataset"],
    ),
    "MLT_SubjectMasks": (
        "Demo - 5 Masks of the subject",
        ["MLT_LoadDataset", "LoadBackgroundRemovalModel", "MLT_SubjectMasks", "MLT_InspectDataset"],
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


@pytest.mark.parametrize("node_id", GRAPHS)
def take_the_graph_of_a_generator_that_needs_a_model(demo_server, small_models, page, node_id):
    workflow, types = GRAPHS[node_id]
    page.load_workflow(ROOT / "demo" / "workflows" / f"{workflow}.json")
    # Without what comes after the inspection, running takes a moment.
    page.evaluate(
        """types => {
            for (const n of [...window.app.graph.nodes]) {
                if (types.includes(n.type) || n.type === "MLT_TransformMasks") continue
                window.app.graph.remove(n)
            }
        }""",
        types,
    )
    page.queue()
    store(page.graph_picture(types=types), node_id)


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
