"""Which clips lie in a folder, and which masks and captions are theirs, by name alone."""

import itertools
import os
import time

import numpy as np
import pytest

from harness.clip_files import animation, frames_of, halves, sequence, video
from harness.folders import anywhere, folder_settings, grey, picture
from masklora.errors import MaskError, PathError
from masklora.folder.listing import match, scan
from masklora.folder.tree import walk

MASK = np.pad(np.ones((12, 16)), ((6, 6), (8, 8)))
CLIPS = ["walk.mp4", "walk.MOV", "walk.webm", "walk.mkv", "walk.avi", "walk.m4v", "walk.gif", "walk.frames"]


def put(folder, *names):
    """Files by their names: no clip among them is opened by matching."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".frames"):
            sequence(path)
        elif name.endswith((".gif", ".webp", ".apng")):
            animation(path, frames=halves(5) if "mask" in name else frames_of(5))
        elif name.endswith(".png"):
            grey(path, MASK)
        elif name.endswith(".jpg"):
            picture(path, (32, 24))
        else:
            path.write_bytes(b"a caption" if name.endswith(".txt") else b"a clip")
    return folder


def found(folder, **values):
    """By picture: the mask's path below the folder, and whether picture and mask move."""
    items = scan(folder_settings(folder, **values), allowed=anywhere)
    return {
        item.relative: (item.mask and item.mask.relative_to(folder).as_posix(), item.moving, item.mask_moving)
        for item in items
    }


@pytest.mark.parametrize("name", CLIPS)
def test_clips_lie_among_pictures_in_natural_order_with_their_captions(tmp_path, name):
    put(tmp_path, "walk 2.jpg", name, "walk.txt", "walk 10.jpg", "deep/walk.mp4", "deep/walk.txt")
    items = scan(folder_settings(tmp_path), allowed=anywhere)
    assert [item.relative for item in items if item.moving] == ["deep/walk.mp4", name]
    assert [item.relative for item in items if not item.moving] == ["walk 2.jpg", "walk 10.jpg"]
    assert [item.text for item in items if item.moving] == ["a caption", "a caption"]


@pytest.mark.parametrize("extension", [".gif", ".webp", ".png", ".apng"])
def test_a_file_that_may_be_animated_is_a_clip_only_if_it_is(tmp_path, extension):
    animation(tmp_path / f"moves{extension}")
    animation(tmp_path / f"still{extension}", count=1)
    assert found(tmp_path) == {f"moves{extension}": (None, True, False), f"still{extension}": (None, False, False)}


def test_numbered_pictures_are_a_clip_only_in_a_folder_that_says_so(tmp_path):
    sequence(tmp_path / "walk", 3)
    sequence(tmp_path / "run.Frames", 3)
    expected = {"run.Frames": (None, True, False)} | {f"walk/000{i}.png": (None, False, False) for i in (0, 1, 2)}
    assert found(tmp_path) == expected
    # A clip of the folder itself, and none of a folder in it.
    assert found(tmp_path, subfolders=False) == {"run.Frames": (None, True, False)}


def test_a_frame_that_leads_out_of_the_allowed_folders_is_refused(tmp_path):
    sequence(tmp_path / "set" / "walk.frames", 2)
    outside = picture(tmp_path / "secret.png", (32, 24))
    link = tmp_path / "set" / "walk.frames" / "0003.png"
    try:
        link.symlink_to(outside)
    except OSError:
        pytest.skip("links need rights on this system")

    def inside(path):
        real = path.resolve()
        if not real.is_relative_to(tmp_path / "set"):
            raise PathError(f"{path} lies outside")
        return real

    with pytest.raises(PathError, match=r"0003\.png lies outside"):
        walk(tmp_path / "set", True, inside)
    link.unlink()
    assert [file.name for file in walk(tmp_path / "set", True, inside).images] == ["walk.frames"]


@pytest.mark.parametrize("clip", ["walk.mp4", "walk.gif", "walk.frames"])
@pytest.mark.parametrize(
    ("mask", "moves"),
    [
        ("walk_mask.png", False),
        ("walk_mask.mp4", True),
        ("walk-masklabel.mkv", True),
        ("walk.mask.webm", True),
        ("walk (mask).mov", True),
        ("Walk_Mask.MP4", True),
        ("walk_mask.gif", True),
        ("walk_mask.frames", True),
        ("masks/walk.png", False),
        ("masks/walk.mp4", True),
        ("masks/walk.frames", True),
    ],
)
def test_masks_of_clips_have_the_names_of_masks_of_pictures(tmp_path, clip, mask, moves):
    put(tmp_path, clip, mask, "other.jpg")
    for source in ("auto", "sidecar"):
        assert found(tmp_path, mask_source=source)[clip] == (mask, True, moves)
    for source in ("alpha", "none"):
        assert found(tmp_path, mask_source=source) == {"other.jpg": (None, False, False), clip: (None, True, False)}


