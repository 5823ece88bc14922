"""Clips as samples: their headers, their masks, what is refused, and what one sees of them."""

import os
import shutil
import time
from dataclasses import replace

import numpy as np
import pytest

from harness.clip_files import SIZE, animation, frames_of, halves, sequence, video
from harness.folders import anywhere, folder_settings, grey, picture
from masklora.dataset.loading import load_dataset
from masklora.dataset.moving import times_of
from masklora.dataset.sample import Sample, load_mask, load_sample
from masklora.errors import DataError, MaskError
from masklora.saving.captions import raw_caption, save_caption
from masklora.saving.editing import raw_mask, save_mask
from masklora.saving.saving import save_masks
from masklora.saving.targets import SaveSettings
from masklora.saving.versions import Versions
from masklora.viewing.inspection import inspect

STILL = np.pad(np.ones((12, 16)), ((6, 6), (8, 8)))


def loaded(folder, **values):
    return load_dataset(folder_settings(folder, **values), allowed=anywhere)


def only(folder, **values):
    (sample,) = loaded(folder, **values).samples
    return sample


def made(path, **values):
    make = (
        sequence
        if path.suffix in (".frames", "")
        else animation
        if path.suffix in (".gif", ".apng", ".webp")
        else video
    )
    return make(path, **values)


@pytest.mark.parametrize("name", ["walk.mp4", "walk.gif", "walk.frames"])
def test_a_clip_is_one_sample_with_its_header(tmp_path, name):
    made(tmp_path / name)
    (tmp_path / "walk.txt").write_text("a walk")
    sample = only(tmp_path)
    assert (sample.key, sample.name, sample.size, sample.caption) == (name, name, SIZE, "a walk")
    assert sample.image_path == tmp_path / name and sample.moving.frames == 5 and sample.moving.size == SIZE
    assert not sample.mask_moving and sample.mask_path is None
    first = load_sample(sample)
    assert np.abs(first.rgb.astype(int) - frames_of(5)[0]).mean() < 12
    assert not first.has_mask


def test_samples_of_pictures_are_what_they_were(tmp_path):
    picture(tmp_path / "a.png", SIZE)
    grey(tmp_path / "a_mask.png", STILL)
    video(tmp_path / "walk.mp4")
    (still,) = [sample for sample in loaded(tmp_path).samples if sample.moving is None]
    (tmp_path / "walk.mp4").unlink()
    dataset = loaded(tmp_path)
    before = dataset.samples[0]
    assert replace(still, settings=before.settings).__dict__ == before.__dict__
    assert (before.moving, before.mask_moving) == (Sample.moving, Sample.mask_moving) == (None, False)
    assert dataset.report.to_text().startswith("1 picture: 1 with a mask, 0 without.") and dataset.report.clips == ()


@pytest.mark.parametrize("mask", ["walk_mask.mp4", "walk_mask.gif", "walk_mask.frames"])
def test_a_mask_that_moves_gives_its_first_frame_with_that_of_the_clip(tmp_path, mask):
    video(tmp_path / "walk.mp4")
    made(tmp_path / mask, frames=halves(5))
    sample = only(tmp_path)
    assert sample.mask_path == tmp_path / mask and sample.mask_moving
    assert np.abs(load_mask(sample) - halves(5)[0, ..., 0] / 255).mean() < 0.06
    assert load_sample(sample).has_mask


def test_a_still_mask_of_a_clip_is_read_as_that_of_a_picture(tmp_path):
    video(tmp_path / "walk.mp4")
    grey(tmp_path / "walk_mask.png", STILL)
    sample = only(tmp_path)
    assert not sample.mask_moving and np.array_equal(load_mask(sample), STILL.astype(np.float32))


@pytest.mark.parametrize("source", ["auto", "alpha"])
def test_the_alpha_of_a_clip_is_its_mask(tmp_path, source):
    frames = np.concatenate([frames_of(5), halves(5)[..., :1]], axis=3)
    animation(tmp_path / "walk.apng", frames=frames)
    sample = only(tmp_path, mask_source=source)
    assert sample.alpha and sample.moving.alpha
    assert np.array_equal(load_mask(sample), halves(5)[0, ..., 0] / np.float32(255))
    # A mask beside it comes first; none is none.
    assert not only(tmp_path, mask_source="none").alpha
    grey(tmp_path / "walk_mask.png", STILL)
    assert not only(tmp_path).alpha


