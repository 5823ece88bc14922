"""Every language has every help page whole: block for block what the English page has, in its own words.

A page of a language is `web/docs/<NodeId>/<language>.md`, where ComfyUI's page asks for it before it asks for
`<NodeId>.md`; of a guide it is `web/docs/<language>/<guide>.md`.
"""

import re
from collections import Counter

import pytest

from devtools.locales import numbers, read_texts, translations
from harness.help_pictures import DOCS

SERVED = "/extensions/masked-lora/docs/"
ENGLISH_PAGES = sorted(DOCS.glob("*.md"))
CODE = re.compile(r"`([^`]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
# English writes small numbers as words, where another language may write digits.
MOST_IN_WORDS = 20
# A block with fewer words may read the same: names, values.
FEWEST_WORDS = 4


def translated(page, language):
    """Where a language has its version of an English page."""
    if page.name.startswith("MLT_"):
        return DOCS / page.stem / f"{language}.md"
    return DOCS / language / page.name


def blocks(text):
    """A page as [(kind, text)]: headings by level, fences, rows of tables, items of lists, paragraphs."""
    found, fence = [], None
    for line in text.splitlines():
        if line.startswith("```"):
            fence, found = (None, found) if fence else (True, [*found, ("fence", "")])
        elif fence:
            found[-1] = ("fence", f"{found[-1][1]}{line}\n")
        elif heading := re.match(r"(#+) (.+)", line):
            found.append((f"heading {len(heading[1])}", heading[2]))
        elif line.startswith("|"):
            found.append(("row", line))
        elif item := re.match(r"(- |\d+\. )(.+)", line):
            found.append(("item" if item[1] == "- " else "numbered item", item[2]))
        elif not line.strip():
            found.append(("gap", ""))
        elif found and found[-1][0] in ("paragraph", "item", "numbered item"):
            found[-1] = (found[-1][0], f"{found[-1][1]} {line.strip()}")
        else:
            found.append(("paragraph", line))
    return [block for block in found if block[0] != "gap"]


def names_of_widgets(language):
    """{id of an input or output: its names in a language}, as the nodes show them."""
    names = {}
    ids = {key: value for key, value in read_texts("en", "nodeDefs.json").items() if key.endswith(".name")}
    for key, text in read_texts(language, "nodeDefs.json").items():
        if key.endswith(".name"):
            name = key.split(".")[-2]
            names.setdefault(ids[key] if name.isdigit() else name, set()).add(text.casefold())
    return names


def codes(text):
    """The words in backquotes, whose placeholders in <> may be named in any language."""
    return {re.sub(r"<[^>]+>", "<>", code) for code in CODE.findall(text)}


def bare(text):
    """A block without code, addresses, and the rules of tables."""
    return re.sub(r"\|[-| ]+\|$", "", LINK.sub("]", CODE.sub("", text)))


def lacking_numbers(ours, theirs):
    """Numbers that a translated block lacks, and large ones that it adds."""
    ours, theirs = Counter(numbers(bare(ours))), Counter(numbers(bare(theirs)))
    added = [number for number in theirs - ours if float(number) > MOST_IN_WORDS]
    return sorted(ours - theirs), sorted(added)


def is_english(ours, theirs):
    words = re.findall(r"[^\W\d_]{2,}", bare(ours))
    return len(words) >= FEWEST_WORDS and bare(ours) == bare(theirs)


def served(page, link, language):
    """The file behind a link of a help page, as ComfyUI's help panel resolves it; None for another site's."""
    if "://" in link:
        return None
    if link.startswith(SERVED):
        return DOCS / link.removeprefix(SERVED)
    # The panel takes pictures from the folder of the pages, whatever the language; a guide is read where it lies.
    return (DOCS if page.name == f"{language}.md" else page.parent) / link


def block_faults(ours, theirs, names):
    """What a translated block lacks of the English one."""
    if ours[0] == "fence":
        return [] if ours == theirs else ["another code block"]
    found = ["left in English"] if is_english(ours[1], theirs[1]) else []
    lacking, added = lacking_numbers(ours[1], theirs[1])
    found += [f"lacks the number {number}" for number in lacking]
    found += [f"adds the number {number}" for number in added]
    told = theirs[1].casefold()
    absent = {
        code for code in codes(ours[1]) - codes(theirs[1]) if not any(name in told for name in names.get(code, ()))
    }
    return found + [f"lacks `{code}`" for code in sorted(absent)]


def link_faults(page, theirs, english, language):
    """Links of a translated page that lead nowhere or to English, and pictures that it lacks."""
    links, found = LINK.findall(theirs), []
    for link in links:
        at = served(page, link, language)
        if at is None:
            continue
        if not at.is_file():
            found.append(f"leads nowhere: {link}")
        elif at.suffix == ".md" and at.parent == DOCS:
            found.append(f"leads to the English page: {link}")
    pictures = [re.findall(r"images/([\w.-]+)", " ".join(LINK.findall(text))) for text in (english, theirs)]
    if pictures[0] != pictures[1]:
        found.append(f"other pictures: {pictures[0]} / {pictures[1]}")
    if len(links) != len(LINK.findall(english)):
        found.append("more or fewer links")
    return found


def faults(english, theirs, names):
    """What is wrong with a translated text, one line each."""
    ours, others = blocks(english), blocks(theirs)
    kinds = [[kind for kind, _ in page] for page in (ours, others)]
    if kinds[0] != kinds[1]:
        at = next((i for i, (a, b) in enumerate(zip(*kinds, strict=False)) if a != b), min(map(len, kinds)))
        told = [page[at] if at < len(page) else ("the end", "") for page in (ours, others)]
        return [f"block {at} is a {told[0][0]}: {told[0][1][:60]} / a {told[1][0]}: {told[1][1][:60]}"]
    found = [
        f"{fault}: {theirs[1][:70]}"
        for ours, theirs in zip(ours, others, strict=True)
        for fault in block_faults(ours, theirs, names)
    ]
    known, told = (set().union(*(codes(text) for kind, text in page if kind != "fence")) for page in (ours, others))
    return found + [f"`{code}` is not on the English page" for code in sorted(told - known - set(names))]


@pytest.mark.parametrize("ours", ENGLISH_PAGES, ids=[page.stem for page in ENGLISH_PAGES])
@pytest.mark.parametrize("language", translations())
def test_a_help_page_is_whole_in_every_language(language, ours):
    path = translated(ours, language)
    assert path.is_file(), f"{path.relative_to(DOCS)} is not there"
    english, theirs = (one.read_text(encoding="utf-8") for one in (ours, path))
    found = faults(english, theirs, names_of_widgets(language)) + link_faults(path, theirs, english, language)
    assert not found, "\n".join(found)


@pytest.mark.parametrize("language", translations())
def test_a_node_s_page_names_its_widgets_as_the_node_shows_them(language):
    """In the row that explains the widget."""
    texts, unnamed = read_texts(language, "nodeDefs.json"), []
    for page in DOCS.glob("MLT_*.md"):
        path = translated(page, language)
        rows = [text for kind, text in blocks(path.read_text(encoding="utf-8")) if kind == "row"]
        for key, text in texts.items():
            if name := re.fullmatch(rf"{page.stem}\.inputs\.(\w+)\.name", key):
                first = [row.split("|")[1] for row in rows]
                if not any(f"`{name[1]}`" in cell and text in cell for cell in first):
                    unnamed.append(f"{page.stem}: {name[1]} = {text}")
    assert unnamed == []


@pytest.mark.parametrize("language", translations())
def test_a_title_is_the_node_s(language):
    texts = read_texts(language, "nodeDefs.json")
    for page in DOCS.glob("MLT_*.md"):
        title = translated(page, language).read_text(encoding="utf-8").splitlines()[0]
        assert title == f"# {texts[f'{page.stem}.display_name']}"


def test_no_page_is_of_a_language_or_a_node_that_is_not_there():
    expected = {translated(page, language) for page in ENGLISH_PAGES for language in translations()}
    assert set(DOCS.glob("*/*.md")) == expected


def test_what_a_translation_lacks_is_told():
    english = "# A\n\nThe `floor` is 0.05 of 300, in twelve cells.\n\n- one\n\n| `a` | b |\n"
    whole = "# B\n\nLe plancher vaut 0.05 de 300, en 12 cellules.\n\n- un\n\n| `a` | c |\n"
    names = {"floor": {"plancher"}}
    assert faults(english, whole, names) == []
    assert "lacks `floor`" in faults(english, whole, {})[0]
    assert "lacks the number 300" in faults(english, whole.replace("300", "trois cents"), names)[0]
    assert "adds the number 40" in faults(english, whole.replace("12", "40"), names)[0]
    assert "left in English" in faults(english, english.replace("# A", "# B"), names)[0]
    assert "block 2 is a item" in faults(english, whole.replace("- un\n", ""), names)[0]
    assert "`x` is not on" in faults(english, whole.replace("c |", "`x` |"), names)[0]


def test_french_has_one_gender_for_a_lora_and_one_name_for_what_a_training_saves():
    """« Un LoRA » throughout; a checkpoint is a model's file, and of a training « point de sauvegarde »."""
    texts = read_texts("fr", "main.json") | read_texts("fr", "nodeDefs.json")
    texts |= {page.stem: translated(page, "fr").read_text(encoding="utf-8") for page in ENGLISH_PAGES}
    feminine = re.compile(r"\b(?:une|la|cette|aucune|quelle|toute|sa)(?: \w+)? LoRA\b", re.IGNORECASE)
    assert {name: found for name, text in texts.items() if (found := feminine.findall(text))} == {}
    saved = re.compile(r"(?<![`\w/])checkpoints?(?![`\w/])", re.IGNORECASE)
    spoken = {name: text for name, text in texts.items() if saved.search(CODE.sub("", text))}
    about_models = {name for name in spoken if name.startswith(("MLT_TextMasks", "MLT_CacheDataset", "MLT_Florence2"))}
    assert {name: spoken[name] for name in spoken.keys() - about_models} == {}
