"""Files that a person sends: under which names they are taken, and that none takes the place of another."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.clip_files import video
from masklora.errors import DataError, PathError
from masklora.file_names import safe_name
from masklora.files import temporary_beside
from masklora.gathering import arrival
from masklora.gathering.arrival import (
    CLIP_TIMES,
    MOST_FILES,
    Arrival,
    NameTakenError,
    NoRoomError,
    TooMuchError,
    most_bytes,
    new_folder_name,
)


def png(path):
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(path, "PNG")
    return path


def begun(root, name="cats", **options):
    return Arrival(root, name, **{"files": 3, "size": 3000, "allowed": Path, **options})


def come(coming, relative, size=100):
    target = coming.place(relative, size)
    temporary = png(temporary_beside(target))
    return coming.keep(temporary, target, relative)


@pytest.mark.parametrize(
    ("text", "name"),
    [("cats", "cats"), (' "my cats" ', "my cats"), ("people/anna", "people/anna"), ("a\\b", "a/b"), ("猫", "猫")],
)
def test_a_folder_is_named_as_people_write_it(tmp_path, text, name):
    assert new_folder_name(text, root=tmp_path) == name


@pytest.mark.parametrize(
    "text",
    [
        "", " ", ".", "..", "../cats", "a/../../b", "a//b", "/etc", "\\\\server\\share", "C:", "C:/cats", "c:\\cats",
        "a\0b", "CON", "a/nul.txt", "cats.", "a?b", ".hidden", "a/.git", "__MACOSX", "x" * 300, "/".join("abcdefghij"),
        "a\nb", "half \ud83d",
    ],
)  # fmt: skip
def test_a_folder_that_leads_out_or_that_not_every_system_takes_is_refused(tmp_path, text):
    with pytest.raises(DataError, match="folder"):
        new_folder_name(text, root=tmp_path)


def test_a_file_comes_whole_into_a_folder_of_its_own(tmp_path):
    coming = begun(tmp_path)
    assert not (tmp_path / "cats").exists()
    assert come(coming, "a.png") == "a.png"
    assert come(coming, "masks/a.png") == "masks/a.png"
    names = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*"))
    assert names == ["cats", "cats/a.png", "cats/masks", "cats/masks/a.png"]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("12:30 noon?.png", "12_30 noon_.png"),
        ("cat .png", "cat.png"),
        ("masks./a.png", "masks/a.png"),
        ("é.png", "é.png"),
    ],
)
def test_names_are_made_so_that_every_system_takes_them(tmp_path, given, kept):
    assert come(begun(tmp_path), given) == kept
    assert (tmp_path / "cats" / kept).is_file()


def test_a_safe_name_holds_nothing_that_a_system_refuses():
    assert safe_name('a<b>c:d"e|f?g*h\ti. . ') == "a_b_c_d_e_f_g_h_i"
    assert safe_name(" . ") == ""


@pytest.mark.parametrize(
    "relative",
    [
        "", "..", "../a.png", "masks/../../a.png", "/a.png", "//server/a.png", "C:/a.png", "C:a.png", "a\\..\\b.png",
        "a\0.png", "a//b.png", "./a.png", ".hidden.png", ".git/a.png", "con.png", "masks/aux.png", "__MACOSX/a.png",
        "x" * 260 + ".png",
        "a/b/c/d/e/f/g/h/i.png", "a.exe", "a.svg", "a.html", "a.png.py", "png", "a.safetensors", "a.zip", " .png",
    ],
)  # fmt: skip
def test_names_that_lead_out_or_are_of_another_kind_are_refused_and_leave_nothing(tmp_path, relative):
    coming = begun(tmp_path / "input")
    with pytest.raises(DataError, match=r"(Rename it|Choose|expected|Move it up)"):
        coming.place(relative, 10)
    assert not list(tmp_path.rglob("*.*"))


def test_what_is_there_stays_as_it_is(tmp_path):
    (tmp_path / "cats").mkdir()
    (tmp_path / "cats/a.png").write_bytes(b"mine")
    with pytest.raises(NameTakenError, match="cats is there already"):
        begun(tmp_path)
    coming = begun(tmp_path, add=True)
    with pytest.raises(NameTakenError, match=r"a\.png: a file of this name"):
        coming.place("a.png", 10)
    # One that came by another way, between the two steps.
    target = coming.place("b.png", 10)
    target.write_bytes(b"theirs")
    with pytest.raises(NameTakenError, match=r"b\.png: a file of this name"):
        coming.keep(png(temporary_beside(target)), target, "b.png")
    assert [(tmp_path / "cats" / name).read_bytes() for name in ("a.png", "b.png")] == [b"mine", b"theirs"]
    assert len(list((tmp_path / "cats").iterdir())) == 2


def test_a_file_of_the_folder_s_name_is_not_touched(tmp_path):
    (tmp_path / "cats").write_bytes(b"mine")
    with pytest.raises(NameTakenError, match="is a file"):
        begun(tmp_path)
    (tmp_path / "dogs").mkdir()
    (tmp_path / "dogs/masks").write_bytes(b"mine")
    with pytest.raises(DataError, match="masks"):
        begun(tmp_path, "dogs", add=True).place("masks/a.png", 10)


def test_no_more_comes_than_was_announced(tmp_path):
    for files in (0, MOST_FILES + 1):
        with pytest.raises(TooMuchError, match=str(MOST_FILES)):
            begun(tmp_path, files=files)
    coming = begun(tmp_path, files=2, size=150)
    come(coming, "a.png", 100)
    with pytest.raises(TooMuchError, match="announced"):
        coming.place("b.png", 100)
    # What did not come may be tried again.
    coming.give_back(100)
    come(coming, "b.png", 100)
    come(coming, "c.png", 50)
    with pytest.raises(TooMuchError, match="announced"):
        coming.place("d.png", 0)


def test_a_full_disk_is_told_before_anything_comes(tmp_path):
    with pytest.raises(NoRoomError, match="has room for"):
        begun(tmp_path, size=1 << 60)
    assert arrival.room_in(tmp_path / "x") > 0


def test_a_file_that_is_named_like_a_picture_and_is_none_is_refused(tmp_path):
    coming = begun(tmp_path)
    target = coming.place("a.png", 10)
    temporary = temporary_beside(target)
    temporary.write_bytes(b"<html><script>alert(1)</script></html>")
    with pytest.raises(DataError, match=r"^a\.png"):
        coming.keep(temporary, target, "a.png")
    assert not target.exists()
    caption = coming.place("a.txt", 10)
    temporary.write_bytes(b"a cat")
    assert coming.keep(temporary, caption, "a.txt") == "a.txt"


def test_links_on_the_way_that_lead_out_are_refused(tmp_path):
    root, outside = tmp_path / "input", tmp_path / "outside"
    (root / "cats").mkdir(parents=True)
    outside.mkdir()

    def allowed(path):
        if not Path(path).resolve().is_relative_to(root):
            raise PathError(f"{path} lies outside")
        return Path(path).resolve()

    try:
        (root / "cats/masks").symlink_to(outside, target_is_directory=True)
        (root / "out").symlink_to(outside, target_is_directory=True)
        (root / "cats/a.png").symlink_to(outside / "a.png")
    except OSError:
        pytest.skip("links need rights on this system")
    coming = begun(root, add=True, allowed=allowed)
    with pytest.raises(PathError, match="outside"):
        coming.place("masks/a.png", 10)
    with pytest.raises(PathError, match="outside"):
        coming.place("masks/new/a.png", 10)
    with pytest.raises(NameTakenError):
        coming.place("a.png", 10)
    with pytest.raises(PathError, match="outside"):
        begun(root, "out", allowed=allowed)
    assert list(outside.iterdir()) == []


def test_captions_are_small_and_other_kinds_are_not_taken():
    assert most_bytes("a.png", 10**8) == most_bytes("a.mask", 10**8) == most_bytes("A.JPG", 10**8) == 10**8
    assert 40_000 < most_bytes("a.txt", 10**8) < 10**6
    assert most_bytes("metadata.jsonl", 10**8) == 64_000_000
    assert most_bytes("other.jsonl", 10**8) == most_bytes("a.exe", 10**8) == most_bytes("png", 10**8) == 0


def test_clips_are_taken_and_may_be_larger_than_pictures(tmp_path):
    assert most_bytes("walk.mp4", 100) == most_bytes("WALK.WebM", 100) == CLIP_TIMES * 100
    assert CLIP_TIMES > 1 and most_bytes("a.gif", 100) == 100
    coming = begun(tmp_path, files=4, size=10_000)
    for relative in ("walk.mp4", "walk.frames/0001.png"):
        target = coming.place(relative, 100)
        temporary = temporary_beside(target)
        png(temporary) if target.suffix == ".png" else video(tmp_path / "a.mp4").replace(temporary)
        assert coming.keep(temporary, target, relative) == relative
    target = coming.place("run.mp4", 100)
    temporary = temporary_beside(target)
    temporary.write_bytes(b"no clip")
    with pytest.raises(DataError, match=r"run\.mp4: expected a video"):
        coming.keep(temporary, target, "run.mp4")
    names = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert names - {temporary.relative_to(tmp_path).as_posix()} == {"cats/walk.mp4", "cats/walk.frames/0001.png"}
