"""Masks that the crop took away, that are in another scale, or that keep the surroundings, told before any training."""

import os
import re
from dataclasses import replace

import cv2
import numpy as np
import pytest
from PIL import Image

from harness.caching import SETTINGS, Letters, Pooling
from masklora.cache.cache import build_cache
from masklora.dataset.loading import from_images, load_dataset
from masklora.dataset.sample import merge
from masklora.errors import MaskError
from masklora.settings import DatasetSettings, MaskTransform

SIDE = 64


def captioned(pictures, masks, **options):
    """A data set that says nothing of captions."""
    return from_images(pictures, masks, ["a picture"], **options)


def cache_of(dataset, settings=SETTINGS, **changes):
    settings = replace(settings, storage="memory", **changes)
    return build_cache(dataset, settings, encoder=Pooling(), text=Letters())


def told(cache, level="warning"):
    return [finding.text for finding in cache.findings if finding.level == level]


# ---------------------------------------------------------------- weight after the geometry


def upright(n=6, *, faces=5):
    """Upright pictures whose mask is a face at the top; the last ones have theirs in the middle."""
    pictures = [np.full((384, 128, 3), 0.1 * i, np.float32) for i in range(n)]
    masks = [np.zeros((384, 128), np.float32) for _ in range(n)]
    for i, mask in enumerate(masks):
        top = 10 if i < faces else 170
        mask[top : top + 60, 30:90] = 1
    return captioned(pictures, masks)


def test_pictures_whose_mask_the_crop_cuts_away_are_named():
    (text,) = told(cache_of(upright(), resolution=128, bucketing=False))
    assert text.startswith("5 of 6 pictures teach nothing: the crop cuts their whole mask away: picture-0001, ")
    assert "around mask" in text


def test_nothing_is_told_where_the_crop_follows_the_mask():
    assert told(cache_of(upright(), resolution=128, bucketing=False, crop="around mask")) == []
    assert told(cache_of(upright(), resolution=128, bucketing=True)) == []


def test_a_set_that_the_crop_leaves_nothing_of_is_an_error_that_says_so():
    with pytest.raises(MaskError, match="which cuts it away: set crop in Cache Dataset to around mask"):
        cache_of(upright(3, faces=3), resolution=128, bucketing=False)


@pytest.mark.parametrize(("end", "share"), [(512, "10%"), (560, "50%")])
def test_a_mask_that_the_crop_cuts_to_a_sliver_is_told_with_its_share(end, share):
    # A banner of 1000×64 keeps its middle 64 pixels.
    banner, mask = np.zeros((64, 1000, 3), np.float32), np.zeros((64, 1000), np.float32)
    mask[10:50, 476 if share == "10%" else 490 : end] = 1
    mask[10:50, 100 : 100 + (324 if share == "10%" else 0)] = 1
    whole = np.pad(np.ones((20, 20), np.float32), 22)
    data = captioned([banner, np.ones((64, 64, 3), np.float32)], [mask, whole])
    texts = told(cache_of(data, resolution=64, bucketing=False))
    wanted = "1 of 2 pictures loses most of its mask to the crop: picture-0001 (keeps 10%)"
    assert [text.partition(". ")[0] for text in texts] == ([wanted] if share == "10%" else [])


def test_random_crops_that_leave_nothing_are_told_as_such():
    mask = np.zeros((384, 128), np.float32)
    mask[4:40, 40:80] = 1
    data = captioned([np.zeros((384, 128, 3), np.float32)] * 2, [mask, np.flipud(mask).copy()])
    cache = cache_of(data, resolution=128, bucketing=False, crop="random", variants=12)
    assert any("teach nothing in some of their crops" in text for text in told(cache))


def test_masks_shrunk_on_purpose_are_no_loss():
    cache = cache_of(upright(), resolution=128, crop="random", variants=6, mask_shrink=0.2)
    assert told(cache) == []


def test_black_masks_among_others_are_told_and_all_black_ones_are_an_error_without_advice_that_hurts():
    data = upright()
    black = np.zeros((384, 128), np.float32)
    some = merge([data, captioned([np.zeros((384, 128, 3), np.float32)], [black], name="black")])
    texts = told(cache_of(some, resolution=128))
    assert texts[0].startswith("1 of 7 pictures teaches nothing: its mask is black everywhere: black-0001.")
    with pytest.raises(MaskError, match="Their files are black everywhere") as caught:
        cache_of(captioned([np.zeros((64, 64, 3), np.float32)] * 2, [np.zeros((64, 64), np.float32)]))
    assert "invert" not in str(caught.value)


def test_masks_that_the_transforms_take_away_are_an_error_that_names_the_widgets():
    data = upright().with_transform(MaskTransform(binarize=True, threshold=1.0))
    with pytest.raises(MaskError, match=r"at most 1\.00.*lower threshold"):
        cache_of(data, resolution=128)


