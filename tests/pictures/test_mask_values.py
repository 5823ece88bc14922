"""What the numbers of a mask file mean, in every form in which tools write masks."""

import cv2
import numpy as np
import pytest
from PIL import Image

from masklora.pictures.mask_values import DOUBTS, READ, understand
from masklora.pictures.reading import read_mask_values

H, W = 40, 60


def shape(soft=False):
    """A round thing in the middle, 0 to 1."""
    y, x = np.indices((H, W))
    distance = np.hypot(y - 19, x - 29)
    return np.clip((14 - distance) / 6 + 0.5, 0, 1) if soft else (distance < 14).astype(float)


def save(tmp_path, array, name="m.png"):
    path = tmp_path / name
    if array.dtype == np.uint16:
        cv2.imwrite(str(path), array[..., [2, 1, 0, 3][: array.shape[2]]] if array.ndim == 3 else array)
    else:
        Image.fromarray(array).save(path, **({"quality": 90} if name.endswith("jpg") else {}))
    return path


def coloured(values, colour):
    return np.rint(values[..., None] * np.array(colour)).astype(np.uint8)


def with_alpha(colours, alpha):
    return np.dstack([colours, np.rint(alpha * 255).astype(np.uint8)])


def photograph():
    rng = np.random.default_rng(5)
    small = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return cv2.resize(small, (W, H), interpolation=cv2.INTER_CUBIC)


ONES = shape()
READ_RIGHT = {
    "0 and 1": (ONES.astype(np.uint8), "zero and one"),
    "0 and 1 in three bands": (np.repeat(ONES.astype(np.uint8)[..., None], 3, 2), "zero and one"),
    "0 and 1 in sixteen bits": (ONES.astype(np.uint16), "zero and one"),
    "255 in sixteen bits": ((ONES * 255).astype(np.uint16), "eight of sixteen bits"),
    "255 in sixteen bits and three bands": (
        np.repeat((ONES * 255).astype(np.uint16)[..., None], 3, 2),
        "eight of sixteen bits",
    ),
    "red": (coloured(ONES, (255, 0, 0)), "one colour"),
    "dark red, as of a palette of classes": (coloured(ONES, (128, 0, 0)), "one colour"),
    "magenta": (coloured(ONES, (255, 0, 255)), "one colour"),
    "orange": (coloured(ONES, (255, 128, 0)), "one colour"),
    "yellow in sixteen bits": (coloured(ONES, (255, 255, 0)).astype(np.uint16) * 257, "one colour"),
    "white, shape in alpha": (with_alpha(np.full((H, W, 3), 255, np.uint8), ONES), "alpha"),
    "black, shape in alpha": (with_alpha(np.zeros((H, W, 3), np.uint8), ONES), "alpha"),
    "shape in an alpha of 255 in sixteen bits": (
        np.dstack([np.full((H, W, 3), 65535, np.uint16), (ONES * 255).astype(np.uint16)]),
        "alpha",
    ),
    "shape in an alpha of 0 and 1 in sixteen bits": (
        np.dstack([np.zeros((H, W, 3), np.uint16), ONES.astype(np.uint16)]),
        "alpha",
    ),
    "photograph, cut out": (with_alpha(photograph(), ONES), "alpha"),
    "white where it is seen, black elsewhere": (with_alpha(coloured(ONES, (255, 255, 255)), ONES), ""),
    "plain": ((ONES * 255).astype(np.uint8), ""),
    "plain in sixteen bits": ((ONES * 65535).astype(np.uint16), ""),
    "opaque": (with_alpha(coloured(ONES, (255, 255, 255)), np.ones((H, W))), ""),
    "nearly opaque": (with_alpha(coloured(ONES, (255, 255, 255)), np.full((H, W), 254 / 255)), ""),
}


@pytest.mark.parametrize(("array", "read"), READ_RIGHT.values(), ids=READ_RIGHT)
def test_what_can_mean_one_thing_only_is_read_so(tmp_path, array, read):
    found = read_mask_values(save(tmp_path, array))
    assert (found.read, found.doubt) == (read, "")
    np.testing.assert_allclose(found.weights, ONES, atol=1e-6)
    assert read == "" or read in READ


SOFT = shape(soft=True)


@pytest.mark.parametrize(
    "array",
    [
        coloured(SOFT, (255, 0, 0)),
        with_alpha(np.full((H, W, 3), 255, np.uint8), SOFT),
        with_alpha(photograph(), SOFT),
        np.rint(SOFT * 255).astype(np.uint16),
    ],
    ids=["red", "white with alpha", "cut out", "sixteen bits"],
)
def test_soft_masks_keep_their_shades(tmp_path, array):
    found = read_mask_values(save(tmp_path, array))
    assert found.read and not found.doubt
    np.testing.assert_allclose(found.weights, SOFT, atol=1 / 255)


