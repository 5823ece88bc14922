import json

import pytest

from masklora.findings import Finding, counted, note, printable, warning, warnings_of, worded


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("caf\udce9.png", "caf\\xe9.png"),
        ("\ud83d alone", "\\ud83d alone"),
        ("a\x1b[2Jb\x00", "a\\x1b[2Jb\\x00"),
        ("é 🙂 two\nlines\tand tabs", "é 🙂 two\nlines\tand tabs"),
    ],
)
def test_what_no_stream_can_carry_is_spelt_out(text, shown):
    assert printable(text) == shown
    assert printable(text).encode("utf-8")
    assert note(text).text == shown
    assert json.loads(json.dumps(warning(text).text)) == shown


def test_warnings_are_repeated_once_and_in_order():
    found = [warning("b"), note("c"), warning("a"), warning("b")]
    assert warnings_of(found) == (Finding("b", "warning"), Finding("a", "warning"))


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 masks are black"), (1, "1 mask is black"), (2, "2 masks are black"), (11, "11 masks are black")],
)
def test_words_follow_the_number(number, text):
    assert counted(number, "[mask is|masks are] black") == text


def test_one_of_two_forms_may_be_empty_and_other_brackets_stay():
    assert worded(1, "[|all ]gone [1]") == "gone [1]" and worded(2, "[|all ]gone [1]") == "all gone [1]"
