"""From pixels to weights: order, edges and reductions against brute force."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from masklora.errors import ConfigError
from masklora.loss.masks import (
    drop_small,
    feather_mask,
    fill_holes,
    grow_mask,
    reduce_mask,
    shrink_to_circle,
    transform_mask,
)
from masklora.settings import REDUCTIONS, MaskTransform


def picture(height=40, width=52, seed=0):
    return np.random.default_rng(seed).random((height, width), dtype=np.float32)


def blobs(height=60, width=70, seed=0):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal((height, width)), 3)
    return (noise > 0).astype(np.float32)


def batch(shape=(3, 1, 24, 32), seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def test_transforms_at_their_defaults_return_an_equal_copy():
    mask = picture()
    out = transform_mask(mask, MaskTransform())
    assert np.array_equal(out, mask)
    assert out is not mask
    assert out.dtype == np.float32


def test_the_threshold_is_strict():
    mask = np.array([[0.0, 0.49, 0.5, 0.51, 1.0]], dtype=np.float32)
    assert transform_mask(mask, MaskTransform(binarize=True)).tolist() == [[0, 0, 0, 1, 1]]
    assert transform_mask(mask, MaskTransform(binarize=True, threshold=0.0)).tolist() == [[0, 1, 1, 1, 1]]
    assert transform_mask(mask, MaskTransform(binarize=True, threshold=1.0)).tolist() == [[0, 0, 0, 0, 0]]


def test_inversion_comes_before_the_threshold():
    mask = np.array([[0.2, 0.5, 0.9]], dtype=np.float32)
    out = transform_mask(mask, MaskTransform(invert=True, binarize=True, threshold=0.6))
    assert out.tolist() == [[1, 0, 0]]


def test_all_transforms_run_in_the_documented_order():
    mask = ndimage.gaussian_filter(picture(64, 64), 2).astype(np.float32)
    mask = (mask - mask.min()) / (mask.max() - mask.min())
    settings = MaskTransform(
        invert=True, binarize=True, threshold=0.55, fill_holes=True, min_area=30, grow=2, feather=1.5
    )
    step = (1 - mask > 0.55).astype(np.float32)
    step = ndimage.binary_fill_holes(step).astype(np.float32)
    labels, count = ndimage.label(step, structure=np.ones((3, 3)))
    assert count > 1
    for label in range(1, count + 1):
        if (labels == label).sum() < 30:
            step[labels == label] = 0
    y, x = np.mgrid[-2:3, -2:3]
    step = ndimage.binary_dilation(step, structure=x * x + y * y <= 4).astype(np.float64)
    step = ndimage.gaussian_filter(step, 1.5, mode="nearest", radius=6)
    assert np.abs(transform_mask(mask, settings) - step).max() < 1e-5
    assert 0.05 < step.mean() < 0.95


def test_a_gap_that_growing_closes_later_does_not_make_a_hole():
    ring = np.zeros((40, 40), dtype=np.float32)
    y, x = np.mgrid[:40, :40]
    radius = np.hypot(y - 20, x - 20)
    ring[(radius > 8) & (radius < 12) & (x > 19)] = 1
    ring[(radius > 8) & (radius < 12) & (x <= 19) & (np.abs(y - 20) > 1)] = 1
    out = transform_mask(ring, MaskTransform(fill_holes=True, grow=2))
    assert ring[20, 20] == 0
    assert out[20, 20] == 0


@pytest.mark.parametrize("seed", range(4))
def test_holes_are_what_cannot_reach_the_border(seed):
    mask = blobs(seed=seed)
    filled = fill_holes(mask)
    assert np.array_equal(filled, ndimage.binary_fill_holes(mask).astype(np.float32))


def test_a_hole_open_at_the_border_or_in_a_corner_stays():
    mask = np.ones((9, 9), dtype=np.float32)
    mask[0, 4] = mask[1, 4] = mask[8, 8] = 0
    mask[4, 4] = 0
    filled = fill_holes(mask)
    assert filled[4, 4] == 1
    assert filled[0, 4] == filled[1, 4] == filled[8, 8] == 0


def test_filling_holes_keeps_grey_and_leaves_a_black_mask_black():
    mask = np.zeros((9, 9), dtype=np.float32)
    assert not fill_holes(mask).any()
    mask[2:7, 2:7] = 0.4
    mask[4, 4] = 0
    filled = fill_holes(mask)
    assert filled[4, 4] == 1
    assert filled[3, 3] == np.float32(0.4)


def test_a_hole_that_touches_the_outside_only_by_a_corner_is_filled():
    mask = np.ones((6, 6), dtype=np.float32)
    mask[0, 0] = mask[1, 1] = 0
    filled = fill_holes(mask)
    assert filled[1, 1] == 1
    assert filled[0, 0] == 0


def test_pixels_that_touch_by_a_corner_are_one_island():
    assert np.array_equal(drop_small(np.eye(5, dtype=np.float32), min_area=5), np.eye(5))


@pytest.mark.parametrize("area", [1, 5, 20, 60])
def test_islands_below_the_area_vanish_whole(area):
    mask = blobs(seed=3) * picture(60, 70)
    labels, count = ndimage.label(mask > 0, structure=np.ones((3, 3)))
    expected = mask.copy()
    for label in range(1, count + 1):
        if (labels == label).sum() < area:
            expected[labels == label] = 0
    assert np.array_equal(drop_small(mask, min_area=area), expected)


def test_an_island_of_exactly_the_area_stays():
    mask = np.zeros((9, 9), dtype=np.float32)
    mask[4, 2:5] = 1
    assert drop_small(mask, min_area=3).sum() == 3
    assert drop_small(mask, min_area=4).sum() == 0


def brute_grow(mask, radius):
    reach = abs(radius)
    padded = np.pad(mask, reach, constant_values=-1 if radius > 0 else 2)
    out = mask.copy()
    pick = np.maximum if radius > 0 else np.minimum
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            if dy * dy + dx * dx <= reach * reach:
                y, x = reach + dy, reach + dx
                out = pick(out, padded[y : y + mask.shape[0], x : x + mask.shape[1]])
    return out


@pytest.mark.parametrize("radius", [1, 2, 3, 5, 10, -1, -2, -4, -7])
@pytest.mark.parametrize("kind", ["black and white", "grey"])
def test_growing_and_shrinking_use_a_round_kernel(kind, radius):
    mask = blobs(seed=1) if kind == "black and white" else picture(30, 33)
    assert np.array_equal(grow_mask(mask, radius=radius), brute_grow(mask, radius))


def test_a_point_grows_to_a_disc():
    mask = np.zeros((41, 41), dtype=np.float32)
    mask[20, 20] = 1
    grown = grow_mask(mask, radius=15)
    assert grown.sum() == pytest.approx(math.pi * 15**2, rel=0.02)
    assert grown[20, 35] == grown[5, 20] == 1
    assert grown[20, 36] == grown[31, 31] == 0


def test_shrinking_does_not_eat_from_the_border_of_the_picture():
    mask = np.zeros((20, 20), dtype=np.float32)
    mask[:, :10] = 1
    shrunk = grow_mask(mask, radius=-3)
    assert shrunk[:, :7].all()
    assert not shrunk[:, 7:].any()


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("radius", [4, -4, 0])
def test_a_uniform_mask_keeps_its_value_when_grown_or_shrunk(radius, value):
    mask = np.full((12, 15), value, dtype=np.float32)
    assert np.array_equal(grow_mask(mask, radius=radius), mask)


@pytest.mark.parametrize("sigma", [1.0, 2.0, 5.0])
def test_a_feathered_edge_is_the_normal_distribution_of_its_sigma(sigma):
    mask = np.zeros((8, 80), dtype=np.float32)
    mask[:, 40:] = 1
    edge = feather_mask(mask, sigma=sigma)[4]
    step = np.diff(edge)
    centre = (step * np.arange(79)).sum()
    assert centre == pytest.approx(39, abs=1e-3)
    assert np.sqrt((step * (np.arange(79) - centre) ** 2).sum()) == pytest.approx(sigma, rel=0.03)


def test_feathering_keeps_the_range_and_a_border_that_is_white():
    mask = blobs(seed=2)
    soft = feather_mask(mask, sigma=3)
    assert soft.min() >= 0
    assert soft.max() <= 1
    assert feather_mask(np.ones((9, 9), dtype=np.float32), sigma=3).min() == pytest.approx(1)


def test_lengths_are_in_pixels_of_the_picture_when_the_mask_has_another_scale():
    small, large = np.zeros((20, 20), dtype=np.float32), np.zeros((40, 40), dtype=np.float32)
    small[8:12, 8:12] = large[16:24, 16:24] = 1
    settings = MaskTransform(grow=4, min_area=60)
    doubled = np.kron(transform_mask(small, settings, scale=0.5), np.ones((2, 2)))
    assert np.abs(doubled - transform_mask(large, settings)).mean() < 0.03
    assert transform_mask(small, settings).sum() == 0


def windows(size, cells):
    return [(math.floor(i * size / cells), math.ceil((i + 1) * size / cells)) for i in range(cells)]


def brute_reduce(mask, grid, kind):
    rows, columns = windows(mask.shape[0], grid[0]), windows(mask.shape[1], grid[1])
    if kind == "nearest":
        return np.array([[mask[r[0], c[0]] for c in columns] for r in rows])
    if kind == "bilinear antialiased":
        return triangle(mask.shape[0], grid[0]) @ mask @ triangle(mask.shape[1], grid[1]).T
    pick = {"area": np.mean, "any": np.max, "all": np.min}[kind]
    return np.array([[pick(mask[r[0] : r[1], c[0] : c[1]]) for c in columns] for r in rows])


def triangle(size, cells):
    scale = size / cells
    centre = (np.arange(cells)[:, None] + 0.5) * scale
    weight = np.clip(1 - np.abs(np.arange(size)[None] + 0.5 - centre) / scale, 0, None)
    return weight / weight.sum(1, keepdims=True)


@pytest.mark.parametrize("kind", REDUCTIONS)
@pytest.mark.parametrize("size", [(24, 32), (25, 31), (29, 17), (8, 8)])
@pytest.mark.parametrize("grid", [(3, 4), (8, 8), (1, 1)])
def test_every_reduction_equals_brute_force(size, grid, kind):
    mask = batch((2, 1, *size)).double()
    got = reduce_mask(mask, grid=grid, kind=kind)
    assert got.shape == (2, 1, *grid)
    for b in range(2):
        expected = brute_reduce(mask[b, 0].numpy(), grid, kind)
        assert np.abs(got[b, 0].numpy() - expected).max() < 1e-12


@pytest.mark.parametrize("kind", REDUCTIONS)
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_uniform_mask_stays_exactly_uniform_on_the_latent_grid(kind, value):
    mask = torch.full((1, 1, 512, 768), value)
    assert (reduce_mask(mask, grid=(64, 96), kind=kind) == value).all()


@pytest.mark.parametrize("kind", REDUCTIONS)
def test_frames_are_reduced_one_by_one(kind):
    mask = batch((2, 1, 5, 24, 32))
    got = reduce_mask(mask, grid=(3, 4), kind=kind)
    assert got.shape == (2, 1, 5, 3, 4)
    for f in range(5):
        assert torch.equal(got[:, :, f], reduce_mask(mask[:, :, f], grid=(3, 4), kind=kind))


def test_one_lit_pixel_sets_its_cell_for_any_and_clears_it_for_all():
    mask = torch.zeros(1, 1, 16, 16)
    mask[0, 0, 9, 3] = 1 / 255
    lit = reduce_mask(mask, grid=(2, 2), kind="any", binarize=True)
    assert lit.flatten().tolist() == [0, 0, 1, 0]
    assert reduce_mask(1 - mask, grid=(2, 2), kind="all").flatten()[2] < 1


@pytest.mark.parametrize("kind", REDUCTIONS)
def test_a_mask_already_on_the_grid_passes_unchanged(kind):
    mask = batch((2, 1, 7, 9))
    assert torch.equal(reduce_mask(mask, grid=(7, 9), kind=kind), mask)


def test_an_unknown_reduction_is_named():
    with pytest.raises(ConfigError, match=r"reduction.*'bicubic'"):
        reduce_mask(batch(), grid=(3, 4), kind="bicubic")


def test_shrinking_to_a_circle_keeps_a_disc_about_a_point_of_the_mask():
    mask = blobs(seed=2)
    rows, columns = np.nonzero(mask)
    for seed in range(6):
        out = shrink_to_circle(mask, factor=0.4, seed=seed)
        kept, lost = out > 0, (mask > 0) & (out == 0)
        discs = np.hypot(rows[:, None] - rows[None], columns[:, None] - columns[None])
        inside = np.where(kept[rows, columns], discs, 0).max(axis=1)
        outside = np.where(lost[rows, columns], discs, np.inf).min(axis=1)
        fits = (inside < outside) & (inside <= 0.4 * discs.max(axis=1)) & (outside > 0.4 * discs.max(axis=1))
        assert fits.any()
        assert lost.any()


def test_shrinking_to_a_circle_of_factor_one_keeps_everything():
    mask = blobs() * picture(60, 70)
    for seed in range(10):
        assert np.array_equal(shrink_to_circle(mask, factor=1.0, seed=seed), mask)


def test_a_shrunk_mask_is_never_empty_and_an_empty_one_stays_empty():
    mask = np.zeros((30, 40), np.float32)
    assert not shrink_to_circle(mask, factor=0.5, seed=0).any()
    mask[3, 5] = mask[29, 39] = 0.25
    for seed in range(10):
        out = shrink_to_circle(mask, factor=0.01, seed=seed)
        assert out.sum() == 0.25
    assert shrink_to_circle(np.ones((1, 1), np.float32), factor=0.5, seed=0).tolist() == [[1]]


def test_the_circle_s_point_is_drawn_by_weight_and_by_the_seed():
    mask = np.zeros((4, 40), np.float32)
    mask[1, 2], mask[2, 37] = 0.1, 0.9
    heavy = [shrink_to_circle(mask, factor=0.2, seed=seed)[2, 37] > 0 for seed in range(200)]
    assert 0.8 < np.mean(heavy) < 0.98
    before = mask.copy()
    assert np.array_equal(shrink_to_circle(mask, factor=0.2, seed=4), shrink_to_circle(mask, factor=0.2, seed=4))
    assert np.array_equal(mask, before)
