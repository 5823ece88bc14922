"""Data sets from folders and from memory: mask sources, policies, aspects, merging, loading."""

import os
import time
import warnings

import numpy as np
import pytest
from PIL import Image

from harness.folders import anywhere, folder_settings, grey, picture, with_alpha
from masklora.dataset.loading import from_images, load_dataset
from masklora.dataset.sample import fit_mask, load_mask, load_sample, merge
from masklora.errors import ConfigError, DataError, MaskError
from masklora.settings import CaptionSettings, DatasetSettings, MaskTransform

HALF = np.repeat([[0.0, 1.0]], 8, axis=0).repeat(4, axis=1)


def loaded(folder, **values):
    return load_dataset(folder_settings(folder, **values), allowed=anywhere)


def first(dataset):
    return load_sample(dataset.samples[0])


def test_auto_takes_folder_then_sidecar_then_alpha(tmp_path):
    with_alpha(tmp_path / "a.png", HALF)
    assert first(loaded(tmp_path)).mask.mean() == 0.5
    grey(tmp_path / "a_mask.png", np.zeros((8, 8)))
    assert first(loaded(tmp_path)).mask.max() == 0
    grey(tmp_path / "m" / "a.png", np.ones((8, 8)))
    assert first(loaded(tmp_path, mask_folder="m")).mask.min() == 1


@pytest.mark.parametrize(
    ("source", "coverage", "has"),
    [("alpha", 0.5, True), ("sidecar", 0.0, True), ("folder", 1.0, True), ("none", 1.0, False)],
)
def test_a_source_asked_for_is_the_only_one_looked_at(tmp_path, source, coverage, has):
    with_alpha(tmp_path / "a.png", HALF)
    grey(tmp_path / "a_mask.png", np.zeros((8, 8)))
    grey(tmp_path / "m" / "a.png", np.ones((8, 8)))
    sample = first(loaded(tmp_path, mask_source=source, mask_folder="m"))
    assert (sample.mask.mean(), sample.has_mask) == (coverage, has)


def test_without_a_mask_the_whole_picture_is_learned(tmp_path):
    picture(tmp_path / "a.png", (6, 4))
    dataset = loaded(tmp_path)
    sample = first(dataset)
    assert sample.mask.shape == (4, 6) and (sample.mask == 1).all() and not sample.has_mask
    assert load_mask(dataset.samples[0]) is None and dataset.report.missing == ("a.png",)


@pytest.mark.parametrize("name", ["plain", "opaque"])
def test_missing_masks_are_skipped_or_refused_when_asked(tmp_path, name):
    with_alpha(tmp_path / "masked.png", HALF)
    path = tmp_path / f"{name}.png"
    picture(path) if name == "plain" else with_alpha(path, np.ones((8, 8)))
    assert [s.name for s in loaded(tmp_path, missing_mask="skip image").samples] == ["masked.png"]
    assert loaded(tmp_path, missing_mask="skip image").report.skipped == (f"{name}.png",)
    with pytest.raises(MaskError, match=rf"{name}\.png: no mask found"):
        loaded(tmp_path, missing_mask="error")


def test_source_none_needs_no_masks(tmp_path):
    picture(tmp_path / "a.png")
    assert len(loaded(tmp_path, mask_source="none", missing_mask="error")) == 1


def test_leaving_out_every_picture_is_an_error(tmp_path):
    picture(tmp_path / "a.png")
    with pytest.raises(MaskError, match="The only picture was left out"):
        loaded(tmp_path, missing_mask="skip image")


@pytest.mark.parametrize(
    ("size", "fits"), [((200, 101), True), ((200, 102), False), ((400, 200), True), ((50, 25), True)]
)
def test_aspects_may_differ_by_one_percent_and_scale_freely(tmp_path, size, fits):
    picture(tmp_path / "a.png", (200, 100))
    grey(tmp_path / "a_mask.png", np.ones(size[::-1]))
    if fits:
        dataset = loaded(tmp_path)
        assert fit_mask(first(dataset).mask, dataset.samples[0].size).shape == (100, 200)
    else:
        with pytest.raises(MaskError, match="200×102"):
            loaded(tmp_path)


def test_a_phone_picture_on_its_side_fits_its_upright_mask(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (80, 40)).save(tmp_path / "a.jpg", exif=exif)
    grey(tmp_path / "a_mask.png", np.ones((80, 40)))
    dataset = loaded(tmp_path)
    assert dataset.samples[0].size == (40, 80)
    assert first(dataset).rgb.shape[:2] == first(dataset).mask.shape == (80, 40)


