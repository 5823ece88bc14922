"""Captions of every convention are read or named, and lines mean what they look like."""

import json

import numpy as np
import pytest

from harness.folders import anywhere, folder_settings, grey, picture
from masklora.cache.captions import texts_of
from masklora.dataset.corrections import replace_captions
from masklora.dataset.loading import from_images, load_dataset
from masklora.errors import ConfigError, DataError
from masklora.folder.caption_files import MOST_METADATA
from masklora.folder.captions import LONGEST_CAPTION, as_loaded, check_captions, line_reading
from masklora.folder.listing import match, scan
from masklora.settings import CacheSettings, CaptionSettings


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def texts(folder, **caption):
    return {item.relative: item.text for item in scan(folder_settings(folder, caption=caption), allowed=anywhere)}


def told(folder, **caption):
    return [f.text for f in match(folder_settings(folder, caption=caption), allowed=anywhere)[1].findings()]


def test_the_first_place_that_has_a_caption_wins_in_the_order_that_is_told(tmp_path):
    picture(tmp_path / "a.jpg")
    places = ["metadata.jsonl", "a.tags", "a.caption", "A.TXT", "a.jpg.txt", "a.txt"]
    row = json.dumps({"file_name": "a.jpg", "text": "from metadata.jsonl"})
    for name in places:
        write(tmp_path / name, row if name.endswith("jsonl") else f"from {name}")
        assert texts(tmp_path) == {"a.jpg": f"from {name}"}
    left = " ".join(told(tmp_path))
    assert all(name in left for name in ("a.tags", "a.caption", "A.TXT", "a.jpg.txt"))


@pytest.mark.parametrize("name", ["a.caption", "a.jpg.txt", "a.jpg.caption", "a.cap", "a.TXT"])
def test_captions_of_every_usual_name_are_read_and_told(tmp_path, name):
    picture(tmp_path / "a.jpg")
    write(tmp_path / name, "a cat")
    assert texts(tmp_path) == {"a.jpg": "a cat"}


@pytest.mark.parametrize("file_key", ["file_name", "image", "path"])
@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("text", "a cat", "a cat"),
        ("caption", "a\ncat", "a, cat"),
        ("prompt", "a cat", "a cat"),
        ("tags", ["cat", "grey"], "cat, grey"),
        ("captions", ["a cat", "a grey cat"], "a cat\na grey cat"),
    ],
)
def test_metadata_lines_are_captions(tmp_path, file_key, key, value, text):
    picture(tmp_path / "sub" / "a.jpg")
    picture(tmp_path / "sub" / "b.jpg")
    write(tmp_path / "metadata.jsonl", json.dumps({file_key: "./sub/a.jpg", key: value}) + "\n\n")
    write(tmp_path / "sub" / "Metadata.jsonl", json.dumps({file_key: "b.jpg", key: value, "more": 1}))
    assert texts(tmp_path) == {"sub/a.jpg": text, "sub/b.jpg": text}


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ('{"file_name": "a.jpg", "text": ', "line 2: expected one object of JSON"),
        ("[1]", "line 2: expected an object"),
        ("[" * 100_000, "line 2: expected one object of JSON"),
        ('{"file_name": "a.jpg", "text": "\\ud800"}', "line 2: holds half a character"),
        (json.dumps({"file_name": "a.jpg", "text": "x" * (LONGEST_CAPTION + 1)}), "line 2: expected at most 40000"),
    ],
)
def test_damaged_metadata_is_named_by_its_line(tmp_path, line, fault):
    picture(tmp_path / "a.jpg")
    write(tmp_path / "metadata.jsonl", '{"file_name": "a.jpg", "text": "x"}\n' + line)
    with pytest.raises(DataError, match=f"metadata.jsonl, {fault}"):
        texts(tmp_path)


