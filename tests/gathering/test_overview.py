"""The folders of pictures below a root: which are a choice, what is counted, and where looking ends."""

import os
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from masklora.errors import PathError
from masklora.folder.listing import match
from masklora.folder.roles import roles_of
from masklora.folder.tree import walk
from masklora.gathering.overview import Bounds, Overview
from masklora.settings import DatasetSettings


def put(root, *names):
    """Files whose content is no picture: whoever opens one, fails."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"no picture")


def inside(root):
    """Allows what lies in `root`."""

    def allowed(path):
        real = Path(path).resolve()
        if not real.is_relative_to(root.resolve()):
            raise PathError(f"{path} lies outside")
        return real

    return allowed


def look(root, **bounds):
    overview = Overview(inside(root), bounds=Bounds(**bounds))
    return {found.relative: (found.pictures, found.masks) for found in overview.below(root)}, overview.complete


@pytest.mark.parametrize(
    ("names", "pictures", "masks"),
    [
        (["a.jpg", "b.png", "c.WEBP"], 3, 0),
        (["a.jpg", "a_mask.png", "b.png", "b.txt"], 2, 1),
        (["a.jpg", "a.mask", "b.jpg"], 2, 1),
        (["a.jpg", "b.jpg", "masks/a.png", "masks/b.png"], 2, 2),
        (["a.jpg", "more/b.jpg", "more/masks/b.png"], 2, 1),
        (["portrait_mask.jpg"], 1, 0),
        (["walk.mp4", "walk_mask.png", "a.jpg", "run.frames/1.png", "run_mask.frames/1.png"], 3, 2),
        (["walk.mp4", "masks/walk/1.png", "masks/walk/2.png", "run.webm"], 2, 1),
    ],
)
def test_pictures_and_masks_are_counted_as_loading_finds_them(tmp_path, names, pictures, masks):
    put(tmp_path, *(f"set/{name}" for name in names))
    found, complete = look(tmp_path)
    assert found["set"] == (pictures, masks) and complete
    # A mask source that is named asks no file for its colours.
    settings = DatasetSettings(folder=str(tmp_path / "set"), mask_source="sidecar" if masks else "none")
    _, report = match(settings, allowed=Path)
    assert (len(report.matched) + len(report.missing), len(report.matched)) == (pictures, masks)


def test_a_picture_with_masks_of_several_subjects_counts_once(tmp_path):
    put(tmp_path, "set/a.jpg", "set/b.jpg", "set/masks/a.anna.png", "set/masks/a.ben.png")
    assert look(tmp_path)[0]["set"] == (2, 1)


def test_no_picture_is_opened_to_see_whether_it_is_a_mask(tmp_path):
    colours = np.random.default_rng(2).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    (tmp_path / "set").mkdir()
    Image.fromarray(colours).save(tmp_path / "set/a.jpg")
    Image.fromarray((colours[..., 0] > 128).astype(np.uint8) * 255).save(tmp_path / "set/a.png")
    assert look(tmp_path)[0]["set"] == (2, 0)
    # Loading opens both, and leaves out the one in black and white.
    tree = walk(tmp_path / "set", True, Path)
    options = {"source": "auto", "captioned": tuple, "by_colour": False, "named": ()}
    counts = [len(roles_of(*tree[:2], **options, looks=looks).pictures) for looks in (True, False)]
    assert counts == [1, 2]


def test_a_folder_is_a_choice_for_its_own_pictures_or_for_those_of_several_below(tmp_path):
    put(
        tmp_path,
        "kohya/10_cat/a.jpg",
        "kohya/5_dog/b.jpg",
        "one/inner/c.jpg",
        "split/images/d.jpg",
        "split/masks/d.png",
    )
    put(tmp_path, "notes/readme.txt", "empty/.keep")
    found, _ = look(tmp_path)
    assert found == {
        "": (4, 1),
        "kohya": (2, 0),
        "kohya/10_cat": (1, 0),
        "kohya/5_dog": (1, 0),
        "one/inner": (1, 0),
        "split": (1, 1),
        "split/images": (1, 0),
    }


def test_folders_of_masks_are_none_to_choose_where_their_pictures_are(tmp_path):
    put(tmp_path, "cats/a.jpg", "cats_masks/a.png", "carnival masks/b.jpg", "cats/masks/a.png")
    found, _ = look(tmp_path)
    assert set(found) - {""} == {"cats", "carnival masks"}
    assert found["cats"] == (1, 1)


def test_a_folder_called_alpha_may_be_one_of_cut_outs(tmp_path):
    put(tmp_path, "demo/alpha/a.png", "demo/plain/a.png", "demo/plain/b.png")
    found, _ = look(tmp_path)
    # Where both are loaded together, names say that it holds masks.
    assert found == {"demo": (2, 1), "demo/alpha": (1, 0), "demo/plain": (2, 0)}


def test_what_lies_directly_in_a_folder_of_folders_belongs_to_none_of_them(tmp_path):
    put(tmp_path, "example.png", "masks/b.jpg", "cats/a.jpg")
    overview = Overview(inside(tmp_path), bounds=Bounds())
    assert [found.relative for found in overview.below(tmp_path, itself=False)] == ["cats", "masks"]


def test_what_is_hidden_or_a_system_s_is_left_out(tmp_path):
    put(
        tmp_path,
        "cats/a.jpg",
        "cats/.thumb.png",
        "cats/.mlt-000000-1-00000000.tmp",
        ".cache/b.jpg",
        "cats/@eaDir/c.jpg",
    )
    put(tmp_path, "thumbnails/d.jpg", "__MACOSX/e.jpg", "Thumbs.db")
    assert look(tmp_path)[0] == {"cats": (1, 0)}


def test_a_masked_picture_of_two_folders_is_not_told_for_sure(tmp_path):
    put(tmp_path, "set/a/x.jpg", "set/b/x.jpg", "set/masks/x.png")
    assert look(tmp_path)[0]["set"][0] == 2


def test_the_folder_that_was_changed_last_says_so_for_what_it_holds(tmp_path):
    put(tmp_path, "cats/a.jpg", "cats/masks/a.png")
    os.utime(tmp_path / "cats", (1000, 1000))
    os.utime(tmp_path / "cats/masks", (5000, 5000))
    (found,) = Overview(inside(tmp_path), bounds=Bounds()).below(tmp_path / "cats")
    assert found.changed == 5000


def test_links_are_followed_inside_and_passed_over_where_they_lead_out_or_in_a_circle(tmp_path):
    root, outside = tmp_path / "root", tmp_path / "outside"
    put(root, "cats/a.jpg")
    put(outside, "secret.jpg")
    try:
        (root / "out").symlink_to(outside, target_is_directory=True)
        (root / "cats/again").symlink_to(root, target_is_directory=True)
        (root / "twin").symlink_to(root / "cats", target_is_directory=True)
        (root / "cats/self.jpg").symlink_to(root / "cats/self.jpg")
    except OSError:
        pytest.skip("links need rights on this system")
    assert look(root)[0] == {"cats": (1, 0)}


def test_a_folder_that_two_roots_hold_is_told_once(tmp_path):
    put(tmp_path, "cats/a.jpg", "dogs/b.jpg")
    overview = Overview(inside(tmp_path), bounds=Bounds(), left_out=[(tmp_path / "dogs").resolve()])
    assert [found.relative for found in overview.below(tmp_path / "cats")] == [""]
    assert overview.below(tmp_path) == []


@pytest.mark.parametrize("bounds", [{"folders": 5}, {"files": 30}, {"seconds": -1.0}])
def test_looking_ends_at_each_bound_and_says_so(tmp_path, bounds):
    put(tmp_path, *(f"set {i}/{j}.jpg" for i in range(20) for j in range(3)))
    found, complete = look(tmp_path, **bounds)
    assert not complete and len(found) < 21
    assert look(tmp_path)[1]


def test_tens_of_thousands_of_files_take_seconds(tmp_path):
    for number in range(6):
        folder = tmp_path / f"set {number}"
        (folder / "masks").mkdir(parents=True)
        for i in range(2500):
            (folder / f"{i}.jpg").touch()
            (folder / "masks" / f"{i}.png").touch()
    begun = time.monotonic()
    found, complete = look(tmp_path, seconds=60)
    assert complete and found["set 3"] == (2500, 2500)
    assert time.monotonic() - begun < 20


def test_clips_are_counted_by_their_names(tmp_path):
    put(tmp_path, "set/walk.mp4", "set/a.jpg", "set/b.gif", "set/run.frames/1.png", "set/more/c.MOV", "set/c.mp4/d.jpg")
    put(tmp_path, "masks of clips/a/masks/x.mp4", "masks of clips/a/x.mp4")
    found = {one.relative: one for one in Overview(inside(tmp_path), bounds=Bounds()).below(tmp_path)}
    assert (found["set"].pictures, found["set"].clips) == (6, 3)
    assert (found["set/more"].pictures, found["set/more"].clips) == (1, 1)
    assert not any(".frames" in name for name in found)
    assert (found["masks of clips/a"].pictures, found["masks of clips/a"].masks, found["masks of clips/a"].clips) == (
        1,
        1,
        1,
    )