@pytest.mark.parametrize("name", ["walk.apng", "walk.frames", "walk.webp"])
def test_an_alpha_that_is_opaque_in_every_frame_is_no_mask(tmp_path, name):
    frames = np.concatenate([frames_of(5), np.full((5, SIZE[1], SIZE[0], 1), 255, np.uint8)], axis=3)
    made(tmp_path / name, frames=frames)
    dataset = loaded(tmp_path)
    assert dataset.samples[0].moving.alpha and not dataset.samples[0].alpha
    assert dataset.report.to_text().startswith("1 clip: 0 with a mask, 1 without.")
    with pytest.raises(MaskError, match="mask_source is alpha, but no picture has transparent parts"):
        loaded(tmp_path, mask_source="alpha")
    # The last frame, of five, is transparent in a corner.
    frames[4, :8, :8, 3] = 0
    shutil.rmtree(tmp_path / name) if name.endswith(".frames") else (tmp_path / name).unlink()
    made(tmp_path / name, frames=frames)
    assert only(tmp_path, mask_source="alpha").alpha


@pytest.mark.parametrize("mask", ["cat_mask.mp4", "cat_mask.frames", "masks/cat.gif"])
def test_a_mask_that_moves_is_refused_for_a_still_picture(tmp_path, mask):
    picture(tmp_path / "cat.png", SIZE)
    made(tmp_path / mask, frames=halves(5))
    with pytest.raises(MaskError, match=rf"cat\.png: its mask {os.path.basename(mask)} is a clip, but cat\.png is one"):  # noqa: PTH119
        loaded(tmp_path)


@pytest.mark.parametrize("clip", ["walk.mp4", "walk.gif", "walk.frames"])
@pytest.mark.parametrize("mask", ["walk_mask.mp4", "walk_mask.gif", "walk_mask.frames"])
def test_another_number_of_frames_is_refused_with_both_counts(tmp_path, clip, mask):
    made(tmp_path / clip, count=5)
    made(tmp_path / mask, frames=halves(4))
    with pytest.raises(MaskError) as error:
        loaded(tmp_path)
    assert str(error.value).startswith(f"{clip} has 5 frames, but its mask {mask} has 4 frames.")
    assert "one frame for each of its clip's" in str(error.value)
    os.replace(tmp_path / mask, tmp_path / "gone")  # noqa: PTH105
    made(tmp_path / mask, frames=halves(5))
    assert {sample.name for sample in loaded(tmp_path).samples if sample.mask_moving} == {clip}


def test_all_masks_of_other_lengths_are_told_at_once(tmp_path):
    for number in range(3):
        video(tmp_path / f"{number}.mp4", 5)
        video(tmp_path / f"{number}_mask.mp4", frames=halves(3 + number))
    with pytest.raises(MaskError, match=r"0\.mp4 has 5 frames, .* 3 frames; 1\.mp4 has 5 frames, .* 4 frames\. The fr"):
        loaded(tmp_path)


@pytest.mark.parametrize("mask", ["walk_mask.mp4", "walk_mask.png"])
def test_another_aspect_is_refused_as_of_a_picture(tmp_path, mask):
    video(tmp_path / "walk.mp4")
    square = halves(5, (24, 24))
    grey(tmp_path / mask, square[0, ..., 0] / 255) if mask.endswith(".png") else video(tmp_path / mask, frames=square)
    expected = (
        rf"walk\.mp4 \(mask file {mask}\): the mask is 24×24 but the image is 32×24\. Save the mask at the image's"
    )
    with pytest.raises(MaskError, match=expected):
        loaded(tmp_path)


def test_a_damaged_clip_is_named_with_its_folder(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "walk.mp4").write_bytes(b"no clip")
    with pytest.raises(DataError, match=r"deep/walk\.mp4"):
        loaded(tmp_path)
    video(tmp_path / "deep" / "walk.mp4")
    (tmp_path / "deep" / "walk_mask.mp4").write_bytes(b"no clip")
    with pytest.raises(MaskError, match=r"deep/walk\.mp4 \(mask file walk_mask\.mp4\)"):
        loaded(tmp_path)


