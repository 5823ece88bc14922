"""Laws of key frames' masks followed by ComfyUI's own SAM 3 trackers."""

import numpy as np
import pytest
import torch

import masklora.host.finders.tracking as tracking
from harness.models import small_model
from harness.segmentation_models import core_node, load_sam3, write_sam3
from masklora.errors import FamilyError
from masklora.generators.finding import Things
from masklora.host.finders.tracking import track, track_from

SIZE = (60, 80)
# With these seeds the random trackers see something in each frame.
SEEDS = {"SAM31": 8, "SAM3": 5}


@pytest.fixture(scope="module", autouse=True)
def tracker_node(comfy_host):
    return core_node("SAM3_VideoTrack", "nodes_sam3.py")


@pytest.fixture(scope="module")
def ruled(tmp_path_factory):
    """MODEL that follows what touches where a thing was seen last."""
    return load_sam3(write_sam3(tmp_path_factory.mktemp("sam3") / "ruled.safetensors", ruled=True))[0]


@pytest.fixture(scope="module", params=["SAM31", "SAM3"])
def random(tmp_path_factory, request):
    path = tmp_path_factory.mktemp("sam3") / "random.safetensors"
    return load_sam3(write_sam3(path, kind=request.param, seed=SEEDS[request.param]))[0]


class Clip:
    """Frames that are read one at a time, and how often and in which order they were."""

    def __init__(self, pictures):
        self.pictures, self.read_numbers = pictures, []

    def __call__(self, numbers):
        for number in numbers:
            self.read_numbers.append(number)
            yield self.pictures[number]


def square(x, y, size=SIZE, side=20):
    mask = np.zeros(size, bool)
    mask[y : y + side, x : x + side] = True
    return mask


def moving(count, *, gone=()):
    """A white square that moves by four pixels a frame above one that stands: a clip and the masks of both."""
    movers = [np.zeros(SIZE, bool) if n in gone else square(2 + 4 * n, 4) for n in range(count)]
    still = square(40, 34)
    pictures = [np.repeat((mover | still)[..., None], 3, -1).astype(np.uint8) * 255 for mover in movers]
    return Clip(pictures), movers, still


def overlap(one, other):
    one, other = one > 0.5, other > 0.5
    return (one & other).sum() / (one | other).sum()


def test_the_masks_are_those_of_comfyui_s_own_tracker_in_both_directions(random, tracker_node):
    pictures = np.random.default_rng(0).integers(0, 256, (4, *SIZE, 3), np.uint8)
    key = square(20, 10).astype(np.float32)
    carried = track(random, Clip(pictures), 4, {1: key})
    network = random.model.diffusion_model
    for way in ([1, 2, 3], [1, 0]):
        images = torch.from_numpy(pictures[way]).float() / 255
        with torch.inference_mode():
            if hasattr(network.tracker, "track_video_with_detection"):
                data = tracker_node.execute(images, random, initial_mask=torch.from_numpy(key)[None]).result[0]
                masks = core_node("SAM3_TrackToMask", "nodes_sam3.py").execute(data).result[0]
            else:
                # ComfyUI's node gives SAM 3.1's answers only.
                answer = network.forward_video(images.movedim(-1, 1), torch.from_numpy(key)[None, None])
                masks = torch.nn.functional.interpolate((answer > 0).float(), SIZE, mode="bilinear")[:, 0]
        for number, mask in list(zip(way, masks.numpy(), strict=True))[1:]:
            found = carried.masks.unpack(number)
            assert 0.01 < found.mean() < 0.99
            assert (found != (mask >= 0.5)).mean() < 0.002
            assert carried.drift[number] == 0


def test_a_key_frame_s_mask_comes_back_as_it_is_and_every_frame_has_one(ruled):
    clip, movers, _ = moving(7)
    grey = movers[3] * np.float32(0.6)
    carried = track(ruled, clip, 7, {3: grey})
    assert len(carried.masks) == 7 and carried.drift.shape == (7,) and not carried.drift.any()
    assert np.abs(carried.masks.unpack(3) - grey).max() < 1e-5
    for number in (0, 1, 2, 4, 5, 6):
        assert overlap(carried.masks.unpack(number), movers[number]) > 0.9


