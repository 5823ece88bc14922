"""The generators that need no model, in a real ComfyUI."""

import io
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

PHOTOGRAPHS = Path(__file__).resolve().parents[1] / "pictures" / "photographs"


def shown(run, node):
    return "\n".join(run.outputs[node]["text"])


def pixels(client, entry):
    return np.asarray(Image.open(io.BytesIO(client.server.picture(entry))).convert("RGB")).astype(int)


def preview(graph, masks):
    """A node whose images show a list of masks, one picture each."""
    return graph.add("PreviewImage", images=[graph.add("MaskToImage", mask=masks), 0])


def masks_of(run, client, node):
    return [pixels(client, entry)[..., 0] / 255 for entry in run.outputs[node]["images"]]


def save(path, rgb):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rgb).save(path)


def iou(mask, truth):
    a, b = mask > 0.5, truth > 0.5
    return (a & b).sum() / (a | b).sum()


def made_from_image(graph, client, folders, rgb, node_id, **widgets):
    """The mask that a node makes of one picture, and its report."""
    save(folders.input / "one picture.png", rgb)
    image = graph.add("LoadImage", image="one picture.png")
    node = graph.add(node_id, images=[image, 0], **widgets)
    seen, report = preview(graph, [node, 1]), graph.text([node, 3])
    run = client.run(graph.nodes)
    return masks_of(run, client, seen)[0], shown(run, report)


def refusal(graph, client, folders, node_id, *, images=False, **widgets):
    """The error with which a node refuses a data set with alpha, or a picture."""
    folders.make("refused pictures", count=2, alpha=True)
    if images:
        loader = graph.add("LoadImage", image="refused pictures/cat 1.png")
        node = graph.add(node_id, images=[loader, 0], **widgets)
    else:
        loader = graph.add("MLT_LoadDataset", folder="refused pictures")
        node = graph.add(node_id, dataset=[loader, 0], **widgets)
    graph.text([node, 3])
    return client.refusal(graph.nodes)


def test_random_masks_of_a_dataset_span_the_asked_coverages(comfy_client, graph, folders):
    folders.make("random masks", count=6)
    load = graph.add("MLT_LoadDataset", folder="random masks")
    node = graph.add("MLT_RandomMasks", dataset=[load, 0], coverage_min=0.2, coverage_max=0.7, count=2, seed=5)
    seen, report = preview(graph, [node, 1]), graph.text([node, 3])
    checked = graph.add("MLT_InspectDataset", dataset=[node, 0])
    run = comfy_client.run(graph.nodes)
    shares = [mask.mean() for mask in masks_of(run, comfy_client, seen)]
    assert len(shares) == 6
    assert 0.19 < min(shares) < max(shares) < 0.71
    assert max(shares) - min(shares) >= 0.8 * 0.5
    assert len(re.findall(r"cat \d.png: 2 blobs; covers \d\d\.\d%", shown(run, report))) == 6
    assert "6 with a mask" in shown(run, checked)
    assert run.outputs[node]["images"]


def test_a_run_shows_progress_by_name_and_pictures_on_the_node(comfy_client, graph, folders):
    folders.make("watched", count=4)
    load = graph.add("MLT_LoadDataset", folder="watched")
    graph.text([graph.add("MLT_RandomMasks", dataset=[load, 0], seed=77), 3])
    run = comfy_client.run(graph.nodes)
    messages = [data for data in run.of_kind("binary")]
    texts = b" ".join(messages)
    assert b"Random masks: cat 1.png (0/4)" in texts
    jpegs = [data for data in messages if b"\xff\xd8\xff" in data]
    assert jpegs, "no preview was sent"
    last = jpegs[-1]
    sheet = Image.open(io.BytesIO(last[last.index(b"\xff\xd8\xff") :]))
    assert sheet.width > 2 * sheet.height
    states = [data["nodes"] for data in run.of_kind("progress_state")]
    assert any(node["max"] == 4 for nodes in states for node in nodes.values())


