"""What replaces the outside of a mask before the VAE sees it."""

import numpy as np
import pytest

from masklora.cache.fill import apply_fill
from masklora.errors import ConfigError, MaskError
from masklora.settings import FILLS

RNG = np.random.default_rng(1)


def scene(side=64):
    """A red square on a busy background, and its mask."""
    rgb = RNG.integers(0, 256, (side, side, 3), dtype=np.uint8)
    rgb[16:48, 16:48] = (200, 40, 20)
    mask = np.zeros((side, side), np.float32)
    mask[16:48, 16:48] = 1
    return rgb, mask


@pytest.mark.parametrize("kind", FILLS)
def test_learned_pixels_stay_exactly_as_they_were(kind):
    rgb, mask = scene()
    before = rgb.copy()
    out = apply_fill(rgb, mask, kind, seed=3)
    assert out.dtype == np.uint8 and out.shape == rgb.shape
    np.testing.assert_array_equal(out[mask == 1], rgb[mask == 1])
    np.testing.assert_array_equal(rgb, before)


@pytest.mark.parametrize("kind", FILLS)
def test_a_fill_is_deterministic_and_a_full_mask_changes_nothing(kind):
    rgb, mask = scene()
    np.testing.assert_array_equal(apply_fill(rgb, mask, kind, seed=3), apply_fill(rgb, mask, kind, seed=3))
    np.testing.assert_array_equal(apply_fill(rgb, np.ones_like(mask), kind), rgb)


@pytest.mark.parametrize("kind", [kind for kind in FILLS if kind not in ("keep", "blur")])
def test_nothing_of_the_hidden_outside_remains(kind):
    rgb, mask = scene()
    other = rgb.copy()
    other[mask == 0] = RNG.integers(0, 256, (int((mask == 0).sum()), 3))
    np.testing.assert_array_equal(apply_fill(rgb, mask, kind, seed=3), apply_fill(other, mask, kind, seed=3))


def test_keep_keeps_everything():
    rgb, mask = scene()
    np.testing.assert_array_equal(apply_fill(rgb, mask, "keep"), rgb)


def test_grey_is_grey_and_mean_colour_is_the_insides():
    rgb, mask = scene()
    assert (apply_fill(rgb, mask, "grey")[mask == 0] == 128).all()
    assert (apply_fill(rgb, mask, "mean colour")[mask == 0] == (200, 40, 20)).all()


def test_mean_colour_weighs_the_inside_by_the_mask():
    rgb = np.zeros((1, 3, 3), np.uint8)
    rgb[0, 0], rgb[0, 1] = 200, 100
    mask = np.array([[1, 0.5, 0]], np.float32)
    assert (apply_fill(rgb, mask, "mean colour")[0, 2] == round((200 + 50) / 1.5)).all()


def test_blur_removes_detail_but_keeps_the_colour():
    rgb, mask = scene(128)
    out = apply_fill(rgb, mask, "blur")
    outside = mask == 0
    assert out[outside].std() < 0.4 * rgb[outside].std()
    assert abs(float(out[outside].mean()) - float(rgb[outside].mean())) < 6


def test_noise_follows_its_seed_and_has_full_range():
    rgb, mask = scene()
    one, two = apply_fill(rgb, mask, "noise", seed=1), apply_fill(rgb, mask, "noise", seed=2)
    assert not np.array_equal(one, two)
    noise = one[mask == 0]
    assert noise.min() < 5 and noise.max() > 250 and abs(noise.mean() - 127.5) < 4


def test_inpainting_continues_the_inside():
    rgb, mask = scene()
    out = apply_fill(rgb, mask, "inpaint").astype(int)
    assert np.abs(out - (200, 40, 20)).max() <= 10


def test_soft_edges_mix_picture_and_filling_in_proportion():
    rgb = np.full((4, 5, 3), 228, np.uint8)
    mask = np.tile(np.array([1, 0.75, 0.5, 0.25, 0], np.float32), (4, 1))
    assert apply_fill(rgb, mask, "grey")[0, :, 0].tolist() == [228, 203, 178, 153, 128]
    assert (apply_fill(rgb, mask * 0 + np.float32(0.75), "grey") == 203).all()


@pytest.mark.parametrize("kind", ["mean colour", "inpaint", "blur", "noise", "grey"])
def test_an_empty_mask_is_filled_without_fault(kind):
    rgb, mask = scene()
    out = apply_fill(rgb, np.zeros_like(mask), kind)
    if kind in ("mean colour", "inpaint", "grey"):
        assert (out == 128).all()
    assert not np.array_equal(out, rgb)


@pytest.mark.parametrize("kind", FILLS)
def test_a_mask_that_is_grey_throughout_is_filled_without_fault(kind):
    rgb, mask = scene()
    for grey in (np.full_like(mask, 0.5), mask * 0.5, mask * 0.99 + 0.005):
        assert apply_fill(rgb, grey, kind).shape == rgb.shape


def test_sizes_that_differ_and_unknown_kinds_are_errors():
    rgb, mask = scene()
    with pytest.raises(MaskError, match="the mask is 32×64, the picture 64×64"):
        apply_fill(rgb, mask[:, :32], "grey")
    with pytest.raises(ConfigError, match=r"fill.*inpaint"):
        apply_fill(rgb, mask, "magic")
