"""Drawn shapes: form, coverage, place, and the circular shrink."""

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial import ConvexHull

from masklora.errors import ConfigError, MaskError
from masklora.generators.blobs import target_coverages
from masklora.generators.finding import Picture
from masklora.generators.shapes import ShapeSettings, check_shape_combine, check_shapes, shape_maker

DRAWN = ["ellipse", "rectangle", "polygon", "brush"]


def picture(size=(64, 96), *, mask=None, seed=0, index=0, count=1):
    return Picture("cat.png", np.full((*size, 3), 128, np.uint8), mask, seed, index, count)


def drawn(size=(64, 96), *, seed=0, **settings):
    return shape_maker(ShapeSettings(**settings))(picture(size, seed=seed)).mask


def at_coverage(coverage, size, **settings):
    return drawn(size, coverage_min=coverage, coverage_max=coverage, **settings)


@pytest.mark.parametrize("shape", DRAWN)
@pytest.mark.parametrize("size", [(16, 16), (16, 90), (64, 64), (301, 200)])
def test_a_shape_covers_what_was_asked(shape, size):
    for seed, coverage in enumerate((0.05, 0.2, 0.5, 0.77, 1.0)):
        mask = at_coverage(coverage, size, shape=shape, seed=seed, angle_jitter=20.0)
        assert mask.dtype == np.float32
        assert set(np.unique(mask)) <= {0, 1}
        assert abs(mask.sum() - coverage * mask.size) <= 1


@pytest.mark.parametrize("size", [(16, 16), (64, 64), (301, 200)])
def test_an_upright_rectangle_is_whole_rows_and_within_half_a_side_of_what_was_asked(size):
    for seed, coverage in enumerate((0.05, 0.2, 0.5)):
        mask = at_coverage(coverage, size, shape="rectangle", seed=seed)
        rows, columns = mask.any(axis=1), mask.any(axis=0)
        assert np.array_equal(mask, np.outer(rows, columns))
        assert abs(mask.sum() - coverage * mask.size) <= max(rows.sum(), columns.sum()) / 2 + 1


@pytest.mark.parametrize("shape", DRAWN)
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (2, 2), (3, 40)])
def test_the_smallest_pictures_get_a_shape(shape, size):
    for seed in range(5):
        mask = drawn(size, shape=shape, seed=seed, angle_jitter=180.0)
        assert mask.shape == size
        assert mask.any()


@pytest.mark.parametrize("shape", DRAWN)
def test_the_seed_alone_decides_a_shape(shape):
    settings = {"shape": shape, "angle_jitter": 90.0}
    assert np.array_equal(drawn(seed=3, **settings), drawn(seed=3, **settings))
    assert not np.array_equal(drawn(seed=3, **settings), drawn(seed=4, **settings))


def test_the_shapes_of_a_set_span_the_asked_coverages():
    make = shape_maker(ShapeSettings(shape="ellipse", coverage_min=0.1, coverage_max=0.4, seed=5))
    shares = [make(picture(seed=i, index=i, count=6)).mask.mean() for i in range(6)]
    assert np.abs(shares - target_coverages(6, 0.1, 0.4, seed=5)).max() <= 1 / (64 * 96)


@pytest.mark.parametrize("shape", ["ellipse", "rectangle", "polygon"])
def test_a_shape_that_fits_lies_inside_the_picture_in_one_piece(shape):
    for seed in range(20):
        mask = at_coverage(0.1, (120, 120), shape=shape, seed=seed, angle_jitter=180.0)
        assert ndimage.label(mask, structure=np.ones((3, 3)))[1] == 1
        border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
        assert border.mean() < 0.02


def test_places_reach_every_quarter_of_the_picture():
    centres = [ndimage.center_of_mass(at_coverage(0.05, (80, 80), seed=seed)) for seed in range(40)]
    assert {(y > 40, x > 40) for y, x in centres} == {(a, b) for a in (False, True) for b in (False, True)}


def test_a_rectangle_fills_its_box_to_the_pixel():
    mask = drawn((50, 60), shape="rectangle", box="10, 5, 20, 30")
    expected = np.zeros((50, 60))
    expected[5:35, 10:30] = 1
    assert np.array_equal(mask, expected)
    left = np.hstack([np.ones((50, 30)), np.zeros((50, 30))])
    assert np.array_equal(drawn((50, 60), shape="rectangle", box="0, 0, 0.5, 1"), left)


def test_an_ellipse_fills_its_box_with_pi_quarters_of_it():
    mask = drawn((200, 300), shape="ellipse", box="50, 20, 200, 160")
    y, x = np.mgrid[:200, :300] + 0.5
    assert np.array_equal(mask, ((x - 150) / 100) ** 2 + ((y - 100) / 80) ** 2 <= 1)


@pytest.mark.parametrize("shape", DRAWN)
def test_nothing_is_drawn_outside_the_box(shape):
    for seed in range(5):
        mask = drawn((90, 120), shape=shape, box="30, 20, 60, 50", seed=seed)
        assert mask[20:70, 30:90].any()
        assert mask.sum() == mask[20:70, 30:90].sum()


def test_a_box_smaller_than_a_pixel_marks_the_pixel_it_lies_in():
    mask = drawn((10, 10), shape="ellipse", box="0.51, 0.22, 0.01, 0.01")
    assert mask.sum() == 1
    assert mask[2, 5] == 1