@pytest.mark.parametrize(("zone", "source"), [("masks", "auto"), ("m", "folder"), ("../m", "folder")])
@pytest.mark.parametrize("name", ["walk", "walk.frames", "walk_mask", "walk.mp4", "WALK"])
@pytest.mark.parametrize("subfolders", [True, False])
def test_a_folder_of_frames_in_a_folder_of_masks_is_the_mask_of_a_clip(tmp_path, zone, source, name, subfolders):
    pictures = put(tmp_path / "p", "walk.mp4", "other.jpg")
    sequence(pictures / zone / name, frames=halves(5), begins="walk_")
    values = {} if zone == "masks" else {"mask_folder": str(pictures / zone)}
    if zone == "masks" and not subfolders and name != "walk.frames":
        pytest.skip("without subfolders, what lies in those of a folder named for masks is not looked at")
    items, report = match(
        folder_settings(pictures, mask_source=source, subfolders=subfolders, **values), allowed=anywhere
    )
    (clip,) = [item for item in items if item.moving]
    assert clip.mask.resolve() == (pictures / zone / name).resolve() and clip.mask_moving
    assert report.orphaned == () and report.matched == ("walk.mp4",) and len(items) == 2


def test_a_folder_of_masks_that_mirrors_a_folder_of_pictures_is_no_sequence(tmp_path):
    put(tmp_path / "p", "walk.mp4", "walk/0000.jpg", "walk/0001.jpg")
    sequence(tmp_path / "m" / "walk", 2, frames=halves(2))
    items, report = match(folder_settings(tmp_path / "p", mask_folder=str(tmp_path / "m")), allowed=anywhere)
    assert {item.relative: item.mask and item.mask.name for item in items} == {
        "walk.mp4": None,
        "walk/0000.jpg": "0000.png",
        "walk/0001.jpg": "0001.png",
    }
    assert report.missing == ("walk.mp4",)


def test_a_folder_of_masks_that_fits_no_clip_stays_one_of_pictures_masks(tmp_path):
    put(tmp_path / "p", "walk.jpg", "run.mp4")
    sequence(tmp_path / "m" / "walk", 2)
    put(tmp_path / "m", "run.png")
    _, report = match(folder_settings(tmp_path / "p", mask_folder=str(tmp_path / "m")), allowed=anywhere)
    assert report.orphaned == ("walk/0000.png", "walk/0001.png") and report.matched == ("run.mp4",)


def test_several_masks_of_one_clip_are_ambiguous_as_of_a_picture(tmp_path):
    for first, second in itertools.combinations(["walk_mask.png", "walk_mask.mp4", "walk-mask.frames"], 2):
        folder = put(tmp_path / f"{first} {second}", "walk.mp4", first, second)
        with pytest.raises(MaskError, match=r"walk\.mp4: expected one sidecar mask, got 2") as error:
            found(folder)
        assert first in str(error.value) and second in str(error.value)


def test_a_mask_that_moves_is_that_of_the_clip_beside_a_picture_of_its_name(tmp_path):
    put(tmp_path, "walk.mp4", "walk.jpg", "walk_mask.mp4")
    assert found(tmp_path) == {"walk.jpg": (None, False, False), "walk.mp4": ("walk_mask.mp4", True, True)}


def test_a_mask_folder_comes_before_a_mask_beside_the_clip(tmp_path):
    put(tmp_path, "walk.mp4", "walk_mask.mp4", "run.mp4", "run_mask.png")
    put(tmp_path / "m", "walk.webm")
    assert found(tmp_path, mask_folder=str(tmp_path / "m")) == {
        "run.mp4": ("run_mask.png", True, False),
        "walk.mp4": ("m/walk.webm", True, True),
    }


def test_a_mask_clip_is_never_a_clip_to_learn_from(tmp_path):
    put(tmp_path, "walk.mp4", "gone_mask.mp4", "other_mask.frames", "walk_mask_final.mp4")
    items, report = match(folder_settings(tmp_path), allowed=anywhere)
    assert [item.relative for item in items] == ["walk.mp4"]
    assert {left.name for left in report.left} == {"gone_mask.mp4", "other_mask.frames", "walk_mask_final.mp4"}
    put(tmp_path, "masks/run.mp4", "masks/walk.mp4")
    items, report = match(folder_settings(tmp_path), allowed=anywhere)
    assert [item.relative for item in items] == ["walk.mp4"] and report.orphaned == ("masks/run.mp4",)


def test_a_clip_with_a_caption_that_is_named_like_a_mask_is_asked_about(tmp_path):
    put(tmp_path, "walk.mp4", "walk_mask.mp4", "walk_mask.txt")
    with pytest.raises(MaskError, match=r"walk_mask\.mp4 is named like the mask of walk\.mp4, but has a caption"):
        found(tmp_path)
    assert found(tmp_path, mask_source="sidecar") == {"walk.mp4": ("walk_mask.mp4", True, True)}


def test_an_animation_in_colours_that_is_named_like_a_mask_is_asked_about(tmp_path):
    put(tmp_path, "walk.mp4")
    animation(tmp_path / "walk_mask.gif")
    with pytest.raises(MaskError, match=r"walk_mask\.gif is named like the mask of walk\.mp4, but .* in colours"):
        found(tmp_path)