def test_what_is_told_is_the_same_from_a_cache_that_is_there_already(tmp_path):
    settings = replace(SETTINGS, resolution=128, bucketing=False)
    first, second = (
        build_cache(upright(), settings, encoder=Pooling(), text=Letters(), folder=tmp_path) for _ in range(2)
    )
    assert second.built == {"latent": 0, "mask": 0, "text": 0, "reference": 0}
    assert first.findings == second.findings != ()
    (tmp_path / "memo.json").unlink()
    third = build_cache(upright(), settings, encoder=Pooling(), text=Letters(), folder=tmp_path)
    assert third.findings == first.findings


# ---------------------------------------------------------------- scale and channel


def folder_of(tmp_path, masks):
    rng = np.random.default_rng(0)
    for i, mask in enumerate(masks):
        Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(tmp_path / f"{i}.png")
        Image.fromarray(mask).save(tmp_path / f"{i}_mask.png")
        (tmp_path / f"{i}.txt").write_text("a picture")
    return load_dataset(DatasetSettings(folder=str(tmp_path)), allowed=lambda path: path)


def disc(value, dtype=np.uint8):
    y, x = np.indices((SIDE, SIDE))
    return np.where(np.hypot(y - 30, x - 33) < 18, value, 0).astype(dtype)


def test_masks_of_zero_and_one_are_learned_as_white_ones_and_told(tmp_path):
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    odd, plain = (
        cache_of(folder_of(tmp_path / "a", [disc(1)] * 3)),
        cache_of(folder_of(tmp_path / "b", [disc(255)] * 3)),
    )
    for a, b in zip(odd.entries, plain.entries, strict=True):
        assert np.array_equal(odd.mask(a).numpy(), plain.mask(b).numpy())
        assert [v.mask for v in a.variants] != [v.mask for v in b.variants]
    assert told(plain, "note") == told(plain) == told(odd) == []
    (text,) = told(odd, "note")
    assert text.startswith("3 of 3 pictures: the values are 0 and 1") and "0.png" in text


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (np.maximum(disc(2), np.fliplr(disc(3))), r"small numbers.*threshold of 0\.0059"),
        (disc(128), r"largest weight is 0\.50.*threshold of 0\.25"),
        (disc(90), r"largest weight is 0\.35"),
    ],
)
def test_masks_in_a_scale_that_may_be_meant_are_told_with_what_to_choose(tmp_path, mask, words):
    data = folder_of(tmp_path, [mask] * 2)
    (text,) = told(cache_of(data))
    assert re.search(words, text), text
    threshold = float(re.search(r"threshold of (0\.\d+)", text).group(1))
    mended = cache_of(data.with_transform(MaskTransform(binarize=True, threshold=threshold)))
    assert told(mended) == []
    assert mended.weights[mended.entries[0].variants[0].mask] == pytest.approx((mask > 0).mean(), abs=0.02)


def test_one_pale_colour_of_a_palette_is_learned_as_white(tmp_path):
    picture = Image.fromarray((disc(255) > 0).astype(np.uint8), "P")
    picture.putpalette([0, 0, 0, 192, 128, 128])
    cache = cache_of(folder_of(tmp_path, [np.asarray(picture.convert("RGB"))] * 2))
    assert told(cache) == [] and "one colour on black" in told(cache, "note")[0]
    assert cache.weights[cache.entries[0].variants[0].mask] == pytest.approx((disc(255) > 0).mean(), abs=0.02)


@pytest.mark.parametrize("count", [1, 2])
def test_masks_that_leave_nothing_out_are_told_where_all_do(tmp_path, count):
    white = [np.full_like(disc(255), 255)] * count
    for name in ("white", "some"):
        (tmp_path / name).mkdir()
    (warned,) = told(cache_of(folder_of(tmp_path / "white", white)), "warning")
    assert warned.startswith("All 2 masks are white everywhere" if count > 1 else "The only mask is white everywhere")
    assert told(cache_of(folder_of(tmp_path / "some", [*white, disc(255)])), "warning") == []


@pytest.mark.parametrize("kind", ["white on red", "white over a class", "grey against alpha"])
def test_what_is_white_somewhere_is_still_asked_about(tmp_path, kind):
    white = disc(255)
    masks = {
        "white on red": np.dstack([np.full_like(white, 255), white, white]),
        "white over a class": np.dstack([white, white, np.maximum(white, 200)]),
        "grey against alpha": np.dstack([white, white, white, 255 - white]),
    }
    (text,) = (line for line in told(cache_of(folder_of(tmp_path, [masks[kind]] * 2))) if "inverted" not in line)
    assert "mask_channel" in text


@pytest.mark.parametrize("pale", [128, 40])
def test_masks_without_black_are_told_with_what_they_leave_in(tmp_path, pale):
    mask = np.maximum(disc(255), pale)
    data = folder_of(tmp_path, [mask, disc(255)])
    (text,) = told(cache_of(data), "note")
    assert text.startswith("1 of 2 pictures: no part of the mask is black") and f"{pale / 255:.2f}: 0.png." in text
    assert told(cache_of(data.with_transform(MaskTransform(binarize=True, threshold=0.6))), "note") == []
    (tmp_path / "white").mkdir()
    assert told(cache_of(folder_of(tmp_path / "white", [np.full_like(mask, 255)])), "note") == []