def test_masks_of_subjects_that_move_are_learned_one_by_one_and_never_joined(tmp_path):
    video(tmp_path / "p" / "walk.mp4")
    video(tmp_path / "m" / "walk.anna.mp4", frames=halves(5))
    video(tmp_path / "m" / "walk.ben.mp4", frames=halves(5))
    values = {"mask_folder": str(tmp_path / "m")}
    with pytest.raises(MaskError, match=r"walk\.mp4 \[together\]: walk\.anna\.mp4 is a clip.*Set together to 0"):
        loaded(tmp_path / "p", **values)
    samples = loaded(tmp_path / "p", together=0.0, **values).samples
    assert [(sample.subject, sample.mask_moving) for sample in samples] == [("anna", True), ("ben", True)]


def test_numbered_masks_that_move_are_refused(tmp_path):
    video(tmp_path / "walk.mp4")
    for number in (0, 1):
        video(tmp_path / f"walk_mask_{number}.mp4", frames=halves(5))
    with pytest.raises(MaskError, match=r"walk\.mp4: walk_mask_0\.mp4 is one of several numbered masks and is a clip"):
        loaded(tmp_path)


def mixed(folder):
    picture(folder / "cat.png", SIZE)
    video(folder / "run.mp4")
    video(folder / "walk.mp4")
    video(folder / "walk_mask.mp4", frames=halves(5))
    return loaded(folder)


def test_statistics_are_of_the_first_frame(tmp_path):
    dataset = mixed(tmp_path)
    report = inspect(dataset)
    assert [stats.name for stats in report.pictures] == ["cat.png", "run.mp4", "walk.mp4"]
    assert report.pictures[2].coverage == pytest.approx(0.5, abs=0.03)
    assert report.to_text().startswith("2 clips, 1 picture: 1 with a mask, 2 without.")


def test_save_masks_writes_those_of_pictures_and_clips(tmp_path):
    dataset = mixed(tmp_path / "set")
    settings = SaveSettings("mask folder", without_mask="white")
    save_masks(dataset, settings, destination=tmp_path / "all", allowed=anywhere)
    assert {file.name for file in (tmp_path / "all").iterdir()} == {"cat.png", "run.png", "walk.mkv"}
    # A picture beside them can be saved by itself.
    save_masks(dataset, settings, destination=tmp_path / "out", allowed=anywhere, picture=0)
    assert (tmp_path / "out" / "cat.png").is_file()


@pytest.mark.parametrize("name", ["run.mp4", "run.frames", "run.gif"])
def test_a_still_mask_is_painted_for_a_whole_clip(tmp_path, name):
    made(tmp_path / "set" / name)
    grey(tmp_path / "set" / "run_mask.png", STILL)
    versions = Versions(tmp_path / "kept")
    sample = only(tmp_path / "set")
    assert np.array_equal(raw_mask(sample, allowed=anywhere).weights, STILL.astype(np.float32))
    (tmp_path / "set" / "run_mask.png").unlink()
    bare = only(tmp_path / "set")
    raw = raw_mask(bare, allowed=anywhere)
    levels = np.rint(STILL * 255).astype(np.uint8)
    after = save_mask(bare, levels, raw.token, allowed=anywhere, versions=versions)
    assert after.mask_path == tmp_path / "set" / "run-masklabel.png" and not after.mask_moving
    again = only(tmp_path / "set")
    assert again.moving is not None and np.array_equal(load_mask(again), STILL.astype(np.float32))