def test_the_seed_decides_random_masks(comfy_client, graph):
    images = graph.add("EmptyImage", width=48, height=32, batch_size=2)
    nodes = [graph.add("MLT_RandomMasks", images=[images, 0], seed=seed) for seed in (1, 1, 2)]
    seen = [preview(graph, [node, 1]) for node in nodes]
    run = comfy_client.run(graph.nodes)
    first, same, other = (np.stack(masks_of(run, comfy_client, one)) for one in seen)
    assert first.shape == (2, 32, 48)
    assert np.array_equal(first, same)
    assert not np.array_equal(first, other)
    assert not np.array_equal(first[0], first[1])


@pytest.mark.parametrize("shape", ["ellipse", "rectangle", "polygon", "brush"])
def test_shapes_fill_missing_masks_with_the_asked_coverage(comfy_client, graph, folders, shape):
    folder = folders.make("shapes", count=2)
    folders.picture(folder / "see through.png", alpha=True)
    load = graph.add("MLT_LoadDataset", folder="shapes")
    node = graph.add("MLT_ShapeMasks", dataset=[load, 0], shape=shape, coverage_min=0.3, coverage_max=0.3)
    seen, report = preview(graph, [node, 1]), graph.text([node, 3])
    run = comfy_client.run(graph.nodes)
    for mask in masks_of(run, comfy_client, seen)[:2]:
        assert abs(mask.mean() - 0.3) < 0.01
    assert "see through.png: kept the mask that was there" in shown(run, report)
    assert "2 made (fill missing only), 1 kept" in shown(run, report)


def test_a_shape_in_a_box(comfy_client, graph, folders):
    rgb = np.full((60, 80, 3), 99, np.uint8)
    mask, report = made_from_image(
        graph, comfy_client, folders, rgb, "MLT_ShapeMasks", shape="rectangle", box="0.25, 0.5, 0.5, 0.5"
    )
    truth = np.zeros((60, 80))
    truth[30:, 20:60] = 1
    assert np.array_equal(mask, truth)
    assert "rectangle; covers 25.0%" in report


def test_circular_shrink_keeps_a_part_of_the_masks_that_are_there(comfy_client, graph, folders):
    folders.make("shrunken", count=3, alpha=True)
    load = graph.add("MLT_LoadDataset", folder="shrunken")
    node = graph.add(
        "MLT_ShapeMasks",
        dataset=[load, 0],
        shape="circular shrink",
        combine="replace",
        shrink_min=0.2,
        shrink_max=0.5,
    )
    seen, report = preview(graph, [node, 1]), graph.text([node, 3])
    run = comfy_client.run(graph.nodes)
    for mask in masks_of(run, comfy_client, seen):
        assert 0.01 < mask.mean() < 0.45
        assert not mask[32:].any()
    assert re.search(r"cat 1.png: kept \d+% of the mask in a disc; covers", shown(run, report))


@pytest.mark.parametrize("combine", ["fill missing only", "union"])
def test_circular_shrink_that_would_change_nothing_is_refused(comfy_client, graph, folders, combine):
    error = refusal(graph, comfy_client, folders, "MLT_ShapeMasks", shape="circular shrink", combine=combine)
    assert error.startswith(f"combine: {combine} leaves every mask as it is")
    assert error.endswith("Choose replace.")


def test_circular_shrink_of_pictures_without_masks_is_refused_by_name(comfy_client, graph, folders):
    error = refusal(
        graph, comfy_client, folders, "MLT_ShapeMasks", images=True, shape="circular shrink", combine="replace"
    )
    assert "circular shrink keeps a part of the mask that is there, but the picture has none" in error