def test_metadata_of_pictures_that_are_not_here_or_outside_is_named_and_reads_nothing(tmp_path):
    picture(tmp_path / "set" / "a.jpg")
    picture(tmp_path / "b.jpg")
    rows = [json.dumps({"file_name": name, "text": "x"}) for name in ("../b.jpg", "/b.jpg", "gone.jpg")]
    write(tmp_path / "set" / "metadata.jsonl", "\n".join(rows))
    assert texts(tmp_path / "set") == {"a.jpg": None}
    assert any("line 3 (gone.jpg)" in line and "3 files" in line for line in told(tmp_path / "set"))


def test_metadata_that_is_far_too_long_is_refused_unread(tmp_path):
    picture(tmp_path / "a.jpg")
    with (tmp_path / "metadata.jsonl").open("wb") as file:
        file.truncate(MOST_METADATA + 1)
    with pytest.raises(DataError, match=r"metadata\.jsonl: expected at most 64 MB"):
        texts(tmp_path)


@pytest.mark.parametrize("name", ["captions.json", "captions.csv", "meta_cap.json", "gone.txt", "old.caption"])
def test_files_that_may_hold_captions_and_are_not_read_are_warned_of(tmp_path, name):
    picture(tmp_path / "a.jpg")
    write(tmp_path / name, "{}")
    report = match(folder_settings(tmp_path), allowed=anywhere)[1]
    assert any(name in f.text and f.level == "warning" for f in report.findings())


def test_an_extension_set_by_hand_that_no_caption_has_is_an_error_with_an_example(tmp_path):
    picture(tmp_path / "a.jpg")
    write(tmp_path / "a.txt", "x")
    with pytest.raises(ConfigError, match=r"no picture has a caption file \.caption.*a\.jpg.*There is a\.txt"):
        texts(tmp_path, extension=".caption")


@pytest.mark.parametrize("extension", [".json", ".png", "yaml", ".safetensors", ".py", ".md"])
def test_no_other_files_than_texts_are_read_as_captions(tmp_path, extension):
    picture(tmp_path / "a.jpg")
    write(tmp_path / f"a.{extension.strip('.')}", "secret")
    with pytest.raises(ConfigError, match=r"caption_extension: captions are read from \.txt"):
        texts(tmp_path, extension=extension)


@pytest.mark.parametrize("size", [LONGEST_CAPTION + 1, 4 * LONGEST_CAPTION + 10, 10_000_000])
def test_a_caption_that_would_keep_the_tokenizer_busy_is_refused_by_name(tmp_path, size):
    picture(tmp_path / "a.jpg")
    write(tmp_path / "a.txt", "x" * size)
    with pytest.raises(DataError, match=r"a\.txt: expected a caption of at most 40000 letters"):
        texts(tmp_path)


def test_a_caption_of_the_longest_length_is_read(tmp_path):
    picture(tmp_path / "a.jpg")
    write(tmp_path / "a.txt", "猫" * LONGEST_CAPTION)
    assert texts(tmp_path)["a.jpg"] == "猫" * LONGEST_CAPTION


@pytest.mark.parametrize(
    "text",
    [
        "(a:1.3) cat [b] {c|d}, embedding:old <lora:x:1>",
        '50 % of \\(a cat\\), "quoted", it\'s #1 & more',
        # Five thousand words.
        " ".join(["photograph"] * 2500 + ["of"] * 2500),
    ],
    ids=["weights", "signs", "long"],
)
def test_a_caption_is_what_its_file_says(tmp_path, text):
    picture(tmp_path / "a.jpg")
    write(tmp_path / "a.txt", text)
    dataset = load_dataset(folder_settings(tmp_path), allowed=anywhere)
    assert planned(dataset.samples[0]) == (text,)


def test_reading_captions_hears_cancel(tmp_path):
    class Cancelled(BaseException):
        pass

    def cancel():
        raise Cancelled

    picture(tmp_path / "a.jpg")
    with pytest.raises(Cancelled):
        match(folder_settings(tmp_path), allowed=anywhere, check_cancel=cancel)


