"""Mask generators on clips: one mask for all frames, one from each, or those of key frames carried over the rest."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from harness.clip_files import frames_of, sequence
from harness.clips import write_clip
from harness.folders import anywhere, folder_settings, grey, picture
from masklora.cache.facts import facts_of
from masklora.cache.keys import Memo
from masklora.dataset.loading import load_dataset
from masklora.dataset.moving import examine_frames, load_frames, times_of
from masklora.dataset.sample import load_mask, load_sample
from masklora.errors import ConfigError, MaskError
from masklora.generators.apply import GenerateSettings, Watch, generate
from masklora.generators.blobs import BlobSettings, blob_maker
from masklora.generators.clips import CARRIED, EACH_FRAME, STILL, ClipWay, parse_key_frames
from masklora.generators.colour import ColourSettings, colour_maker
from masklora.generators.finding import Finding, Things
from masklora.generators.flow import Carried
from masklora.generators.grabcut import ROUGH_MASK, GrabCutSettings, grabcut_maker, grabcut_way
from masklora.generators.shapes import CIRCULAR_SHRINK, ShapeSettings, shape_maker
from masklora.pictures.packed_mask import PackedFrames, PackedMask, pack_mask
from masklora.settings import MaskTransform

SIZE = (96, 64)
COUNT = 7
GREEN = (0, 200, 0)


def scene(count=COUNT, *, gone=()):
    """A green disc that moves by three pixels a frame before a rough grey wall: pictures and true masks."""
    random = np.random.default_rng(5)
    wall = cv2.GaussianBlur(random.integers(60, 200, (SIZE[1], SIZE[0], 1)).astype(np.float32), (0, 0), 1.5)
    skin = cv2.GaussianBlur(random.normal(0, 60, (SIZE[1], SIZE[0])).astype(np.float32), (0, 0), 1.5)
    pictures, masks = [], []
    for number in range(count):
        mask = np.zeros((SIZE[1], SIZE[0]), np.float32)
        if number not in gone:
            cv2.circle(mask, (30 + 3 * number, 32), 16, 1, -1)
        moved = np.roll(skin, 3 * number, axis=1)
        disc = np.clip(np.float32(GREEN) + np.dstack([0 * moved, moved, 0 * moved]), 0, 255)
        pictures.append(np.where(mask[..., None] > 0, disc, wall[..., None]).astype(np.uint8))
        masks.append(mask)
    return pictures, masks


def clip_set(folder, pictures):
    write_clip(folder / "walk.mkv", pictures)
    return load_dataset(folder_settings(folder), allowed=anywhere)


def masks_of(sample, count=COUNT):
    return np.stack([found.mask for found in examine_frames(sample, range(count))])


def overlap(one, other):
    return float(np.minimum(one, other).sum() / np.maximum(one, other).sum())


def green(**values):
    return colour_maker(ColourSettings(colours="#00c800", tolerance=90, **values))


def made(dataset, make, way, combine="fill missing only", **values):
    result, lines = generate(dataset, make, GenerateSettings(combine, **values), label="Made", way=way)
    return result, lines


def test_without_a_way_each_frame_gets_a_mask(tmp_path):
    pictures, truth = scene()
    result, _ = made(clip_set(tmp_path, pictures), green(), None)
    assert np.array_equal(masks_of(result.samples[0]), np.stack(truth))


def test_shapes_are_one_still_mask_for_all_frames(tmp_path):
    dataset = clip_set(tmp_path, scene()[0])
    for make in (shape_maker(ShapeSettings(box="10, 10, 40, 30")), blob_maker(BlobSettings())):
        result, lines = made(dataset, make, ClipWay(STILL))
        (sample,) = result.samples
        assert isinstance(sample.mask, PackedMask) and not sample.moves and load_mask(sample).any()
        assert lines[0].level == "note"
        assert all(np.array_equal(one.mask, load_mask(sample)) for one in load_frames(sample, range(COUNT)))


def test_colours_are_looked_for_in_each_frame(tmp_path):
    pictures, truth = scene(gone=(3,))
    result, lines = made(clip_set(tmp_path, pictures), green(), ClipWay(EACH_FRAME))
    (sample,) = result.samples
    assert isinstance(sample.mask, PackedFrames) and sample.moves and len(sample.mask) == COUNT
    assert np.array_equal(masks_of(sample), np.stack(truth))
    assert lines[0].level == "note" and "7 frames, of which frame 3 have nothing: no pixel within" in lines[0].text
    assert f"covers {np.mean(truth):.1%}" in lines[0].text
    assert result.report.matched == ("walk.mkv",) and sample.made_by == "Made (fill missing only)"


def test_a_colour_from_a_point_is_that_of_the_first_frame(tmp_path):
    pictures, truth = scene()
    make = colour_maker(ColourSettings(point="30, 32", colour_from_point=True, tolerance=90))
    result, _ = made(clip_set(tmp_path, pictures), make, ClipWay(EACH_FRAME))
    found = masks_of(result.samples[0])
    # The disc moves on from the point; while it is there, it is found.
    assert all(np.array_equal(found[number], truth[number]) for number in range(5))
    assert not found[6].any() or overlap(found[6], truth[6]) > 0.9


@pytest.mark.parametrize(("nothing_found", "value"), [("white", 1), ("black", 0)])
def test_a_clip_without_the_colour_gets_what_is_asked_for(tmp_path, nothing_found, value):
    dataset = clip_set(tmp_path, scene(gone=range(COUNT))[0])
    with pytest.raises(MaskError, match=r"nothing was found in 1 of 1 clip: walk\.mkv: nothing found \(in none of 7"):
        made(dataset, green(), ClipWay(EACH_FRAME))
    result, lines = made(dataset, green(), ClipWay(EACH_FRAME), nothing_found=nothing_found)
    assert (load_mask(result.samples[0]) == value).all() and lines[0].level == "warning"


def test_grabcut_cuts_the_key_frame_and_is_carried_on(tmp_path):
    pictures, truth = scene()
    settings = GrabCutSettings(start="box", box="10, 12, 42, 40")
    result, lines = made(clip_set(tmp_path, pictures), grabcut_maker(settings), grabcut_way(settings))
    (sample,) = result.samples
    found = masks_of(sample)
    assert overlap(found[0], truth[0]) > 0.9 and set(np.unique(found)) == {0, 1}
    assert all(overlap(found[number], truth[number]) > 0.85 for number in range(COUNT))
    assert lines[0].level == "note" and "from the box, carried from frame 0 over 7 frames; covers" in lines[0].text


def test_key_frames_are_cut_and_those_beyond_the_end_passed_over(tmp_path):
    pictures, _ = scene()
    settings = GrabCutSettings(start="box", box="10, 12, 60, 40", key_frames="6 0,40")
    asked = []

    def make(picture):
        asked.append(picture.name)
        return grabcut_maker(settings)(picture)

    _, lines = made(clip_set(tmp_path, pictures), make, grabcut_way(settings))
    assert asked == ["walk.mkv (frame 0)", "walk.mkv (frame 6)"]
    assert "carried from frame 0, 6 over 7 frames" in lines[0].text
    with pytest.raises(ConfigError, match=r"key_frames: walk\.mkv has 7 frames, numbered from 0 to 6, and none of"):
        made(clip_set(tmp_path, pictures), make, ClipWay(CARRIED, (7,)))


def test_a_tracker_gets_what_was_found_and_frames_in_which_it_is_lost_are_told(tmp_path):
    pictures, truth = scene()
    things = Things(truth[2][None] > 0, truth[2][None] < 0)
    given = {}

    def track(read, count, keys, *, things, check_cancel, progress):
        given.update(keys=keys, things=things, frames=list(read(range(count))))
        check_cancel()
        progress(1, count)
        drift = np.float32([1, 1, 0, 0, 0, 1, 0])
        return Carried(PackedFrames(tuple(pack_mask(mask) for mask in truth)), drift, drift)

    way = ClipWay(CARRIED, (2,), track=track)
    result, lines = made(clip_set(tmp_path, pictures), lambda picture: Finding(truth[2], "a disc", things), way)
    assert list(given["keys"]) == [2] and given["things"] == {2: things} and len(given["frames"]) == COUNT
    assert np.array_equal(masks_of(result.samples[0]), np.stack(truth))
    assert lines[0].level == "warning"
    assert "in frame 0–1, 5 what was followed is no longer seen, and the masks are black: if it is" in lines[0].text
    assert "add 0 to key_frames. The masks cover" in lines[0].text
    assert "(a disc, followed from frame 2 over 7 frames)" in lines[0].text


def test_a_key_frame_in_which_nothing_is_found_is_told_as_a_warning(tmp_path):
    pictures, truth = scene(9, gone=(4,))
    way = ClipWay(CARRIED, key_frames=(0, 4))

    def make(seen):
        empty = "frame 4" in seen.name
        return Finding(None, "nothing here") if empty else Finding(truth[0])

    result, lines = made(clip_set(tmp_path, pictures), make, way)
    assert result.samples[0].moves and lines[0].level == "warning"
    assert "nothing was found in frame 4, which has what is carried" in lines[0].text


@pytest.mark.parametrize("text", ["", "a", "-1", "1.5", "0; x"])
def test_key_frames_that_are_no_numbers_are_refused(text):
    with pytest.raises(ConfigError, match="key_frames: expected numbers of frames from 0 on"):
        parse_key_frames(text)


def test_a_mask_that_is_lost_sight_of_is_told_with_its_frame(tmp_path):
    pictures, truth = scene(16)
    for number in range(5, 16):
        pictures[number][:, max(0, 12 * (number - 5)) : 12 * (number - 5) + 30] = 128
    way = ClipWay(CARRIED)
    result, lines = made(clip_set(tmp_path, pictures), lambda seen: Finding(truth[0]), way)
    assert result.samples[0].moves and lines[0].level == "warning"
    assert "the mask may have drifted (sight of " in lines[0].text and " to key_frames, or save" in lines[0].text


def test_a_rough_mask_that_moves_is_cut_in_each_frame(tmp_path):
    pictures, truth = scene()
    dataset, _ = made(clip_set(tmp_path, pictures), green(), ClipWay(EACH_FRAME))
    settings = GrabCutSettings(start=ROUGH_MASK)
    result, lines = made(dataset, grabcut_maker(settings), grabcut_way(settings), "replace")
    assert "carried" not in lines[0].text
    found = masks_of(result.samples[0])
    assert all(overlap(found[number], truth[number]) > 0.85 for number in range(COUNT))


def test_a_disc_of_a_mask_that_moves_is_refused(tmp_path):
    dataset, _ = made(clip_set(tmp_path, scene()[0]), green(), ClipWay(EACH_FRAME))
    make = shape_maker(ShapeSettings(shape=CIRCULAR_SHRINK))
    with pytest.raises(MaskError, match=r"walk\.mkv: a still mask would be made of its mask, which moves"):
        made(dataset, make, ClipWay(STILL, of_mask=True), "replace")


@pytest.mark.parametrize("combine", ["replace", "union", "intersect", "subtract"])
def test_masks_join_frame_by_frame(tmp_path, combine):
    pictures, truth = scene()
    there, _ = made(clip_set(tmp_path, pictures), green(), ClipWay(EACH_FRAME))
    half = np.zeros((SIZE[1], SIZE[0]), np.float32)
    half[:, 40:] = 1
    result, _ = made(there, lambda seen: Finding(half), ClipWay(STILL), combine)
    truth = np.stack(truth)
    wanted = {
        "union": np.maximum(truth, half),
        "intersect": np.minimum(truth, half),
        "subtract": np.minimum(truth, 1 - half),
    }
    (sample,) = result.samples
    if combine == "replace":
        assert not sample.moves and np.array_equal(load_mask(sample), half)
    else:
        assert np.array_equal(masks_of(sample), wanted[combine])


def test_a_still_mask_that_is_there_joins_with_every_frame(tmp_path):
    pictures, truth = scene()
    half = np.zeros((SIZE[1], SIZE[0]), np.float32)
    half[:, 40:] = 1
    grey(tmp_path / "walk_mask.png", half)
    dataset = clip_set(tmp_path, pictures)
    result, _ = made(dataset, green(), ClipWay(EACH_FRAME), "intersect")
    assert np.array_equal(masks_of(result.samples[0]), np.minimum(np.stack(truth), half))
    kept, lines = made(dataset, green(), ClipWay(EACH_FRAME))
    assert kept.samples[0].mask_path == tmp_path / "walk_mask.png" and lines[0].text.endswith(
        "kept the mask that was there"
    )


def test_a_kept_mask_takes_its_transforms_in(tmp_path):
    pictures, truth = scene()
    write_clip(tmp_path / "walk_mask.mkv", [np.repeat(255 * m[..., None], 3, 2).astype(np.uint8) for m in truth])
    dataset = clip_set(tmp_path, pictures).with_transform(MaskTransform(invert=True))
    result, _ = made(dataset, green(), ClipWay(EACH_FRAME))
    (sample,) = result.samples
    assert sample.transform == MaskTransform() and isinstance(sample.mask, PackedFrames)
    assert np.array_equal(masks_of(sample), 1 - np.stack(truth))
    again = result.with_transform(MaskTransform(invert=True)).samples[0]
    assert np.array_equal(masks_of(again), np.stack(truth))


def test_pictures_and_clips_stand_in_one_set(tmp_path):
    picture(tmp_path / "cat.png", SIZE)
    write_clip(tmp_path / "walk.mkv", scene()[0])
    dataset = load_dataset(folder_settings(tmp_path), allowed=anywhere)
    seen = []
    watch = Watch(progress=lambda done, total, text: seen.append((done, total, text)))
    everywhere = lambda given: Finding(np.ones(given.rgb.shape[:2], np.float32))  # noqa: E731
    result, _ = generate(dataset, everywhere, GenerateSettings(), label="Made", watch=watch, way=ClipWay(EACH_FRAME))
    assert [sample.moves for sample in result.samples] == [False, True]
    assert (1, 2, "Made: walk.mkv, frame 3 of 7") in seen


def test_a_stop_stops_between_frames(tmp_path):
    dataset, asked = clip_set(tmp_path, scene()[0]), []

    class Stop(Exception):
        pass

    def stop():
        if len(asked) == 3:
            raise Stop

    def make(seen):
        asked.append(seen.name)
        return Finding(None)

    with pytest.raises(Stop):
        generate(
            dataset, make, GenerateSettings(), label="Made", watch=Watch(check_cancel=stop), way=ClipWay(EACH_FRAME)
        )
    assert len(asked) == 3


def test_a_moving_mask_in_memory_is_read_as_one_in_a_file(tmp_path):
    pictures, truth = scene()
    result, _ = made(clip_set(tmp_path, pictures), green(), ClipWay(EACH_FRAME))
    (sample,) = result.samples
    assert len(times_of(sample)) == COUNT
    shown = list(load_frames(sample, [1, 4, 4]))
    assert [np.array_equal(one.mask, truth[number]) for one, number in zip(shown, [1, 4, 4], strict=True)] == [True] * 3
    assert shown[0].has_mask and np.array_equal(load_sample(sample).mask, truth[0])
    short = replace(sample, mask=PackedFrames(sample.mask.frames[:-1]))
    with pytest.raises(MaskError, match=r"walk\.mkv: the mask has 6 frames but the clip has 7"):
        times_of(short)


def test_the_cache_tells_moving_masks_apart_by_values_and_frames(tmp_path):
    dataset = clip_set(tmp_path / "set", scene()[0])
    result, _ = made(dataset, green(), ClipWay(EACH_FRAME))
    (sample,) = result.samples
    memo = Memo(tmp_path / "memo")

    def identity(one, frames):
        facts = facts_of(one, frames, memo=memo, boxed=True)
        assert facts.moving
        return facts.identity

    same = replace(sample, mask=PackedFrames(tuple(sample.mask.frames)))
    other = replace(sample, mask=PackedFrames(sample.mask.frames[::-1]))
    assert identity(sample, (0, 1, 2)) == identity(same, (0, 1, 2))
    assert len({identity(sample, (0, 1, 2)), identity(sample, (1, 2, 3)), identity(other, (0, 1, 2))}) == 3
    facts = facts_of(sample, (0, 6), memo=memo, boxed=True)
    # From the disc of the first frame to that of the last.
    assert np.allclose(facts.box, (14 / 96, 16 / 64, 65 / 96, 49 / 64), atol=0.02)


def test_a_folder_of_frames_is_a_clip_too(tmp_path):
    sequence(tmp_path / "walk.frames", frames=frames_of(4))
    dataset = load_dataset(folder_settings(tmp_path), allowed=anywhere)
    result, _ = made(dataset, lambda seen: Finding((seen.rgb[..., 2] > 60).astype(np.float32)), ClipWay(EACH_FRAME))
    found = masks_of(result.samples[0], 4)
    assert np.array_equal(found, (frames_of(4)[..., 2] > 60).astype(np.float32))


def carried_from(numbers, truth):
    """A generator that knows the masks of its key frames by their names."""
    return lambda seen: Finding(truth[int(seen.name.rpartition(" ")[2].strip(")"))]), ClipWay(CARRIED, numbers)


def test_a_subject_that_has_left_is_told_with_its_frames(tmp_path):
    pictures, truth = scene(40)
    result, lines = made(clip_set(tmp_path, pictures), *carried_from((0,), truth))
    assert not truth[39].any() and result.samples[0].moves
    assert lines[0].level == "warning" and lines[0].text.startswith("walk.mkv: in frame ")
    assert "–39 the subject seems to be hidden or to have left the picture, and the mask lies on" in lines[0].text
    assert "clip_start and clip_end in Cache Dataset" in lines[0].text


def test_frames_behind_a_cut_are_black_and_told(tmp_path):
    pictures, truth = scene()
    other = [
        np.rot90(picture, 2).copy()[:, ::-1] ^ np.uint8(255) for picture, _ in zip(pictures, range(4), strict=False)
    ]
    other = [cv2.GaussianBlur(np.roll(one, 31, axis=1), (0, 0), 0.8) for one in other]
    result, lines = made(clip_set(tmp_path, pictures + other), *carried_from((0,), truth))
    found = masks_of(result.samples[0], 11)
    assert found[:7].any(axis=(1, 2)).all() and not found[7:].any()
    assert lines[0].level == "warning"
    assert (
        "frame 7–10 is of another scene than the key frames, and its mask is black: add 7 to key_frames"
        in lines[0].text
    )


def test_a_still_rough_mask_moves_to_later_key_frames_before_they_are_cut(tmp_path):
    pictures, truth = scene(20)
    rough = cv2.dilate(truth[0], np.ones((5, 5), np.uint8))
    grey(tmp_path / "walk_mask.png", rough)
    settings = GrabCutSettings(start=ROUGH_MASK, key_frames="0, 14")
    dataset = clip_set(tmp_path, pictures)
    result, lines = made(dataset, grabcut_maker(settings), grabcut_way(settings), "replace")
    found = masks_of(result.samples[0], 20)
    assert lines[0].level == "note"
    assert min(overlap(found[number], truth[number]) for number in range(15)) > 0.85
