"""GrabCut on photographs with drawn outlines and on scenes with an exact truth."""

import json
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from masklora.errors import ConfigError, MaskError
from masklora.generators.finding import Picture
from masklora.generators.grabcut import (
    GrabCutSettings,
    check_grabcut,
    check_grabcut_combine,
    grabcut_maker,
    refine_edge,
)

PHOTOGRAPHS = Path(__file__).resolve().parents[1] / "pictures" / "photographs"
OUTLINES = json.loads((PHOTOGRAPHS / "outlines.json").read_text(encoding="utf-8"))
FLOORS = {
    "coin, top row, third": 0.90,
    "coin, top row, last": 0.90,
    "coin, bottom row, second": 0.90,
    "coffee cup, saucer and spoon": 0.80,
    "astronaut's head and neck": 0.80,
}
ONE_MEGAPIXEL = 1_000_000


def rasterised(outline, size, subpixels=8):
    """The outline's pixels: those of which more than half lies inside."""
    fine = np.zeros((size[0] * subpixels, size[1] * subpixels), np.uint8)
    if "polygon" in outline:
        corners = np.asarray(outline["polygon"]) * subpixels
    else:
        turn = np.linspace(0, 2 * np.pi, 400)
        circle = np.stack([np.cos(turn), np.sin(turn)], axis=1)
        corners = (circle * outline["ellipse"]["axes"] + outline["ellipse"]["centre"]) * subpixels
    cv2.fillPoly(fine, [np.rint(corners).astype(np.int32)], 255)
    return cv2.resize(fine, size[::-1], interpolation=cv2.INTER_AREA) > 127


def photograph(name):
    outline = OUTLINES[name]
    rgb = np.asarray(Image.open(PHOTOGRAPHS / outline["file"]).convert("RGB"))
    return rgb, rasterised(outline, rgb.shape[:2])


def padded_box(truth, padding=0.1):
    """The truth's box, a tenth larger on every side, as the widget takes it."""
    rows, columns = np.flatnonzero(truth.any(axis=1)), np.flatnonzero(truth.any(axis=0))
    width, height = np.ptp(columns) + 1, np.ptp(rows) + 1
    x, y = max(0, columns[0] - padding * width), max(0, rows[0] - padding * height)
    right = min(truth.shape[1], columns[-1] + 1 + padding * width)
    bottom = min(truth.shape[0], rows[-1] + 1 + padding * height)
    return f"{x:.0f}, {y:.0f}, {right - x:.0f}, {bottom - y:.0f}"


def found(rgb, mask=None, **settings):
    return grabcut_maker(GrabCutSettings(**settings))(Picture("cat.png", np.ascontiguousarray(rgb), mask))


def iou(mask, truth):
    a, b = mask > 0.5, truth > 0.5
    return (a & b).sum() / (a | b).sum()


def scene(size=(150, 200), seed=0, centre=(0.5, 0.5)):
    """A textured disc before another texture, and its exact truth."""
    rng = np.random.default_rng(seed)
    height, width = size
    y, x = np.mgrid[:height, :width] + 0.5
    truth = np.hypot(y - centre[0] * height, x - centre[1] * width) < 0.25 * min(size)
    textures = [
        colour + 20 * cv2.resize(rng.normal(size=(12, 16, 3)), (width, height), interpolation=cv2.INTER_CUBIC)
        for colour in ([190, 110, 60], [70, 110, 160])
    ]
    soft = cv2.GaussianBlur(truth.astype(np.float64), (0, 0), 1)[..., None]
    rgb = textures[0] * soft + textures[1] * (1 - soft) + rng.normal(0, 4, (*size, 3))
    return rgb.clip(0, 255).astype(np.uint8), truth


@pytest.mark.parametrize("name", FLOORS)
def test_objects_of_photographs_are_found_from_a_box_a_tenth_larger(name):
    rgb, truth = photograph(name)
    finding = found(rgb, start="box", box=padded_box(truth))
    assert finding.mask.shape == truth.shape
    assert finding.mask.dtype == np.float32
    assert set(np.unique(finding.mask)) == {0, 1}
    assert iou(finding.mask, truth) >= FLOORS[name]