@pytest.mark.parametrize(
    ("text", "reading"),
    [
        ("a cat", ""),
        ("\n a cat \n\n", ""),
        ("a photo of a dog\na dog in a park", "captions"),
        ("a dog\na cat", "captions"),
        ("1girl, solo, smile\n1girl, red hair", "captions"),
        ("1girl\nsolo\nred hair", "tags"),
        ("long hair\nblue eyes\nlooking at the viewer now\nsmile", "tags"),
        ("A woman sits on a long bench,\nwearing a red coat.", "text"),
        ("The picture shows a cat. It is grey.\n\nIn the background stands a tree. It is old.", "text"),
    ],
)
def test_what_lines_are_is_seen_from_them(text, reading):
    assert line_reading(text) == reading


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        ("auto", "a photo of a dog\na dog in a park"),
        ("captions", "a photo of a dog\na dog in a park"),
        ("tags", "a photo of a dog, a dog in a park"),
        ("text", "a photo of a dog a dog in a park"),
    ],
)
def test_lines_are_read_as_the_widget_says(tmp_path, lines, text):
    picture(tmp_path / "a.jpg")
    write(tmp_path / "a.txt", "a photo of a dog\r\na dog in a park\r\n")
    assert texts(tmp_path, lines=lines) == {"a.jpg": text}
    assert any("a.txt" in line and "Set lines" in line for line in told(tmp_path, lines=lines)) == (lines == "auto")


def test_tags_are_joined_by_the_separator_that_is_set(tmp_path):
    picture(tmp_path / "a.jpg")
    write(tmp_path / "a.txt", "1girl;\nsolo;\nred hair")
    assert texts(tmp_path, separator=";") == {"a.jpg": "1girl; solo; red hair"}


def test_an_unknown_meaning_of_lines_names_the_widget(tmp_path):
    with pytest.raises(ConfigError, match="lines: expected one of auto, captions, tags, text"):
        check_captions(CaptionSettings(lines="guess"))


def planned(sample):
    return texts_of(sample, CacheSettings())


def test_several_captions_reach_the_cache_and_one_stays_the_same(tmp_path):
    picture(tmp_path / "a.jpg")
    picture(tmp_path / "b.jpg")
    write(tmp_path / "a.txt", "a photo of a dog\na dog in a park")
    write(tmp_path / "b.txt", "a cat")
    settings = folder_settings(tmp_path, caption={"trigger": "zib"})
    several, one = load_dataset(settings, allowed=anywhere).samples
    assert planned(several) == ("zib, a photo of a dog", "zib, a dog in a park")
    assert planned(one) == ("zib, a cat",)


def test_other_nodes_texts_are_one_caption_whatever_their_lines(tmp_path):
    (sample,) = from_images([np.zeros((8, 8, 3), np.float32)], [], ["a photo of a dog\na dog in a park"]).samples
    assert planned(sample) == ("a photo of a dog\na dog in a park",)


def test_captions_that_come_back_from_a_list_are_read_as_from_their_file(tmp_path):
    picture(tmp_path / "a.jpg")
    write(tmp_path / "a.txt", "a photo of a dog\na dog in a park")
    dataset = load_dataset(folder_settings(tmp_path), allowed=anywhere)
    changed = replace_captions(dataset, [f"{dataset.samples[0].caption}\nthe dog sleeps on a chair"])
    assert len(planned(changed.samples[0])) == 3
    assert as_loaded("one\ntwo", CaptionSettings()) == "one, two"


def test_subjects_with_several_captions_are_joined_one_by_one(tmp_path):
    picture(tmp_path / "g.jpg")
    for name, lines in (("anna", "a photo of anna here\nanna stands in a park"), ("ben", "a photo of ben here")):
        grey(tmp_path / "m" / f"g.{name}.png", np.eye(8))
        write(tmp_path / "m" / f"g.{name}.txt", lines)
    together = load_dataset(folder_settings(tmp_path, mask_folder="m"), allowed=anywhere).samples[-1]
    assert planned(together) == (
        "a photo of anna here, a photo of ben here",
        "anna stands in a park, a photo of ben here",
    )


