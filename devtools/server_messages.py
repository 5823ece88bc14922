"""The sentences that our Python tells people, as templates by file, in `locales/en/server.json`.

    python dev.py run devtools/server_messages.py

writes it anew. Nothing in the code marks a sentence: every text with words in it counts, but what only a log, a
pattern, a docstring or a schema has (those of schemas are in `nodeDefs.json`).
"""

import ast
import json
import re

from devtools.console import say
from devtools.locales import ENGLISH, LOCALES, read_texts, translations, write_tree
from devtools.recipe import ROOT
from devtools.sentences import Hole, Reader, Variant, assignments, fielded, forms_of, read_module

FILE = "server.json"
FOLDERS = ("masklora", "nodes")
PLACEHOLDER = re.compile(r"\{(\d+)\}")
# What is written for GitHub, in English, whatever the page's language.
ENGLISH_ONLY = {"masklora/host/report.py", "masklora/host/anonymous.py", "masklora/host/memory/cards.py"}
# What a terminal shows, and no page; but for what both refuse.
TERMINAL, BOTH = "masklora/host/headless/", "masklora/host/headless/shared.py"
# Texts of nothing but names of settings.
NAMES_ONLY = {"masklora/runs/identity.py"}
# What stands in a widget before anybody writes there, by name.
_DEFAULTS = {"_EXAMPLE"}
# How the server puts texts together that are entries of their own.
JOINS = ("{0}: {1}", "{0}; {1}", "{0}, {1}", "{0} ({1})", "{0}.")
# Calls whose texts nobody reads: of functions, of methods, and of everything in a module.
_FUNCTIONS = {"getattr", "hasattr", "setattr", "TypeVar", "Thread", "ThreadPoolExecutor"}
_METHODS = {"Input", "Output", "startswith", "endswith", "split", "encode", "import_module"}
_MODULES = {"logger", "logging", "re"}
# Arguments that are in the nodes' schemas, or tell developers where a default comes from.
_ARGUMENTS = {
    "search_aliases",
    "category",
    "placeholder",
    "node_id",
    "display_name",
    "description",
    "tooltip",
    "source",
}
# Names of things, widgets' choices and keys of caches, which read the same in every language.
_NAMES = re.compile(
    r"(?!the )[a-z0-9_.+-]+(?: [A-Za-z0-9_.()+-]+){1,3}|[A-Z][\w.-]*(?: [A-Z0-9][\w.()+-]*)+|[A-Z]\w*[A-Z]\w* [a-z]+"
    r"|per block, offloaded"
)
_NO_SENTENCE = re.compile(
    r"^\{\"|\(\?|\\[dsw]|\[-_|max-age|^(file|alpha|array|union|tiff|profile|layer|parameter|key|name) \{0\}$"
    r"|^mask (weight|identity|facts)$|^(wide tiff|key colour|fused norm|text blocks)$|^flash attention|^\{0\} backward$"
    r"|^masked lora/|^([A-Z]\w+ )+[Mm]asks$|^no mask  \{0\}$|^Florence-2 \+ SAM 2$"
)
# Words that a report's lines are searched for, a prompt's syntax, part of an identity, and where defaults come from.
_NOT_TOLD = re.compile(r"^(\{0\} )?no mask,$|^embedding :$|^generated mask$|^musubi-tuner, docs/")
_UNITS = re.compile(r"\b(?:[KMG]i?B|px|SUPER|Ti)\b")
# A word, and something beside it.
_WORDS = re.compile(r"[A-Za-z]{2,}")


class Extraction(ast.NodeVisitor):
    """Finds the texts of one module, and which uses of names are written out in them."""

    def __init__(self, module, modules):
        self.reader, self.scopes = Reader(module, modules), []
        # (variants, node of the assigned text or None)
        self.found, self.assigned, self.at_top = [], {}, set()

    def visit(self, node):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            self.scopes.append(node)
            super().generic_visit(node)
            self.scopes.pop()
        elif _is_text(node):
            self._text(node)
        elif words := _joining(node):
            self.found.append((node, [Variant((Hole(None), words, Hole(None)))]))
            for argument in node.args:
                self.visit(argument)
        elif not _untold(node):
            for name, value in assignments(node) if isinstance(node, ast.stmt) else ():
                self.assigned[value] = (name, self.scopes[-1] if self.scopes else None)
            super().generic_visit(node)

    def _text(self, node):
        variants = self.reader.variants(node, tuple(self.scopes))
        self.found.append((node, variants))
        if not self.scopes:
            self.at_top.add(node)
        holes = {part.node for variant in variants for part in variant.parts if isinstance(part, Hole)}
        for hole in sorted((one for one in holes if one is not None), key=lambda one: (one.lineno, one.col_offset)):
            # What a name or a helper brought here is found where it stands.
            if any(hole is one for one in ast.walk(node)):
                self.visit(hole)


def _is_text(node):
    if isinstance(node, ast.Constant):
        return isinstance(node.value, str)
    if isinstance(node, ast.BinOp):
        return isinstance(node.op, ast.Add) and (_is_text(node.left) or _is_text(node.right))
    if isinstance(node, ast.IfExp):
        return _is_text(node.body) or _is_text(node.orelse)
    if isinstance(node, ast.Call):
        named = isinstance(node.func, ast.Name) and node.func.id in ("counted", "worded")
        return named or (isinstance(node.func, ast.Attribute) and node.func.attr == "format")
    return isinstance(node, ast.JoinedStr)


