"""Masks are judged in the training picture: what the crop leaves of them, with a cache and without one."""

from dataclasses import replace

import numpy as np
import pytest

from harness.caching import SETTINGS, Bench, picture, save
from masklora.dataset.sample import load_mask
from masklora.settings import LossSettings, MaskTransform
from masklora.viewing.browsing import Lens
from masklora.viewing.inspection import findings, inspect, mask_stats
from masklora.viewing.opened_sets import measure_again, plan_with_cache, plan_without_cache

LENS = Lens(LossSettings(), 8)
UPRIGHT = (128, 384)
SQUARE = replace(SETTINGS, resolution=128, bucketing=False)


def part(size, x, y):
    """A mask of `size` (width, height), white from x[0] to x[1] and from y[0] to y[1]."""
    mask = np.zeros(size[::-1], np.uint8)
    mask[slice(*y), slice(*x)] = 255
    return mask


@pytest.fixture
def bench(tmp_path):
    (tmp_path / "pictures").mkdir()
    return Bench(tmp_path / "pictures", tmp_path / "store")


def fill(bench, masks):
    for i, mask in enumerate(masks):
        save(picture(i, size=mask.shape[::-1]), bench.folder / f"{i}.png")
        save(mask, bench.folder / f"{i}_mask.png")


def six_faces(bench):
    """Six upright pictures: five with the face above the square in the middle, one with a face inside it."""
    faces = [part(UPRIGHT, (16, 112), (4 * i, 96 + 4 * i)) for i in range(5)]
    fill(bench, [*faces, part(UPRIGHT, (0, 128), (160, 192))])


def measured(bench, settings, *, cached, transform=None):
    dataset = bench.data(transform=transform)
    if cached:
        bench.build(settings)
        plan = plan_with_cache(bench.cache, dataset, lambda: None)
    else:
        plan = plan_without_cache(dataset, settings, stride=8, resolution=settings.resolution)
    return inspect(dataset, 8, geometries=plan.geometries)


@pytest.mark.parametrize("cached", [True, False])
def test_faces_above_the_crop_are_told_and_not_counted(bench, cached):
    six_faces(bench)
    report = measured(bench, SQUARE, cached=cached)
    assert [stats.cells for stats in report.pictures] == [(16, 16)] * 6
    assert [stats.coverage for stats in report.pictures] == pytest.approx([0] * 5 + [0.25])
    assert [stats.active for stats in report.pictures] == [0] * 5 + [4 * 16]
    assert [stats.kept for stats in report.pictures] == pytest.approx([0] * 5 + [1])
    assert report.cut_away == ("0.png", "1.png", "2.png", "3.png", "4.png")
    assert findings(report.pictures) == [["cut_away"]] * 5 + [[]]
    (told,) = [one for one in report.findings() if "crop" in one.text]
    assert told.level == "warning" and "0.png" in told.text and "around mask" in told.text
    assert "0.png: coverage 0.0%, 0 of 16×16 cells" in report.to_text()


def test_a_crop_around_the_mask_keeps_the_faces(bench):
    six_faces(bench)
    report = measured(bench, replace(SQUARE, crop="around mask", crop_margin=0.0, crop_margin_max=0.0), cached=True)
    assert report.cut_away == () and [stats.kept for stats in report.pictures] == pytest.approx([1] * 6)
    # 96×96 of 128×128.
    assert [stats.coverage for stats in report.pictures[:5]] == pytest.approx([0.5625] * 5)


def test_buckets_that_fit_keep_all_of_the_mask(bench):
    six_faces(bench)
    report = measured(bench, replace(SQUARE, bucketing=True), cached=False)
    assert report.cut_away == () and min(stats.kept for stats in report.pictures) > 0.9


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize(
    ("columns", "kept", "told"), [((0, 192), 0, True), ((200, 248), 0.5, False), ((208, 240), 0.5, False)]
)
def test_of_a_banner_the_middle_counts(bench, cached, columns, kept, told):
    size = (512, 64)
    fill(bench, [part(size, columns, (0, 64)), part(size, (224, 288), (0, 32))])
    report = measured(bench, replace(SETTINGS, bucketing=False), cached=cached)
    first, second = report.pictures
    assert first.kept == pytest.approx(kept) and (report.cut_away == ("0.png",)) == told
    assert first.coverage == pytest.approx((columns[1] - columns[0]) * kept / 64) and first.cells == (8, 8)
    assert (second.coverage, second.active, second.kept) == (0.5, 32, 1)