@pytest.mark.parametrize("field", ["trigger", "prefix", "suffix", "separator"])
@pytest.mark.parametrize("text", ["\udcff", "x\ud800", "a" * (LONGEST_CAPTION + 1)])
def test_texts_that_no_model_can_read_name_their_widget(field, text):
    with pytest.raises(ConfigError, match=field):
        check_captions(CaptionSettings(**{field: text}))


@pytest.mark.parametrize(("name", "caption"), [("\udcff", "x"), ("x", "\udcff"), ("x", "y" * (LONGEST_CAPTION + 1))])
def test_other_nodes_texts_that_no_model_can_read_are_refused(name, caption):
    with pytest.raises(ConfigError, match=r"^(name|captions): "):
        from_images([np.zeros((8, 8, 3), np.float32)], [], [caption], name=name)


def test_captions_drawn_are_those_of_the_seed(tmp_path):
    picture(tmp_path / "a.jpg")
    write(tmp_path / "a.txt", "cat, grey, old\ndog, brown, young")
    settings = folder_settings(tmp_path, caption={"shuffle": True, "keep_first": 1})
    (sample,) = load_dataset(settings, allowed=anywhere).samples
    drawn = texts_of(sample, CacheSettings(variants=4))
    assert drawn == texts_of(sample, CacheSettings(variants=4)) and len(drawn) == 4
    assert {text.split(",")[0] for text in drawn} == {"cat", "dog"}


def warned(folder):
    report = match(folder_settings(folder), allowed=anywhere)[1]
    return [finding.text for finding in report.findings() if finding.level == "warning"]


@pytest.mark.parametrize("name", ["a.txt.txt", "a.v2.txt", "a.anna.caption"])
def test_a_caption_of_a_subject_that_is_not_there_is_named(tmp_path, name):
    picture(tmp_path / "a.png")
    (tmp_path / name).write_text("a cat", encoding="utf-8")
    assert [name in line and "cat.txt for cat.jpg" in line for line in warned(tmp_path)][1:] == [True]


@pytest.mark.parametrize(
    "row", ['{"text": "a cat"}', '{"file_name": "a.png"}', '{"file_name": "a.png", "text": 5}', "{}"]
)
def test_lines_of_metadata_that_give_no_caption_are_counted_and_named(tmp_path, row):
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "b.png", "text": "b"}\n' + row, encoding="utf-8")
    assert any(line.startswith("1 line of captions") and "metadata.jsonl, line 2" in line for line in warned(tmp_path))


def captions_of(folder, **caption):
    items = scan(folder_settings(folder, caption=caption), allowed=anywhere)
    return {item.relative: (item.text, item.caption_file and item.caption_file.name) for item in items}


@pytest.mark.parametrize("other", ["walk.mp4", "walk.frames", "walk.jpg"])
def test_of_one_stem_the_caption_of_the_whole_name_comes_first(tmp_path, other):
    picture(tmp_path / "walk.png")
    if other == "walk.frames":
        picture(tmp_path / other / "0001.png")
    elif other == "walk.jpg":
        picture(tmp_path / other)
    else:
        (tmp_path / other).write_bytes(b"a clip")
    (tmp_path / "walk.txt").write_text("a still", encoding="utf-8")
    assert captions_of(tmp_path) == {"walk.png": ("a still", "walk.txt"), other: ("a still", "walk.txt")}
    own = f"{other}.txt"
    (tmp_path / own).write_text("a walk", encoding="utf-8")
    assert captions_of(tmp_path) == {"walk.png": ("a still", "walk.txt"), other: ("a walk", own)}
    assert not match(folder_settings(tmp_path), allowed=anywhere)[1].left
    (tmp_path / "walk.png.txt").write_text("mine", encoding="utf-8")
    assert captions_of(tmp_path) == {"walk.png": ("mine", "walk.png.txt"), other: ("a walk", own)}
    assert [left.name for left in match(folder_settings(tmp_path), allowed=anywhere)[1].left] == ["walk.txt"]