@pytest.mark.parametrize(("top", "words"), [(100, r"largest weight is 0\.39"), (3, "small numbers")])
def test_a_picture_s_own_alpha_is_judged_as_a_mask_file_is(tmp_path, top, words):
    for i in range(2):
        colours = np.random.default_rng(i).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
        Image.fromarray(np.dstack([colours, disc(top)])).save(tmp_path / f"{i}.png")
        (tmp_path / f"{i}.txt").write_text("a picture")
    data = load_dataset(DatasetSettings(folder=str(tmp_path)), allowed=lambda path: path)
    (text,) = told(cache_of(data))
    assert re.search(words, text), text


# ---------------------------------------------------------------- inverted sets


def scene(rng):
    """A picture with a subject of the same colours in surroundings that change, and the subject's mask."""
    height, width = (int(v) for v in rng.integers(64, 129, 2))
    small = rng.random((int(rng.integers(2, 6)), int(rng.integers(2, 6)), 3)).astype(np.float32)
    picture = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC).clip(0, 1)
    y, x = np.indices((height, width)) / np.array([height, width])[:, None, None]
    kind = rng.integers(4)
    size = rng.uniform(0.1, 0.38) if kind < 2 else rng.uniform(0.25, 0.45)
    cy, cx = rng.uniform(0.3, 0.7, 2)
    if kind == 0:
        mask = np.hypot(y - cy, x - cx) < size
    elif kind == 1:
        mask = (abs(y - cy) < size) & (abs(x - cx) < size * rng.uniform(0.4, 1))
    elif kind == 2:
        # Head and shoulders, cut by the lower border.
        mask = (np.hypot(y - 0.35, x - cx) < size / 2) | ((y > 0.55) & (abs(x - cx) < size))
    else:
        # From a leg to a head: cut by two borders.
        mask = abs(x - cx) < size * (0.4 + 0.3 * np.sin(3 * y))
    mask = mask.astype(np.float32)
    subject = np.array([0.8, 0.3, 0.2], np.float32) + 0.1 * rng.standard_normal((height, width, 1)).astype(np.float32)
    picture = np.where(mask[..., None] > 0, subject, picture).clip(0, 1)
    return picture, cv2.GaussianBlur(mask, (0, 0), 2) if rng.random() < 0.3 else mask


def set_of(seed, *, invert):
    rng = np.random.default_rng(seed)
    pairs = [scene(rng) for _ in range(int(rng.integers(1, 25)))]
    masks = [1 - mask if invert else mask for _, mask in pairs]
    return cache_of(captioned([picture for picture, _ in pairs], masks), resolution=64, bucket_step=8, batch_size=32)


def looks_inverted(cache):
    return any("look inverted" in text for text in told(cache))


def rates(seeds):
    """Shares of inverted sets that are told, and of good ones that are told by mistake."""
    return tuple(np.mean([looks_inverted(set_of(seed, invert=invert)) for seed in seeds]) for invert in (True, False))


def test_inverted_sets_are_told_and_good_ones_are_not():
    # Made-up sets, to which the bounds were not fitted; MASKLORA_SETS=200 looks at more of them.
    told_rightly, told_wrongly = rates(range(100, 100 + int(os.environ.get("MASKLORA_SETS", "25"))))
    assert told_rightly >= 0.9, f"{told_rightly:.1%} of the inverted sets are told"
    assert told_wrongly <= 0.02, f"{told_wrongly:.1%} of the good sets are told"


def test_an_inverted_set_is_told_with_two_pictures_and_how_to_turn_it():
    (text,) = told(set_of(3, invert=True))
    assert text.count("picture-00") == 2 and "turn on invert in Transform Masks" in text and "Load Image" in text


def test_a_set_of_one_picture_is_judged_too():
    picture, mask = scene(np.random.default_rng(5))
    assert looks_inverted(cache_of(captioned([picture], [1 - mask]), resolution=64))
    assert not looks_inverted(cache_of(captioned([picture], [mask]), resolution=64))


def test_pictures_painted_in_the_mask_editor_are_told_as_inverted(tmp_path):
    rng = np.random.default_rng(8)
    for i in range(4):
        picture, mask = scene(rng)
        painted = np.dstack([picture, 1 - mask])
        Image.fromarray(np.rint(painted * 255).astype(np.uint8)).save(tmp_path / f"clipspace {i}.png")
        (tmp_path / f"clipspace {i}.txt").write_text("a picture")
    data = load_dataset(DatasetSettings(folder=str(tmp_path)), allowed=lambda path: path)
    (text,) = told(cache_of(data, resolution=64))
    assert "look inverted" in text and "mask editor" in text
    assert told(cache_of(data.with_transform(MaskTransform(invert=True)), resolution=64)) == []
