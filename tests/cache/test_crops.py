"""Masked crops: the mask's part of the very same training picture, and nothing but it."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from harness.caching import SETTINGS, Bench, picture, save
from harness.folders import anywhere, folder_settings
from harness.places import source_places
from masklora.cache.buckets import choose_bucket
from masklora.cache.crops import masked_size, plan_crop, saving_note
from masklora.dataset.geometry import apply_image, apply_mask, mask_box, plan_geometry
from masklora.dataset.loading import load_dataset
from masklora.dataset.sample import load_sample
from masklora.settings import CacheSettings

MASKED = CacheSettings(resolution=256, bucket_step=16, crop="masked crop", infill_variants=0)
SIZES = [(1000, 700), (333, 500), (1200, 300), (200, 150)]
# By what is odd about them: in the middle, at two borders, at one, a pixel, wider than the bucket, the whole.
BOXES = {
    "middle": (0.4, 0.35, 0.55, 0.6),
    "corner": (0.85, 0.8, 1.0, 1.0),
    "border": (0.0, 0.3, 0.2, 0.7),
    "pixel": (0.5, 0.5, 0.501, 0.502),
    "wide": (0.0, 0.45, 1.0, 0.55),
    "whole": (0.0, 0.0, 1.0, 1.0),
}


def cut(size, box, settings=MASKED, angle=None):
    """Geometry of a masked crop and its whole bucket; an angle stands for what chance would draw."""
    bucket = choose_bucket(size, settings)
    random = None if angle is None else SimpleNamespace(uniform=lambda low, high: angle)
    return plan_crop(size, bucket, settings, box=box, random=random), bucket


def coordinates(size, axis):
    return np.stack(np.meshgrid(np.arange(size[0]), np.arange(size[1])))[axis].astype(np.float32)


def masked(size, box):
    """A mask that is 1 in a box of fractions."""
    mask = np.zeros(size[::-1], np.float32)
    left, top, right, bottom = (round(edge * length) for edge, length in zip(box, size * 2, strict=True))
    mask[top : max(bottom, top + 1), left : max(right, left + 1)] = 1
    return mask


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("box", BOXES.values(), ids=BOXES)
def test_picture_and_mask_show_the_same_coordinates_within_half_a_pixel(size, box):
    for angle, flip in ((None, False), (None, True), (-25.0, True)):
        geometry, _ = cut(size, box, replace(MASKED, rotate=30.0), angle)
        geometry = replace(geometry, flip=flip)
        where = source_places(geometry, *coordinates(geometry.size, slice(None)))
        inside = np.logical_and.reduce([(w >= 2) & (w <= n - 3) for w, n in zip(where, size, strict=True)])
        inside |= angle is None
        for axis in (0, 1):
            scale = geometry.resized[axis] / size[axis]
            source, largest = coordinates(size, axis), float(max(size))
            shown = apply_image(source, geometry)
            weighed = apply_mask(source / largest, geometry) * largest
            assert shown.shape == weighed.shape == geometry.size[::-1]
            assert np.abs(shown - weighed)[inside].max() * scale < 0.5
            assert np.abs(shown - where[axis])[inside].max() * scale < 0.5


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("box", BOXES.values(), ids=BOXES)
def test_the_crop_is_a_part_of_the_whole_training_picture_pixel_for_pixel(size, box):
    geometry, bucket = cut(size, box)
    whole = plan_geometry(size, bucket)
    assert geometry.resized == whole.resized
    left, top, width, height = geometry.crop
    assert 0 <= left <= geometry.resized[0] - width and 0 <= top <= geometry.resized[1] - height
    rgb = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    everything = apply_image(rgb, replace(whole, crop=(0, 0, *whole.resized)))
    assert np.array_equal(apply_image(rgb, geometry), everything[top : top + height, left : left + width])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("box", BOXES.values(), ids=BOXES)
@pytest.mark.parametrize("step", [8, 16, 64])
def test_sides_are_few_multiples_of_the_step_and_never_beyond_the_bucket(size, box, step):
    settings = replace(MASKED, bucket_step=step)
    geometry, bucket = cut(size, box, settings)
    for side, whole in zip(geometry.size, bucket, strict=True):
        assert side <= whole and side % step == 0
        assert side == whole or side % max(step, 32) == 0
        assert side >= min(whole, 64)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("box", BOXES.values(), ids=BOXES)
@pytest.mark.parametrize("margin", [0.0, 0.2, 1.0])
def test_all_of_the_mask_and_its_margin_are_in_the_crop_as_far_as_the_bucket_goes(size, box, margin):
    mask = masked(size, box)
    geometry, bucket = cut(size, mask_box(mask), replace(MASKED, crop_margin=margin))
    whole = apply_mask(mask, replace(geometry, crop=(0, 0, *geometry.resized)))
    rows, columns = np.flatnonzero(whole.any(axis=1)), np.flatnonzero(whole.any(axis=0))
    least = margin * max(rows[-1] - rows[0], columns[-1] - columns[0])
    left, top, width, height = geometry.crop
    for start, side, span, length, most in (
        (left, width, columns, geometry.resized[0], bucket[0]),
        (top, height, rows, geometry.resized[1], bucket[1]),
    ):
        if side < most:
            assert start <= span[0] and span[-1] < start + side
            assert start == 0 or span[0] - start >= least - 2
            assert start + side == length or start + side - 1 - span[-1] >= least - 2


@pytest.mark.parametrize("name", ["middle", "corner", "border"])
@pytest.mark.parametrize("rotate", [10.0, 45.0, 180.0])
def test_a_turned_crop_keeps_all_of_the_mask_in_sight_at_every_angle(name, rotate):
    size, settings = (1000, 800), replace(MASKED, crop_margin=0.0, rotate=rotate, flip=True)
    mask = masked(size, BOXES[name])
    sizes = set()
    for angle in np.linspace(-rotate, rotate, 9):
        geometry, _ = cut(size, mask_box(mask), settings, float(angle))
        sizes.add(geometry.size)
        scale = geometry.resized[0] / size[0]
        assert apply_mask(mask, geometry).sum() / scale**2 == pytest.approx(mask.sum(), rel=0.04)
    assert len(sizes) == 1


def test_the_margin_is_a_share_of_the_boxs_longer_side():
    size, box = (1024, 1024), (0.4, 0.4, 0.6, 0.5)
    settings = replace(MASKED, resolution=1024, bucket_step=8)
    # 204.8 × 102.4 px are 206 × 103 whole ones; with a margin of 103 on every side 412 × 309: up to 128s.
    assert masked_size(size, size, replace(settings, crop_margin=0.5), box=box) == (512, 384)
    assert masked_size(size, size, replace(settings, crop_margin=0.0), box=box) == (256, 256)


@pytest.mark.parametrize("rotate", [0.0, 20.0])
def test_without_a_mask_or_with_a_white_one_the_whole_bucket_is_kept(rotate):
    settings = replace(MASKED, rotate=rotate)
    for size in SIZES:
        bucket = choose_bucket(size, settings)
        centred = plan_geometry(size, bucket)
        for box in (None, (0.0, 0.0, 1.0, 1.0)):
            assert plan_crop(size, bucket, settings, box=box, random=None) == centred


def entry(bucket, source, weight=1.0):
    geometry = plan_geometry(source, bucket, upscale=True)
    return SimpleNamespace(bucket=bucket, weight=weight, geometry=geometry, resolution=MASKED.resolution)


def test_the_saving_counts_real_buckets_by_how_often_each_is_shown():
    entries = [entry((128, 128), (256, 256), 3.0), entry((256, 256), (256, 256), 1.0)]
    assert saving_note(entries, MASKED) == (
        "masked crop: trains on 44% of the pixels (56% saved per step against whole pictures)"
    )
    assert "100% of the pixels (0% saved" in saving_note([entry((192, 144), (192, 150))], MASKED)


# Through the cache.


def bench_of(tmp_path, masks, size=(256, 200)):
    """A folder of noise pictures, each with the mask (a box of fractions) of its place in `masks`, or none."""
    root = tmp_path / "set"
    root.mkdir()
    for number, box in enumerate(masks):
        save(picture(number, size), root / f"{number}.png")
        if box is not None:
            save((masked(size, box) * 255).astype(np.uint8), root / f"{number}_mask.png")
    return Bench(root, tmp_path / "store")


CROPPED = replace(SETTINGS, resolution=256, crop="masked crop")


def test_latents_and_masks_have_the_size_of_the_crop_and_the_report_tells_the_saving(tmp_path):
    bench = bench_of(tmp_path, [BOXES["middle"], None, (0.0, 0.0, 1.0, 1.0)])
    assert bench.build(CROPPED) == (3, 3, 1)
    buckets = [e.bucket for e in bench.cache.entries]
    assert buckets == [(64, 96), (256, 192), (256, 192)]
    for one in bench.cache.entries:
        assert bench.cache.latent(one).shape == (3, one.bucket[1] // 8, one.bucket[0] // 8)
        assert bench.cache.mask(one).shape == (1, one.bucket[1], one.bucket[0])
    assert bench.cache.mask(bench.cache.entries[1]).eq(1).all()
    share = (64 * 96 + 2 * 256 * 192) / (3 * 256 * 192)
    assert f"trains on {share:.0%} of the pixels ({1 - share:.0%} saved per step" in bench.cache.summary()
    assert bench.build(CROPPED) == (0, 0, 0)


def test_other_crops_tell_no_saving(tmp_path):
    bench = bench_of(tmp_path, [BOXES["middle"]])
    bench.build(replace(CROPPED, crop="around mask"))
    assert "masked crop" not in bench.cache.summary()


def test_an_edited_mask_moves_the_crop_and_stales_its_latent(tmp_path):
    bench = bench_of(tmp_path, [BOXES["middle"], BOXES["border"]])
    bench.build(CROPPED)
    save((masked((256, 200), BOXES["corner"]) * 255).astype(np.uint8), bench.folder / "0_mask.png")
    assert bench.build(CROPPED) == (1, 1, 0)
    assert bench.build(replace(CROPPED, crop_margin=1.0))[0] == 2


def test_turns_flips_shrinks_and_backgrounds_all_have_the_size_of_the_crop(tmp_path):
    bench = bench_of(tmp_path, [BOXES["middle"], BOXES["corner"], BOXES["border"]])
    settings = replace(CROPPED, rotate=30.0, flip=True, mask_shrink=0.5, variants=3, infill_variants=4)
    bench.build(settings)
    for one in bench.cache.entries:
        assert len(one.variants) == 6 and {v.geometry.size for v in one.variants} == {one.bucket}
        width, height = one.bucket
        assert width * height < 256 * 192
        for variant in range(len(one.variants)):
            mask = bench.cache.mask(one, variant)
            assert mask.shape == (1, height, width) and mask.any()
            for infill in range(-1, len(one.infills)):
                assert bench.cache.latent(one, variant, infill).shape == (3, height // 8, width // 8)


def test_a_black_mask_keeps_the_whole_bucket(tmp_path):
    bench = bench_of(tmp_path, [BOXES["middle"], BOXES["middle"]])
    save(np.zeros((200, 256), np.uint8), bench.folder / "0_mask.png")
    bench.build(CROPPED)
    assert bench.cache.entries[0].bucket == (256, 192)


def test_files_of_any_exif_orientation_meet_in_the_same_coordinates(tmp_path):
    x, y = coordinates((120, 84), 0), coordinates((120, 84), 1)
    rgb = np.stack([2 * x, 2 * y, np.zeros_like(x)], axis=-1).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(rgb).transpose(Image.Transpose.ROTATE_90).save(tmp_path / "a.png", exif=exif)
    Image.fromarray((x * 500).astype(np.uint16)).save(tmp_path / "a_mask.png")
    dataset = load_dataset(folder_settings(tmp_path), allowed=anywhere)
    loaded = load_sample(dataset.samples[0])
    geometry, bucket = cut((120, 84), mask_box(loaded.mask), replace(MASKED, resolution=96, crop_margin=0.0))
    assert geometry.size[0] < bucket[0] and geometry.crop[0] > 0
    shown = apply_image(loaded.rgb, geometry)[..., 0].astype(np.float32) / 2
    weighed = apply_mask(loaded.mask, geometry) * 65535 / 500
    assert np.abs(shown - weighed).max() * geometry.resized[0] / 120 < 0.5