def test_a_black_and_white_double_of_a_clip_is_left_out_as_one_of_a_picture(tmp_path):
    put(tmp_path, "walk.mp4", "walk.png", "run.mp4", "run_fg.png")
    items, report = match(folder_settings(tmp_path), allowed=anywhere)
    assert [item.relative for item in items] == ["run.mp4", "walk.mp4"]
    assert {left.name for left in report.left if left.kind == "double"} == {"walk.png", "run_fg.png"}


def test_clips_in_black_and_white_with_the_names_of_others_in_colours_are_left_out(tmp_path):
    for name in ("walk", "run"):
        video(tmp_path / f"{name}.mp4")
        video(tmp_path / "seg" / f"{name}.mp4", frames=halves(5))
    video(tmp_path / "walk.webm", frames=halves(5), codec="libvpx-vp9")
    items, report = match(folder_settings(tmp_path), allowed=anywhere)
    assert [item.relative for item in items] == ["run.mp4", "walk.mp4"]
    left = {left.name for left in report.left if left.kind == "double"}
    assert left == {"seg/run.mp4", "seg/walk.mp4", "walk.webm"}
    # In colours they are clips of their own, and so are those that have captions.
    video(tmp_path / "seg" / "run.mp4")
    (tmp_path / "seg" / "walk.txt").write_text("a walk")
    names = {item.relative for item in scan(folder_settings(tmp_path), allowed=anywhere)}
    assert names == {"run.mp4", "walk.mp4", "seg/run.mp4", "seg/walk.mp4"}


def test_subjects_of_a_clip_are_those_of_a_picture(tmp_path):
    put(tmp_path / "p", "walk.mp4", "walk.txt")
    put(tmp_path / "m", "walk.anna.mp4", "walk.ben.png", "walk.anna.txt")
    settings = folder_settings(tmp_path / "p", mask_folder=str(tmp_path / "m"), subjects="anna: 2\nben: 1")
    items = scan(settings, allowed=anywhere)
    assert [(item.subject, item.moving, item.mask_moving) for item in items] == [
        ("anna", True, True),
        ("ben", True, False),
        ("together", True, False),
    ]
    assert [part.moving for part in items[2].parts] == [True, False]


def test_the_report_speaks_of_clips_where_there_are_any(tmp_path):
    put(tmp_path, "walk.mp4", "walk_mask.mp4", "run.mp4", "a.jpg", "b.jpg", "b.txt")
    _, report = match(folder_settings(tmp_path), allowed=anywhere)
    text = report.to_text()
    assert text.startswith("2 clips, 2 pictures: 1 with a mask, 3 without.")
    assert "3 pictures and clips have no mask, while others have one" in text
    assert "3 pictures and clips without a caption" in text
    for name in ("a.jpg", "b.jpg", "b.txt", "run.mp4"):
        (tmp_path / name).unlink()
    _, report = match(folder_settings(tmp_path), allowed=anywhere)
    assert report.to_text().startswith("1 clip: 1 with a mask, 0 without.")
    assert "No clip has a caption" in report.to_text()


def test_a_thousand_clips_are_listed_and_matched_in_seconds(tmp_path):
    seed = video(tmp_path / "seed.mp4", frames=frames_of(5))
    for name in ("p", "m"):
        for sub in range(10):
            (tmp_path / name / str(sub)).mkdir(parents=True)
    for number in range(1000):
        for name in ("p", "m"):
            os.link(seed, tmp_path / name / str(number % 10) / f"{number}.mp4")
    settings = folder_settings(tmp_path / "p", mask_folder=str(tmp_path / "m"))
    start = time.process_time()
    items = scan(settings, allowed=anywhere)
    assert time.process_time() - start < 2
    assert len(items) == 1000 and all(item.moving and item.mask_moving for item in items)


def test_of_one_stem_a_mask_that_moves_is_that_of_the_clip_and_the_other_that_of_the_picture(tmp_path):
    put(tmp_path, "walk.jpg", "walk.mp4", "masks/walk.mkv", "masks/walk.png")
    assert found(tmp_path) == {
        "walk.jpg": ("masks/walk.png", False, False),
        "walk.mp4": ("masks/walk.mkv", True, True),
    }


def test_of_one_stem_a_mask_of_the_whole_name_leaves_the_other_to_the_other(tmp_path):
    put(tmp_path, "walk.jpg", "walk.mp4", "walk_mask.png", "walk.mp4_mask.png")
    assert found(tmp_path) == {
        "walk.jpg": ("walk_mask.png", False, False),
        "walk.mp4": ("walk.mp4_mask.png", True, False),
    }


def test_of_one_stem_a_still_mask_that_may_be_either_s_is_asked_about(tmp_path):
    put(tmp_path, "walk.jpg", "walk.mp4", "walk_mask.png")
    with pytest.raises(MaskError, match="this mask fits both walk"):
        found(tmp_path)