def test_a_figure_before_a_green_screen(comfy_client, graph, folders):
    rng = np.random.default_rng(0)
    truth = np.zeros((160, 200), np.uint8)
    cv2.ellipse(truth, (100, 80), (50, 60), 15, 0, 360, 1, -1)
    figure = cv2.resize(rng.uniform(0, 255, (4, 5, 3)), (200, 160), interpolation=cv2.INTER_NEAREST)
    figure[..., 1] *= 0.5
    rgb = np.where(truth[..., None] > 0, figure, [20, 180, 60]) + rng.normal(0, 6, (160, 200, 3))
    mask, _ = made_from_image(
        graph,
        comfy_client,
        folders,
        rgb.clip(0, 255).astype(np.uint8),
        "MLT_ColorMasks",
        colours="#14b43c",
        invert=True,
    )
    assert iou(mask, truth) >= 0.95


def test_one_of_two_red_boxes_by_a_point(comfy_client, graph, folders):
    rgb = np.zeros((60, 100, 3), np.uint8)
    rgb[10:40, 10:40] = rgb[10:40, 60:90] = 200, 10, 10
    mask, report = made_from_image(
        graph, comfy_client, folders, rgb, "MLT_ColorMasks", point="0.75, 0.4", colour_from_point=True
    )
    assert mask.sum() == mask[10:40, 60:90].sum() == 900
    assert "key #c80a0a; covers 15.0%" in report


@pytest.mark.parametrize(
    ("nothing_found", "outcome"),
    [
        ("error", "Colour masks: nothing was found in 1 of 2 pictures: grey.png: nothing found (no pixel within ΔE 25"),
        ("white", "grey.png: nothing found (no pixel within ΔE 25 of #00ff00); white mask"),
        ("black", "grey.png: nothing found (no pixel within ΔE 25 of #00ff00); black mask"),
        ("skip", "grey.png: nothing found (no pixel within ΔE 25 of #00ff00); left out"),
    ],
)
def test_a_picture_without_the_colour_is_told(comfy_client, graph, folders, nothing_found, outcome):
    folder = folders.input / "sometimes green"
    save(folder / "green.png", np.full((40, 40, 3), [0, 255, 0], np.uint8))
    save(folder / "grey.png", np.full((40, 40, 3), 128, np.uint8))
    load = graph.add("MLT_LoadDataset", folder="sometimes green")
    node = graph.add("MLT_ColorMasks", dataset=[load, 0], nothing_found=nothing_found)
    report = graph.text([node, 3])
    run = comfy_client.run(graph.nodes, check=nothing_found != "error")
    assert outcome in (run.error or shown(run, report))


def test_grabcut_finds_a_head_in_a_photograph_from_a_box(comfy_client, graph, folders):
    outline = json.loads((PHOTOGRAPHS / "outlines.json").read_text(encoding="utf-8"))["astronaut's head and neck"]
    rgb = np.asarray(Image.open(PHOTOGRAPHS / outline["file"]).convert("RGB"))
    truth = np.zeros(rgb.shape[:2], np.uint8)
    cv2.fillPoly(truth, [np.rint(outline["polygon"]).astype(np.int32)], 1)
    mask, report = made_from_image(
        graph, comfy_client, folders, rgb, "MLT_GrabCutMasks", start="box", box="139, 0, 178, 208"
    )
    assert iou(mask, truth) >= 0.80
    assert "from the box; covers" in report


def test_grabcut_mends_a_rough_mask_from_a_socket(comfy_client, graph, folders):
    y, x = np.mgrid[:120, :160]
    truth = np.hypot(y - 60, x - 80) < 30
    rgb = np.where(truth[..., None], [200, 120, 60], [60, 100, 150]) + np.random.default_rng(0).normal(
        0, 8, (120, 160, 3)
    )
    save(folders.input / "disc.png", rgb.clip(0, 255).astype(np.uint8))
    save(
        folders.input / "rough.png", np.repeat(((np.hypot(y - 55, x - 74) < 36) * np.uint8(255))[..., None], 3, axis=2)
    )
    image, rough = (graph.add("LoadImage", image=name) for name in ("disc.png", "rough.png"))
    mask = graph.add("ImageToMask", image=[rough, 0], channel="red")
    node = graph.add(
        "MLT_GrabCutMasks", images=[image, 0], mask=[mask, 0], start="rough mask", combine="replace", rough_band=0.3
    )
    seen, report = preview(graph, [node, 1]), graph.text([node, 3])
    run = comfy_client.run(graph.nodes)
    assert iou(masks_of(run, comfy_client, seen)[0], truth) >= 0.97
    assert "from the rough mask" in shown(run, report)


