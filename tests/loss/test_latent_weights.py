"""From a mask on the latent grid to the weight of every cell."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy import ndimage

from masklora.errors import ConfigError
from masklora.loss.masks import (
    apply_mask_probability,
    blur_by_noise,
    blur_cells,
    effective_weights,
    jitter_edges,
    latent_weights,
    reduce_mask,
    transform_mask,
)
from masklora.settings import REDUCTIONS, LossSettings, MaskTransform


def batch(shape=(3, 1, 24, 32), seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def test_the_affine_floor_commutes_with_area_and_gamma_and_max_do_not():
    mask = batch((2, 1, 64, 64)) ** 3

    def difference(settings):
        before = reduce_mask(latent_weights(mask, settings), grid=(8, 8))
        after = latent_weights(reduce_mask(mask, grid=(8, 8)), settings)
        return (before - after).abs().max().item()

    assert difference(LossSettings(floor=0.3)) < 1e-6
    assert difference(LossSettings(floor=0.3, floor_mode="max")) > 0.05
    assert difference(LossSettings(gamma=2.0)) > 0.05


def test_latent_transforms_run_in_the_documented_order():
    m = batch()
    settings = LossSettings(gamma=2.0, floor=0.2, ceiling=0.7)
    expected = (0.2 + 0.8 * m**2).clamp(max=0.7)
    assert torch.allclose(latent_weights(m, settings), expected)
    settings = LossSettings(gamma=0.5, floor=0.2, floor_mode="max")
    assert torch.allclose(latent_weights(m, settings), m.sqrt().clamp(min=0.2))


def test_the_weight_threshold_looks_at_the_mask_before_blur_and_gamma():
    m = batch()
    settings = LossSettings(gamma=2.0, floor=0.2, latent_blur=3, weight_threshold=0.3)
    w = latent_weights(m, settings)
    blurred = 0.2 + 0.8 * blur_cells(m, size=3) ** 2
    assert torch.equal(w == 0, m < 0.3)
    assert torch.allclose(w[m >= 0.3], blurred[m >= 0.3])


def test_weights_at_the_defaults_are_the_mask():
    m = batch()
    assert torch.equal(latent_weights(m, LossSettings()), m)


def test_weights_stay_between_zero_and_one():
    m = batch() * 1.5 - 0.25
    for settings in (LossSettings(), LossSettings(gamma=0.5), LossSettings(floor=0.1, floor_mode="max")):
        w = latent_weights(m, settings)
        assert w.min() >= 0
        assert w.max() <= 1


def test_a_hard_mask_is_cut_in_pixels_so_that_thin_parts_keep_their_share():
    mask = torch.zeros(1, 1, 8, 24)
    mask[..., :6] = 0.6
    mask[..., 8:13] = 1
    mask[..., 16:19] = 1
    w = effective_weights(mask, LossSettings(mask_type="hard"), grid=(1, 3))
    assert w.flatten().tolist() == [0.75, 0.625, 0.375]
    soft = effective_weights(mask, LossSettings(), grid=(1, 3))
    assert soft.flatten().tolist() == pytest.approx([0.45, 0.625, 0.375])


def test_a_cell_blur_is_the_gaussian_of_its_kernel_size():
    m = batch((2, 1, 9, 11)).double()
    for size in (3, 5):
        sigma = 0.3 * ((size - 1) / 2 - 1) + 0.8
        for b in range(2):
            expected = ndimage.gaussian_filter(m[b, 0].numpy(), sigma, mode="nearest", radius=size // 2)
            assert np.abs(blur_cells(m, size=size)[b, 0].numpy() - expected).max() < 1e-12


def test_jitter_is_decided_by_the_generator_alone():
    m = (batch((4, 1, 32, 32)) > 0.5).float()

    def draw(seed):
        return jitter_edges(m, amount=0.05, generator=torch.Generator().manual_seed(seed))

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


def test_jitter_blurs_each_sample_by_its_own_share_of_the_shorter_side():
    step = torch.zeros(200, 1, 40, 60)
    step[..., 30:] = 1
    out = jitter_edges(step, amount=0.05, generator=torch.Generator().manual_seed(0))
    slope = out[:, 0, 20].double().diff(dim=1)
    x = torch.arange(59).double()
    centre = (slope * x).sum(1, keepdim=True)
    sigma = (slope * (x - centre) ** 2).sum(1).sqrt()
    drawn = 2.0 * torch.rand(200, generator=torch.Generator().manual_seed(0)).double()
    wide = drawn > 0.6
    assert wide.sum() > 100
    assert torch.allclose(sigma[wide], drawn[wide], rtol=0.03)
    assert (sigma[drawn < 0.1] < 0.05).all()


def test_jitter_keeps_uniform_masks_frames_and_range():
    ones = torch.ones(2, 1, 3, 16, 16)
    out = jitter_edges(ones, amount=0.1, generator=torch.Generator().manual_seed(0))
    assert out.shape == ones.shape
    assert torch.allclose(out, ones)
    assert out.max() <= 1


def test_an_unknown_floor_mode_is_named():
    with pytest.raises(ConfigError, match=r"floor mode.*'min'"):
        latent_weights(batch(), LossSettings(floor_mode="min"))


def test_a_mask_applies_to_a_sample_with_its_probability():
    m = torch.zeros(4000, 1, 2, 2)
    w = apply_mask_probability(m, p=0.3, generator=torch.Generator().manual_seed(0))
    applied = (w == 0).flatten(1).all(1)
    whole = (w == 1).flatten(1).all(1)
    assert (applied | whole).all()
    assert applied.float().mean().item() == pytest.approx(0.3, abs=0.03)


def test_a_mask_applies_to_the_whole_batch_or_to_none_of_it_by_choice():
    m, g = torch.zeros(8, 1, 2, 2), torch.Generator().manual_seed(0)
    seen = {tuple(apply_mask_probability(m, p=0.5, generator=g, scope="batch").unique().tolist()) for _ in range(40)}
    assert seen == {(0.0,), (1.0,)}


@pytest.mark.parametrize("mask_type", ["soft", "hard"])
def test_probability_zero_ignores_every_mask_and_one_draws_nothing(mask_type):
    m = batch((3, 1, 16, 16))
    g = torch.Generator().manual_seed(0)
    state = g.get_state()
    settings = LossSettings(mask_type=mask_type)
    kept = effective_weights(m, settings, grid=(2, 2), generator=g)
    assert torch.equal(g.get_state(), state)
    assert not torch.equal(kept, torch.ones_like(kept))
    none = dataclasses.replace(settings, mask_probability=0.0)
    assert (effective_weights(m, none, grid=(2, 2), generator=g) == 1).all()


def test_the_whole_path_is_its_parts_in_order():
    mask = batch((3, 1, 40, 48))
    settings = LossSettings(reduction="any", gamma=2.0, floor=0.1, edge_jitter=0.1, mask_probability=0.5)
    got = effective_weights(mask, settings, grid=(5, 6), generator=torch.Generator().manual_seed(4))
    g = torch.Generator().manual_seed(4)
    step = reduce_mask(mask, grid=(5, 6), kind="any")
    step = 0.1 + 0.9 * jitter_edges(step, amount=0.1, generator=g) ** 2
    step = apply_mask_probability(step, p=0.5, generator=g)
    assert torch.allclose(got, step)


@pytest.mark.parametrize("reduction", REDUCTIONS[:4])
def test_nothing_is_read_back_from_the_device(reduction):
    settings = LossSettings(
        reduction=reduction,
        mask_type="hard",
        edge_jitter=0.05,
        latent_blur=3,
        gamma=0.7,
        floor=0.1,
        weight_threshold=0.1,
        mask_probability=0.5,
    )
    mask = torch.empty(2, 1, 64, 64, device="meta")
    assert effective_weights(mask, settings, grid=(8, 8)).shape == (2, 1, 8, 8)


def test_masks_are_not_changed_in_place():
    mask, pixels = batch(), np.random.default_rng(0).random((20, 30), dtype=np.float32)
    before, pixels_before = mask.clone(), pixels.copy()
    effective_weights(mask, LossSettings(mask_type="hard", gamma=2.0, floor=0.1), grid=(3, 4))
    transform_mask(pixels, MaskTransform(invert=True, fill_holes=True, min_area=4, grow=1, feather=1.0))
    assert torch.equal(mask, before)
    assert np.array_equal(pixels, pixels_before)


def test_noise_blurs_the_mask_the_more_the_more_noise_there_is():
    m = torch.zeros(3, 1, 16, 16)
    m[..., 4:12, 4:12] = 1.0
    u = torch.tensor([0.0, 0.3, 1.0])
    w = blur_by_noise(m, u, amount=0.25)
    assert torch.equal(w[0], m[0])
    edges = ((w > 0.01) & (w < 0.99)).flatten(1).sum(dim=1).tolist()
    assert edges[0] == 0 < edges[1] < edges[2]
    expected = ndimage.gaussian_filter(m[1, 0].numpy(), 0.3 * 4, mode="nearest")
    assert torch.allclose(w[1, 0], torch.tensor(expected), atol=2e-3)
    ones = torch.ones_like(m)
    assert torch.allclose(blur_by_noise(ones, u, amount=0.25), ones)
    settings = LossSettings(noise_blur=0.25)
    assert torch.equal(effective_weights(m, settings, grid=(16, 16), u=u), w)
    assert torch.equal(effective_weights(m, settings, grid=(16, 16)), m)


@pytest.mark.parametrize("option", [{"floor": 0.2}, {"floor": 0.2, "floor_mode": "max"}, {"mask_probability": 0.0}])
def test_a_replaced_background_gets_weight_from_neither_floor_nor_probability(option):
    m = (batch((2, 1, 8, 8)) > 0.5).float()
    strict = torch.tensor([True, False])
    w = effective_weights(m, LossSettings(**option), grid=(8, 8), strict=strict)
    assert torch.equal(w[0], m[0])
    assert w[1].min() >= 0.2


@pytest.mark.parametrize("size", range(3, 31, 2))
def test_a_white_mask_stays_exactly_white_under_every_blur(size):
    """A rounding error outside, divided by itself, was a prior of full strength where area_min is 0."""
    m = torch.ones(3, 1, 16, 16)
    m[1, ..., 8:] = 0
    m[2] = 0
    u = torch.tensor([size / 31, 0.5, 0.9])
    g = torch.Generator().manual_seed(size)
    for w in (blur_cells(m, size=size), blur_by_noise(m, u, amount=0.1), jitter_edges(m, amount=0.1, generator=g)):
        assert (w[0] == 1).all() and (w[2] == 0).all()
        assert (w[1] != m[1]).any()


@pytest.mark.parametrize("option", [{"latent_blur": 9}, {"noise_blur": 0.2}, {"edge_jitter": 0.2}])
def test_blurs_give_no_weight_to_a_replaced_background(option):
    m = torch.zeros(2, 1, 8, 8)
    m[..., :4] = 1
    settings = LossSettings(**option)
    g, u = torch.Generator().manual_seed(0), torch.tensor([0.9, 0.9])
    w = latent_weights(m, settings, generator=g, u=u, strict=torch.tensor([True, False]))
    assert not w[0, ..., 4:].any() and w[1, ..., 4].all()
    assert (w[0, ..., 3] < 1).all() and w[0, ..., :4].all()
