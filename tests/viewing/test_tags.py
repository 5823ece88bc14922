"""The tags and words that captions hold, and in which pictures."""

import time

import pytest

from masklora.dataset.sample import Sample
from masklora.settings import CaptionSettings, DatasetSettings
from masklora.viewing.tags import MOST_SHOWN, tag_table, usual_kind


def samples(*captions, **settings):
    caption = CaptionSettings(**settings)
    return [
        Sample(key=str(i), name=f"{i}.png", size=(8, 8), caption=text, settings=DatasetSettings(caption=caption))
        for i, text in enumerate(captions)
    ]


def held(table, picture):
    return [table.names[at] for at in table.pictures[picture]]


def test_tags_are_counted_once_a_picture_the_most_frequent_first():
    table = tag_table(samples("red cat, sofa", "sofa,red cat, sofa,", None, "dog , sofa", ""))
    assert table.kind == "tags" and table.names == ["sofa", "red cat", "dog"] and table.counts == [3, 2, 1]
    assert [held(table, i) for i in range(5)] == [["red cat", "sofa"], ["sofa", "red cat"], [], ["dog", "sofa"], []]


def test_the_set_s_own_separator_parts_tags_and_lines_do_too():
    table = tag_table(samples("a, b | c", separator="|"))
    assert sorted(table.names) == ["a, b", "c"]
    assert tag_table(samples("a b c", separator=" ")).counts == [1, 1, 1]
    assert sorted(tag_table(samples("a, b\nb, c")).names) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("captions", "kind"),
    [
        (["1girl, red hair, smile", "solo, looking at viewer"], "tags"),
        (["cat", "dog"], "tags"),
        ([None, ""], "tags"),
        (["A cat sits on a sofa.", "The same cat, seen from behind, sleeps in the sun."], "words"),
        (["a photo of a red cat", "a photo of a dog"], "words"),
        (["\u732b\u304c\u3044\u308b\u3002"], "words"),
    ],
)
def test_sentences_are_told_from_tags(captions, kind):
    assert usual_kind(samples(*captions)) == kind


def test_words_are_in_small_letters_without_signs():
    table = tag_table(samples("A cat's toy, (red).", "Red x of \u732b\u732b"), "words")
    assert table.names == ["red", "cat's", "toy", "\u732b"]


def test_ten_thousand_long_captions_take_a_second_or_so():
    many = samples(*(", ".join(f"tag {(i * 7 + k) % 9000}" for k in range(30)) for i in range(10_000)))
    start = time.perf_counter()
    table = tag_table(many)
    assert time.perf_counter() - start < 6
    assert len(table.names) == MOST_SHOWN and table.left_out == 9000 - MOST_SHOWN
