"""README is a user's page and stays one; what it and the other documents link to is there."""

import html
import re
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
HELP = ROOT / "web" / "docs"
SERVED = "/extensions/masked-lora/docs/"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md")), *sorted(HELP.glob("*.md"))]
PAGES += [page for page in [ROOT / "ARCHITECTURE.md"] if page.exists()]
MOST_WORDS = 1500


def read(page):
    return page.read_text(encoding="utf-8")


def prose(page):
    """A page without its code, in which nothing is a link or a heading."""
    text = re.sub(r"^(```|~~~).*?^\1[^\n]*$", "", read(page), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"(`+)(?!`).+?(?<!`)\1(?!`)", lambda code: re.sub(r"[\[\]()<>]", "", code[0]), text)


def links(page):
    """Where a page's links and pictures lead, those inside of the page and of this repository."""
    text = prose(page)
    found = re.findall(r"\]\(\s*<?([^)>\s]+)", text)
    found += re.findall(r"^\s*\[[^]]+\]:\s*<?([^>\s]+)", text, flags=re.MULTILINE)
    found += re.findall(r"""(?:src|href)\s*=\s*["']([^"']+)""", text)
    return [html.unescape(link) for link in found if not re.match(r"[a-z][a-z0-9+.-]*:|//", link)]


def anchors(page):
    """The names that GitHub gives a page's headings."""
    found = []
    for heading in re.findall(r"^#{1,6} +(.+?)[ #]*$", prose(page), flags=re.MULTILINE):
        shown = re.sub(r"!?\[([^]]*)\]\([^)]*\)", r"\1", heading)
        name = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        double = found.count(name)
        found.append(f"{name}-{double}" if double else name)
    return found


def wrong(page, link):
    """What is wrong with a link of a page; None where it leads somewhere."""
    path, _, anchor = link.partition("#")
    if path.startswith(SERVED) and page.parent == HELP:
        at = HELP / unquote(path.removeprefix(SERVED))
    elif path.startswith("/"):
        return "an address that no one serves"
    else:
        at = (page.parent / unquote(path)).resolve() if path else page
    if not at.is_relative_to(ROOT):
        return "leads out of the repository"
    if not at.exists():
        return "not there"
    # Windows and macOS find a file in another case; GitHub does not.
    if any(part not in {one.name for one in above.iterdir()} for above, part in parts_of(at)):
        return "there under another case only"
    if anchor and at.suffix == ".md" and anchor not in anchors(at):
        return "no such heading"
    return None


def parts_of(path):
    """Every folder on the way from the repository to a path, with the name that is looked for in it."""
    ways = [path, *(above for above in path.parents if above.is_relative_to(ROOT) and above != ROOT)]
    return [(way.parent, way.name) for way in ways if way != ROOT]


def section(title):
    """README's text below a heading, up to the next one."""
    return re.split(r"^## ", read(README).split(f"\n## {title}")[1], flags=re.MULTILINE)[0]


def test_the_readme_has_fewer_than_1500_words():
    words = len(read(README).split())
    assert words < MOST_WORDS, f"{words} words: move what few users need to docs/ and link it"


def test_the_readme_shows_a_picture_before_anything_is_said():
    lines = [line for line in read(README).splitlines() if line.strip()]
    first = next(line for line in lines if not line.startswith("# "))
    assert re.match(r"!\[[^]]+\]\([^)]+\)|<img ", first), first


def test_the_readme_s_first_screen_shows_photographs_three_steps_and_the_demo_called_what_it_is():
    first = read(README).split("\n## ")[0]
    order = [first.find(sign) for sign in ("photographs", "\n1. ", "\n2. ", "\n3. ", "demo.webp", "This is the demo")]
    assert -1 not in order and order == sorted(order), order
    assert "\n4. " not in first and "not a full-size model" in first


def test_the_readme_names_its_two_commands_before_it_tells_how_to_install():
    text = read(README)
    for command in ("python dev.py demo", "python dev.py test"):
        assert 0 < text.find(f"\n{command}\n") < text.index("\n## Install"), command


@pytest.mark.parametrize("missing", ["GPU", "Windows", "macOS", "ROCm", "MPS", "full-size checkpoints", "fp8"])
def test_the_readme_lists_what_no_one_has_run(missing):
    listed = section("Limits").split("What no one has run")[1]
    points = re.findall(r"^- (.+)$", listed, flags=re.MULTILINE)
    assert any(re.search(rf"\b{re.escape(missing)}\b", point) for point in points), points


@pytest.mark.parametrize("document", PAGES, ids=[page.relative_to(ROOT).as_posix() for page in PAGES])
def test_every_link_and_picture_of_a_page_is_there(document):
    assert {link: fault for link in links(document) if (fault := wrong(document, link))} == {}


def test_links_are_found_in_every_notation_and_faults_are_told(tmp_path):
    page = ROOT / "docs" / "evidence.md"
    written = tmp_path / "page.md"
    written.write_text(
        "# A `code` name, twice\n[a](one.md) ![b](<two.png>) [c]: x\n[ref]: three.md\n<img src='four.png'>\n"
        "[far](https://example.org) `[code](five.md)`\n```\n[fenced](six.md)\n# no heading\n```\n"
        "## A code name, twice\n",
        encoding="utf-8",
    )
    assert links(written) == ["one.md", "two.png", "three.md", "four.png"]
    assert anchors(written) == ["a-code-name-twice", "a-code-name-twice-1"]
    assert wrong(page, "../README.md#limits-honestly") is None
    assert wrong(page, "#the-demo") is None
    assert wrong(page, "../benchmarks") is None
    assert wrong(page, "../README.md#nowhere") == "no such heading"
    assert wrong(page, "README.md") == "not there"
    assert wrong(page, "../readme.MD") in ("not there", "there under another case only")
    assert wrong(page, "../../elsewhere.md") == "leads out of the repository"
    assert wrong(page, SERVED + "MLT_TrainLoRA.md") == "an address that no one serves"
    assert wrong(HELP / "MLT_Adapter.md", SERVED + "MLT_TrainLoRA.md") is None


def test_every_page_of_docs_can_be_reached_from_the_readme():
    linked = {link.partition("#")[0] for link in links(README)}
    assert {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")} <= linked
