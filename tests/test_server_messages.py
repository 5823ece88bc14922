"""The server's sentences: found in its code, and translated into every language."""

import json
import os

import pytest

from devtools.locales import ENGLISH, LOCALES, translations
from devtools.server_messages import FILE, catalogue, faults, flat_messages, write
from harness.said import is_known

UPDATE = "MASKLORA_UPDATE_LOCALES"


def test_the_english_sentences_are_those_of_the_code():
    if os.environ.get(UPDATE):
        write()
    recorded = json.loads((LOCALES / ENGLISH / FILE).read_text(encoding="utf-8"))
    current = {path: {one: one for one in texts} for path, texts in catalogue().items()}
    assert current == recorded, f"sentences have changed: run this once with {UPDATE}=1, translate, and commit"


@pytest.mark.parametrize("language", translations())
def test_each_sentence_is_translated_with_the_same_placeholders(language):
    assert faults(flat_messages(ENGLISH), flat_messages(language)) == [], "`devtools/server_messages.py` lists them"


def test_a_sentence_that_a_language_lacks_or_changes_is_told():
    english = {"{0} of {1}": "{0} of {1}", "b": "b"}
    assert faults(english, {"{0} of {1}": "sur {1} : {0}", "b": "x"}) == []
    assert faults(english, {"{0} of {1}": "sur {1}", "b": "x"}) == ["other placeholders: {0} of {1} / sur {1}"]
    assert faults(english, {"{0} of {1}": "", "c": "x"}) == ["missing: {0} of {1}", "missing: b", "not in English: c"]


def test_what_nobody_has_written_down_is_not_known():
    assert is_known("cats: the folder cannot be read (no). Check its permissions.")
    assert is_known(
        "The only picture has a doubtful mask (a.png): the mask is in the file's alpha, and was taken from there.\n"
    )
    assert not is_known("cats: a sentence that stands nowhere in the code.")
    assert not is_known("There is no such picture. It may have been dropped; reload the list. And this is new.")