@pytest.mark.parametrize("name", FLOORS)
def test_objects_are_found_as_well_at_a_megapixel_in_less_than_a_second(name):
    rgb, truth = photograph(name)
    factor = (ONE_MEGAPIXEL / truth.size) ** 0.5
    size = round(truth.shape[1] * factor), round(truth.shape[0] * factor)
    large = cv2.resize(rgb, size, interpolation=cv2.INTER_CUBIC)
    large_truth = cv2.resize(truth.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        began = time.process_time()
        finding = found(large, start="box", box=padded_box(large_truth))
        seconds = time.process_time() - began
    finally:
        cv2.setNumThreads(threads)
    assert iou(finding.mask, large_truth) >= FLOORS[name]
    assert seconds <= 1.0


def test_an_object_is_found_from_a_margin():
    rgb, truth = scene()
    assert iou(found(rgb, margin=0.15).mask, truth) >= 0.97


def test_an_object_is_found_from_a_box_in_shares():
    rgb, truth = scene()
    finding = found(rgb, start="box", box="0.25, 0.2, 0.5, 0.6")
    assert iou(finding.mask, truth) >= 0.97
    assert finding.note == "from the box"


@pytest.mark.parametrize("error", [-8, 8])
def test_a_rough_mask_that_is_too_small_or_too_large_is_corrected(error):
    rgb, truth = scene()
    kernel = np.ones((2 * abs(error) + 1,) * 2, np.uint8)
    change = cv2.dilate if error > 0 else cv2.erode
    rough = change(truth.astype(np.float32), kernel)
    assert iou(rough, truth) < 0.75
    finding = found(rgb, rough, start="rough mask", rough_band=0.25)
    assert iou(finding.mask, truth) >= 0.97
    assert finding.note == "from the rough mask"


def test_a_rough_head_is_refined_on_a_photograph():
    rgb, truth = photograph("astronaut's head and neck")
    rough = np.zeros(truth.shape, np.float32)
    cv2.ellipse(rough, (228, 98), (60, 74), 0, 0, 360, 1, -1)
    before = rough.copy()
    finding = found(rgb, rough, start="rough mask", rough_band=0.2)
    assert iou(finding.mask, truth) >= max(0.85, iou(rough, truth) + 0.03)
    assert np.array_equal(rough, before)


def test_a_loose_box_in_which_the_subject_is_lost_is_cut_again_from_its_middle():
    rgb, truth = photograph("coin, bottom row, second")
    finding = found(rgb, start="box", box=padded_box(truth, 0.5))
    assert finding.note == "from the middle of the box"
    assert iou(finding.mask, truth) >= 0.90


@pytest.mark.parametrize("seed", range(3))
def test_what_cannot_be_told_from_its_surroundings_is_not_found(seed):
    noise = np.random.default_rng(seed).integers(0, 256, (200, 200, 3)).astype(np.uint8)
    finding = found(noise, start="box", box="50, 50, 100, 100")
    assert finding.mask is None
    assert finding.note == "the subject cannot be told from its surroundings by colour"


def test_the_same_picture_gives_the_same_mask_whatever_ran_before():
    rgb, truth = photograph("coffee cup, saucer and spoon")
    box = padded_box(truth)
    first = found(rgb, start="box", box=box).mask
    cv2.setRNGSeed(99)
    cv2.randu(np.zeros((9, 9), np.float32), 0, 1)
    assert np.array_equal(first, found(rgb, start="box", box=box).mask)


def test_nothing_outside_the_box_is_found_though_it_looks_the_same():
    rgb, _ = photograph("coin, top row, third")
    mask = found(rgb, start="box", box="130.5, 25, 50, 52").mask
    assert mask.any()
    assert mask.sum() == mask[25:77, 130:181].sum()


@pytest.mark.parametrize("centre", [(0.05, 0.5), (0.5, 0.95), (0.9, 0.05)])
def test_an_object_cut_by_the_border_reaches_the_border(centre):
    rgb, truth = scene(centre=centre)
    finding = found(rgb, start="box", box=padded_box(truth))
    assert iou(finding.mask, truth) >= 0.95
    for side in (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1]):
        assert np.abs(finding.mask[side].sum() - truth[side].sum()) <= 4


def test_the_edge_of_a_large_picture_is_sharper_than_the_small_copy_s():
    rgb, truth = scene((1200, 1600), seed=3)
    finding = found(rgb, margin=0.1)
    small = cv2.resize(truth.astype(np.float32), (512, 384), interpolation=cv2.INTER_AREA) > 0.5
    enlarged = cv2.resize(small.astype(np.float32), (1600, 1200), interpolation=cv2.INTER_LINEAR) > 0.5
    assert 1 - iou(finding.mask, truth) < 0.5 * (1 - iou(enlarged, truth))


def test_refining_at_the_same_size_changes_nothing():
    rgb, truth = scene()
    assert np.array_equal(refine_edge(rgb, truth), truth)


