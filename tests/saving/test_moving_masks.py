"""Moving masks edited by hand: what is saved loads back frame by frame, at its place, and nothing is lost."""

import hashlib
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from harness.clip_files import animation
from harness.clips import numbered, numbered_clip, write_clip, write_sequence
from harness.folders import anywhere, folder_settings, picture
from masklora.clips.reading import read_frames
from masklora.dataset.loading import load_dataset
from masklora.dataset.moving import load_frames
from masklora.errors import ConfigError, DataError, MaskConflictError, MaskError, PathError
from masklora.pictures.packed_mask import pack_mask
from masklora.saving.editing import affected, raw_mask, shown_levels
from masklora.saving.moving_masks import former_masks, save_moving, saved_masks, saved_token
from masklora.saving.versions import MOST_KEPT, Versions
from masklora.settings import MaskTransform

SIZE, COUNT = (64, 48), 12


@pytest.fixture
def versions(tmp_path):
    return Versions(tmp_path / "kept")


def loaded(folder, **values):
    (sample,) = load_dataset(folder_settings(folder, **values), allowed=anywhere).samples
    return sample


def telling(number):
    """A mask (H, W) in 0..1 that tells its number by how many rows are learned; in the middle of them a soft one."""
    mask = np.zeros(SIZE[::-1], np.float32)
    mask[: number + 2] = 1
    mask[1] = np.float32(0.2)
    return mask


def told(mask):
    return int((np.asarray(mask)[:, 5] > 0.1).sum()) - 2


def packed(count=COUNT, make=telling):
    return tuple(pack_mask(make(number)) for number in range(count))


def save(sample, frames, versions, token=None):
    if token is None:
        token = saved_masks(sample, allowed=anywhere).token
        assert saved_token(sample, allowed=anywhere) == token
    return save_moving(sample, frames, token, allowed=anywhere, versions=versions)


def files(folder):
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def assert_numbered(sample, count=COUNT):
    """Each frame of the clip that shows a number has the mask that tells the same one."""
    found = list(load_frames(sample, range(count)))
    shown = [(int((one.rgb[0, ::8, 0] > 127) @ (1 << np.arange(8))), told(one.mask)) for one in found]
    assert shown == [(number, number) for number in range(count)]
    for number, one in enumerate(found):
        assert np.array_equal(one.mask, telling(number))


def still(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.repeat(np.arange(48, dtype=np.uint8)[:, None] * 5, 64, axis=1)).save(path)
    return path


