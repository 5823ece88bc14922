"""A link to a guide in a node's help shows it in the page, in the page's language, on both web frontends."""

import pytest

from devtools.locales import ENGLISH
from harness.damage import many
from harness.page import SELECT, ComfyPage

LOCALE = "Comfy.Locale"
HELP, GUIDE = ".node-help-content", "dialog.mlt-guide[open]"
# What a reader sees of a page: each piece with its kind, the title first; pictures by their words and widths.
OUTLINE = """async element => {
    const pictures = [...element.querySelectorAll("img")]
    for (const one of pictures) one.loading = "eager"
    await Promise.all(pictures.map(one => one.decode()))
    const kinds = "h1, h2, h3, p, li, th, td, pre, code, strong, em, a, img"
    const words = one => one.tagName === "IMG" ? `${one.alt} ${one.naturalWidth}` : one.textContent
    const told = [...element.querySelectorAll(kinds)].map(one => `${one.tagName} ${words(one)}`.replace(/\\s+/g, " "))
    return told.map(one => one.trim()).filter(one => !["P", "H1"].includes(one))
}"""


class Reader:
    """A page in a language, and the help of a node in it."""

    def __init__(self, page):
        self.page, self.tab = page, page.page

    def open_in(self, language):
        self.page.server.post("/settings", {LOCALE: language})
        self.tab.reload(wait_until="domcontentloaded")
        self.page.open()
        return self

    def help_of(self, node):
        self.page.evaluate(SELECT, node)
        panel = self.tab.locator(HELP)
        if not panel.count():
            self.tab.get_by_test_id("info-button").click()
        panel.locator("code", has_text="MLT_").or_(panel.locator("h1")).first.wait_for()
        return panel

    def guide(self):
        guide = self.tab.locator(GUIDE)
        guide.locator("p, li").nth(3).wait_for()
        return guide


@pytest.fixture(scope="module", params=many(["newest"], ["own", "newest"]))
def reader(request, browser, comfy_server):
    server = comfy_server if request.param == "own" else request.getfixturevalue("newest_server")
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    yield Reader(ComfyPage(context.new_page(), server).open())
    context.close()
    server.post("/settings", {LOCALE: ENGLISH})


@pytest.mark.parametrize(
    ("language", "link", "heading"),
    [(ENGLISH, "Masks that work", "Mask or crop?"), ("fr", "Des masques qui marchent", "Masquer ou recadrer ?")],
)
def test_a_guide_is_read_in_the_page_in_its_language(reader, language, link, heading):
    panel = reader.open_in(language).help_of("MLT_MaskedLoss")
    panel.get_by_role("link", name=link).click()
    guide = reader.guide()
    assert guide.get_attribute("aria-label") == link
    assert guide.locator("h2").first.text_content().replace("\u00a0", " ").replace("\u202f", " ") == heading
    assert guide.locator("td").count() > 50
    pictures = guide.locator("img")
    assert pictures.count() == 2
    for picture in pictures.all():
        picture.scroll_into_view_if_needed()
        picture.evaluate("one => one.decode()")
        assert picture.evaluate("one => one.naturalWidth") > 300
    reader.tab.keyboard.press("Escape")
    guide.wait_for(state="detached")
    assert len(reader.tab.context.pages) == 1, "the guide opened in a tab of its own"
    assert reader.page.problems == []


def test_a_page_reads_as_comfyui_itself_shows_it(reader):
    reader.open_in(ENGLISH)
    for node in ("MLT_LoadDataset", "MLT_SaveMasks", "MLT_MaskedLoss"):
        panel = reader.help_of(node)
        panel.locator("img").first.wait_for()
        expected = panel.evaluate(OUTLINE)
        assert len(expected) > 40
        panel.locator("h1").evaluate(
            """(heading, node) => {
                const link = document.createElement("a")
                Object.assign(link, { href: `/extensions/masked-lora/docs/${node}.md`, textContent: "guide" })
                heading.after(link)
                link.click()
                link.remove()
            }""",
            node,
        )
        guide = reader.guide()
        title = guide.get_attribute("aria-label")
        assert [f"H1 {title}", *guide.locator("article").evaluate(OUTLINE)] == expected, node
        reader.tab.keyboard.press("Escape")
        guide.wait_for(state="detached")


def test_a_guide_that_cannot_be_read_says_so(reader):
    reader.open_in(ENGLISH)
    reader.tab.evaluate(
        """() => {
            const link = document.createElement("a")
            Object.assign(link, { href: "/extensions/masked-lora/docs/gone.md", textContent: "Gone" })
            document.body.append(link)
            link.click()
            link.remove()
        }"""
    )
    note = reader.tab.locator(f"{GUIDE} [role=status]")
    note.wait_for()
    reader.tab.wait_for_function("s => document.querySelector(s).textContent !== ''", arg=f"{GUIDE} [role=status]")
    assert note.text_content() == "“Gone” could not be read: 404 Not Found"
    reader.tab.locator(GUIDE).get_by_role("button", name="Close").click()
    reader.tab.locator(GUIDE).wait_for(state="detached")