@pytest.mark.parametrize("way", [range(2, 5), range(2, -1, -1), range(2, 3)])
def test_one_direction_alone_gives_the_same_masks(ruled, way):
    clip, movers, _ = moving(5)
    whole = track(ruled, clip, 5, {2: movers[2].astype(np.float32)})
    found = list(track_from(ruled, clip, movers[2].astype(np.float32), way))
    assert [number for number, _, _ in found] == list(way[1:])
    assert all(mask.digest == whole.masks.frames[number].digest and drift == 0 for number, mask, drift in found)


def test_each_frame_between_two_key_frames_is_that_of_the_nearer(ruled):
    clip, movers, still = moving(8)
    carried = track(ruled, clip, 8, {1: movers[1].astype(np.float32), 6: still.astype(np.float32)})
    for number in range(8):
        assert overlap(carried.masks.unpack(number), movers[number] if number < 4 else still) > 0.9


def test_each_of_several_things_is_followed_and_the_unwanted_ones_are_taken_out(ruled):
    clip, movers, still = moving(4)
    both = movers[0] | still
    things = {0: Things(np.stack([both, square(2, 4)]), still[None])}
    carried = track(ruled, clip, 4, {0: movers[0].astype(np.float32)}, things=things)
    for number in range(4):
        assert overlap(carried.masks.unpack(number), movers[number]) > 0.9


def test_what_overlaps_is_one_thing_and_what_is_taken_out_is_followed_apart_from_it(ruled):
    one, inner, beside = square(10, 10), square(15, 15, side=5), square(40, 10)
    things = tracking._small_things(Things(np.stack([inner, beside, one]), inner[None]))
    assert [mask.tolist() for mask in things.wanted] == [beside.tolist(), one.tolist()] and len(things.unwanted) == 1
    clip, movers, still = moving(3)
    done = []
    things = {0: Things(movers[0][None], still[None])}
    keys = {0: movers[0].astype(np.float32)}
    track(ruled, clip, 3, keys, things=things, progress=lambda *steps: done.append(steps))
    assert done == [(step, 6) for step in range(1, 7)]


def test_frames_in_which_nothing_is_found_are_black_and_told(ruled):
    clip, movers, _ = moving(6, gone=(3, 4))
    carried = track(ruled, clip, 6, {0: movers[0].astype(np.float32)})
    assert carried.drift.tolist() == [0, 0, 0, 1, 1, 0]
    assert not carried.masks.unpack(3).any() and overlap(carried.masks.unpack(5), movers[5]) > 0.5


def test_an_empty_key_frame_says_that_nothing_is_there(ruled):
    clip, movers, _ = moving(6)
    carried = track(ruled, clip, 6, {0: movers[0].astype(np.float32), 5: np.zeros(SIZE, np.float32)})
    assert [carried.masks.unpack(number).any() for number in range(6)] == [True] * 3 + [False] * 3
    assert not carried.drift.any()


@pytest.mark.parametrize("key", [0, 6, 13])
def test_frames_are_decoded_once_when_they_are_asked_for_and_in_small_pieces_backwards(ruled, key, monkeypatch):
    monkeypatch.setattr(tracking, "_BLOCK", 4)
    clip, kept, ahead = Clip(np.zeros((14, 6, 8, 3), np.uint8)), [], []
    start = tracking._Frames.__init__

    def remember(self, *args, **more):
        kept.append(self)
        start(self, *args, **more)

    monkeypatch.setattr(tracking._Frames, "__init__", remember)
    steps = 14 + (key == 6)

    def progress(done, total):
        assert total == steps and max(len(one._kept) for one in kept) <= 3
        ahead.append(len(clip.read_numbers) - done)

    track(ruled, clip, 14, {key: square(2, 1, (6, 8), 3).astype(np.float32)}, progress=progress)
    assert len(ahead) == len(clip.read_numbers) == steps
    assert max(ahead) == (3 if key else 0)