def _joining(node):
    """What `" and ".join(…)` puts between things, where it has words."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "join":
        between = node.func.value.value if isinstance(node.func.value, ast.Constant) else ""
        return between if isinstance(between, str) and _WORDS.search(between) else ""
    return ""


def _untold(node):
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    if isinstance(node, ast.keyword):
        return node.arg in _ARGUMENTS
    if isinstance(node, ast.Compare):
        return True
    if not isinstance(node, ast.Call):
        return False
    called = node.func
    if isinstance(called, ast.Attribute):
        owner = called.value.id if isinstance(called.value, ast.Name) else ""
        return owner in _MODULES or called.attr in _METHODS
    return isinstance(called, ast.Name) and called.id in _FUNCTIONS


def told(template):
    """Whether a template has words that a translator would translate: two, or one beside a value."""
    literal = _UNITS.sub("", PLACEHOLDER.sub("0", template)).strip()
    words = _WORDS.search(_UNITS.sub("", PLACEHOLDER.sub(" ", template)))
    return bool(words) and " " in literal and not _NO_SENTENCE.search(template) and not _NOT_TOLD.search(template)


def _whole(variant):
    """A text that can stand by itself: one that goes on from another begins with a value in its place."""
    text = variant.template()
    if re.match(r"[,;:] | (?:… )?(?:[a-z(]|of \{)", text):
        return Variant((Hole(None), *variant.parts)).template().rstrip()
    return text.strip().removeprefix(". ")


def modules():
    """Every module of the pack by its name in dots."""
    found = {}
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            own = parts[:-1] if parts[-1] == "__init__" else parts
            name = ".".join(own)
            found[name] = read_module(name, path.read_text(encoding="utf-8"), ".".join(parts[:-1]))
            found[name].path = path.relative_to(ROOT).as_posix()
    return found


def catalogue():
    """{file: [template]} of all sentences, in the order in which they stand, each once."""
    every = modules()
    extractions = {}
    for name, module in every.items():
        extractions[name] = Extraction(module, every)
        extractions[name].visit(module.tree)
    used = {node for one in extractions.values() for node in one.reader.used}
    loads = _constant_loads(every)
    schemas = set(read_texts(ENGLISH, "nodeDefs.json").values())
    seen, found = _names(extractions), {}
    for name, extraction in extractions.items():
        path = every[name].path
        for node, variants in extraction.found:
            assigned = extraction.assigned.get(node)
            if (
                path in ENGLISH_ONLY | NAMES_ONLY
                or (path.startswith(TERMINAL) and path != BOTH)
                or _written_out(assigned, used, loads, name)
            ):
                continue
            if assigned and assigned[0] in _DEFAULTS:
                continue
            templates = [_whole(one) for variant in variants for one in _counted(fielded(variant))]
            new = [one for one in dict.fromkeys(templates) if one not in seen and told(one)]
            found.setdefault(path, []).extend(
                one for one in new if not (path.startswith("nodes/") and _fits(one, schemas))
            )
            seen |= set(new)
    return {path: texts for path, texts in found.items() if texts} | {"joins": list(JOINS)}


def _names(extractions):
    """What stands at the top of a module and has the form of a name."""
    texts = [
        variant.template()
        for one in extractions.values()
        for node, variants in one.found
        if node in one.at_top
        for variant in variants
    ]
    return {text for text in texts if _NAMES.fullmatch(text)}


def _counted(variant):
    """A text with forms behind the number that it will have, unless it begins with what is counted; others as it is."""
    forms = forms_of(variant)
    if not forms or isinstance(variant.parts[0], Hole):
        return forms or [variant]
    return [Variant((Hole(None), " ", one.parts[0].lstrip(), *one.parts[1:])) for one in forms]


def _constant_loads(every):
    """The uses of the names at a module's top, in all modules: {(module, name): [node]}."""
    found = {}
    for name, module in every.items():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                origin = (name, node.id) if node.id in module.constants else module.imports.get(node.id)
                if origin:
                    found.setdefault(origin, []).append(node)
    return found


def _written_out(assigned, used, loads, module):
    """Whether a text was given a name, and every use of that is written out in the texts around it."""
    if assigned is None:
        return False
    name, function = assigned
    if function is None:
        uses = loads.get((module, name), [])
    else:
        nodes = [n for n in ast.walk(function) if isinstance(n, ast.Name) and n.id == name]
        uses = [n for n in nodes if isinstance(n.ctx, ast.Load)]
    return bool(uses) and all(use in used for use in uses)


def _fits(template, texts):
    if not PLACEHOLDER.search(template):
        return any(template in text for text in texts)
    pattern = re.compile(".+".join(re.escape(part) for part in PLACEHOLDER.split(template)[::2]), re.DOTALL)
    return any(pattern.fullmatch(text) for text in texts)


def write():
    """Writes the English catalogue: by file, each sentence as its own translation."""
    found = catalogue()
    write_tree(LOCALES / ENGLISH / FILE, {path: {one: one for one in texts} for path, texts in found.items()})
    return found


def flat_messages(language):
    """The sentences of a language as {template: translation}; empty where it has none."""
    path = LOCALES / language / FILE
    tree = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    found = {}
    for key, value in tree.items():
        found |= value if isinstance(value, dict) else {key: value}
    return found


def faults(english, translated):
    """What is wrong with a language, one line each: sentences too few or too many, other placeholders."""
    found = [f"missing: {one}" for one in english if not translated.get(one)]
    found += [f"not in English: {one}" for one in translated if one not in english]
    for one in english:
        theirs = translated.get(one) or one
        if set(PLACEHOLDER.findall(one)) != set(PLACEHOLDER.findall(theirs)):
            found.append(f"other placeholders: {one} / {theirs}")
    return found


def main():
    """Writes the English catalogue and lists what each language lacks."""
    found = write()
    say(f"{sum(map(len, found.values()))} sentences in {len(found)} files")
    for language in translations():
        for fault in faults(flat_messages(ENGLISH), flat_messages(language)):
            say(f"{language}: {fault}")


if __name__ == "__main__":
    main()