def test_refining_full_and_empty_cuts_leaves_them_full_and_empty():
    rgb, _ = scene((300, 400))
    assert refine_edge(rgb, np.ones((75, 100), bool)).all()
    assert not refine_edge(rgb, np.zeros((75, 100), bool)).any()


@pytest.mark.parametrize("size", [(1, 1), (1, 30), (3, 3), (4, 9), (5, 5), (16, 16), (2, 200)])
@pytest.mark.parametrize("start", ["margin", "rough mask"])
def test_tiny_pictures_give_a_mask_or_a_reason(size, start):
    rgb = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    rough = np.zeros(size, np.float32)
    rough[size[0] // 2, size[1] // 2] = 1
    finding = found(rgb, rough, start=start)
    assert finding.mask is None or finding.mask.shape == size
    assert finding.note
    if size == (1, 1):
        assert finding.mask is None


def test_a_figure_on_sixteen_pixels_is_found():
    rgb = np.full((16, 16, 3), [30, 60, 90], np.uint8)
    rgb[5:11, 5:11] = 220, 180, 90
    rgb += np.random.default_rng(0).integers(0, 4, rgb.shape, np.uint8)
    mask = found(rgb, margin=0.2).mask
    assert mask.sum() == mask[5:11, 5:11].sum() == 36


@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_flat_picture_gives_nothing_and_the_reason(value):
    flat = np.full((40, 60, 3), value, np.uint8)
    finding = found(flat)
    assert finding.mask is None
    assert finding.note == "the picture is of one colour there"


def test_greyscale_photographs_work():
    rgb, truth = photograph("astronaut's head and neck")
    grey = np.repeat(rgb.mean(axis=2, keepdims=True).astype(np.uint8), 3, axis=2)
    assert found(grey, start="box", box=padded_box(truth)).mask.any()


def test_full_and_empty_rough_masks_give_nothing_and_the_reason():
    rgb, truth = scene()
    full = found(rgb, np.ones(truth.shape, np.float32), start="rough mask")
    assert full.mask is None
    assert "covers the whole picture" in full.note
    empty = found(rgb, np.zeros(truth.shape, np.float32), start="rough mask")
    assert empty.mask is None
    assert empty.note == "the mask that is there has no pixel above 0.5"


def test_a_picture_without_the_rough_mask_is_named():
    with pytest.raises(MaskError, match=r"cat.png: start is rough mask, but the picture has no mask"):
        found(scene()[0], start="rough mask")


def test_a_box_over_the_whole_picture_works():
    rgb, truth = scene()
    assert iou(found(rgb, start="box", box="0, 0, 1, 1").mask, truth) >= 0.9
    assert found(rgb, margin=0.0).mask is not None


def test_a_box_narrower_than_a_pixel_gives_a_reason():
    finding = found(scene()[0], start="box", box="0.5, 0.5, 0.001, 0.001")
    assert finding.mask is None
    assert finding.note.startswith("too few pixels to tell subject and background apart")


def test_a_huge_picture_is_cut_at_its_full_size():
    small, truth = scene((600, 800))
    rgb = cv2.resize(small, (8000, 6000), interpolation=cv2.INTER_LINEAR)
    large_truth = cv2.resize(truth.astype(np.uint8), (8000, 6000), interpolation=cv2.INTER_LINEAR)
    assert iou(found(rgb).mask, large_truth) >= 0.97


def test_a_rough_mask_cannot_fill_missing_masks():
    with pytest.raises(ConfigError, match=r"combine: fill missing only leaves every mask as it is.* Choose replace"):
        check_grabcut_combine(GrabCutSettings(start="rough mask"), "fill missing only")
    check_grabcut_combine(GrabCutSettings(start="rough mask"), "replace")
    check_grabcut_combine(GrabCutSettings(), "fill missing only")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start": "guess"}, "start: "),
        ({"margin": 0.5}, "margin: expected 0 to 0.45, got 0.5"),
        ({"start": "box"}, 'box: expected "x, y, width, height" in pixels'),
        ({"rough_band": 0.0}, "rough_band: expected 0.01 to 1"),
        ({"iterations": 0}, "iterations: expected 1 to 20"),
        ({"working_side": 32}, "working_side: expected 64 to 2048"),
    ],
)
def test_settings_out_of_range_name_the_widget(changes, message):
    with pytest.raises(ConfigError, match=message):
        check_grabcut(GrabCutSettings(**changes))


def test_a_box_outside_the_picture_names_the_picture():
    with pytest.raises(MaskError, match=r"cat.png: box .* lies outside the picture"):
        found(scene()[0], start="box", box="500, 500, 10, 10")