def test_grabcut_from_rough_masks_cannot_fill_missing_ones(comfy_client, graph, folders):
    error = refusal(graph, comfy_client, folders, "MLT_GrabCutMasks", start="rough mask")
    assert error.startswith("combine: fill missing only leaves every mask as it is")
    assert error.endswith("Choose replace.")


def test_a_flat_picture_is_named_with_the_reason(comfy_client, graph, folders):
    error = refusal(graph, comfy_client, folders, "MLT_GrabCutMasks", combine="replace")
    assert "cat 1.png: nothing found (the picture is of one colour there)" in error


@pytest.mark.parametrize(
    ("node_id", "widgets", "message"),
    [
        ("MLT_RandomMasks", {"coverage_min": 0.6}, "coverage_min: 0.6 lies above coverage_max 0.5"),
        ("MLT_ShapeMasks", {"box": "1, 2, 3"}, 'box: expected "x, y, width, height" in pixels'),
        ("MLT_ShapeMasks", {"box": "500, 5, 10, 10"}, "cat 1.png: box '500, 5, 10, 10' lies outside the picture"),
        ("MLT_ColorMasks", {"colours": "green"}, "colours: expected colours such as #00ff00"),
        ("MLT_ColorMasks", {"colours": ""}, "colours: expected colours"),
        ("MLT_ColorMasks", {"point": "96, 5"}, "cat 1.png: point '96, 5' lies outside the picture, which is 96×64 px"),
        ("MLT_ColorMasks", {"colour_from_point": True}, "colour_from_point: there is no point"),
        ("MLT_GrabCutMasks", {"start": "box"}, "box: expected"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(comfy_client, graph, folders, node_id, widgets, message):
    assert refusal(graph, comfy_client, folders, node_id, combine="replace", **widgets).startswith(message)


def test_odd_pictures_get_masks_or_are_named(comfy_client, graph, folders):
    folder = folders.input / "odd pictures"
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (40, 60, 3)).astype(np.uint8)
    save(folder / "a pixel.png", colours[:1, :1])
    save(folder / "cät 1.png", colours)
    save(folder / "grey.png", colours[..., 0])
    Image.fromarray(colours).quantize(8).save(folder / "palette.png")
    Image.fromarray(colours).convert("CMYK").save(folder / "print.jpg")
    Image.fromarray(colours[..., 0].astype(np.uint16) * 257).save(folder / "sixteen bits.png")
    load = graph.add("MLT_LoadDataset", folder="odd pictures")
    reports = [
        graph.text([graph.add(node_id, dataset=[load, 0], nothing_found="black", **widgets), 3])
        for node_id, widgets in (
            ("MLT_RandomMasks", {}),
            ("MLT_ShapeMasks", {"shape": "brush"}),
            ("MLT_ColorMasks", {"point": "0.5, 0.5", "colour_from_point": True}),
            ("MLT_GrabCutMasks", {}),
        )
    ]
    run = comfy_client.run(graph.nodes)
    blobs, shapes, colours, cuts = (shown(run, report) for report in reports)
    for text, label in ((blobs, "Random masks"), (shapes, "Shape masks"), (colours, "Colour masks")):
        assert text.startswith(f"{label}: masks: 6 made")
    assert "a pixel.png: nothing found (too few pixels to tell subject and background apart: 0 and 1)" in cuts