KINDS = {
    "none": (lambda root: None, "auto", "walk-masklabel.mkv", 0),
    "still beside": (lambda root: still(root / "walk_mask.png"), "auto", "walk_mask.mkv", 1),
    "still in masks": (lambda root: still(root / "masks" / "walk.png"), "auto", "masks/walk.mkv", 1),
    "own extension": (
        lambda root: still(root / "walk.png").rename(root / "walk.mask"),
        "auto",
        "walk-masklabel.mkv",
        1,
    ),
    "mask clip": (lambda root: numbered_clip(root / "walk_mask.mkv", COUNT, SIZE), "auto", "walk_mask.mkv", 1),
    "lossy mask clip": (
        lambda root: numbered_clip(root / "walk_mask.mp4", COUNT, SIZE, codec="libx264", pixels="yuv420p"),
        "auto",
        "walk_mask.mkv",
        1,
    ),
    "animation": (
        lambda root: animation(root / "walk_mask.gif", frames=[numbered(n, SIZE) for n in range(COUNT)]),
        "auto",
        "walk_mask.mkv",
        1,
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("clip", ["walk.mp4", "walk.frames"])
def test_what_is_saved_loads_with_the_frames_that_it_belongs_to(tmp_path, versions, kind, clip):
    root = tmp_path / "set"
    if clip == "walk.frames":
        write_sequence(root / clip, [numbered(number, SIZE) for number in range(COUNT)], "{:04d}.png")
    else:
        numbered_clip(root / clip, COUNT, SIZE, codec="libx264", pixels="yuv444p", times=[n * n for n in range(COUNT)])
    make, source, name, kept = KINDS[kind]
    make(root)
    clips = {file: digest(root / file) for file in files(root) if file.startswith(clip)}
    sample = loaded(root, mask_source=source)
    assert saved_masks(sample, allowed=anywhere).path == root / name
    after = save(sample, packed(), versions)
    assert files(root) == sorted([*clips, name])
    assert {file: digest(root / file) for file in clips} == clips
    assert len(versions.all(root / name)) == kept and versions.is_edited(root / name)
    assert_numbered(after)
    again = loaded(root, mask_source=source)
    assert (again.mask_path, again.mask_moving) == (after.mask_path, after.mask_moving) == (root / name, True)
    assert_numbered(again)
    there = saved_masks(again, allowed=anywhere)
    assert there.moving and [told(frame.unpack()) for frame in there.frames] == list(range(COUNT))


def former(sample, versions):
    return former_masks(sample, allowed=anywhere, versions=versions)


@pytest.mark.parametrize("kind", ["none", "still beside", "own extension", "mask clip", "animation"])
def test_the_masks_before_the_last_save_can_be_had(tmp_path, versions, kind):
    root = tmp_path / "set"
    numbered_clip(root / "walk.mkv", COUNT, SIZE)
    KINDS[kind][0](root)
    sample = loaded(root)
    was = saved_masks(sample, allowed=anywhere).frames
    assert former(sample, versions) is None
    after = save(sample, packed(), versions)
    assert former(after, versions) == (None if kind == "none" else was)
    again = save(after, packed(make=lambda number: telling(COUNT - number)), versions)
    assert former(again, versions) == former(loaded(root), versions) == packed()


def test_former_masks_of_a_folder_of_frames_or_of_another_length_are_had_or_told(tmp_path, versions):
    root = tmp_path / "set"
    numbered_clip(root / "walk.mkv", COUNT, SIZE)
    write_sequence(root / "masks" / "walk", [numbered(number, SIZE) for number in range(COUNT)], "{:04d}.png")
    sample = loaded(root)
    was = saved_masks(sample, allowed=anywhere).frames
    after = save(sample, packed(), versions)
    assert former(after, versions) == was
    numbered_clip(root / "walk.mkv", COUNT + 2, SIZE)
    with pytest.raises(MaskError, match=rf"the mask has {COUNT} frames but the clip has {COUNT + 2}"):
        former(after, versions)


@pytest.mark.parametrize("place", ["walk_mask.frames", "masks/walk.frames", "masks/walk"])
def test_a_folder_of_masks_stays_one_with_the_numbers_that_it_has(tmp_path, versions, place):
    root = tmp_path / "set"
    names = [f"shot_{number:03d}" for number in range(7, 7 + COUNT)]
    for number, name in enumerate(names):
        picture(root / "walk.frames" / f"{name}.png", SIZE)
        Image.fromarray(numbered(number, SIZE)).save(root / "walk.frames" / f"{name}.png")
        picture(root / place / f"{name}.jpg", SIZE, "L", value=255)
    sample = loaded(root)
    before = {file.name: digest(file) for file in (root / place).iterdir()}
    (root / place / "project.json").write_text("{}")
    before["project.json"] = digest(root / place / "project.json")
    after = save(sample, packed(), versions)
    there = ["project.json", *(f"{name}.png" for name in names)]
    assert sorted(file.name for file in (root / place).iterdir()) == there
    assert sorted(file.name for file in root.rglob("*.tmp")) == []
    (kept,) = versions.all(root / place)
    assert {file.name: digest(file) for file in kept.iterdir()} == before
    assert_numbered(after)
    assert_numbered(loaded(root))


def test_the_clip_s_own_transparency_is_where_its_masks_start_from_and_stays(tmp_path, versions):
    frames = [np.dstack([numbered(n, SIZE), (telling(n) * 255).astype(np.uint8)]) for n in range(COUNT)]
    file = write_clip(tmp_path / "walk.mov", frames, "qtrle", "argb")
    sample, before = loaded(tmp_path), digest(file)
    there = saved_masks(sample, allowed=anywhere)
    assert sample.alpha and there.moving and there.path.name == "walk-masklabel.mkv"
    assert [told(frame.unpack()) for frame in there.frames] == list(range(COUNT))
    after = save(sample, packed(make=lambda number: telling(COUNT - number)), versions)
    assert digest(file) == before and not after.alpha
    assert [told(one.mask) for one in load_frames(loaded(tmp_path), range(COUNT))] == list(range(COUNT, 0, -1))


def test_a_mask_that_was_still_stays_one_while_all_frames_are_equal(tmp_path, versions):
    numbered_clip(tmp_path / "set" / "walk.mkv", COUNT, SIZE)
    file = still(tmp_path / "set" / "walk_mask.png")
    sample = loaded(tmp_path / "set", mask_source="sidecar")
    there = saved_masks(sample, allowed=anywhere)
    assert not there.moving and len(there.frames) == COUNT and len({id(frame) for frame in there.frames}) == 1
    after = save(sample, packed(make=lambda number: telling(3)), versions)
    assert files(tmp_path / "set") == ["walk.mkv", "walk_mask.png"] and not after.mask_moving
    assert np.array_equal(np.asarray(Image.open(file)), shown_levels(telling(3)))
    moving = save(after, packed(), versions)
    assert files(tmp_path / "set") == ["walk.mkv", "walk_mask.mkv"]
    same = save(moving, packed(make=lambda number: telling(3)), versions)
    assert same.mask_moving and files(tmp_path / "set") == ["walk.mkv", "walk_mask.mkv"]
    assert len(versions.all(tmp_path / "set" / "walk_mask.mkv")) == 2


def test_transforms_are_no_part_of_what_is_edited(tmp_path, versions):
    numbered_clip(tmp_path / "walk.mkv", COUNT, SIZE)
    sample = save(loaded(tmp_path), packed(), versions)
    inverted = replace(sample, transform=MaskTransform(invert=True, frame_union=2))
    there = saved_masks(inverted, allowed=anywhere)
    assert [told(frame.unpack()) for frame in there.frames] == list(range(COUNT))
    after = save(inverted, there.frames, versions)
    assert after.transform == inverted.transform and not versions.all(sample.mask_path), "the same is not written again"


@pytest.mark.parametrize("channel", ["luminance", "red", "green", "blue", "rgb average"])
def test_the_channel_that_the_data_set_reads_has_the_masks(tmp_path, versions, channel):
    numbered_clip(tmp_path / "walk.mkv", COUNT, SIZE)
    numbered_clip(tmp_path / "walk_mask.mkv", COUNT, SIZE)
    save(loaded(tmp_path, mask_channel=channel), packed(), versions)
    assert_numbered(loaded(tmp_path, mask_channel=channel))


def test_what_others_changed_meanwhile_is_not_overwritten(tmp_path, versions):
    root = tmp_path / "set"
    numbered_clip(root / "walk.mkv", COUNT, SIZE)
    sample = loaded(root)
    before = saved_masks(sample, allowed=anywhere)
    save(sample, packed(), versions)
    with pytest.raises(MaskConflictError, match="changed elsewhere"):
        save(sample, packed(make=lambda number: telling(1 + number % 2)), versions, before.token)
    assert_numbered(loaded(root))
    there = saved_masks(sample, allowed=anywhere)
    assert [told(frame.unpack()) for frame in there.frames] == list(range(COUNT)), "what another window saved is found"


def test_a_folder_that_others_changed_is_not_overwritten(tmp_path, versions):
    numbered_clip(tmp_path / "walk.mkv", COUNT, SIZE)
    for number in range(COUNT):
        picture(tmp_path / "walk_mask.frames" / f"{number}.png", SIZE, "L", value=255)
    sample = loaded(tmp_path)
    token = saved_masks(sample, allowed=anywhere).token
    picture(tmp_path / "walk_mask.frames" / "3.png", SIZE, "L", value=0)
    with pytest.raises(MaskConflictError, match=r"walk\.mkv: its masks were changed elsewhere"):
        save(sample, packed(), versions, token)


@pytest.mark.parametrize("place", ["walk_mask.mkv", "walk_mask.frames", "walk_mask.png"])
def test_a_save_that_fails_leaves_everything_as_it_was(tmp_path, versions, place):
    root = tmp_path / "set"
    numbered_clip(root / "walk.mkv", COUNT, SIZE)
    if place.endswith("frames"):
        write_sequence(root / place, [numbered(number, SIZE) for number in range(COUNT)])
    elif place.endswith("mkv"):
        numbered_clip(root / place, COUNT, SIZE)
    else:
        still(root / place)
    sample = loaded(root)
    before = {file: digest(root / file) for file in files(root)}
    token = saved_masks(sample, allowed=anywhere).token
    (tmp_path / "kept").write_text("no folder")
    with pytest.raises(DataError, match=r"walk\.mkv: .*could not be written .*untouched"):
        save(sample, packed(), versions, token)
    (tmp_path / "kept").unlink()
    assert {file: digest(root / file) for file in files(root)} == before
    assert saved_masks(sample, allowed=anywhere).token == token


def test_an_old_folder_comes_back_where_the_new_one_cannot_take_its_place(tmp_path, versions, monkeypatch):
    root = tmp_path / "set"
    numbered_clip(root / "walk.mkv", COUNT, SIZE)
    write_sequence(root / "walk_mask.frames", [numbered(number, SIZE) for number in range(COUNT)])
    sample = loaded(root)
    before = {file: digest(root / file) for file in files(root)}
    token = saved_masks(sample, allowed=anywhere).token
    aside = []
    replace_path = type(root).replace

    def full(self, target):
        if target.name == "walk_mask.frames" and len(aside) == 1 and self.name != aside[0]:
            raise OSError(28, "No space left on device")
        if self.name == "walk_mask.frames":
            aside.append(target.name)
        return replace_path(self, target)

    monkeypatch.setattr(type(root), "replace", full)
    with pytest.raises(DataError, match="No space left on device"):
        save(sample, packed(), versions, token)
    monkeypatch.undo()
    assert len(aside) == 1
    assert {file: digest(root / file) for file in files(root)} == before
    assert [path.name for path in root.iterdir() if path.name.startswith(".")] == []


def test_what_has_no_mask_that_moves_is_told(tmp_path, versions):
    numbered_clip(tmp_path / "clips" / "walk.mkv", COUNT, SIZE)
    picture(tmp_path / "pictures" / "cat.png", SIZE)
    sample = loaded(tmp_path / "clips")
    refused = [
        (loaded(tmp_path / "pictures"), DataError, r"cat\.png is one still picture"),
        (replace(sample, mask=pack_mask(telling(1))), DataError, "made in this graph and has no file"),
        (replace(sample, settings=replace(sample.settings, mask_source="none")), ConfigError, "mask_source is none"),
        (replace(sample, settings=replace(sample.settings, mask_source="alpha")), ConfigError, "mask_source is alpha"),
        (replace(sample, settings=replace(sample.settings, mask_channel="alpha")), ConfigError, "saved in grey"),
        (replace(sample, subject="anna"), DataError, "joined only while they are still"),
    ]
    for one, kind, words in refused:
        with pytest.raises(kind, match=words):
            saved_masks(one, allowed=anywhere)
        with pytest.raises(kind, match=words):
            save_moving(one, packed(), "none", allowed=anywhere, versions=versions)
    assert files(tmp_path / "clips") == ["walk.mkv"]


def test_a_clip_that_became_another_or_is_gone_is_told(tmp_path, versions):
    file = numbered_clip(tmp_path / "walk.mkv", COUNT, SIZE)
    sample = loaded(tmp_path)
    numbered_clip(file, COUNT + 1, SIZE)
    with pytest.raises(DataError, match=r"walk\.mkv: the clip has 13 frames, but 12 when its masks were opened"):
        save(sample, packed(), versions, "none")
    file.unlink()
    with pytest.raises(DataError, match=r"walk\.mkv"):
        save(sample, packed(), versions, "none")
    assert files(tmp_path) == []


def test_what_lies_in_the_way_is_not_replaced(tmp_path, versions):
    root = tmp_path / "set"
    numbered_clip(root / "walk.mp4", COUNT, SIZE, codec="libx264", pixels="yuv420p")
    still(root / "walk_mask.png")
    sample = loaded(root)
    token = saved_masks(sample, allowed=anywhere).token
    (root / "walk_mask.mkv").write_bytes(b"a person's own")
    with pytest.raises(DataError, match=r"walk_mask\.mkv would be replaced, but is not its mask"):
        save(sample, packed(), versions, token)
    assert (root / "walk_mask.mkv").read_bytes() == b"a person's own" and (root / "walk_mask.png").exists()


def test_nothing_outside_of_the_allowed_folders_is_written(tmp_path, versions):
    root, outside = tmp_path / "set", tmp_path / "outside"
    numbered_clip(root / "walk.mkv", COUNT, SIZE)
    numbered_clip(outside / "walk_mask.mkv", COUNT, SIZE)
    (root / "walk_mask.mkv").symlink_to(outside / "walk_mask.mkv")
    before = digest(outside / "walk_mask.mkv")

    def inside(path):
        real = path.resolve()
        if not real.is_relative_to(root):
            raise PathError(f"{path} lies outside.")
        return real

    sample = replace(loaded(root), mask_path=root / "walk_mask.mkv", mask_moving=True)
    with pytest.raises((PathError, DataError), match="is a link"):
        save_moving(sample, packed(), "x", allowed=inside, versions=versions)
    with pytest.raises(PathError, match="outside"):
        save_moving(
            replace(sample, mask_path=outside / "walk_mask.mkv"), packed(), "x", allowed=inside, versions=versions
        )
    assert digest(outside / "walk_mask.mkv") == before


def test_samples_that_share_the_file_follow(tmp_path, versions):
    numbered_clip(tmp_path / "walk.mkv", COUNT, SIZE)
    still(tmp_path / "walk_mask.png")
    before = loaded(tmp_path)
    twin = replace(before, key="again")
    after = save(before, packed(), versions)
    found = affected([twin, before], before, after)
    assert found[1] is after and (found[0].mask_path, found[0].mask_moving, found[0].key) == (
        after.mask_path,
        True,
        "again",
    )


def test_so_many_versions_of_a_folder_are_kept(tmp_path, versions):
    folder = write_sequence(tmp_path / "m.frames", [numbered(1, SIZE)])
    kept = [versions.keep(folder, of=folder) for _ in range(MOST_KEPT + 2)]
    assert versions.all(folder) == kept[:1:-1] and all(path.is_dir() for path in kept[2:])
    shutil.rmtree(folder)


def test_faint_masks_that_would_not_load_back_are_refused(tmp_path, versions):
    numbered_clip(tmp_path / "walk.mkv", COUNT, SIZE)
    sample = loaded(tmp_path)
    faint = np.zeros(SIZE[::-1], np.float32)
    faint[0, 0] = np.float32(200 / 65535)
    frames = (pack_mask(np.zeros_like(faint)),) * (COUNT - 1) + (pack_mask(faint),)
    with pytest.raises(MaskError, match="do not load back"):
        save(sample, frames, versions)
    assert files(tmp_path) == ["walk.mkv"]
    assert np.array_equal(raw_mask(sample, allowed=anywhere).weights, np.ones(SIZE[::-1], np.float32))
    assert len(list(read_frames(tmp_path / "walk.mkv", range(COUNT)))) == COUNT
