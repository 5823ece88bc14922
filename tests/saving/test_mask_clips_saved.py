"""Masks that move, saved as clips and loaded again: the same masks, bit for bit, and nothing lost on the way."""

import hashlib
from dataclasses import replace

import av
import numpy as np
import pytest

from harness.clip_files import SIZE, animation, frames_of, halves, sequence, video
from harness.clips import write_clip
from harness.folders import anywhere, folder_settings, grey, picture
from masklora.dataset.corrections import replace_masks
from masklora.dataset.loading import load_dataset
from masklora.dataset.moving import examine_frames
from masklora.dataset.sample import Dataset, load_mask
from masklora.errors import ConfigError, DataError, MaskError
from masklora.pictures.packed_mask import PackedFrames, pack_mask
from masklora.saving.saving import save_masks
from masklora.saving.targets import SaveSettings
from masklora.saving.versions import Versions
from masklora.settings import MaskTransform

COUNT = 5


def loaded(folder, **values):
    return load_dataset(folder_settings(folder, **values), allowed=anywhere)


def masks_of(sample, count=COUNT):
    return np.stack([found.mask for found in examine_frames(sample, range(count))])


def packed(masks):
    return PackedFrames(tuple(map(pack_mask, masks)))


def with_masks(folder, masks, **values):
    """The data set of a folder with one clip, whose masks are in memory."""
    (sample,) = loaded(folder, **values).samples
    return Dataset((replace(sample, mask=packed(masks)),))


def hard():
    return halves(COUNT)[..., 0].astype(np.float32) / np.float32(255)


def soft(steps):
    random = np.random.default_rng(steps)
    values = random.integers(0, steps, (COUNT, SIZE[1], SIZE[0]), endpoint=True)
    return values.astype(np.float32) / np.float32(steps)


def faint():
    masks = np.zeros((COUNT, SIZE[1], SIZE[0]), np.float32)
    masks[:, 3:9, 3:9] = np.float32(1) / np.float32(255)
    return masks


def late():
    masks = np.zeros((COUNT, SIZE[1], SIZE[0]), np.float32)
    masks[-1, :, :9] = 1
    return masks


@pytest.mark.parametrize("layout", ["mask folder", "_mask.png", "-masklabel.png"])
@pytest.mark.parametrize(
    "masks", [hard(), soft(255), soft(65535), faint(), late()], ids=["hard", "8", "16", "faint", "late"]
)
@pytest.mark.parametrize("clip", ["deep/walk.mp4", "walk.gif", "walk.frames"])
def test_what_is_written_loads_as_the_same_masks(tmp_path, layout, masks, clip):
    folder, there = tmp_path / "set", tmp_path / "masks"
    (sequence if clip.endswith("frames") else animation if clip.endswith("gif") else video)(folder / clip)
    dataset = with_masks(folder, masks)
    before = hashlib.sha256(b"".join(p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file())).hexdigest()
    saved = save_masks(dataset, SaveSettings(layout=layout), destination=there, allowed=anywhere)
    name = "walk" + ("" if layout == "mask folder" else layout.removesuffix(".png")) + ".mkv"
    file = (there if layout == "mask folder" else folder) / clip.replace(clip.rpartition("/")[2], name)
    assert saved.dataset.samples[0].mask_path == file and saved.dataset.samples[0].mask_moving
    assert "1 mask written" in saved.text and "1 mask moves and is a clip of grey frames, .mkv." in saved.text
    found = loaded(folder, mask_folder=str(there) if layout == "mask folder" else "")
    (again,) = found.samples
    assert again.mask_path == file and again.moves
    for sample in (again, saved.dataset.samples[0]):
        assert np.array_equal(masks_of(sample), masks)
    file.unlink()
    if layout == "mask folder":
        assert not list(there.rglob("*.*"))
    else:
        rest = hashlib.sha256(b"".join(p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()))
        assert rest.hexdigest() == before