def test_a_polygon_has_the_asked_corners():
    mask = at_coverage(0.3, (300, 300), shape="polygon", corners=3, aspect=1.0, seed=1)
    rows, columns = np.nonzero(mask)
    hull = ConvexHull(np.stack([columns, rows], axis=1))
    assert mask.sum() / hull.volume > 0.97


def test_the_angle_turns_clockwise():
    level = at_coverage(0.1, (100, 100), shape="rectangle", aspect=4.0)
    rows, columns = np.nonzero(level)
    assert np.ptp(columns) > 3 * np.ptp(rows)
    turned = at_coverage(0.1, (100, 100), shape="rectangle", aspect=4.0, angle=30.0)
    rows, columns = np.nonzero(turned)
    slope = np.polyfit(columns, rows, 1)[0]
    assert 0.3 < slope < 0.9


def test_more_strokes_and_thinner_ones():
    thin = at_coverage(0.2, (200, 200), shape="brush", stroke_width=0.03)
    wide = at_coverage(0.2, (200, 200), shape="brush", stroke_width=0.2)
    inside = [ndimage.distance_transform_edt(mask).max() for mask in (thin, wide)]
    assert inside[1] > 2 * inside[0]


def test_circular_shrink_keeps_a_disc_of_the_mask_that_is_there():
    mask = np.zeros((64, 96), np.float32)
    mask[10:50, 20:80] = 0.5
    before = mask.copy()
    make = shape_maker(ShapeSettings(shape="circular shrink", shrink_min=0.3, shrink_max=0.5))
    shares = []
    for seed in range(12):
        finding = make(picture(mask=mask, seed=seed))
        assert set(np.unique(finding.mask)) == {0, 0.5}
        assert (finding.mask <= mask).all()
        shares.append(finding.mask.sum() / mask.sum())
        told = int(finding.note.removeprefix("kept ").removesuffix("% of the mask in a disc"))
        assert abs(told / 100 - shares[-1]) <= 0.0051
    assert 0.02 < min(shares) < max(shares) < 0.9
    assert np.array_equal(mask, before)


def test_circular_shrink_by_nothing_keeps_the_mask():
    mask = np.linspace(0, 1, 64 * 96, dtype=np.float32).reshape(64, 96)
    make = shape_maker(ShapeSettings(shape="circular shrink", shrink_min=1.0))
    assert np.array_equal(make(picture(mask=mask)).mask, mask)


def test_circular_shrink_of_a_picture_without_a_mask_follows_its_setting():
    make = shape_maker(ShapeSettings(shape="circular shrink"))
    with pytest.raises(MaskError, match=r"cat.png: circular shrink keeps .* set without_mask to whole picture"):
        make(picture())
    whole = ShapeSettings(shape="circular shrink", without_mask="whole picture", shrink_max=0.5)
    assert 0 < shape_maker(whole)(picture()).mask.mean() < 1


def test_circular_shrink_of_an_empty_mask_finds_nothing():
    finding = shape_maker(ShapeSettings(shape="circular shrink"))(picture(mask=np.zeros((64, 96), np.float32)))
    assert finding.mask is None
    assert finding.note == "the mask that is there is empty"


@pytest.mark.parametrize("combine", ["fill missing only", "union"])
def test_circular_shrink_refuses_to_be_combined_without_effect(combine):
    with pytest.raises(ConfigError, match=f"combine: {combine} leaves every mask as it is.* Choose replace"):
        check_shape_combine(ShapeSettings(shape="circular shrink"), combine)
    check_shape_combine(ShapeSettings(shape="ellipse"), combine)
    check_shape_combine(ShapeSettings(shape="circular shrink"), "replace")


@pytest.mark.parametrize("shape", DRAWN)
def test_a_huge_picture_gets_a_shape(shape):
    mask = at_coverage(0.3, (6000, 8000), shape=shape, angle=10.0)
    assert abs(np.count_nonzero(mask) - 14_400_000) <= 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": "star"}, "shape: "),
        ({"coverage_min": 0.9}, "coverage_min: 0.9 lies above coverage_max 0.5"),
        ({"box": "1, 2"}, 'box: expected "x, y, width, height" in pixels'),
        ({"angle": 200.0}, "angle: expected -180 to 180"),
        ({"aspect": -1.0}, "aspect: expected 0 to 20"),
        ({"aspect": 0.04}, "aspect: expected 0 or at least 0.05"),
        ({"corners": 2}, "corners: expected 3 to 32"),
        ({"shrink_min": 0.0}, "shrink_min: expected 0.01 to 1"),
        ({"shrink_min": 0.9, "shrink_max": 0.5}, "shrink_min: 0.9 lies above shrink_max 0.5"),
        ({"without_mask": "maybe"}, "without_mask: "),
        ({"feather": -1.0}, "feather: expected 0 to 256"),
    ],
)
def test_settings_out_of_range_name_the_widget(changes, message):
    with pytest.raises(ConfigError, match=message):
        check_shapes(ShapeSettings(**changes))


def test_a_box_outside_a_picture_names_the_picture():
    with pytest.raises(MaskError, match=r"cat.png: box .* lies outside the picture"):
        drawn((64, 64), shape="rectangle", box="100, 100, 10, 10")