def test_a_mask_that_moves_is_not_painted(tmp_path):
    sample = mixed(tmp_path / "set").samples[2]
    with pytest.raises(DataError, match=r"walk\.mp4 is a clip, and its mask walk_mask\.mp4 is one too"):
        raw_mask(sample, allowed=anywhere)
    frames = np.concatenate([frames_of(5), halves(5)[..., :1]], axis=3)
    animation(tmp_path / "alpha" / "walk.png", frames=frames)
    content = (tmp_path / "alpha" / "walk.png").read_bytes()
    for source in ("auto", "alpha"):
        sample = only(tmp_path / "alpha", mask_source=source)
        with pytest.raises(DataError, match=r"walk\.png is a clip, and its mask is its own transparency"):
            save_mask(sample, halves(5)[0, ..., 0], "x", allowed=anywhere, versions=Versions(tmp_path / "kept"))
    assert (tmp_path / "alpha" / "walk.png").read_bytes() == content


def test_a_mask_beside_a_clip_whose_name_another_clip_has_is_not_written(tmp_path):
    sample = only(video(tmp_path / "set" / "walk.mp4").parent)
    sequence(tmp_path / "set" / "walk.frames")
    with pytest.raises(DataError, match=r"walk\.frames has the same name, so the mask would fit both"):
        raw_mask(sample, allowed=anywhere)


@pytest.mark.parametrize(
    ("name", "file"), [("run.mp4", "run.txt"), ("run.frames", "run.txt"), ("cat.mp4", "cat.mp4.txt")]
)
def test_a_caption_of_a_clip_is_written_where_it_is_found_again(tmp_path, name, file):
    picture(tmp_path / "cat.png", SIZE)
    made(tmp_path / name)
    sample = {one.name: one for one in loaded(tmp_path).samples}[name]
    token = raw_caption(sample, allowed=anywhere).token
    save_caption(sample, "a run", token, allowed=anywhere, versions=Versions(tmp_path.parent / "kept"))
    assert (tmp_path / file).read_text().strip() == "a run"
    assert {one.name: one.caption for one in loaded(tmp_path).samples} == {"cat.png": None, name: "a run"}


def test_a_thousand_clips_load_without_decoding_in_ten_seconds(tmp_path):
    clip = video(tmp_path / "clip.mp4")
    mask = video(tmp_path / "mask.mp4", frames=halves(5))
    folder = tmp_path / "set"
    folder.mkdir()
    for number in range(1000):
        os.link(clip, folder / f"{number}.mp4")
        os.link(mask, folder / f"{number}_mask.mp4")
    start = time.process_time()
    dataset = loaded(folder)
    assert time.process_time() - start < 10
    assert len(dataset.report.matched) == len(dataset.report.clips) == 1000


@pytest.mark.parametrize("at", [0, 2, 4])
@pytest.mark.parametrize("fault", [b"", b"no picture at all"])
def test_a_damaged_frame_of_a_mask_folder_is_told_with_the_clip(tmp_path, at, fault):
    video(tmp_path / "walk.mp4")
    sequence(tmp_path / "walk_mask.frames", frames=halves(5))
    (tmp_path / "walk_mask.frames" / f"{at:04d}.png").write_bytes(fault)
    with pytest.raises(MaskError, match=rf"walk\.mp4 \(mask file walk_mask\.frames\).*{at:04d}\.png"):
        times_of(only(tmp_path))


@pytest.mark.parametrize("stray", ["cover.jpg", "0002.jpg", "contact sheet.png"])
def test_a_picture_among_frames_that_is_none_is_told(tmp_path, stray):
    sequence(tmp_path / "walk.frames")
    picture(tmp_path / "walk.frames" / stray, SIZE)
    with pytest.raises(DataError, match=rf"walk\.frames: .*{stray.replace('.', '[.]')}"):
        loaded(tmp_path)


def test_frames_without_any_numbers_are_still_a_clip(tmp_path):
    for name in ("a.png", "b.png", "c 1.png"):
        picture(tmp_path / "walk.frames" / name, SIZE)
    assert only(tmp_path).moving.frames == 3


def test_a_gif_that_lacks_equal_frames_is_told_with_what_to_do(tmp_path):
    video(tmp_path / "walk.mp4", count=6)
    masks = halves(3).repeat(2, axis=0)
    animation(tmp_path / "walk_mask.gif", frames=masks)
    with pytest.raises(MaskError, match=r"6 frames, but its mask walk_mask\.gif has 3 frames.* as the one before it"):
        loaded(tmp_path)