def classes(*values):
    out = np.zeros((H, W), np.uint8)
    for i, value in enumerate(values):
        out[4:30, 4 + 12 * i : 14 + 12 * i] = value
    return out


def map_of(*colours):
    out = np.zeros((H, W, 3), np.uint8)
    for i, colour in enumerate(colours):
        out[4:30, 4 + 12 * i : 14 + 12 * i] = colour
    return out


STORED = {
    "classes": (classes(1, 2, 3), "class numbers"),
    "one class of a high number": (classes(15), "class numbers"),
    "classes with a rim of 255": (np.maximum(classes(7, 12), classes(0, 0, 0, 255) // 1), "class numbers"),
    "map of colours": (map_of((255, 0, 0), (0, 255, 0)), "several colours"),
    "palette of classes": (map_of((128, 0, 0), (0, 128, 0), (128, 128, 0)), "several colours"),
    "red beside white": (map_of((255, 0, 0), (255, 255, 255)), "several colours"),
    "half grey": ((ONES * 128).astype(np.uint8), "dim"),
    "twelve bits in sixteen": ((ONES * 4095).astype(np.uint16), "dim"),
    "grey shades with another alpha": (
        with_alpha(np.repeat(np.linspace(0, 255, W, dtype=np.uint8)[None, :, None], H, 0).repeat(3, 2), ONES),
        "grey and alpha",
    ),
    "black": (np.zeros((H, W), np.uint8), ""),
    "white": (np.full((H, W), 255, np.uint8), ""),
}


@pytest.mark.parametrize(("array", "doubt"), STORED.values(), ids=STORED)
def test_what_may_mean_several_things_stays_as_stored_and_is_told(tmp_path, array, doubt):
    found = read_mask_values(save(tmp_path, array))
    assert (found.read, found.doubt) == ("", doubt)
    assert doubt == "" or doubt in DOUBTS
    scale = np.iinfo(array.dtype).max
    grey = array if array.ndim == 2 else array[..., :3] @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(found.weights, grey / scale, atol=1e-5)


def test_jpeg_masks_are_grey_whatever_their_noise(tmp_path):
    found = read_mask_values(save(tmp_path, coloured(ONES, (255, 255, 255)), "m.jpg"))
    assert (found.read, found.doubt) == ("", "")


@pytest.mark.parametrize("seed", range(20))
def test_photographs_are_never_stretched(seed):
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (rng.integers(2, 9), rng.integers(2, 9), 3), dtype=np.uint8)
    picture = cv2.resize(small, (W, H), interpolation=cv2.INTER_CUBIC)
    found = understand(picture, None, 255, "luminance")
    np.testing.assert_allclose(found.weights, picture @ np.array([0.299, 0.587, 0.114]) / 255, atol=1e-5)


@pytest.mark.parametrize("channel", ["red", "rgb average"])
def test_a_channel_that_was_chosen_is_taken_but_for_its_scale(channel):
    mask = map_of((1, 0, 0), (1, 1, 1))
    found = understand(mask, None, 255, channel)
    wanted = mask[..., 0] if channel == "red" else mask.mean(axis=2)
    np.testing.assert_allclose(found.weights, wanted, atol=1e-6)
    red = understand(map_of((255, 0, 0), (0, 255, 0)), None, 255, "red")
    assert (red.read, red.doubt) == ("", "") and set(np.unique(red.weights)) == {0, 1}


def test_alpha_of_zero_and_one_has_that_scale():
    colours = np.full((H, W, 3), 200, np.uint8)
    for channel in ("alpha", "luminance"):
        np.testing.assert_array_equal(understand(colours, ONES.astype(np.uint8), 255, channel).weights, ONES)


@pytest.mark.parametrize(("top", "doubt"), [(3, "class numbers"), (120, "dim"), (230, "")])
def test_a_shape_in_an_alpha_of_another_scale_is_taken_and_told(tmp_path, top, doubt):
    array = np.dstack([np.full((H, W, 3), 255, np.uint8), (ONES * top).astype(np.uint8)])
    found = read_mask_values(save(tmp_path, array))
    assert (found.read, found.doubt) == ("alpha", doubt)
    np.testing.assert_allclose(found.weights, ONES * top / 255, atol=1e-6)


@pytest.mark.parametrize(("top", "read"), [(1, "zero and one"), (255, "eight of sixteen bits")])
def test_dark_masks_of_sixteen_bits_in_colour_modes_are_not_black(tmp_path, top, read):
    """Pillow gives the upper eight bits of a TIFF in RGB, in which these are black."""
    array = np.repeat((ONES * top).astype(np.uint16)[..., None], 3, 2)
    found = read_mask_values(save(tmp_path, array, "m.tif"))
    assert (found.read, found.doubt) == (read, "") and found.mark != read
    np.testing.assert_allclose(found.weights, ONES, atol=1e-6)
    whole = read_mask_values(save(tmp_path, array * (65535 // top), "whole.tif"))
    assert whole.mark == "" and np.array_equal(whole.weights, found.weights)