def test_a_mask_that_changes_its_shape_after_loading_is_noticed(tmp_path):
    picture(tmp_path / "a.png")
    grey(tmp_path / "a_mask.png", np.ones((8, 8)))
    dataset = loaded(tmp_path)
    grey(tmp_path / "a_mask.png", np.ones((8, 4)))
    with pytest.raises(MaskError, match="4×8"):
        first(dataset)


def test_bad_pictures_are_named_with_their_subfolder(tmp_path):
    picture(tmp_path / "sub" / "good.png")
    (tmp_path / "sub" / "kaputt.png").write_bytes(b"\x89PNG nothing")
    with pytest.raises(DataError, match=r"sub/kaputt\.png: expected a picture"):
        loaded(tmp_path)


def test_bad_masks_are_named_with_their_picture(tmp_path):
    path = picture(tmp_path / "sub" / "a.png", (40, 40)).with_name("a_mask.png")
    grey(path, np.random.default_rng(0).random((40, 40)))
    whole = path.read_bytes()
    path.write_bytes(b"no picture")
    with pytest.raises(MaskError, match=r"sub/a\.png \(mask file a_mask\.png\): expected a picture"):
        loaded(tmp_path)
    path.write_bytes(whole[: len(whole) // 2])
    for read in (load_sample, load_mask):
        with pytest.raises(MaskError, match=r"sub/a\.png \(mask file a_mask\.png\): expected a complete picture"):
            read(loaded(tmp_path).samples[0])


def test_truncated_pictures_are_named_with_their_subfolder(tmp_path):
    path = grey(tmp_path / "sub" / "a.png", np.random.default_rng(0).random((40, 40)))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match=r"sub/a\.png: expected a complete picture, but it is truncated"):
        first(loaded(tmp_path))


@pytest.mark.parametrize(("missing", "told"), [("empty caption", True), ("use trigger word", False)])
def test_a_trigger_word_that_pictures_without_caption_will_not_see_is_told(tmp_path, missing, told):
    picture(tmp_path / "a.png")
    settings = DatasetSettings(folder=str(tmp_path), caption=CaptionSettings(trigger="zib", missing=missing))
    assert ("without the trigger word zib" in load_dataset(settings, allowed=anywhere).report.to_text()) is told


def test_an_alpha_that_was_put_in_the_place_of_an_opaque_one_of_the_same_size_and_time_is_seen(tmp_path):
    for value, masked in ((255, 0), (0, 1), (255, 0)):
        pixels = np.full((8, 8, 4), 255, np.uint8)
        pixels[3, 3, 3] = value
        Image.fromarray(pixels).save(tmp_path / "a.tif")
        os.utime(tmp_path / "a.tif", (1_700_000_000, 1_700_000_000))
        assert len(loaded(tmp_path).report.matched) == masked


def test_all_masks_of_another_aspect_are_told_at_once_with_both_sizes(tmp_path):
    for i in range(12):
        picture(tmp_path / f"{i:02}.png", (100, 80))
        picture(tmp_path / f"{i:02}_mask.png", (100, 80) if i == 5 else (100 + i, 78), "L")
    with pytest.raises(MaskError) as error:
        loaded(tmp_path)
    text = str(error.value)
    assert text.startswith(
        "11 masks have another aspect than their images. 00.png (mask file 00_mask.png): the mask is 100×78"
    )
    assert (
        "08.png (mask file 08_mask.png): the mask is 108×78 but the image is 100×80; and 3 more. Save each mask" in text
    )
    assert "05.png" not in text and "09.png" not in text


def test_a_subjects_mask_of_another_aspect_is_told_once_though_several_samples_show_it(tmp_path):
    picture(tmp_path / "a.png", (100, 80))
    for name, width in (("anna", 90), ("ben", 100)):
        picture(tmp_path / "m" / f"a.{name}.png", (width, 80), "L")
    with pytest.raises(MaskError) as error:
        loaded(tmp_path, mask_folder="m")
    assert str(error.value) == (
        "a.png [anna] (mask file a.anna.png): the mask is 90×80 but the image is 100×80. Save the mask at the image's "
        "size."
    )


def test_keys_do_not_depend_on_where_the_folder_lies(tmp_path):
    for name in ("here", "there"):
        picture(tmp_path / name / "x" / "a.png")
    assert loaded(tmp_path / "here").samples[0].key == loaded(tmp_path / "there").samples[0].key


def test_transforms_reach_masks_but_not_missing_ones(tmp_path):
    with_alpha(tmp_path / "a.png", HALF)
    picture(tmp_path / "b.png")
    dataset = loaded(tmp_path).with_transform(MaskTransform(invert=True))
    one, two = (load_sample(sample) for sample in dataset.samples)
    np.testing.assert_array_equal(one.mask, 1 - HALF)
    assert (two.mask == 1).all()


def test_transform_lengths_are_pixels_of_the_picture(tmp_path):
    picture(tmp_path / "a.png", (64, 64))
    small = np.zeros((32, 32))
    small[15:17, 15:17] = 1
    grey(tmp_path / "a_mask.png", small)
    dataset = loaded(tmp_path).with_transform(MaskTransform(grow=8))
    mask = load_mask(dataset.samples[0])
    assert mask.shape == (32, 32) and mask[15].sum() == 2 + 2 * 4


def test_a_second_transform_is_refused_rather_than_lost(tmp_path):
    picture(tmp_path / "a.png")
    dataset = loaded(tmp_path).with_transform(MaskTransform(grow=2))
    assert dataset.with_transform(MaskTransform(grow=2)).samples[0].transform.grow == 2
    with pytest.raises(ConfigError, match=r"a\.png: its masks are transformed already"):
        dataset.with_transform(MaskTransform(invert=True))


def test_merging_multiplies_repeats_and_keeps_every_settings(tmp_path):
    for name in ("one", "two"):
        picture(tmp_path / name / "a.png")
    one = loaded(tmp_path / "one", repeats=3, loss_multiplier=0.5)
    two = loaded(tmp_path / "two", regularisation=True)
    both = merge([one, two], [0.5, 2.0])
    assert [s.repeats for s in both.samples] == [1.5, 2.0]
    assert [s.settings.loss_multiplier for s in both.samples] == [0.5, 1.0]
    assert [s.settings.regularisation for s in both.samples] == [False, True]
    assert both.report.missing == ("a.png", "a.png")
    assert [s.repeats for s in merge([both, one], [2, 2]).samples] == [3, 4, 6]


def test_merged_samples_have_keys_of_their_own(tmp_path):
    picture(tmp_path / "a.png")
    dataset = loaded(tmp_path)
    merged = merge([dataset, dataset, from_images([np.zeros((4, 4, 3), np.float32)])])
    assert len({sample.key for sample in merged.samples}) == 3
    assert len({sample.key for sample in merge([merged, dataset, merge([dataset, dataset])]).samples}) == 6


@pytest.mark.parametrize("weights", [[1.0], [1.0, 0.0], [1.0, -1.0], [1.0, float("nan")], [1.0, float("inf")]])
def test_weights_that_mean_nothing_are_refused(tmp_path, weights):
    picture(tmp_path / "a.png")
    dataset = loaded(tmp_path)
    with pytest.raises(ConfigError, match="weight"):
        merge([dataset, dataset], weights)


def test_merging_nothing_is_an_error():
    with pytest.raises(ConfigError, match="merge"):
        merge([])


@pytest.mark.parametrize(
    ("values", "widget"),
    [
        ({"fill": "magic"}, "fill"),
        ({"repeats": 0}, "repeats"),
        ({"loss_multiplier": -1.0}, "loss_multiplier"),
    ],
)
def test_settings_out_of_range_name_their_widget(tmp_path, values, widget):
    picture(tmp_path / "a.png")
    with pytest.raises(ConfigError, match=widget):
        loaded(tmp_path, **values)


def test_progress_is_told_and_cancel_stops(tmp_path):
    for i in range(3):
        picture(tmp_path / f"{i}.png")
    told = []

    class Stop(BaseException):
        pass

    def cancel():
        if len(told) == 2:
            raise Stop

    with pytest.raises(Stop):
        load_dataset(
            folder_settings(tmp_path),
            allowed=anywhere,
            progress=lambda done, total, name: told.append((done, total, name)),
            check_cancel=cancel,
        )
    assert told == [(1, 3, "0.png"), (2, 3, "1.png")]


def test_headers_of_ten_thousand_pictures_take_seconds(tmp_path):
    """Pillow alone reads ten thousand headers in half a second: measured against that, on a busy machine too."""
    content = picture(tmp_path / "seed.png", (4, 4)).read_bytes()
    (tmp_path / "seed.png").unlink()
    for i in range(500):
        (tmp_path / f"{i}.png").write_bytes(content)
        (tmp_path / f"{i}_mask.png").write_bytes(content)
    start = time.process_time()
    assert len(loaded(tmp_path).report.matched) == 500
    between = time.process_time()
    for path in tmp_path.iterdir():
        with Image.open(path) as opened:
            assert opened.size == (4, 4)
    assert between - start < 20 * (time.process_time() - between)


def test_nothing_warns_on_pictures_near_the_limit(tmp_path):
    Image.new("1", (9_500, 9_500)).save(tmp_path / "large.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert loaded(tmp_path).samples[0].size == (9_500, 9_500)


# In memory


def floats(height=8, width=8, channels=3, value=0.5):
    return np.full((height, width, channels), value, np.float32)


def test_pictures_and_masks_of_other_nodes_become_samples():
    image = np.linspace(0, 1, 8 * 8 * 3, dtype=np.float32).reshape(8, 8, 3)
    dataset = from_images([image], [HALF.astype(np.float32)], ["a cat"], DatasetSettings(repeats=2))
    sample = dataset.samples[0]
    assert sample.caption == "a cat" and sample.repeats == 2 and sample.size == (8, 8)
    data = load_sample(sample)
    np.testing.assert_array_equal(data.rgb, np.rint(image * 255).astype(np.uint8))
    np.testing.assert_array_equal(data.mask, HALF)
    assert dataset.report.matched == ("picture-0001",)


def test_cores_empty_mask_of_an_opaque_picture_is_no_mask():
    empty = np.zeros((64, 64), np.float32)
    assert not first(from_images([floats(32, 32)], [empty])).has_mask
    assert not first(from_images([floats(32, 48)], [empty], invert_masks=True)).has_mask
    black = first(from_images([floats(64, 64)], [empty]))
    assert black.has_mask and black.mask.max() == 0
    with pytest.raises(MaskError, match="64×64"):
        from_images([floats(32, 48)], [empty + 1])


def test_masks_in_cores_polarity_can_be_turned_round():
    dataset = from_images([floats()], [HALF.astype(np.float32)], invert_masks=True)
    np.testing.assert_array_equal(first(dataset).mask, 1 - HALF)


def test_alpha_of_a_picture_in_memory_is_its_mask_unless_opaque():
    image = floats(channels=4, value=1.0)
    assert not first(from_images([image])).has_mask
    image[..., 3] = HALF
    sample = first(from_images([image]))
    assert sample.has_mask and sample.rgb.shape == (8, 8, 3)
    np.testing.assert_array_equal(sample.mask, HALF)


def test_one_mask_and_one_caption_serve_every_picture():
    dataset = from_images([floats(), floats(16, 16)], [HALF.astype(np.float32)], ["x"])
    assert [s.caption for s in dataset.samples] == ["x", "x"] and all(s.mask is not None for s in dataset.samples)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([],), "expected at least one picture"),
        (([floats()] * 3, [HALF] * 2), "masks: expected none, one, or 3.*got 2"),
        (([floats()] * 3, (), ["a", "b"]), "captions: expected none, one, or 3.*got 2"),
        (([floats()[..., :2]],), "picture-0001: expected a picture of shape"),
        (([floats()[0]],), "picture-0001: expected a picture of shape"),
        (([floats(0, 8)],), "picture-0001: expected a picture of shape"),
        (([floats(value=np.nan)],), "picture-0001: expected values in 0..1, got NaN"),
        (([floats()], [np.where(HALF > 0, np.inf, 0)]), "picture-0001, mask: expected values"),
        (([floats()], [HALF[0]]), "expected a mask of shape"),
    ],
)
def test_pictures_in_memory_that_cannot_be_used_are_named(arguments, message):
    with np.errstate(invalid="ignore"), pytest.raises(DataError, match=message):
        from_images(*arguments)


def test_policies_hold_in_memory_too():
    pair = [floats(), floats()]
    masks = [HALF.astype(np.float32), None]
    assert len(from_images(pair, masks, settings=DatasetSettings(missing_mask="skip image"))) == 1
    with pytest.raises(MaskError, match="picture-0002: no mask found"):
        from_images(pair, masks, settings=DatasetSettings(missing_mask="error"))
    with pytest.raises(DataError, match="captions: picture-0001"):
        from_images(pair, settings=DatasetSettings(caption=CaptionSettings(missing="error")))


def test_inputs_are_never_changed():
    image, mask = floats(value=1.5), HALF.astype(np.float32)
    dataset = from_images([image], [mask], invert_masks=True).with_transform(MaskTransform(grow=1, feather=1.0))
    load_sample(dataset.samples[0])
    assert (image == 1.5).all() and (mask == HALF).all()
