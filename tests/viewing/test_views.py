"""Pictures that show a mask to the eye."""

import numpy as np
import pytest

from masklora.errors import MaskError
from masklora.viewing.views import contact_sheet, cutout, latent_grid, overlay

RNG = np.random.default_rng(2)


def picture(height=64, width=96):
    return RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)


def left_half(height=64, width=96):
    mask = np.zeros((height, width), np.float32)
    mask[:, : width // 2] = 1
    return mask


def test_overlay_tints_what_is_ignored_and_nothing_else():
    rgb, mask = picture(), left_half()
    out = overlay(rgb, mask, colour=(255, 0, 0), opacity=0.5)
    np.testing.assert_array_equal(out[:, :48], rgb[:, :48])
    np.testing.assert_allclose(out[:, 48:], rgb[:, 48:] * 0.5 + np.array([127.5, 0, 0]), atol=0.51)
    assert (overlay(rgb, mask * 0, colour=(1, 2, 3), opacity=1.0) == (1, 2, 3)).all()


def test_cutout_shows_the_inside_on_a_board_that_hides_the_outside():
    rgb, mask = picture(), left_half()
    out = cutout(rgb, mask)
    np.testing.assert_array_equal(out[:, :48], rgb[:, :48])
    assert set(np.unique(out[:, 48:])) == {150, 200}


def test_latent_grid_darkens_cells_by_their_weight():
    rgb = np.full((64, 96, 3), 200, np.uint8)
    weights = np.zeros((8, 12), np.float32)
    weights[2, 3] = 1
    weights[2, 4] = 0.5
    out = latent_grid(rgb, weights)
    assert out.shape == rgb.shape and out[20, 28, 0] == 200
    assert out[20, 36, 0] == round(200 * 0.575) and out[60, 90, 0] == 30
    assert (out[8] == 96).all() and (out[:, 8] == 96).all()


def test_latent_grid_covers_sizes_that_the_stride_does_not_divide():
    assert latent_grid(picture(61, 97), np.ones((8, 12), np.float32)).shape == (61, 97, 3)
    assert latent_grid(picture(5, 5), np.ones((8, 8), np.float32)).shape == (5, 5, 3)


def test_large_cells_carry_their_weight_as_a_number():
    rgb = np.full((64, 64, 3), 90, np.uint8)
    out = latent_grid(rgb, np.ones((2, 2), np.float32))
    assert out.max() > 200


def test_contact_sheet_places_pictures_row_by_row():
    colours = [(250, 0, 0), (0, 250, 0), (0, 0, 250)]
    sheet = contact_sheet([np.full((40, 40, 3), c, np.uint8) for c in colours], columns=2, side=32)
    assert sheet.shape == (2 * 36 + 4, 2 * 36 + 4, 3)
    assert tuple(sheet[20, 20]) == colours[0] and tuple(sheet[20, 56]) == colours[1]
    assert tuple(sheet[56, 20]) == colours[2] and tuple(sheet[56, 56]) == (32, 32, 32)


def test_contact_sheet_keeps_aspects_and_takes_any_number():
    wide = contact_sheet([np.full((10, 100, 3), 255, np.uint8)], columns=4, side=50)
    assert wide.shape == (13, 58, 3) and (wide == 255).all(axis=2).sum() == 50 * 5
    assert contact_sheet([], 4).ndim == 3
    assert contact_sheet([picture(3, 500)], 0, side=32).shape == (9, 40, 3)


def test_sizes_that_differ_are_errors():
    for show in (overlay, cutout):
        with pytest.raises(MaskError, match="the mask is 48×64, the picture 96×64"):
            show(picture(), left_half()[:, :48])


def test_inputs_are_never_changed():
    rgb, mask = picture(), left_half()
    before = rgb.copy(), mask.copy()
    overlay(rgb, mask), cutout(rgb, mask), latent_grid(rgb, mask[::8, ::8]), contact_sheet([rgb])
    np.testing.assert_array_equal(rgb, before[0])
    np.testing.assert_array_equal(mask, before[1])
