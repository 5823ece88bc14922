"""Colour keys: the colour space, what is found of a scene whose truth is exact, points, and messages."""

import cv2
import numpy as np
import pytest

from masklora.errors import ConfigError, MaskError
from masklora.generators.colour import (
    ColourSettings,
    check_colours,
    colour_maker,
    colour_weights,
    parse_colours,
    to_lab,
)
from masklora.generators.finding import Picture


def reference_lab(rgb):
    """CIE 15 and IEC 61966-2-1, in float64."""
    c = rgb / 255
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    matrix = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]]
    t = linear @ np.array(matrix).T / [0.95047, 1, 1.08883]
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1)


def picture(rgb):
    return Picture("cat.png", np.ascontiguousarray(rgb, np.uint8))


def found(rgb, **settings):
    return colour_maker(ColourSettings(**settings))(picture(rgb))


def iou(mask, truth):
    a, b = mask > 0.5, truth > 0.5
    return (a & b).sum() / (a | b).sum()


def green_screen(seed=0, size=(240, 320)):
    """A figure of many colours before an uneven, noisy green screen, and the figure's exact truth."""
    rng = np.random.default_rng(seed)
    height, width = size
    screen = np.full((*size, 3), [20.0, 180.0, 60.0])
    screen *= 0.85 + 0.3 * np.linspace(0, 1, width)[None, :, None]
    truth = np.zeros(size, np.uint8)
    cv2.ellipse(truth, (width // 2, height // 2), (80, 60), 20, 0, 360, 1, -1)
    cv2.rectangle(truth, (150, 150), (190, 235), 1, -1)
    figure = cv2.resize(rng.uniform(0, 255, (6, 8, 3)), (width, height), interpolation=cv2.INTER_NEAREST)
    figure[..., 1] *= 0.6
    scene = np.where(truth[..., None] > 0, figure, screen) + rng.normal(0, 6, (*size, 3))
    return scene.clip(0, 255).astype(np.uint8), truth


def test_lab_is_cie_lab_of_srgb_in_daylight():
    rgb = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    assert np.abs(to_lab(rgb) - reference_lab(rgb.astype(np.float64))).max() < 0.5
    corners = np.array([[[0, 0, 0], [255, 255, 255]]], np.uint8)
    assert np.abs(to_lab(corners) - [[[0, 0, 0], [100, 0, 0]]]).max() < 0.05


def test_the_tolerance_is_the_distance_in_lab():
    rgb = np.random.default_rng(1).integers(0, 256, (80, 80, 3)).astype(np.uint8)
    key = np.array([[200, 40, 90]], np.uint8)
    distance = np.linalg.norm(reference_lab(rgb.astype(float)) - reference_lab(key.astype(float))[0], axis=-1)
    weights = colour_weights(rgb, key, tolerance=40, softness=0, luminance=(0, 100))
    clear = np.abs(distance - 40) > 1
    assert np.array_equal(weights[clear], distance[clear] < 40)
    assert 50 < weights.sum() < 6000


def test_the_key_itself_is_found_at_tolerance_zero_and_nothing_else():
    rgb = np.zeros((4, 4, 3), np.uint8)
    rgb[1, 2] = 18, 52, 86
    finding = found(rgb, colours="#123456", tolerance=0.0)
    assert finding.mask.sum() == 1
    assert finding.mask[1, 2] == 1


@pytest.mark.parametrize("seed", range(4))
def test_a_figure_before_a_green_screen_is_found_by_inverting_the_key(seed):
    rgb, truth = green_screen(seed)
    assert iou(found(rgb, colours="#14b43c", invert=True).mask, truth) >= 0.95


def test_flat_colours_are_found_exactly():
    truth = np.zeros((120, 90), np.uint8)
    cv2.circle(truth, (40, 60), 30, 1, -1)
    rgb = np.where(truth[..., None] > 0, np.uint8([200, 30, 30]), np.uint8([40, 60, 200]))
    assert np.array_equal(found(rgb, colours="#c81e1e", tolerance=5.0).mask, truth)


def test_several_colours_are_united():
    rgb = np.zeros((10, 30, 3), np.uint8)
    rgb[:, :10], rgb[:, 10:20], rgb[:, 20:] = (255, 0, 0), (0, 0, 255), (0, 255, 0)
    mask = found(rgb, colours="#f00, #0000ff", tolerance=5.0).mask
    assert mask[:, :20].all()
    assert not mask[:, 20:].any()


def test_a_luminance_range_is_in_lightness_from_black_to_white():
    grey = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    light = reference_lab(grey.astype(float))[0, :, 0]
    mask = found(grey, colours="", luminance_min=30.0, luminance_max=70.0).mask[0]
    clear = np.minimum(abs(light - 30), abs(light - 70)) > 0.2
    assert np.array_equal(mask[clear] > 0, ((light > 30) & (light < 70))[clear])
    assert found(grey, colours="", luminance_min=50.0).mask[0, 255] == 1
    assert found(grey, colours="", luminance_max=50.0).mask[0, 0] == 1


def test_colour_and_luminance_must_both_fit():
    rgb = np.zeros((2, 2, 3), np.uint8)
    rgb[0, 0], rgb[0, 1] = (255, 0, 0), (90, 0, 0)
    mask = found(rgb, colours="#b40000", tolerance=60.0, luminance_min=30.0).mask
    assert mask.tolist() == [[1, 0], [0, 0]]


def test_only_what_hangs_together_with_the_point_is_found():
    rgb = np.zeros((60, 100, 3), np.uint8)
    rgb[10:40, 10:40] = rgb[10:40, 60:90] = 255, 0, 0
    both = found(rgb, colours="#ff0000").mask
    one = found(rgb, colours="#ff0000", point="70, 20").mask
    assert both.sum() == 1800
    assert one.sum() == 900
    assert one[20, 70] == 1
    assert np.array_equal(one, found(rgb, colours="#ff0000", point="0.7, 0.34").mask)


def test_the_key_can_be_the_colour_at_the_point():
    rgb = np.random.default_rng(0).normal(0, 5, (80, 80, 3)) + 60
    rgb[20:60, 20:60] += [120, 30, 0]
    finding = found(rgb.clip(0, 255), point="40, 40", colour_from_point=True)
    truth = np.zeros((80, 80))
    truth[20:60, 20:60] = 1
    assert iou(finding.mask, truth) >= 0.95
    assert finding.note.startswith("key #b")


def test_a_speck_under_the_point_does_not_decide_the_key():
    rgb = np.full((20, 20, 3), [30, 60, 200], np.uint8)
    rgb[10, 10] = 255, 255, 0
    finding = found(rgb, point="10, 10", colour_from_point=True)
    assert finding.note == "key #1e3cc8"
    assert finding.mask.sum() == 399


@pytest.mark.parametrize("seed", range(5))
def test_a_point_in_pure_noise_finds_at_least_a_pixel_beside_it(seed):
    noise = np.random.default_rng(seed).integers(0, 256, (30, 30, 3))
    mask = found(noise, point="15, 15", colour_from_point=True, tolerance=1.0).mask
    assert mask[14:17, 14:17].any()


def test_a_soft_edge_falls_with_the_difference_of_colour():
    grey = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    row = found(grey, colours="#000", tolerance=20.0, softness=40.0).mask[0]
    light = reference_lab(grey.astype(float))[0, :, 0]
    assert np.abs(row - np.clip(1 - (light - 20) / 40, 0, 1)).max() < 0.01
    inverted = found(grey, colours="#000", tolerance=20.0, softness=40.0, invert=True).mask[0]
    assert np.abs(row + inverted - 1).max() < 1e-6


def test_inverting_finds_nothing_where_the_key_is_missing():
    finding = found(np.full((20, 20, 3), 128), colours="#00ff00", invert=True)
    assert finding.mask is None
    assert finding.note == "no pixel within ΔE 25 of #00ff00"


def test_a_point_of_another_colour_finds_nothing_and_says_how_far_it_is():
    rgb = np.zeros((20, 20, 3), np.uint8)
    rgb[:10] = 255, 0, 0
    finding = found(rgb, colours="#ff0000", point="5, 15")
    assert finding.mask is None
    assert finding.note == "the point (#000000, L* 0) is ΔE 117 from #ff0000, more than 25"
    dark = found(rgb, colours="#000000", point="5, 15", luminance_min=10.0)
    assert dark.note == "the point's lightness is outside the range (#000000, L* 0)"


@pytest.mark.parametrize("value", [0, 77, 255])
def test_flat_pictures_are_found_whole_or_not_at_all(value):
    flat = np.full((30, 40, 3), value, np.uint8)
    key = f"#{value:02x}{value:02x}{value:02x}"
    assert found(flat, colours=key, tolerance=1.0).mask.all()
    inverted = found(flat, colours=key, tolerance=1.0, invert=True)
    assert inverted.mask is None
    assert inverted.note == "all of the picture has such a colour, so inverted nothing is left"
    assert found(flat, colours="#ff00ff", tolerance=30.0).mask is None


def test_a_single_pixel_is_enough():
    pixel = np.array([[[1, 2, 3]]], np.uint8)
    assert found(pixel, point="0, 0", colour_from_point=True).mask.tolist() == [[1]]
    assert found(pixel, colours="#010203", point="1, 1").mask.tolist() == [[1]]


def test_a_huge_picture_is_searched_in_strips():
    rgb = np.zeros((6000, 8000, 3), np.uint8)
    rgb[1000:3000, 2000:7000] = 0, 255, 0
    mask = found(rgb, point="4000, 2000").mask
    assert np.count_nonzero(mask) == 10_000_000
    assert mask[1000:3000, 2000:7000].all()


def test_the_picture_is_not_changed():
    rgb, _ = green_screen()
    before = rgb.copy()
    found(rgb, colours="#14b43c", softness=10.0, invert=True)
    assert np.array_equal(rgb, before)


@pytest.mark.parametrize("text", ["#12345", "red", "#gggggg", "#00ff00; blue", "0x00ff00"])
def test_what_is_no_colour_is_named(text):
    with pytest.raises(ConfigError, match=r"colours: expected colours such as #00ff00, .* got '"):
        check_colours(ColourSettings(colours=text))


def test_colours_are_read_with_and_without_hash_long_and_short():
    assert parse_colours(" #FF8000, 0f0 ;#123456 ").tolist() == [[255, 128, 0], [0, 255, 0], [18, 52, 86]]
    assert parse_colours("").shape == (0, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tolerance": -1.0}, "tolerance: expected 0 to 200"),
        ({"luminance_min": 60.0, "luminance_max": 40.0}, "luminance_min: 60 lies above luminance_max 40"),
        ({"colours": " "}, "colours: expected colours .* got none"),
        ({"colour_from_point": True}, "colour_from_point: there is no point"),
        ({"point": "5"}, 'point: expected "x, y" in pixels'),
        ({"colours": ", ".join(["#000"] * 17)}, "colours: expected at most 16 colours, got 17"),
    ],
)
def test_settings_that_cannot_be_meant_name_the_widget(changes, message):
    with pytest.raises(ConfigError, match=message):
        check_colours(ColourSettings(**changes))


def test_a_point_outside_the_picture_names_the_picture():
    with pytest.raises(MaskError, match=r"cat.png: point '50, 5' lies outside the picture, which is 20×20"):
        found(np.zeros((20, 20, 3)), point="50, 5")
