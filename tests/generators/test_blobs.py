"""Random blobs: coverage to the pixel, the spread over a set, the number of islands."""

import numpy as np
import pytest
from scipy import ndimage

from masklora.errors import ConfigError
from masklora.generators.blobs import (
    BlobSettings,
    blob_maker,
    check_blobs,
    count_components,
    random_blobs,
    target_coverages,
    top_pixels,
)
from masklora.generators.finding import Picture

SIZES = [(16, 16), (16, 200), (33, 17), (64, 64), (300, 211), (1024, 1024)]


def islands(mask):
    return ndimage.label(mask, structure=np.ones((3, 3)))[1]


def picture(size=(60, 80), *, seed=0, index=0, count=1):
    return Picture("cat.png", np.zeros((*size, 3), np.uint8), None, seed, index, count)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("count", [0, 1, 4])
def test_the_coverage_is_exact_to_a_pixel_at_any_size(size, count):
    settings = BlobSettings(count=count)
    for seed, coverage in enumerate((0.02, 0.1, 0.333, 0.5, 0.8, 1.0)):
        mask = random_blobs(size, coverage=coverage, settings=settings, seed=seed)
        assert mask.dtype == np.float32
        assert mask.shape == size
        assert set(np.unique(mask)) <= {0, 1}
        assert abs(mask.sum(dtype=np.float64) - coverage * mask.size) <= 1


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (3, 1), (2, 2), (5, 4)])
@pytest.mark.parametrize("count", [0, 1, 9])
def test_the_smallest_pictures_get_a_mask_of_at_least_a_pixel(size, count):
    for coverage in (0.001, 0.5, 1.0):
        mask = random_blobs(size, coverage=coverage, settings=BlobSettings(count=count), seed=1)
        assert mask.sum() == max(1, round(coverage * mask.size))


def test_pixels_are_counted_off_also_where_all_are_equal():
    for count in (1, 7, 12):
        assert top_pixels(np.full((3, 4), 5, np.float32), count).sum() == count
    assert top_pixels(np.arange(12, dtype=np.float32).reshape(3, 4), 2).tolist()[2] == [0, 0, 1, 1]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_the_seed_alone_decides_the_blobs(count):
    settings = BlobSettings(count=count)
    first, same, other = (random_blobs((90, 70), coverage=0.3, settings=settings, seed=seed) for seed in (5, 5, 6))
    assert np.array_equal(first, same)
    assert np.abs(first - other).mean() > 0.1


@pytest.mark.parametrize("size", [(16, 16), (64, 40), (40, 200), (512, 512)])
@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_as_many_blobs_as_asked_for_that_do_not_touch_even_by_corners(size, count):
    for seed in range(6):
        for coverage in (0.1, 0.3, 0.5):
            mask = random_blobs(size, coverage=coverage, settings=BlobSettings(count=count), seed=seed)
            assert islands(mask) == count == count_components(mask)


def test_blobs_are_not_discs():
    solid = []
    for seed in range(8):
        mask = random_blobs((200, 200), coverage=0.15, settings=BlobSettings(count=1), seed=seed)
        rows, columns = np.nonzero(mask)
        reach = np.hypot(rows - rows.mean(), columns - columns.mean()).max()
        solid.append(mask.sum() / (np.pi * reach**2))
    assert max(solid) < 0.9


def test_smoothness_makes_blobs_fewer_and_larger():
    def mean_islands(smoothness):
        settings = BlobSettings(smoothness=smoothness)
        masks = [random_blobs((256, 256), coverage=0.3, settings=settings, seed=seed) for seed in range(5)]
        return np.mean([islands(mask) for mask in masks])

    assert mean_islands(0.05) > 4 * mean_islands(0.4)


def test_the_same_blobs_at_every_scale():
    settings = BlobSettings()
    small = random_blobs((128, 192), coverage=0.3, settings=settings, seed=3)
    large = random_blobs((512, 768), coverage=0.3, settings=settings, seed=3)
    reduced = large.reshape(128, 4, 192, 4).mean(axis=(1, 3)) > 0.5
    assert np.abs(small - reduced).mean() < 0.02


@pytest.mark.parametrize("count", [2, 3, 5, 11, 40])
@pytest.mark.parametrize("seed", range(20))
def test_the_set_spans_at_least_four_fifths_of_the_asked_range(count, seed):
    drawn = target_coverages(count, 0.1, 0.8, seed=seed)
    assert drawn.shape == (count,)
    assert drawn.min() >= 0.1
    assert drawn.max() <= 0.8
    assert drawn.max() - drawn.min() >= 0.8 * 0.7


def test_coverages_fill_the_range_evenly_in_a_random_order():
    drawn = target_coverages(50, 0.0, 1.0, seed=2)
    assert np.abs(np.sort(drawn) - (np.arange(50) + 0.5) / 50).max() <= 0.01
    assert np.abs(np.corrcoef(drawn, np.arange(50))[0, 1]) < 0.5
    assert np.array_equal(drawn, target_coverages(50, 0.0, 1.0, seed=2))
    assert not np.array_equal(drawn, target_coverages(50, 0.0, 1.0, seed=3))


def test_a_range_of_one_value_gives_that_value():
    assert target_coverages(3, 0.3, 0.3, seed=0).tolist() == [0.3] * 3


def test_the_masks_of_a_set_span_the_range_and_hit_their_targets():
    make = blob_maker(BlobSettings(coverage_min=0.2, coverage_max=0.6, seed=7))
    shares = [make(picture(seed=100 + i, index=i, count=5)).mask.mean() for i in range(5)]
    assert np.abs(shares - target_coverages(5, 0.2, 0.6, seed=7)).max() <= 1 / 4800
    assert max(shares) - min(shares) >= 0.8 * 0.4


def test_single_pictures_draw_over_the_whole_range():
    make = blob_maker(BlobSettings(coverage_min=0.2, coverage_max=0.6))
    shares = [make(picture(seed=seed)).mask.mean() for seed in range(60)]
    assert 0.2 <= min(shares) < 0.25
    assert 0.55 < max(shares) <= 0.6


def test_the_note_tells_the_blobs_and_a_number_that_did_not_fit():
    assert blob_maker(BlobSettings(count=3))(picture()).note == "3 blobs"
    assert blob_maker(BlobSettings(count=1))(picture()).note == "1 blob"
    crowded = BlobSettings(coverage_min=0.99, coverage_max=0.99, count=9)
    note = blob_maker(crowded)(picture((20, 20))).note
    assert "instead of 9: more do not fit apart at 99% of this picture" in note


def test_a_huge_picture_gets_the_exact_coverage_too():
    mask = random_blobs((6000, 8000), coverage=0.25, settings=BlobSettings(count=2), seed=0)
    assert np.count_nonzero(mask) == 12_000_000


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"coverage_min": 0.0}, "coverage_min: expected 0.001 to 1, got 0"),
        ({"coverage_max": 1.5}, "coverage_max: expected 0.001 to 1, got 1.5"),
        ({"coverage_min": 0.7}, "coverage_min: 0.7 lies above coverage_max 0.5"),
        ({"count": 65}, "count: expected 0 to 64, got 65"),
        ({"smoothness": float("nan")}, "smoothness: expected a number, got nan"),
    ],
)
def test_settings_out_of_range_name_the_widget(changes, message):
    with pytest.raises(ConfigError, match=message):
        check_blobs(BlobSettings(**changes))
