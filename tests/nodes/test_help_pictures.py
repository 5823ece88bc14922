"""The pictures of the help pages: each page of a mask node has one, and this file takes them anew.

`MASKLORA_UPDATE_PICTURES=1 python dev.py test tests/nodes/test_help_pictures.py`; look at them afterwards.
"""

import io
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from masklora.config import MaskTransform
from masklora.data.preview import contact_sheet, latent_grid, overlay
from masklora.masks import reduce_mask, transform_mask

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "web" / "docs"
UPDATE = os.environ.get("MASKLORA_UPDATE_PICTURES")
taking = pytest.mark.skipif(not UPDATE, reason="pictures are taken with MASKLORA_UPDATE_PICTURES=1")

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
        "masked_lora_from_text",
        ["MLT_LoadDataset", "CheckpointLoaderSimple", "MLT_TextMasks", "MLT_InspectDataset"],
    ),
    "MLT_SubjectMasks": (
        "masked_lora_from_background_removal",
        ["MLT_LoadDataset", "LoadBackgroundRemovalModel", "MLT_SubjectMasks", "MLT_InspectDataset"],
    ),
}
MOST_BYTES = 600_000


def store(picture, name, *, side=1100):
    picture = picture.convert("RGB")
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    picture.quantize(256, method=Image.Quantize.MEDIANCUT).save(DOCS / "images" / f"{name}.png", optimize=True)


def sheet_of(client, run, node):
    return Image.open(io.BytesIO(client.server.picture(run.outputs[node]["images"][0])))


def test_every_page_of_a_mask_node_has_a_picture_that_shows_something():
    makers = [path for path in DOCS.glob("MLT_*Masks.md") if path.stem != "MLT_TransformMasks"]
    assert len(makers) == 8
    for page in [*makers, DOCS / "MLT_CacheDataset.md", DOCS / "masks-that-work.md"]:
        links = re.findall(r"!\[[^]]+\]\((images/[^)]+)\)", page.read_text(encoding="utf-8"))
        assert links, f"{page.name} has no picture"
        for link in links:
            path = DOCS / link
            assert path.stat().st_size < MOST_BYTES, link
            pixels = np.asarray(Image.open(path).convert("RGB"))
            assert min(pixels.shape[:2]) >= 150 and pixels.std() > 10, link


@taking
@pytest.mark.parametrize("node_id", SHEETS)
def test_take_the_sheet_of_a_generator(demo_server, comfy_client, graph, node_id):
    widgets, folder = SHEETS[node_id]
    load = graph.add("MLT_LoadDataset", folder=folder, mask_source="none")
    node = graph.add(node_id, dataset=[load, 0], **widgets)
    graph.add("PreviewImage", images=[node, 2])
    store(sheet_of(comfy_client, comfy_client.run(graph.nodes), node), node_id)


@taking
def test_take_the_sheet_of_replaced_backgrounds(demo_server, comfy_client, graph):
    few = demo_server.base / "input" / "infill picture"
    shutil.rmtree(few, ignore_errors=True)
    few.mkdir()
    for name in ("plain/coffee.jpg", "plain/chelsea.jpg"):
        shutil.copy2(ROOT / "demo" / "pictures" / name, few)
    load = graph.add("MLT_LoadDataset", folder="infill picture", mask_source="none")
    cut = graph.add("MLT_GrabCutMasks", dataset=[load, 0], start="margin", margin=0.06)
    view = graph.add("MLT_InspectDataset", dataset=[cut, 0], view="infill", infill_variants=4)
    store(sheet_of(comfy_client, comfy_client.run(graph.nodes), view), "infill")


@taking
@pytest.mark.parametrize("node_id", GRAPHS)
def test_take_the_graph_of_a_generator_that_needs_a_model(demo_server, small_models, page, node_id):
    workflow, types = GRAPHS[node_id]
    page.load_workflow(ROOT / "workflows" / f"{workflow}.json")
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


@taking
@pytest.mark.parametrize("node_id", ["MLT_Florence2Sam2Masks", "MLT_SaveMasks"])
def test_take_a_node_between_its_neighbours(demo_server, page, node_id):
    page.evaluate(
        """async id => {
            const empty = { last_node_id: 0, last_link_id: 0, nodes: [], links: [], groups: [], version: 0.4 }
            await window.app.loadGraphData(empty)
            const types = id === "MLT_SaveMasks"
                ? ["MLT_LoadDataset", "MLT_GrabCutMasks", id] : ["MLT_LoadDataset", id, "MLT_InspectDataset"]
            let left = 40, before = null
            for (const type of types) {
                const node = window.LiteGraph.createNode(type)
                window.app.graph.add(node)
                node.pos = [left, 60]
                node.setSize([Math.max(380, node.size[0]), node.computeSize()[1]])
                left += node.size[0] + 80
                if (before) before.connect(0, node, node.inputs.findIndex(slot => slot.name === "dataset"))
                before = node
            }
        }""",
        node_id,
    )
    store(page.graph_picture(), node_id)


def photograph():
    """The astronaut of the tests' photographs, 512×512, and the mask of her head."""
    folder = ROOT / "tests" / "data" / "photographs"
    outline = json.loads((folder / "outlines.json").read_text(encoding="utf-8"))["astronaut's head and neck"]
    mask = Image.new("L", (512, 512))
    ImageDraw.Draw(mask).polygon([tuple(corner) for corner in outline["polygon"]], fill=255)
    return np.asarray(Image.open(folder / outline["file"]).convert("RGB")), np.asarray(mask, np.float32) / 255


def enlarged(rgb, times):
    return np.kron(rgb, np.ones((times, times, 1), np.uint8))


@taking
def test_take_the_picture_of_feathers():
    rgb, mask = photograph()
    tiles = []
    for feather in (0.0, 8.0, 32.0):
        soft = transform_mask(mask, MaskTransform(feather=feather))
        cells = reduce_mask(torch.from_numpy(soft)[None, None], grid=(64, 64))[0, 0].numpy()
        tiles += [enlarged(view[:192, 112:304], 2) for view in (overlay(rgb, soft), latent_grid(rgb, cells))]
        # Twelve cells of 8 px where hair meets background.
        tiles.append(latent_grid(enlarged(rgb[96:192, 216:312], 4), cells[12:24, 27:39]))
    store(Image.fromarray(contact_sheet(tiles, 3, side=384)), "feathers")


@taking
def test_take_the_picture_of_edges():
    rgb, mask = photograph()
    moved = [transform_mask(mask, MaskTransform(grow=grow)) for grow in (-12, 0, 12)]
    tiles = [overlay(rgb, one)[:256, 96:352] for one in moved]
    store(Image.fromarray(contact_sheet(tiles, 3, side=256)), "edges")
