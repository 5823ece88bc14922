"""Frames of a clip as a person sees them: which are learned together, and each decoded but once going forwards."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from harness.clip_files import halves, sequence, video
from masklora.cache.shots import ClipRule
from masklora.clips import decoding
from masklora.dataset.loading import load_dataset
from masklora.dataset.moving import load_frames
from masklora.errors import DataError
from masklora.loss.masks import effective_weights
from masklora.settings import CacheSettings, DatasetSettings, LossSettings, MaskTransform
from masklora.viewing.browsing import Lens
from masklora.viewing.clip_frames import FrameReader, clip_frames, frame_mask, frame_weights
from masklora.viewing.inspection import whole_geometry

SIZE = (64, 48)
LENS = Lens(LossSettings(), 8, ClipRule(True, 4))


@pytest.fixture
def walk(tmp_path):
    """A clip of 21 frames with a mask that moves, a key frame every seven."""
    folder = tmp_path / "walk"
    folder.mkdir()
    video(folder / "walk.mp4", 21, SIZE, rate=10)
    video(folder / "walk_mask.mkv", frames=halves(21, SIZE), rate=10)
    return load_dataset(DatasetSettings(folder=str(folder)), allowed=lambda path: path).samples[0]


def test_times_parts_and_groups_are_those_of_the_cache(walk):
    found = clip_frames(walk, CacheSettings(clip_frames=9, clip_chunking="slide"), LENS)
    assert found.rate == 10 and found.times[:3].tolist() == pytest.approx([0, 0.1, 0.2])
    assert found.parts == [tuple(range(9)), tuple(range(9, 18))]
    assert [found.group_of(n) for n in (0, 1, 4, 5, 8)] == [
        (0,), (1, 2, 3, 4), (1, 2, 3, 4), (5, 6, 7, 8), (5, 6, 7, 8)
    ]  # fmt: skip
    assert [found.group_of(n) for n in (9, 10, 17, 18)] == [(9,), (10, 11, 12, 13), (14, 15, 16, 17), (18,)]
    assert found.part_of(18) is None and found.keys[0] == 0
    unknown = clip_frames(walk, CacheSettings(clip_frames=9), Lens(LossSettings(), 8))
    assert unknown.parts == [] and unknown.group_of(3) == (3,)


def test_a_folder_of_frames_is_played_at_the_rate_that_is_asked_for_or_the_usual_one(tmp_path):
    folder = tmp_path / "set"
    sequence(folder / "run.frames", 4, SIZE)
    sample = load_dataset(DatasetSettings(folder=str(folder)), allowed=lambda path: path).samples[0]
    asked = clip_frames(sample, CacheSettings(clip_rate=8), LENS)
    assert asked.rate == 0 and asked.times.tolist() == [0, 0.125, 0.25, 0.375] and asked.keys == []
    assert clip_frames(sample, CacheSettings(), LENS).times.tolist() == [0, 1 / 16, 2 / 16, 3 / 16]


@pytest.mark.parametrize(
    "loss", [{}, {"frame_reduction": "max", "gamma": 2.0}, {"mask_type": "hard", "latent_blur": 3}]
)
def test_the_weights_of_a_latent_frame_are_those_that_the_whole_clip_has_there(walk, loss):
    lens = replace(LENS, loss=LossSettings(**loss))
    geometry = whole_geometry(SIZE, 8)
    frames = list(range(9))
    masks = torch.from_numpy(np.stack([one.mask for one in load_frames(walk, frames)]))
    wanted = effective_weights(masks[None, None], lens.loss, grid=(3, 6, 8))[0, 0].numpy()
    found = clip_frames(walk, CacheSettings(clip_frames=9), lens)
    for latent, number in enumerate((0, 3, 7)):
        weights = frame_weights(walk, found.group_of(number), geometry, lens)
        assert np.abs(weights - wanted[latent]).max() < 1e-4
        assert 0 < weights.mean() < 1


def test_the_mask_of_a_frame_is_its_own_after_transforms_along_time(walk):
    plain = [frame_mask(walk, number) for number in (9, 10, 11)]
    joined = frame_mask(replace(walk, transform=MaskTransform(frame_union=1)), 10)
    assert np.array_equal(joined, np.maximum.reduce(plain)) and not np.array_equal(joined, plain[1])


def test_frames_read_in_any_order_are_those_of_one_pass(walk):
    wanted = list(load_frames(walk, range(21)))
    reader = FrameReader()
    for number in (0, 1, 2, 2, 9, 20, 3, 4, 19, 0):
        found = reader.read("walk", walk, number)
        assert np.array_equal(found.rgb, wanted[number].rgb) and np.array_equal(found.mask, wanted[number].mask)
    with pytest.raises(DataError, match="only 21 frames"):
        reader.read("walk", walk, 21)
    assert np.array_equal(reader.read("walk", walk, 5).rgb, wanted[5].rgb)


def test_played_forwards_a_clip_is_opened_once_and_let_go_of_when_nobody_reads(walk, monkeypatch):
    begun = []
    real = decoding._Source._begin
    monkeypatch.setattr(decoding._Source, "_begin", lambda *a, **k: (begun.append(1), real(*a, **k))[1])
    reader = FrameReader()
    for number in range(21):
        reader.read("walk", walk, number)
    # Clip and mask, each from its beginning.
    once = len(begun)
    assert once <= 4
    reader.close_if_idle(60)
    reader.read("walk", walk, 20)
    assert len(begun) == once
    reader.close_if_idle(0)
    reader.read("walk", walk, 20)
    assert len(begun) > once