def test_the_file_is_lossless_grey_with_the_clips_times(tmp_path):
    video(tmp_path / "set" / "walk.mp4", rate=8)
    save_masks(with_masks(tmp_path / "set", hard()), SaveSettings(layout="_mask.png"), allowed=anywhere)
    with av.open(str(tmp_path / "set" / "walk_mask.mkv")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("ffv1", "gray")
        assert [round(1000 * frame.time) for frame in container.decode(stream)] == [0, 125, 250, 375, 500]


def test_transforms_are_in_the_file(tmp_path):
    video(tmp_path / "walk.mp4")
    dataset = with_masks(tmp_path, hard()).with_transform(MaskTransform(invert=True))
    (sample,) = save_masks(dataset, SaveSettings(layout="_mask.png"), allowed=anywhere).dataset.samples
    assert sample.transform == MaskTransform()
    assert np.array_equal(masks_of(loaded(tmp_path).samples[0]), 1 - hard())


def test_a_still_mask_of_a_clip_is_written_as_that_of_a_picture(tmp_path):
    video(tmp_path / "walk.mp4")
    (sample,) = loaded(tmp_path).samples
    dataset = Dataset((replace(sample, mask=pack_mask(hard()[2])),))
    save_masks(dataset, SaveSettings(layout="_mask.png"), allowed=anywhere)
    (again,) = loaded(tmp_path).samples
    assert again.mask_path == tmp_path / "walk_mask.png" and not again.moves
    assert np.array_equal(load_mask(again), hard()[2])


def test_the_alpha_of_a_clip_becomes_a_mask_clip(tmp_path):
    frames = np.concatenate([frames_of(COUNT), halves(COUNT)[..., :1]], axis=3)
    frames[1, ..., 3] = 255
    animation(tmp_path / "set" / "walk.apng", frames=frames)
    dataset = loaded(tmp_path / "set")
    save_masks(dataset, SaveSettings(), destination=tmp_path / "masks", allowed=anywhere)
    (again,) = loaded(tmp_path / "set", mask_folder=str(tmp_path / "masks")).samples
    wanted = hard()
    wanted[1] = 1
    assert again.mask_path == tmp_path / "masks" / "walk.mkv" and np.array_equal(masks_of(again), wanted)


def test_alpha_that_is_opaque_throughout_is_no_mask(tmp_path):
    frames = np.concatenate([frames_of(COUNT), np.full((COUNT, SIZE[1], SIZE[0], 1), 255, np.uint8)], axis=3)
    sequence(tmp_path / "set" / "walk.frames", frames=frames)
    # Loading sees that it is opaque; files may change afterwards.
    (sample,) = loaded(tmp_path / "set").samples
    dataset, there = Dataset((replace(sample, alpha=True),)), tmp_path / "masks"
    with pytest.raises(MaskError, match=r"None of 1 clip has a mask, beginning with walk\.frames"):
        save_masks(dataset, SaveSettings(), destination=there, allowed=anywhere)
    save_masks(dataset, SaveSettings(without_mask="white"), destination=there, allowed=anywhere)
    assert (masks_of(loaded(tmp_path / "set", mask_folder=str(there)).samples[0]) == 1).all()


def test_alpha_pictures_are_not_made_of_clips(tmp_path):
    video(tmp_path / "set" / "walk.mp4")
    dataset = with_masks(tmp_path / "set", hard())
    with pytest.raises(ConfigError, match=r"layout: alpha png .* walk\.mp4 is a clip\. Choose mask folder"):
        save_masks(dataset, SaveSettings(layout="alpha png"), destination=tmp_path / "out", allowed=anywhere)
    assert not (tmp_path / "out").exists()


def test_nothing_is_replaced_unasked_and_what_is_replaced_is_kept(tmp_path):
    folder = tmp_path / "set"
    video(folder / "walk.mp4")
    first, second = with_masks(folder, hard()), with_masks(folder, hard()[::-1])
    settings, file = SaveSettings(layout="_mask.png"), folder / "walk_mask.mkv"
    save_masks(first, settings, allowed=anywhere)
    written = file.read_bytes()
    again = save_masks(first, settings, allowed=anywhere)
    assert "1 file held the same already" in again.text and file.read_bytes() == written
    with pytest.raises(DataError, match=r"Nothing was written:\nwalk\.mp4: .*walk_mask\.mkv exists\."):
        save_masks(second, settings, allowed=anywhere)
    assert file.read_bytes() == written
    versions = Versions(tmp_path / "versions")
    saved = save_masks(second, replace(settings, overwrite=True), allowed=anywhere, versions=versions)
    assert "1 file was replaced" in saved.text
    assert [kept.read_bytes() for kept in versions.all(file)] == [written]
    assert np.array_equal(masks_of(loaded(folder).samples[0]), hard()[::-1])


@pytest.mark.parametrize("kind", ["clip", "other length", "text", "masks"])
def test_only_clips_of_masks_are_ever_replaced(tmp_path, kind):
    folder, there = tmp_path / "set", tmp_path / "masks"
    video(folder / "walk.mp4")
    there.mkdir()
    file = there / "walk.mkv"
    if kind == "text":
        file.write_text("what a person put there")
    else:
        frames = {"clip": frames_of(COUNT), "other length": halves(4), "masks": halves(COUNT)}[kind]
        write_clip(file, frames)
    before = file.read_bytes()
    dataset = with_masks(folder, hard()[::-1])

    def save():
        return save_masks(dataset, SaveSettings(overwrite=True), destination=there, allowed=anywhere)

    if kind == "masks":
        save()
        assert file.read_bytes() != before
        return
    with pytest.raises(DataError, match=r"walk\.mkv does not look like a mask and is not of this dataset"):
        save()
    assert file.read_bytes() == before and [p.name for p in there.iterdir()] == ["walk.mkv"]


def test_a_still_mask_that_would_be_taken_instead_is_told(tmp_path):
    video(tmp_path / "walk.mp4")
    grey(tmp_path / "walk_mask.png", hard()[0])
    with pytest.raises(DataError, match=r"walk_mask\.png would be taken for its mask or picture beside walk_mask\.mkv"):
        save_masks(with_masks(tmp_path, hard()), SaveSettings(layout="_mask.png"), allowed=anywhere)
    assert not (tmp_path / "walk_mask.mkv").exists()


def test_a_stop_leaves_nothing_behind(tmp_path):
    folder, there = tmp_path / "set", tmp_path / "masks"
    video(folder / "walk.mp4")
    asked = []

    class Stop(Exception):
        pass

    def check_cancel():
        asked.append([p for p in there.rglob("*") if p.is_file()] if there.exists() else [])
        if asked[-1]:
            raise Stop

    with pytest.raises(Stop):
        save_masks(
            with_masks(folder, hard()), SaveSettings(), destination=there, allowed=anywhere, check_cancel=check_cancel
        )
    assert asked[-1] and not [p for p in there.rglob("*") if p.is_file()]


def test_weights_of_next_to_nothing_are_refused_and_not_read_as_white(tmp_path):
    video(tmp_path / "walk.mp4")
    with pytest.raises(MaskError, match=r"walk\.mp4: its masks do not load back .* next to nothing"):
        save_masks(with_masks(tmp_path, hard() / 65535), SaveSettings(layout="_mask.png"), allowed=anywhere)
    assert [p.name for p in tmp_path.iterdir()] == ["walk.mp4"]


def test_masks_of_other_nodes_become_those_of_the_frames(tmp_path):
    video(tmp_path / "a.mp4")
    video(tmp_path / "b.mp4", count=3)
    dataset = loaded(tmp_path)
    given = [*hard(), *hard()[:3]]
    first, second = replace_masks(dataset, given).samples
    assert np.array_equal(masks_of(first), hard()) and np.array_equal(masks_of(second, 3), hard()[:3])
    _, second = replace_masks(dataset, list(hard()[:3]), picture=1, invert=True).samples
    assert second.moves and np.array_equal(masks_of(second, 3), 1 - hard()[:3])
    first, second = replace_masks(dataset, list(hard()[:2])).samples
    assert not first.moves and np.array_equal(load_mask(second), hard()[1])
    with pytest.raises(MaskError, match=r"expected 2 \(one per picture\), or 8 \(one per frame of a clip\), got 4"):
        replace_masks(dataset, list(hard()[:4]))
    with pytest.raises(MaskError, match=r"one \(picture names one picture\), or 3 \(one per frame of a clip\), got 5"):
        replace_masks(dataset, list(hard()), picture=1)


@pytest.mark.parametrize("layout", ["mask folder", "_mask.png"])
@pytest.mark.parametrize("masks", [hard(), soft(255), soft(65535), faint()], ids=["hard", "8", "16", "faint"])
def test_a_folder_of_frames_loads_as_the_same_masks(tmp_path, layout, masks):
    folder, there = tmp_path / "set", tmp_path / "masks"
    video(folder / "walk.mp4")
    settings = SaveSettings(layout=layout, clip_masks="folder of frames")
    saved = save_masks(with_masks(folder, masks), settings, destination=there, allowed=anywhere)
    place = there / "walk.frames" if layout == "mask folder" else folder / "walk_mask.frames"
    assert sorted(file.name for file in place.iterdir()) == [f"{number:04d}.png" for number in range(COUNT)]
    assert "1 mask moves and is a clip of grey frames, .frames." in saved.text
    (again,) = loaded(folder, mask_folder=str(there) if layout == "mask folder" else "").samples
    assert again.mask_path == place and again.moves
    for sample in (again, saved.dataset.samples[0]):
        assert np.array_equal(masks_of(sample), masks)


def test_a_corrected_frame_counts_and_a_folder_of_frames_is_never_replaced(tmp_path):
    folder, place = tmp_path / "set", tmp_path / "set" / "walk_mask.frames"
    video(folder / "walk.mp4")
    settings = SaveSettings(layout="_mask.png", clip_masks="folder of frames")
    dataset = with_masks(folder, hard())
    save_masks(dataset, settings, allowed=anywhere)
    assert "1 file held the same already" in save_masks(dataset, settings, allowed=anywhere).text
    again = save_masks(dataset, replace(settings, overwrite=True), allowed=anywhere)
    assert "1 file held the same already" in again.text
    grey(place / "0003.png", 1 - hard()[3])
    wanted = hard()
    wanted[3] = 1 - wanted[3]
    assert np.array_equal(masks_of(loaded(folder).samples[0]), wanted)
    with pytest.raises(DataError, match=r"walk_mask\.frames exists"):
        save_masks(dataset, settings, allowed=anywhere)
    with pytest.raises(DataError, match=r"walk_mask\.frames is a folder, which is never replaced\. Move it away"):
        save_masks(dataset, replace(settings, overwrite=True), allowed=anywhere)
    assert np.array_equal(masks_of(loaded(folder).samples[0]), wanted)


def test_a_stop_leaves_no_folder_behind(tmp_path):
    folder, there = tmp_path / "set", tmp_path / "masks"
    video(folder / "walk.mp4")

    class Stop(Exception):
        pass

    def check_cancel():
        if list(there.rglob("0001.png")):
            raise Stop

    settings = SaveSettings(clip_masks="folder of frames")
    with pytest.raises(Stop):
        save_masks(with_masks(folder, hard()), settings, destination=there, allowed=anywhere, check_cancel=check_cancel)
    assert not list(there.iterdir())


@pytest.mark.parametrize("layout", ["mask folder", "_mask.png"])
@pytest.mark.parametrize("made", ["in memory", "of the file"])
def test_with_overwrite_a_still_mask_makes_way_for_one_that_moves_and_is_kept(tmp_path, layout, made):
    folder, there = tmp_path / "set", tmp_path / "masks"
    video(folder / "walk.mp4")
    old = (there if layout == "mask folder" else folder) / f"walk{'' if layout == 'mask folder' else '_mask'}.png"
    grey(old, hard()[0])
    before = old.read_bytes()
    values = {"mask_folder": str(there)} if layout == "mask folder" else {}
    (loaded_with,) = loaded(folder, **values).samples
    assert loaded_with.mask_path == old
    changes = {"mask_path": None} if made == "in memory" else {}
    dataset = Dataset((replace(loaded_with, mask=packed(hard()), **changes),))
    versions = Versions(tmp_path / "kept")
    saved = save_masks(
        dataset, SaveSettings(layout=layout, overwrite=True), destination=there, allowed=anywhere, versions=versions
    )
    assert not old.exists() and old.with_suffix(".mkv").is_file()
    (kept,) = versions.all(old.with_suffix(".mkv"))
    assert kept.read_bytes() == before and "1 file was replaced; what it held is kept in" in saved.text
    (again,) = loaded(folder, **values).samples
    assert again.moves and np.array_equal(masks_of(again), hard())
    # And back again.
    still = Dataset((replace(again, mask=pack_mask(hard()[2]), mask_path=None, mask_moving=False),))
    save_masks(
        still, SaveSettings(layout=layout, overwrite=True), destination=there, allowed=anywhere, versions=versions
    )
    assert old.is_file() and not old.with_suffix(".mkv").exists()
    assert [path.name.endswith("walk.mkv") or path.name.endswith("walk_mask.mkv") for path in versions.all(old)] == [
        True
    ]


def test_what_is_no_mask_makes_way_for_none(tmp_path):
    video(tmp_path / "walk.mp4")
    picture(tmp_path / "walk_mask.png", SIZE, value=120)
    dataset = with_masks(tmp_path, hard(), mask_source="none")
    with pytest.raises(
        DataError, match=r"walk_mask\.png would be taken for its mask beside walk_mask\.mkv, and does not"
    ):
        save_masks(dataset, SaveSettings(layout="_mask.png", overwrite=True), allowed=anywhere)
    assert (tmp_path / "walk_mask.png").exists() and not (tmp_path / "walk_mask.mkv").exists()


def test_a_still_mask_edited_by_hand_stays_unless_asked(tmp_path):
    video(tmp_path / "walk.mp4")
    old = grey(tmp_path / "walk_mask.png", hard()[0])
    versions = Versions(tmp_path / "kept")
    versions.mark_edited(old)
    settings = SaveSettings(layout="_mask.png", overwrite=True)
    (sample,) = loaded(tmp_path).samples
    dataset = Dataset((replace(sample, mask=packed(hard())),))
    saved = save_masks(dataset, settings, allowed=anywhere, versions=versions)
    assert "1 mask was edited by hand and kept: walk.mp4" in saved.text
    (after,) = saved.dataset.samples
    assert old.exists() and after.mask_path == old and not after.mask_moving
    save_masks(dataset, replace(settings, keep_edited=False), allowed=anywhere, versions=versions)
    assert not old.exists() and (tmp_path / "walk_mask.mkv").is_file()


def test_the_report_names_the_files_that_were_written(tmp_path):
    video(tmp_path / "walk.mp4")
    saved = save_masks(with_masks(tmp_path, hard()), SaveSettings(layout="_mask.png"), allowed=anywhere)
    assert "1 mask written beside the clips, as <name>_mask.mkv." in saved.text and "_mask.png" not in saved.text
    (tmp_path / "walk_mask.mkv").unlink()
    picture(tmp_path / "cat.png", SIZE)
    video(tmp_path / "run.mp4")
    both = loaded(tmp_path)
    masks = {"cat.png": pack_mask(hard()[0]), "walk.mp4": packed(hard())}
    samples = [replace(one, mask=masks.get(one.name), mask_path=None, mask_moving=False) for one in both.samples]
    saved = save_masks(Dataset(tuple(samples)), SaveSettings(layout="-masklabel.png", overwrite=True), allowed=anywhere)
    assert "2 masks written beside the pictures and clips, as <name>-masklabel.png, <name>-masklabel.mkv." in saved.text
    assert "1 clip has no mask, nothing was written for it: run.mp4." in saved.text
