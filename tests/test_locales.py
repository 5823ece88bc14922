"""Texts and translations: English comes from the schemas, every language is complete, every key is used."""

import json
import os
import re

import pytest

from devtools.locales import ENGLISH, FILES, LOCALES, SYNTAX, faults, node_texts, read_texts, translations, write_tree
from devtools.recipe import ROOT

UPDATE = "MASKLORA_UPDATE_LOCALES"
SECTION = "masked_lora."
# What reads the same in another language: international words, names, and texts of nothing but placeholders.
SAME = {
    "fr": {"alpha", "angle", "cache", "convolutions", "destination", "format", "gamma", "guidance", "images", "point"}
    | {"routes", "Pause", "prior", "latent", "Lasso", "GrabCut"}
    | {"Prompt", "prompts", "Checkpoint", "SAM 3", "{seconds} s"},
    "zh": {"GrabCut", "SAM 3", "{number} kB", "{number} MB", "{number} GB"},
}

LITERAL = re.compile(r"""(?<!\\)(["'`])((?:\\.|(?!\1).)*)\1""")


def scripts():
    """The text of each of our modules in the page by its name."""
    paths = [path for path in (ROOT / "web").rglob("*.*js") if "vendor" not in path.parts]
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in paths}


def first_argument(code, start):
    """The first argument of the call whose bracket opens before `start`."""
    depth = 0
    for i in range(start, len(code)):
        if code[i] in "([{":
            depth += 1
        elif code[i] in ")]}":
            depth -= 1
        if depth < 0 or (depth == 0 and code[i] == ","):
            return code[start:i]
    raise AssertionError(f"a call that does not end: {code[start : start + 80]}")


def asked_keys():
    """Keys that the modules ask for, a `*` where a template fills in: [(module, key)]."""
    found = []
    for name, code in scripts().items():
        if name.endswith("page/strings.mjs"):
            continue
        for call in re.finditer(r"(?<![\w.])text\(", code):
            argument = first_argument(code, call.end())
            keys = [re.sub(r"\$\{[^}]*\}", "*", words) for _, words in LITERAL.findall(argument)]
            keys = [key for key in keys if "." in key]
            assert keys, f"{name}: text({argument}) names no key"
            found += [(name, key) for key in keys]
    return found


def matches(key, pattern):
    return re.fullmatch(re.escape(pattern).replace(r"\*", r"([^.]+)"), key)


@pytest.fixture(scope="module")
def english():
    return {key.removeprefix(SECTION): text for key, text in read_texts(ENGLISH, "main.json").items()}


def test_english_of_the_nodes_is_what_their_schemas_say(comfy_server):
    current = node_texts(comfy_server.object_info())
    path = LOCALES / ENGLISH / "nodeDefs.json"
    if os.environ.get(UPDATE):
        write_tree(path, current)
    recorded = json.loads(path.read_text(encoding="utf-8"))
    assert current == recorded, f"schemas have changed: run this once with {UPDATE}=1, translate, and commit"


def test_there_is_a_second_language_as_complete_as_english():
    assert translations()
    lacks = [
        f"{language}/{file}: {fault}"
        for language in translations()
        for file in FILES
        for fault in faults(read_texts(ENGLISH, file), read_texts(language, file))
    ]
    assert lacks == [], "`python dev.py run devtools/locales.py` lists them"


def test_nothing_was_left_in_english():
    left = [
        f"{language}/{file}: {key} = {text}"
        for language in translations()
        for file in FILES
        for key, text in read_texts(ENGLISH, file).items()
        if read_texts(language, file).get(key) == text
        and re.search(r"[^\W\d_]", re.sub(r"\{\w+\}", "", text))
        and text not in SAME[language]
    ]
    assert left == []


def test_the_page_s_message_compiler_finds_no_syntax_in_the_texts_of_nodes():
    odd = [
        f"{language}: {key} = {text}"
        for language in (ENGLISH, *translations())
        for key, text in read_texts(language, "nodeDefs.json").items()
        if SYNTAX.search(text)
    ]
    assert odd == []


def test_every_key_that_a_module_asks_for_exists(english):
    missing = [(name, key) for name, key in asked_keys() if not any(matches(one, key) for one in english)]
    assert missing == []


def test_every_english_text_is_used(english):
    """A key that only a template reaches counts if its own part is a word of our scripts or of our server."""
    sources = [*scripts().values(), *(p.read_text(encoding="utf-8") for p in (ROOT / "masklora").rglob("*.py"))]
    words = set(re.findall(r"""["'`]([\w-][\w -]*)["'`]""", "\n".join(sources)))
    words |= set(re.findall(r"^\s*\[?(\w+):", "\n".join(scripts().values()), re.MULTILINE))

    def used(key):
        for pattern in {pattern for _, pattern in asked_keys()}:
            match = matches(key, pattern)
            if match and set(match.groups()) <= words:
                return True
        return False

    assert [key for key in english if not used(key)] == []


def test_a_translation_that_lacks_a_key_or_a_number_is_told():
    english = {"a": "{count} of 12", "b": "x"}
    assert faults(english, {"a": "{count} sur 12", "b": "y"}) == []
    assert faults(english, {"a": "{count} sur 12"}) == ["missing: b = x"]
    assert faults(english, {"a": "{number} sur 12", "b": "y", "c": "z"})[0] == "not in English: c"
    assert "other placeholders" in faults(english, {"a": "{number} sur 12", "b": "y"})[0]
    assert "other numbers" in faults(english, {"a": "{count} sur 13", "b": "y"})[0]