def test_less_than_half_of_a_mask_is_told_with_what_is_left(bench):
    size = (512, 64)
    fill(bench, [part(size, (184, 240), (0, 64)), part(size, (224, 288), (0, 32))])
    report = measured(bench, replace(SETTINGS, bucketing=False), cached=False)
    assert report.cut_away == ("0.png",) and report.pictures[0].kept == pytest.approx(16 / 56)
    assert report.pictures[0].coverage == pytest.approx(0.25) and report.pictures[0].active == 16


def test_pictures_at_their_own_size_lose_nothing(bench):
    six_faces(bench)
    plan = plan_without_cache(bench.data(), SQUARE, stride=8, resolution=0)
    for report in (inspect(bench.data(), 8, geometries=plan.geometries), inspect(bench.data(), 8)):
        assert report.cut_away == () and {stats.cells for stats in report.pictures} == {(16, 48)}
        assert report.pictures[0].coverage == pytest.approx(96 * 96 / (128 * 384))


@pytest.mark.parametrize("cached", [True, False])
def test_transforms_that_are_tried_out_are_measured_in_the_crop(bench, cached):
    six_faces(bench)
    report = measured(bench, SQUARE, cached=cached, transform=MaskTransform(invert=True))
    assert [stats.coverage for stats in report.pictures] == pytest.approx([1] * 5 + [0.75])
    # A third of the picture and of most of what is white now; the rest of it is what the crop must take.
    assert report.cut_away == ("0.png", "1.png", "2.png", "3.png", "4.png", "5.png")


def test_an_edited_mask_is_measured_in_the_crop_too(bench):
    six_faces(bench)
    report = measured(bench, SQUARE, cached=True)
    save(part(UPRIGHT, (0, 64), (128, 256)), bench.folder / "0_mask.png")
    dataset = bench.data()
    geometry = plan_with_cache(bench.cache, dataset, lambda: None).geometries[0]
    again = measure_again(report, 0, dataset.samples[0], LENS, geometry)
    assert (again.pictures[0].coverage, again.pictures[0].active) == (0.5, 128)
    assert again.cut_away == report.cut_away[1:] and again.pictures[1:] == report.pictures[1:]


@pytest.mark.parametrize("rotate", [0.0, 25.0])
@pytest.mark.parametrize("crop", ["centre", "random", "mask-centred", "around mask"])
def test_coverage_is_that_of_the_cached_mask(bench, crop, rotate):
    six_faces(bench)
    bench.build(replace(SQUARE, crop=crop, rotate=rotate, flip=True))
    for entry, sample in zip(bench.cache.entries, bench.data().samples, strict=True):
        stats = mask_stats(sample, load_mask(sample), 8, entry.geometry)
        assert stats.coverage == pytest.approx(float(bench.cache.mask(entry).mean()), abs=2e-5)


def test_white_and_black_masks_are_told_as_such_and_not_for_their_crop(bench):
    fill(bench, [np.zeros(UPRIGHT[::-1], np.uint8), np.full(UPRIGHT[::-1], 255, np.uint8)])
    report = measured(bench, SQUARE, cached=False)
    assert findings(report.pictures) == [["all_black"], ["all_white"]] and report.cut_away == ()


@pytest.mark.parametrize("least", [255, 253])
def test_white_masks_have_nothing_to_lose_wherever_it_is_told(bench, least):
    """As a picture without a mask, which is learned wherever the crop lies; JPEG writes white as 253 too."""
    white = np.full(UPRIGHT[::-1], 255, np.uint8)
    white[::7] = least
    face = part(UPRIGHT, (16, 112), (0, 96))
    fill(bench, [white, face, part(UPRIGHT, (16, 112), (160, 224))])
    report = measured(bench, SQUARE, cached=True)
    assert report.cut_away == ("1.png",) and report.all_white == ("0.png",)
    assert [stats.kept for stats in report.pictures] == pytest.approx([1, 0, 1])
    (told,) = [one.text for one in bench.cache.findings if "crop" in one.text]
    assert told.startswith("1 of 3 pictures teaches nothing: the crop cuts its whole mask away: 1.png.")


def test_a_mask_that_is_white_but_for_a_corner_is_judged_by_what_it_loses(bench):
    nearly = np.full(UPRIGHT[::-1], 255, np.uint8)
    nearly[:16, :16] = 0
    fill(bench, [nearly, part(UPRIGHT, (16, 112), (160, 224))])
    report = measured(bench, SQUARE, cached=True)
    assert report.cut_away == ("0.png",) and report.pictures[0].kept == pytest.approx(128 / (384 - 2))
    (told,) = [one.text for one in bench.cache.findings if "crop" in one.text]
    assert "loses most of its mask to the crop: 0.png (keeps 34%)" in told
