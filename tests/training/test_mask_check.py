"""Pictures that the loss settings leave without any weight are told by name before the first step."""

from dataclasses import replace

import numpy as np
import pytest

from harness.caching import SETTINGS, ClipPooling, Pooling
from harness.clips import write_clip
from masklora.cache.cache import build_cache
from masklora.dataset.loading import load_dataset
from masklora.dataset.sample import Dataset, Sample
from masklora.errors import MaskError
from masklora.settings import DatasetSettings, LossSettings
from masklora.training.mask_check import weightless

SIDE = 64


def mask(*, value=1.0, box=(8, 8, 56, 56)):
    out = np.zeros((SIDE, SIDE), np.float32)
    left, top, right, bottom = box
    out[top:bottom, left:right] = value
    return out


# Learned under all of these settings; dim; a quarter of a cell of 8 pixels, off its corner.
WHOLE, DIM, SMALL = mask(), mask(value=0.4), mask(box=(33, 33, 37, 37))


@pytest.fixture
def cache(tmp_path):
    """A cache of pictures with these masks by name; None is a picture without a mask."""

    def make(*, size=(SIDE, SIDE), settings=SETTINGS, of=None, **masks):
        samples = []
        for seed, (name, one) in enumerate(masks.items()):
            image = np.random.default_rng(seed).random((size[1], size[0], 3), dtype=np.float32)
            own = DatasetSettings(**(of or {}).get(name, {}))
            samples.append(Sample(f"memory:{name}", name, size, image=image, mask=one, caption="", settings=own))
        return build_cache(Dataset(tuple(samples)), settings, encoder=Pooling(), folder=tmp_path)

    return make


def told(cache, **loss):
    found = weightless(cache, LossSettings(**loss), grid_of=lambda bucket: (bucket[1] // 8, bucket[0] // 8))
    assert all(one.level == "warning" for one in found)
    return [one.text for one in found]


@pytest.mark.parametrize(
    ("loss", "named", "why"),
    [
        ({"mask_type": "hard"}, "dim", "mask_type hard"),
        ({"reduction": "all"}, "small", "reduction all"),
        ({"reduction": "nearest"}, "small", "reduction nearest"),
        ({"weight_threshold": 0.5}, "dim and small", "weight_threshold 0.5"),
        # The floor lifts what is outside, and the threshold takes it again.
        ({"weight_threshold": 0.3, "floor": 0.1}, "small", "weight_threshold 0.3"),
        ({"mask_type": "hard", "reduction": "all"}, "dim and small", "mask_type hard, reduction all"),
    ],
)
def test_pictures_without_weight_are_named_with_the_setting_that_takes_it(cache, loss, named, why):
    (text,) = told(cache(whole=WHOLE, dim=DIM, small=SMALL, none=None), **loss)
    assert "teach nothing under" in text or "teaches nothing under" in text
    assert why in text and "Masked Loss" in text
    listed = text.split("any weight: ")[1].split(". Change")[0]
    assert {name for name in ("whole", "dim", "small", "none") if name in listed} == set(named.split(" and "))


@pytest.mark.parametrize(
    "loss", [{}, {"mask_type": "hard", "floor": 0.1}, {"reduction": "all", "floor": 0.01, "floor_mode": "max"}]
)
def test_nothing_is_told_where_every_mask_keeps_some_weight_or_a_floor_gives_it(cache, loss):
    assert told(cache(whole=WHOLE, dim=DIM, small=SMALL), **loss) == []


def test_a_picture_that_learns_in_some_of_its_crops_only_is_told_as_that(cache):
    bright_left = np.hstack([mask(value=1.0), mask(value=0.4), mask(value=0.4), mask(value=0.4)])
    settings = replace(SETTINGS, crop="random", variants=24, bucketing=False)
    (text,) = told(cache(size=(4 * SIDE, SIDE), settings=settings, long=bright_left), mask_type="hard")
    assert "in some of its crops under mask_type hard" in text and "long" in text


@pytest.mark.parametrize("others", [{}, {"black": np.zeros((SIDE, SIDE), np.float32)}, {"classes": WHOLE}])
def test_nothing_left_to_learn_is_an_error_with_the_first_picture(cache, others):
    made = cache(dim=DIM, faint=DIM / 2, **others, of={"classes": {"regularisation": True}})
    with pytest.raises(MaskError, match=r"Nothing in the cache has .*mask_type hard.*dim.*Change these in Masked Loss"):
        told(made, mask_type="hard")


def test_looking_can_be_cancelled(cache):
    def cancel():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        weightless(cache(whole=WHOLE), LossSettings(mask_type="hard"), grid_of=lambda _: (8, 8), check_cancel=cancel)


def test_a_clip_of_which_the_least_of_its_frames_leaves_nothing_is_told(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (2, 5, SIDE, SIDE, 3), dtype=np.uint8)
    masks = np.zeros_like(frames)
    # The first walks on by its own width in each frame, and comes after the first one; the other stays.
    for number in range(1, 5):
        masks[0, number, 8:16, 8 * number : 8 * number + 8] = 255
    masks[1, :, 8:16, 8:16] = 255
    for clip, own, name in zip(frames, masks, ("walks", "stays"), strict=True):
        write_clip(tmp_path / "set" / f"{name}.mkv", clip)
        write_clip(tmp_path / "set" / "masks" / f"{name}.mkv", own)
    settings = replace(SETTINGS, clip_frames=5, resolution=SIDE)
    data = load_dataset(DatasetSettings(folder=str(tmp_path / "set")), allowed=lambda path: path)
    made = build_cache(data, settings, encoder=ClipPooling(), folder=tmp_path / "store")
    (text,) = told(made, frame_reduction="min")
    assert "walks" in text and "stays" not in text and "frame_reduction min" in text
    assert told(made, frame_reduction="max") == told(made) == []
