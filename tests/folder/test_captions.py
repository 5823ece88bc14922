"""Caption texts: reading, trigger, prefix and suffix, shuffle, dropout, missing ones."""

import codecs
from dataclasses import replace

import pytest
import torch

from masklora.errors import ConfigError, DataError
from masklora.folder.captions import (
    caption_extension,
    caption_of_text,
    caption_variants,
    check_captions,
    compose_caption,
    read_text,
    shuffle_caption,
    with_caption_policy,
    without_trigger,
)
from masklora.settings import CaptionSettings, DatasetSettings


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
def test_utf8_is_read_with_and_without_byte_order_mark(tmp_path, mark):
    path = tmp_path / "a.txt"
    path.write_bytes(mark + "  ein Küken, 猫\r\nzweite Zeile\n".encode())
    assert caption_of_text(read_text(path)) == "ein Küken, 猫 zweite Zeile"


@pytest.mark.parametrize(
    ("content", "at"),
    [
        ("Küken".encode("latin-1"), 1),
        (codecs.BOM_UTF8 + b"ab\xff", 5),
        ("cat".encode("utf-16"), 0),
        ("椅子上的猫".encode("gbk"), 0),
        ("a cat – grey".encode("cp1252"), 6),
        (b"abc\0d", 3),
    ],
)
def test_other_encodings_are_errors_that_name_file_and_byte(tmp_path, content, at):
    path = tmp_path / "falsch kodiert.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"falsch kodiert\.txt.*byte {at}\. Save the caption as UTF-8"):
        read_text(path)


def test_a_missing_caption_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"no\.txt"):
        read_text(tmp_path / "no.txt")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a cat on a mat", "sks, a cat on a mat"),
        ("a sks cat", "a sks cat"),
        ("a SKS, cat", "a SKS, cat"),
        ("asks", "sks, asks"),
        ("sksb", "sks, sksb"),
        ("", "sks"),
    ],
)
def test_trigger_word_is_inserted_only_where_absent(text, expected):
    assert compose_caption(text, CaptionSettings(trigger="sks")) == expected


def test_trigger_word_with_special_characters_is_taken_literally():
    assert compose_caption("a (x) b", CaptionSettings(trigger="(x)")) == "a (x) b"
    assert compose_caption("a x b", CaptionSettings(trigger="(x)")) == "(x), a x b"


def test_prefix_and_suffix_surround_the_text_and_may_hold_the_trigger():
    settings = CaptionSettings(trigger="sks", prefix="photo of sks", suffix=", sharp")
    assert compose_caption("a cat", settings) == "photo of sks a cat, sharp"
    assert compose_caption("a cat", CaptionSettings(suffix="at night")) == "a cat at night"


def test_missing_captions_follow_the_policy():
    base = CaptionSettings(trigger="sks", prefix="photo", missing="empty caption")
    assert compose_caption(None, base) == ""
    assert compose_caption(None, CaptionSettings(trigger="sks", missing="use trigger word")) == "sks"
    with pytest.raises(DataError, match="caption is missing"):
        compose_caption(None, CaptionSettings(missing="error"))


@pytest.mark.parametrize(
    ("trigger", "of_class", "missing"),
    [
        ("sks", False, "use trigger word"),
        (" ", False, "empty caption"),
        ("sks", True, "empty caption"),
        ("", True, "empty caption"),
    ],
)
def test_left_to_itself_a_missing_caption_is_the_trigger_word_but_of_no_regularisation_picture(
    trigger, of_class, missing
):
    settings = DatasetSettings(caption=CaptionSettings(trigger=trigger), regularisation=of_class)
    assert with_caption_policy(settings).caption == CaptionSettings(trigger=trigger, missing=missing)
    chosen = replace(settings, caption=replace(settings.caption, missing="error"))
    assert with_caption_policy(chosen) is chosen


def test_shuffle_keeps_the_first_tags_and_loses_none():
    settings = CaptionSettings(trigger="sks", shuffle=True, keep_first=2)
    text = "first, b, c, d, e, f"
    drawn = [shuffle_caption(text, settings, generator=seeded(seed)).split(", ") for seed in range(20)]
    assert all(tags[:2] == ["sks", "first"] for tags in drawn)
    assert all(sorted(tags[2:]) == list("bcdef") for tags in drawn)
    assert len({tuple(tags) for tags in drawn}) > 10