def test_a_long_clip_goes_on_from_where_the_thing_was_seen_last(ruled, monkeypatch):
    clip, movers, _ = moving(9, gone=(3, 4))
    whole = track(ruled, clip, 9, {0: movers[0].astype(np.float32)})
    # Answers of three frames fit, so the second piece begins at frame 3 with the thing as it was in frame 2.
    monkeypatch.setattr(tracking, "_KEPT_ANSWERS", 3 * 1008 * 126)
    seen = []
    frames = tracking._Frames

    def piece(read, numbers, *, size):
        seen.append(list(numbers))
        return frames(read, numbers, size=size)

    monkeypatch.setattr(tracking, "_Frames", piece)
    carried = track(ruled, clip, 9, {0: movers[0].astype(np.float32)})
    assert seen == [[0, 1, 2], [2, 3, 4], [2, 5, 6], [6, 7, 8]]
    assert carried.masks.digest == whole.masks.digest and np.array_equal(carried.drift, whole.drift)


def test_things_whose_answers_do_not_fit_together_are_followed_one_after_the_other(ruled, monkeypatch):
    clip, movers, still = moving(4)
    keys = {0: (movers[0] | still).astype(np.float32)}
    things = {0: Things(np.stack([movers[0], still]), np.zeros((0, *SIZE), bool))}
    together = track(ruled, clip, 4, keys, things=things)
    monkeypatch.setattr(tracking, "_KEPT_ANSWERS", 4 * 1008 * 126)
    done = []
    apart = track(ruled, clip, 4, keys, things=things, progress=lambda *steps: done.append(steps))
    assert apart.masks.digest == together.masks.digest
    assert done == [(step, 8) for step in range(1, 9)]


def test_a_large_clip_is_handed_on_no_larger_than_sam_3_looks(ruled):
    size = (1100, 2000)
    clip = Clip(
        [np.repeat(square(100 + 40 * n, 100, size, 300)[..., None], 3, -1).astype(np.uint8) * 255 for n in (0, 1)]
    )
    frames = tracking._Frames(clip, [0, 1], size=(1008, 1008))
    assert frames[slice(0, 1)].shape == (1, 3, 1008, 1008) and frames[slice(0, 1)].max() == 1
    carried = track(ruled, clip, 2, {0: square(100, 100, size, 300).astype(np.float32)})
    assert overlap(carried.masks.unpack(1), square(140, 100, size, 300)) > 0.95


def test_a_thin_thing_of_a_large_clip_is_still_followed():
    line = np.zeros((1, 1100, 2000), bool)
    line[0, :, 700] = True
    small = tracking._small_things(Things(line, line[:0])).wanted
    assert small.shape == (1, 1008, 1008) and small.any(axis=(0, 2)).all()


def test_a_cancel_takes_effect_between_two_frames(ruled):
    class Cancelled(BaseException):
        pass

    asked = []

    def check_cancel():
        asked.append(1)
        if len(asked) == 3:
            raise Cancelled

    clip, movers, _ = moving(8)
    with pytest.raises(Cancelled):
        track(ruled, clip, 8, {0: movers[0].astype(np.float32)}, check_cancel=check_cancel)
    assert len(clip.read_numbers) == 3


@pytest.mark.parametrize("keys", [(), (-1,), (0, 4)])
def test_key_frames_that_the_clip_has_not_are_refused(ruled, keys):
    with pytest.raises(ValueError, match="expected key frames from 0 to 3, got"):
        track(ruled, Clip([]), 4, {key: np.zeros(SIZE, np.float32) for key in keys})


def test_another_model_is_refused():
    with pytest.raises(FamilyError, match="model: expected SAM 3, got"):
        track(small_model("sd15"), Clip([]), 4, {0: np.zeros(SIZE, np.float32)})
