"""One geometry: what the picture shows at a pixel is what the mask weighs at that pixel."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from harness.places import source_places
from masklora.cache.buckets import choose_bucket
from masklora.dataset.geometry import (
    KERNELS,
    Geometry,
    apply_image,
    apply_mask,
    box_centre,
    mask_box,
    plan_box_geometry,
    plan_geometry,
)
from masklora.dataset.sample import Sample, load_sample
from masklora.errors import DataError, MaskError
from masklora.pictures.reading import image_size
from masklora.settings import CacheSettings, DatasetSettings, MaskTransform

SIZES = [(1000, 700), (333, 500), (513, 511), (1200, 300), (200, 150)]
CROPS = ["centre", "mask-centred", "random"]
TRANSPOSES = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def coordinates(size, axis):
    """A float picture (H, W) whose pixels hold their own x (axis 0) or y (axis 1)."""
    return np.stack(np.meshgrid(np.arange(size[0]), np.arange(size[1])))[axis].astype(np.float32)


def plan(size, bucket, crop, flip, *, upscale=False):
    return plan_geometry(
        size,
        bucket,
        crop=crop,
        flip=flip,
        focus=(0.15, 0.8),
        generator=np.random.default_rng(3),
        upscale=upscale,
    )


@pytest.mark.parametrize("resolution", [128, 512])
@pytest.mark.parametrize("upscale", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_picture_and_mask_show_the_same_coordinates_within_half_a_pixel(size, upscale, resolution):
    bucket = choose_bucket(size, CacheSettings(resolution=resolution, upscale=upscale))
    for crop in CROPS:
        for flip in (False, True):
            geometry = plan(size, bucket, crop, flip, upscale=True)
            for axis in (0, 1):
                scale = geometry.resized[axis] / size[axis]
                source, largest = coordinates(size, axis), float(max(size))
                picture = apply_image(source, geometry)
                mask = apply_mask(source / largest, geometry) * largest
                assert picture.shape == mask.shape == bucket[::-1]
                assert np.abs(picture - mask).max() * scale < 0.5


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("crop", CROPS)
def test_an_output_pixel_shows_the_place_of_the_source_that_the_geometry_says(size, crop):
    bucket = choose_bucket(size, CacheSettings(resolution=256))
    for flip in (False, True):
        geometry = plan(size, bucket, crop, flip)
        where = source_places(geometry, *coordinates(bucket, slice(None)))
        for axis in (0, 1):
            scale = geometry.resized[axis] / size[axis]
            for kernel in ("lanczos", "area"):
                shown = apply_image(coordinates(size, axis), geometry, resize=kernel)
                assert np.abs(shown - where[axis]).max() * scale < 0.5


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("bucket", [(128, 192), (640, 576)])
def test_one_kernel_forced_on_both_gives_identical_bits(kernel, bucket):
    source = np.random.default_rng(0).random((300, 260), dtype=np.float32)
    for flip in (False, True):
        geometry = plan((260, 300), bucket, "random", flip, upscale=True)
        shown = apply_image(source, geometry, resize=kernel)
        assert np.array_equal(shown, apply_mask(source, geometry, kernel=kernel))


def test_the_masks_own_kernel_is_the_pictures_area_kernel_bit_for_bit():
    source = np.random.default_rng(0).random((300, 260), dtype=np.float32)
    for bucket in ((128, 192), (640, 576)):
        geometry = plan((260, 300), bucket, "random", True, upscale=True)
        assert np.array_equal(apply_image(source, geometry, resize="area"), apply_mask(source, geometry))


@pytest.mark.parametrize("image_turn", sorted(TRANSPOSES))
@pytest.mark.parametrize("mask_turn", [1, 6, 7])
def test_files_of_any_exif_orientation_meet_in_the_same_coordinates(tmp_path, image_turn, mask_turn):
    size = (120, 84)
    x, y = coordinates(size, 0), coordinates(size, 1)
    picture = np.stack([2 * x, 2 * y, np.zeros_like(x)], axis=-1).astype(np.uint8)
    save_turned(Image.fromarray(picture), tmp_path / "a.png", image_turn)
    for axis, values in enumerate((x, y)):
        save_turned(Image.fromarray((values * 500).astype(np.uint16)), tmp_path / f"m{axis}.png", mask_turn)
    assert image_size(tmp_path / "a.png") == size
    for axis in (0, 1):
        sample = Sample("a", "a", size, image_path=tmp_path / "a.png", mask_path=tmp_path / f"m{axis}.png")
        loaded = load_sample(sample)
        for bucket in ((64, 32), (48, 64), (112, 80)):
            for flip in (False, True):
                geometry = plan(size, bucket, "mask-centred", flip)
                shown = apply_image(loaded.rgb, geometry)[..., axis].astype(np.float32) / 2
                weighed = apply_mask(loaded.mask, geometry) * 65535 / 500
                scale = geometry.resized[axis] / size[axis]
                assert np.abs(shown - weighed).max() * scale < 0.5


def save_turned(picture, path, orientation):
    """Stores a picture so that a reader that heeds EXIF `orientation` sees it upright."""
    turn = TRANSPOSES[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    (picture if turn is None else picture.transpose(turn)).save(path, exif=exif)


def test_a_hard_mask_that_grows_stays_hard_and_keeps_its_edge():
    mask = np.zeros((60, 60), np.float32)
    mask[:, 23:] = 1
    geometry = plan_geometry((60, 60), (160, 160), upscale=True)
    hard, soft = apply_mask(mask, geometry, hard=True), apply_mask(mask, geometry)
    picture = apply_image(mask, geometry)
    assert set(np.unique(hard)) == {0.0, 1.0}
    assert 0 < soft[0, 61] < 1
    edges = [np.argmax(array[80] > 0.5) for array in (hard, soft, picture)]
    assert max(edges) - min(edges) <= 1


def test_shrinking_a_mask_averages_exact_areas():
    mask = np.random.default_rng(2).random((70, 100), dtype=np.float32)
    whole = Geometry((100, 70), (64, 45), (0, 0, 64, 45))
    assert apply_mask(mask, whole).mean(dtype=np.float64) == pytest.approx(mask.mean(dtype=np.float64), abs=1e-6)
    half = Geometry((100, 70), (50, 35), (0, 0, 50, 35))
    expected = mask.reshape(35, 2, 50, 2).mean(axis=(1, 3))
    assert np.allclose(apply_mask(mask, half), expected, atol=1e-6)


@pytest.mark.parametrize("size", [(300, 200), (64, 64), (700, 1000)])
def test_a_mask_of_ones_stays_ones_and_one_of_zeros_zeros(size):
    for bucket in ((64, 64), (128, 64), (256, 192)):
        geometry = plan(size, bucket, "centre", True, upscale=True)
        assert np.abs(apply_mask(np.ones(size[::-1], np.float32), geometry) - 1).max() < 1e-6
        assert not apply_mask(np.zeros(size[::-1], np.float32), geometry).any()


def test_a_mask_of_another_scale_lands_where_its_picture_lands():
    size, small = (600, 400), (300, 200)
    x = coordinates(size, 0)
    mask = (coordinates(small, 0) * 2 + 0.5) / 600
    geometry = plan(size, (192, 128), "random", True)
    assert np.abs(apply_image(x, geometry, resize="area") - apply_mask(mask, geometry) * 600).max() * 0.32 < 0.5


def test_a_mask_of_another_aspect_is_refused_with_both_sizes():
    geometry = plan_geometry((1024, 768), (512, 384))
    with pytest.raises(MaskError, match=r"512×512.*1024×768"):
        apply_mask(np.ones((512, 512), np.float32), geometry)


def test_the_picture_is_covered_without_distortion_and_without_borders():
    for size in SIZES:
        for bucket in ((128, 128), (192, 64), (64, 128)):
            geometry = plan_geometry(size, bucket)
            x_scale, y_scale = geometry.resized[0] / size[0], geometry.resized[1] / size[1]
            assert abs(x_scale / y_scale - 1) < 0.02
            left, top, width, height = geometry.crop
            assert left >= 0 and left + width <= geometry.resized[0]
            assert top >= 0 and top + height <= geometry.resized[1]
            assert geometry.size == bucket


def test_a_mask_centred_crop_holds_the_mask_in_its_middle_or_touches_the_border():
    mask = np.zeros((300, 900), np.float32)
    mask[100:200, 600:700] = 1
    geometry = plan_geometry((900, 300), (192, 192), crop="mask-centred", focus=box_centre(mask_box(mask)))
    columns = np.flatnonzero(apply_mask(mask, geometry).max(axis=0) > 0.5)
    assert abs((columns[0] + columns[-1]) / 2 - 95.5) <= 1
    mask[:] = 0
    mask[:, 880:] = 1
    geometry = plan_geometry((900, 300), (192, 192), crop="mask-centred", focus=box_centre(mask_box(mask)))
    assert geometry.crop[0] + 192 == geometry.resized[0]


def test_an_empty_mask_has_no_box_and_its_crop_is_centred():
    assert mask_box(np.zeros((10, 20), np.float32)) is None
    centred = plan_geometry((900, 300), (192, 192))
    assert plan_geometry((900, 300), (192, 192), crop="mask-centred", focus=None) == centred


def test_random_crops_follow_their_generator_and_reach_both_borders():
    drawn = [
        plan_geometry((300, 100), (64, 64), crop="random", generator=np.random.default_rng(seed)).crop[0]
        for seed in range(400)
    ]
    again = plan_geometry((300, 100), (64, 64), crop="random", generator=np.random.default_rng(0)).crop[0]
    assert drawn[0] == again
    assert min(drawn) == 0 and max(drawn) == 192 - 64


def test_nothing_is_enlarged_unless_asked():
    with pytest.raises(DataError, match=r"100×80.*128×64"):
        plan_geometry((100, 80), (128, 64))
    assert plan_geometry((100, 80), (128, 64), upscale=True).resized == (128, 102)


def test_a_picture_that_changed_its_size_meanwhile_is_refused():
    with pytest.raises(DataError, match=r"50×40.*100×80"):
        apply_image(np.zeros((40, 50, 3), np.uint8), plan_geometry((100, 80), (64, 64)))


def test_inputs_are_not_written_to():
    rgb = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    before, geometry = rgb.copy(), plan_geometry((64, 64), (64, 64), flip=True)
    apply_image(rgb, geometry)[:] = 0
    mask = np.ones((64, 64), np.float32)
    apply_mask(mask, geometry)[:] = 0
    assert np.array_equal(rgb, before) and mask.all()


def test_grow_is_measured_in_pixels_of_the_picture_whatever_the_masks_scale(tmp_path):
    for factor in (1, 2):
        mask = np.zeros((200 // factor, 300 // factor), np.uint8)
        mask[80 // factor : 120 // factor, 100 // factor : 200 // factor] = 255
        Image.fromarray(mask).save(tmp_path / f"mask{factor}.png")
    Image.fromarray(np.zeros((200, 300, 3), np.uint8)).save(tmp_path / "a.png")
    covered = []
    for factor in (1, 2):
        sample = Sample(
            "a",
            "a",
            (300, 200),
            image_path=tmp_path / "a.png",
            mask_path=tmp_path / f"mask{factor}.png",
            settings=DatasetSettings(),
            transform=MaskTransform(grow=10),
        )
        geometry = plan_geometry((300, 200), (192, 128))
        covered.append(apply_mask(load_sample(sample).mask, geometry).mean())
    assert covered[0] == pytest.approx(covered[1], rel=0.02)


@pytest.mark.parametrize("angle", [7.0, -30.0, 90.0, 180.0])
@pytest.mark.parametrize("flip", [False, True])
def test_a_turned_crop_shows_the_place_of_the_source_that_the_geometry_says(angle, flip):
    size, bucket = (500, 400), (128, 192)
    geometry = replace(plan_geometry(size, bucket, crop="centre"), angle=angle, flip=flip)
    where = source_places(geometry, *coordinates(bucket, slice(None)))
    inside = np.logical_and.reduce([(w >= 2) & (w <= n - 3) for w, n in zip(where, size, strict=True)])
    assert inside.mean() > 0.3
    for axis in (0, 1):
        scale = geometry.resized[axis] / size[axis]
        source, largest = coordinates(size, axis), float(max(size))
        shown = apply_image(source, geometry)
        weighed = apply_mask(source / largest, geometry) * largest
        assert np.abs(shown - where[axis])[inside].max() * scale < 0.5
        assert np.abs(weighed - where[axis])[inside].max() * scale < 0.5


@pytest.mark.parametrize("kernel", KERNELS)
def test_one_kernel_forced_on_both_gives_identical_bits_when_turned(kernel):
    source = np.random.default_rng(0).random((300, 260), dtype=np.float32)
    geometry = replace(plan_geometry((260, 300), (128, 128)), angle=4.0)
    where = source_places(geometry, *coordinates((128, 128), slice(None)))
    inside = np.logical_and.reduce([(w > 12) & (w < n - 12) for w, n in zip(where, (260, 300), strict=True)])
    image, mask = apply_image(source, geometry, resize=kernel), apply_mask(source, geometry, kernel=kernel)
    assert np.array_equal(image[inside], mask[inside])


def test_what_a_positive_angle_shows_is_turned_counter_clockwise():
    mask = np.zeros((100, 100), np.float32)
    mask[45:55, 80:90] = 1
    turned = apply_mask(mask, Geometry((100, 100), (100, 100), (0, 0, 100, 100), angle=90.0))
    assert box_centre(mask_box(turned)) == pytest.approx((0.5, 0.15), abs=0.011)


def test_beyond_the_picture_a_turned_mask_is_zero_and_its_picture_mirrored():
    geometry = Geometry((64, 64), (64, 64), (0, 0, 64, 64), angle=45.0)
    assert apply_mask(np.ones((64, 64), np.float32), geometry)[0, 0] == 0
    assert apply_image(np.full((64, 64, 3), 90, np.uint8), geometry).min() >= 88


def test_a_very_wide_picture_can_be_turned():
    wide = np.zeros((64, 40_000), np.float32)
    wide[:, 39_000:] = 1
    geometry = Geometry((40_000, 64), (40_000, 64), (39_000, 0, 64, 64), angle=10.0)
    assert apply_mask(wide, geometry)[32, 40] == 1


def test_a_geometry_without_an_angle_has_the_key_it_always_had():
    assert "angle" not in Geometry((8, 8), (8, 8), (0, 0, 8, 8)).to_dict()
    assert Geometry((8, 8), (8, 8), (0, 0, 8, 8), angle=1.0).to_dict()["angle"] == 1.0


BOXES = [(0.4, 0.4, 0.5, 0.6), (0.0, 0.0, 1.0, 1.0), (0.9, 0.9, 1.0, 1.0), (0.5, 0.5, 0.5, 0.5)]


@pytest.mark.parametrize("box", BOXES)
def test_a_crop_around_a_box_holds_it_inside_the_picture_and_enlarges_nothing(box):
    source, bucket = (800, 600), (128, 192)
    geometry = plan_box_geometry(source, bucket, box, margin=0.2)
    left, top, width, height = geometry.crop
    assert (width, height) == bucket
    assert 0 <= left <= geometry.resized[0] - width
    assert 0 <= top <= geometry.resized[1] - height
    assert geometry.resized[0] <= source[0]
    if box[2] - box[0] < 0.5:
        assert left <= box[0] * geometry.resized[0] + 1
        assert left + width >= box[2] * geometry.resized[0] - 1


BORDERING = [(0.9, 0.9, 1.0, 1.0), (0.0, 0.0, 0.2, 0.3), (0.7, 0.4, 1.0, 0.6), (0.3, 0.0, 0.6, 0.1)]


@pytest.mark.parametrize("box", BORDERING)
def test_a_turned_crop_around_a_box_at_the_border_keeps_all_of_it_in_sight(box):
    source, bucket = (1000, 800), (256, 320)
    mask = np.zeros(source[::-1], np.float32)
    mask[round(box[1] * 800) : round(box[3] * 800), round(box[0] * 1000) : round(box[2] * 1000)] = 1
    for angle in (-150.0, -90.0, -45.0, -20.0, 15.0, 30.0, 45.0, 120.0, 180.0):
        geometry = plan_box_geometry(source, bucket, box, margin=0.1, angle=angle)
        scale = geometry.resized[0] / source[0]
        shown = apply_mask(mask, geometry).sum() / scale**2
        assert shown == pytest.approx(mask.sum(), rel=0.04)
        assert apply_image(np.full((800, 1000, 3), 90, np.uint8), geometry).min() >= 88


def test_a_turn_moves_a_crop_around_a_box_in_the_middle_nowhere():
    source, bucket, box = (1000, 800), (256, 320), (0.45, 0.45, 0.55, 0.55)
    plain = plan_box_geometry(source, bucket, box, margin=2.0)
    turned = plan_box_geometry(source, bucket, box, margin=2.0, angle=30.0)
    middles = [
        ((x + w / 2) / g.resized[0], (y + h / 2) / g.resized[1]) for g in (plain, turned) for x, y, w, h in [g.crop]
    ]
    assert middles[0] == pytest.approx(middles[1], abs=0.002)
    assert plan_box_geometry(source, bucket, (0.0, 0.0, 1.0, 1.0), margin=0.0, angle=30.0).resized == (400, 320)


def test_the_margin_is_a_share_of_the_boxs_longer_side_on_every_side():
    geometry = plan_box_geometry((1000, 1000), (100, 200), (0.4, 0.4, 0.6, 0.5), margin=0.5)
    assert geometry.resized == (250, 250)


def test_a_hard_mask_that_is_turned_stays_hard():
    mask = np.zeros((64, 64), np.float32)
    mask[20:40, 20:40] = 1
    geometry = Geometry((64, 64), (64, 64), (0, 0, 64, 64), angle=20.0)
    assert set(np.unique(apply_mask(mask, geometry, hard=True))) == {0.0, 1.0}
    assert len(np.unique(apply_mask(mask, geometry))) > 2
