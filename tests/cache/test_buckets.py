"""Buckets: one pixel budget, sides that fit the model, no enlarging unless asked."""

import pytest

from masklora.cache.buckets import MAX_ASPECT, assign, choose_bucket, kept_share, make_buckets
from masklora.errors import ConfigError, DataError
from masklora.settings import CacheSettings


@pytest.mark.parametrize("resolution", [256, 500, 512, 768, 1024])
@pytest.mark.parametrize("step", [16, 64])
def test_every_bucket_fits_the_budget_the_step_and_the_widest_aspect(resolution, step):
    buckets = make_buckets(resolution, step)
    assert buckets
    for width, height in buckets:
        assert width % step == height % step == 0
        assert width * height <= resolution**2
        assert max(width, height) <= MAX_ASPECT * min(width, height)
        assert (height, width) in buckets


@pytest.mark.parametrize("resolution", [512, 768, 1024])
@pytest.mark.parametrize("aspect", [(1, 1), (4, 3), (3, 2), (16, 9), (2, 3), (9, 16), (5, 4)])
def test_photographs_keep_most_of_their_area_and_use_most_of_the_budget(resolution, aspect):
    size = aspect[0] * 1200, aspect[1] * 1200
    bucket = choose_bucket(size, CacheSettings(resolution=resolution))
    assert kept_share(size, bucket) >= 0.9
    assert bucket[0] * bucket[1] >= 0.8 * resolution**2


def test_the_exact_aspect_wins_over_a_few_more_pixels():
    assert choose_bucket((3000, 2000), CacheSettings(resolution=512)) == (576, 384)
    assert choose_bucket((2000, 3000), CacheSettings(resolution=512)) == (384, 576)
    assert choose_bucket((2000, 2000), CacheSettings(resolution=512)) == (512, 512)


def test_a_small_picture_gets_a_smaller_bucket_that_it_fills_without_enlarging():
    for size in [(500, 300), (300, 500), (130, 130), (64, 64), (2000, 200), (511, 513)]:
        width, height = choose_bucket(size, CacheSettings(resolution=512))
        assert width <= size[0] and height <= size[1]
        assert width % 64 == height % 64 == 0
    assert choose_bucket((500, 300), CacheSettings(resolution=512)) == (448, 256)
    assert choose_bucket((64, 64), CacheSettings(resolution=512)) == (64, 64)


def test_upscaling_gives_small_pictures_the_full_bucket():
    settings = CacheSettings(resolution=512, upscale=True)
    assert choose_bucket((40, 40), settings) == (512, 512)


def test_without_bucketing_every_large_picture_is_one_square():
    settings = CacheSettings(resolution=500, bucketing=False)
    assert {choose_bucket(size, settings) for size in [(2000, 900), (600, 1200), (448, 448)]} == {(448, 448)}
    assert choose_bucket((300, 200), settings) == (192, 192)


def test_a_picture_below_one_step_is_an_error_that_names_it_and_the_remedies():
    with pytest.raises(DataError, match=r"icon\.png \(40×400\).*64×64.*bucket step.*upscaling"):
        assign([(512, 512), (40, 400)], CacheSettings(), names=["cat.png", "icon.png"])


def test_many_tiny_pictures_are_counted_not_listed():
    with pytest.raises(DataError, match="and 15 more"):
        assign([(10, 10)] * 20, CacheSettings())


def test_the_step_must_fit_the_model():
    with pytest.raises(ConfigError, match=r"bucket step.*multiple of 16.*got 24"):
        assign([(512, 512)], CacheSettings(bucket_step=24), multiple=16)
    assert assign([(512, 512)], CacheSettings(bucket_step=32), multiple=16) == [(512, 512)]


def test_a_resolution_below_one_step_is_refused():
    with pytest.raises(ConfigError, match="resolution"):
        make_buckets(32, 64)