def test_shuffle_leaves_prefix_and_suffix_in_place():
    settings = CaptionSettings(shuffle=True, keep_first=0, prefix="a photo,", suffix=", best")
    for seed in range(5):
        drawn = shuffle_caption("x, y, z", settings, generator=seeded(seed))
        assert drawn.startswith("a photo, ") and drawn.endswith(", best")


def test_separator_is_the_users():
    settings = CaptionSettings(shuffle=True, keep_first=1, separator="|")
    drawn = shuffle_caption("a, 1| b| c", settings, generator=seeded())
    assert drawn.split("| ")[0] == "a, 1" and sorted(drawn.split("| ")) == ["a, 1", "b", "c"]


def test_text_is_untouched_without_shuffle():
    assert shuffle_caption("b ,a,, c", CaptionSettings(), generator=seeded()) == "b ,a,, c"


def test_variants_are_different_texts_and_never_dropped():
    settings = CaptionSettings(shuffle=True, keep_first=0, dropout=1.0)
    variants = caption_variants("a, b, c, d", settings, count=4, generator=seeded())
    assert len(set(variants)) == len(variants) and 1 < len(variants) <= 4 and "" not in variants
    assert caption_variants("a, b", CaptionSettings(), count=4, generator=seeded()) == ["a, b"]
    assert caption_variants(None, settings, count=4, generator=seeded()) == [""]


@pytest.mark.parametrize(
    ("values", "widget"),
    [
        ({"missing": "guess"}, "missing_captions"),
        ({"dropout": 1.5}, "caption_dropout"),
        ({"keep_first": -1}, "keep_first_tags"),
        ({"shuffle": True, "separator": ""}, "caption_separator"),
        ({"missing": "use trigger word"}, "trigger_word"),
        ({"extension": "../x"}, "caption_extension"),
        ({"extension": "."}, "caption_extension"),
    ],
)
def test_settings_out_of_range_name_their_widget(values, widget):
    with pytest.raises(ConfigError, match=widget):
        check_captions(CaptionSettings(**values))


def test_extension_may_lack_its_dot():
    assert caption_extension(CaptionSettings(extension="caption")) == ".caption"
    assert caption_extension(CaptionSettings()) == ".txt"


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("sks, a cat on grass", "a cat on grass"),
        ("a photo of sks dog, outdoors", "a photo of dog, outdoors"),
        ("a cat, SKS, sitting", "a cat, sitting"),
        ("sks", ""),
        ("a sks's hat", "a 's hat"),
        ("sksy and asks stay", None),
        ("", None),
        ("one, two,, sks", "one, two,"),
    ],
)
def test_a_caption_without_its_trigger_word_loses_the_word_and_its_separator(caption, expected):
    assert without_trigger(caption, CaptionSettings(trigger=" sks ")) == expected


def test_without_a_trigger_word_no_caption_has_one():
    assert without_trigger("sks, a cat", CaptionSettings()) is None


def test_trigger_words_and_separators_of_any_characters_are_taken_literally():
    settings = CaptionSettings(trigger="a+b (c)", separator=";")
    assert without_trigger("a+b (c); two, words; three", settings) == "two, words; three"


@pytest.mark.parametrize(
    ("trigger", "caption", "expected"),
    [
        ("sks, woman", "sks, woman, standing", "standing"),
        ("sks, woman", "a photo of sks, woman in red, outdoors", "a photo of in red, outdoors"),
        ("sks, woman", "woman, sks", None),
        ("sks woman", "by the sea, sks woman", "by the sea"),
    ],
)
def test_a_trigger_word_that_holds_the_separator_is_taken_out_as_a_whole(trigger, caption, expected):
    """Else the caption with the trigger would be held to the base model: the subject would be unlearned."""
    assert without_trigger(caption, CaptionSettings(trigger=trigger)) == expected


def test_trigger_words_of_other_sets_are_taken_out_too():
    settings = CaptionSettings(trigger="anna")
    assert without_trigger("anna and zwx man, zwx, night", settings, others=["zwx", "zwx man", ""]) == "and, night"
    assert without_trigger("zwx at night", settings, others=["zwx"]) is None
