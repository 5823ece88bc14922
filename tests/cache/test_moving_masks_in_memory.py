"""Moving masks in memory go into the cache as those of a file do."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from harness.caching import Letters
from harness.clips import write_clip
from masklora.cache.cache import build_cache
from masklora.cache.shots import ClipRule
from masklora.dataset.loading import load_dataset
from masklora.dataset.sample import Dataset
from masklora.errors import MaskError
from masklora.pictures.packed_mask import PackedFrames, pack_mask
from masklora.settings import CacheSettings, DatasetSettings, MaskTransform

SIDE, COUNT = 64, 13
SETTINGS = CacheSettings(
    resolution=SIDE, bucket_step=16, infill_variants=0, clip_frames=9, storage="memory", upscale=True
)


class Pooling:
    """A VAE for clips that keeps every fourth frame's colours, averaged over 8×8 pixels."""

    channels, stride, rule, identity = 3, 8, ClipRule(True, 4), "pooling"

    def encode_clip(self, frames):
        return torch.nn.functional.avg_pool2d(frames[::4].movedim(-1, 1), 8).movedim(0, 1)


def masks():
    out = np.zeros((COUNT, SIDE, SIDE), np.float32)
    for number in range(COUNT):
        out[number, 16:40, 3 * number : 3 * number + 20] = 1
    return out


@pytest.fixture
def pair(tmp_path):
    """The same masks as a data set reads them from a clip, and in memory."""
    write_clip(tmp_path / "walk.mkv", [np.full((SIDE, SIDE, 3), 9 * number, np.uint8) for number in range(COUNT)])
    white = [np.repeat(255 * mask[..., None], 3, axis=2).astype(np.uint8) for mask in masks()]
    write_clip(tmp_path / "masks" / "walk.mkv", white)
    from_file = load_dataset(DatasetSettings(folder=str(tmp_path)), allowed=lambda path: path)
    (sample,) = from_file.samples
    assert sample.mask_moving
    given = replace(sample, mask=PackedFrames(tuple(map(pack_mask, masks()))), mask_path=None, mask_moving=False)
    return from_file, Dataset((given,))


def cached(dataset, **changes):
    cache = build_cache(dataset, replace(SETTINGS, **changes), encoder=Pooling(), text=Letters())
    return cache, cache.entries


@pytest.mark.parametrize("transform", [{}, {"invert": True}, {"grow": 3.0}, {"frame_union": 2}, {"feather": 2.0}])
@pytest.mark.parametrize("changes", [{}, {"clip_start": 0.1}, {"clip_chunking": "whole"}])
def test_they_are_cached_as_those_of_a_file(pair, transform, changes):
    found = []
    for dataset in pair:
        cache, (entry,) = cached(dataset.with_transform(MaskTransform(**transform)), **changes)
        assert entry.moving and entry.has_mask
        found.append((entry.frames, entry.bucket, cache.mask(entry)))
    assert found[0][:2] == found[1][:2] and torch.equal(found[0][2], found[1][2])
    if not transform:
        wanted = torch.from_numpy(masks()[list(found[1][0])])
        assert torch.equal(found[1][2][0], wanted)


def test_another_number_of_frames_is_an_error_that_names_both(pair):
    (sample,) = pair[1].samples
    short = replace(sample, mask=PackedFrames(sample.mask.frames[:-1]))
    with pytest.raises(MaskError, match=r"walk\.mkv: the mask has 12 frames but the clip has 13"):
        cached(Dataset((short,)))


def test_the_crop_around_the_mask_holds_all_frames_that_are_shown(pair):
    crops = []
    for dataset in pair:
        _, entries = cached(dataset, crop="masked crop", crop_margin=0.0)
        crops.append([variant.geometry for variant in entries[0].variants])
    assert crops[0] == crops[1]
