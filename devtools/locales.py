"""The pack's texts by language, and what a language lacks: `python dev.py run devtools/locales.py` lists it.

English is written once: the nodes' texts in their schemas, from which `locales/en/nodeDefs.json` is made, and those of
the page in `locales/en/main.json`. Every other folder of `locales` holds the same keys.
"""

import json
import re
import sys
from pathlib import Path

from devtools.console import result
from devtools.recipe import ROOT

LOCALES = ROOT / "locales"
ENGLISH = "en"
FILES = ("main.json", "nodeDefs.json")
# What the page's message compiler takes for syntax of its own.
SYNTAX = re.compile(r"[@{}|]|%\{")


def read_texts(language, file):
    """The texts of one file of a language as {"a.b": text}; empty where there is no such file."""
    path = LOCALES / language / file
    return flat(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def write_tree(path: Path, tree):
    """Writes one file of texts in the form that all of them have."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(tree, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def flat(tree, prefix=""):
    """{"a": {"b": text}} as {"a.b": text}."""
    texts = {}
    for key, value in tree.items():
        texts |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return texts


def translations():
    """The languages that the pack has besides English."""
    return sorted(path.name for path in LOCALES.iterdir() if path.is_dir() and path.name != ENGLISH)


def node_texts(object_info):
    """`nodeDefs.json` in English: what ComfyUI's page looks up for each of the pack's nodes."""
    return {node_id: _one_node(info) for node_id, info in sorted(object_info.items()) if node_id.startswith("MLT_")}


def _one_node(info):
    inputs = {}
    for group in ("required", "optional"):
        for name, (_, *settings) in info["input"].get(group, {}).items():
            told = settings[0] if settings else {}
            inputs[name] = {"name": told.get("display_name") or name, "tooltip": told["tooltip"]}
    outputs = zip(info["output_name"], info["output_tooltips"], strict=True)
    return {
        "display_name": info["display_name"],
        "description": info["description"],
        "inputs": inputs,
        "outputs": {str(i): {"name": name, "tooltip": tooltip} for i, (name, tooltip) in enumerate(outputs)},
    }


def placeholders(text):
    """The names in braces, sorted."""
    return sorted(re.findall(r"\{(\w+)\}", text))


def numbers(text):
    """The numbers of a text, sorted: where a translation has others, it tells of other limits."""
    return sorted(re.findall(r"\d+(?:\.\d+)?(?:e[-+]?\d+)?", text))


def faults(english, translated):
    """What is wrong with a translation, one line each: keys too few or too many, other placeholders or numbers."""
    found = [f"missing: {key} = {english[key]}" for key in english if key not in translated]
    found += [f"not in English: {key}" for key in translated if key not in english]
    for key in english.keys() & translated.keys():
        ours, theirs = english[key], translated[key]
        if placeholders(ours) != placeholders(theirs):
            found.append(f"other placeholders: {key}: {ours} / {theirs}")
        if numbers(ours) != numbers(theirs):
            found.append(f"other numbers: {key}: {ours} / {theirs}")
    return found


def main():
    """Lists what each language lacks; the exit status is 1 if anything."""
    lines = [
        f"{language}/{file}: {fault}"
        for language in translations()
        for file in FILES
        for fault in faults(read_texts(ENGLISH, file), read_texts(language, file))
    ]
    result("\n".join(lines) or "Every language is complete.")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
