"""Captions written by hand: into the set's own files, so that nothing is lost and the loader finds them again."""

import pytest
from PIL import Image

from masklora.dataset.loading import load_dataset
from masklora.errors import CaptionConflictError, DataError, PathError
from masklora.saving.captions import NO_FILE, raw_caption, same_captions, save_caption
from masklora.saving.versions import Versions
from masklora.settings import CaptionSettings, DatasetSettings


def anywhere(path):
    return path


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "my pictures"
    place.mkdir()
    for name in ("a cät.png", "dog.jpg"):
        Image.new("RGB", (32, 32)).save(place / name)
    return place


def load(folder, **settings):
    return load_dataset(DatasetSettings(folder=str(folder), **settings), allowed=anywhere).samples


def save(sample, text, tmp_path, token=None):
    return edited(sample, text, tmp_path, token).after


def edited(sample, text, tmp_path, token=None):
    token = raw_caption(sample, allowed=anywhere).token if token is None else token
    return save_caption(sample, text, token, allowed=anywhere, versions=Versions(tmp_path / "kept"))


def test_a_new_caption_lies_beside_its_picture_and_is_found_again(folder, tmp_path):
    cat = load(folder)[0]
    raw = raw_caption(cat, allowed=anywhere)
    assert (raw.text, raw.token, raw.file) == ("", NO_FILE, "a cät.txt")
    after = save(cat, "  a photo of a cät \n", tmp_path)
    assert (folder / "a cät.txt").read_text(encoding="utf-8") == "a photo of a cät\n"
    assert after.caption == load(folder)[0].caption == "a photo of a cät"
    assert load(folder)[1].caption is None


@pytest.mark.parametrize("name", ["dog.txt", "dog.jpg.txt", "dog.caption", "Dog.TXT"])
def test_a_caption_stays_in_the_file_that_it_was_read_from(folder, tmp_path, name):
    (folder / name).write_bytes(b"\xef\xbb\xbfone line\r\nanother, of tags\r\n")
    dog = load(folder)[1]
    raw = raw_caption(dog, allowed=anywhere)
    assert (raw.text, raw.file) == ("one line\nanother, of tags\n", name)
    save(dog, "a dog", tmp_path)
    assert load(folder)[1].caption == "a dog"
    assert sorted(path.name for path in folder.iterdir()) == sorted(["a cät.png", "dog.jpg", name])


def test_the_set_s_own_extension_is_kept(folder, tmp_path):
    (folder / "dog.tags").write_text("dog", encoding="utf-8")
    cat = load(folder, caption=CaptionSettings(extension=".tags"))[0]
    save(cat, "cat", tmp_path)
    assert (folder / "a cät.tags").read_text(encoding="utf-8") == "cat\n"


def test_pictures_of_one_stem_get_captions_of_their_own(folder, tmp_path):
    Image.new("RGB", (32, 32)).save(folder / "dog.png")
    first, second = load(folder)[1:]
    save(first, "the first", tmp_path)
    assert [one.caption for one in load(folder)[1:]] == ["the first", None]
    save(load(folder)[2], "the second", tmp_path)
    assert [one.caption for one in load(folder)[1:]] == ["the first", "the second"]
    assert second.caption is None


def test_the_former_caption_is_kept_and_what_was_not_changed_is_not_written(folder, tmp_path):
    file = folder / "dog.txt"
    file.write_text("before", encoding="utf-8")
    dog = load(folder)[1]
    same = save(dog, "before", tmp_path)
    assert file.read_text(encoding="utf-8") == "before" and not (tmp_path / "kept").exists()
    save(same, "after", tmp_path)
    (kept,) = Versions(tmp_path / "kept").all(file)
    assert kept.read_text(encoding="utf-8") == "before"


def test_a_caption_that_others_have_changed_is_not_written_over(folder, tmp_path):
    dog = load(folder)[1]
    token = raw_caption(dog, allowed=anywhere).token
    (folder / "dog.txt").write_text("theirs", encoding="utf-8")
    with pytest.raises(CaptionConflictError, match="changed elsewhere"):
        save(dog, "mine", tmp_path, token)
    assert (folder / "dog.txt").read_text(encoding="utf-8") == "theirs"


@pytest.mark.parametrize(
    ("text", "words"), [("x" * 40_001, "at most 40000"), ("a\0b", "zero byte"), ("\ud800", "half a")]
)
def test_a_text_that_cannot_be_trained_on_is_refused_and_nothing_changes(folder, tmp_path, text, words):
    with pytest.raises(DataError, match=words):
        save(load(folder)[1], text, tmp_path)
    assert not (folder / "dog.txt").exists()


def test_no_words_are_a_caption_too_and_lines_are_read_as_the_set_reads_them(folder, tmp_path):
    (folder / "dog.txt").write_text("a dog", encoding="utf-8")
    assert save(load(folder)[1], "", tmp_path).caption == load(folder)[1].caption
    assert (folder / "dog.txt").read_bytes() == b""
    tags = CaptionSettings(lines="tags")
    after = save(load(folder, caption=tags)[1], "red\nblue", tmp_path)
    assert after.caption == load(folder, caption=tags)[1].caption == "red, blue"


def test_links_and_places_outside_are_refused(folder, tmp_path):
    elsewhere = tmp_path / "secret.txt"
    elsewhere.write_text("secret", encoding="utf-8")
    try:
        (folder / "dog.txt").symlink_to(elsewhere)
    except OSError:
        pytest.skip("no links here")
    dog = load(folder)[1]
    with pytest.raises(DataError, match="is a link"):
        save(dog, "mine", tmp_path, "none")
    assert elsewhere.read_text(encoding="utf-8") == "secret"

    def nowhere(path):
        raise PathError("outside")

    with pytest.raises(PathError):
        save_caption(dog, "x", "none", allowed=nowhere, versions=Versions(tmp_path / "kept"))


def test_a_subject_s_caption_gets_a_file_of_its_own(folder, tmp_path):
    masks = folder / "masks"
    masks.mkdir()
    for name in ("dog.anna.png", "dog.ben.png"):
        Image.new("L", (32, 32), 255).save(masks / name)
    (folder / "dog.txt").write_text("two people", encoding="utf-8")
    by_subject = {one.subject: one for one in load(folder) if one.subject}
    assert raw_caption(by_subject["anna"], allowed=anywhere).file == "dog.anna.txt"
    edit = edited(by_subject["anna"], "anna in red", tmp_path)
    found = {one.subject: one.caption for one in load(folder) if one.subject}
    assert found["anna"] == "anna in red" and found["ben"] == "two people"
    assert list(same_captions(list(by_subject.values()), [edit])) == [0]
