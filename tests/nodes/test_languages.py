"""The pack in another language, in the real page: titles and widgets of nodes, and the panels."""

import pytest

from devtools.locales import ENGLISH, read_texts, translations
from devtools.server_messages import flat_messages
from harness.damage import many
from harness.page import SELECT

LOCALE, VUE_NODES = "Comfy.Locale", "Comfy.VueNodes.Enabled"
NODES = """() => window.app.graph.nodes.map(node => [node.type, {
    title: node.getTitle(),
    description: node.constructor.nodeData.description,
    widgets: Object.fromEntries((node.widgets ?? []).filter(w => w.label).map(w => [w.name, w.label])),
    inputs: Object.fromEntries((node.inputs ?? []).filter(s => !s.widget).map(s => [s.name, s.localized_name])),
    outputs: node.outputs.filter(s => s.name !== s.type).map(s => s.localized_name),
}])"""
# What buttons of one word come to in a panel that is much too narrow, in pixels.
HEIGHTS = """panel => {
    const { width } = panel.style
    panel.style.width = "40px"
    const shown = [...panel.querySelectorAll(".mlt-button")].filter(button => button.offsetHeight)
    const words = shown.filter(button => /^\\p{L}+$/u.test(button.textContent))
    const heights = words.map(button => [button.textContent, button.offsetHeight])
    panel.style.width = width
    return heights
}"""


@pytest.fixture(params=[False, True], ids=["classic canvas", "Nodes 2.0"])
def opened(request, page, comfy_server, train_graph, defaults):
    """A function that opens the page in a language, with a graph of data set, browser and training."""
    prompt = train_graph(name="in another language")
    prompt["5"] = {"class_type": "MLT_InspectDataset", "inputs": defaults("MLT_InspectDataset", dataset=["2", 0])}

    def open_in(language):
        comfy_server.post("/settings", {LOCALE: language, VUE_NODES: request.param})
        page.page.reload(wait_until="domcontentloaded")
        page.open()
        page.evaluate("async graph => { await window.app.loadApiJson(graph, 'languages') }", prompt)
        page.evaluate("() => window.app.extensionManager.command.execute('Comfy.Canvas.FitView')")
        page.page.wait_for_selector(".mlt-panel")
        page.page.wait_for_selector(".mlt-browser")
        return page

    yield open_in
    comfy_server.post("/settings", {LOCALE: ENGLISH, VUE_NODES: False})


def assert_nodes_read(page, language):
    texts = read_texts(language, "nodeDefs.json")
    shown = [(kind, told) for kind, told in page.evaluate(NODES) if kind.startswith("MLT_")]
    assert {kind for kind, _ in shown} == {"MLT_LoadDataset", "MLT_CacheDataset", "MLT_InspectDataset", "MLT_TrainLoRA"}
    for kind, told in shown:
        assert told["title"] == texts[f"{kind}.display_name"]
        assert told["description"] == texts[f"{kind}.description"]
        for name, label in (told["widgets"] | told["inputs"]).items():
            # Panels and the button after a seed are widgets without a text of ours.
            assert label == texts.get(f"{kind}.inputs.{name}.name", label), f"{kind}.{name}"
        names = {text for key, text in texts.items() if key.startswith(f"{kind}.outputs.") and key.endswith(".name")}
        assert set(told["outputs"]) <= names, kind
    labels = dict(shown)["MLT_LoadDataset"]["widgets"]
    assert labels["trigger_word"] == texts["MLT_LoadDataset.inputs.trigger_word.name"]
    assert dict(shown)["MLT_TrainLoRA"]["inputs"]["cache"] == texts["MLT_TrainLoRA.inputs.cache.name"]


def assert_words_stay_whole(page):
    """Chinese may break between any two characters, and a button of two would be two lines high."""
    heights = page.page.locator(".mlt-panel").first.evaluate(HEIGHTS)
    assert heights
    assert [told for told in heights if told[1] > 30] == []


def assert_panels_read(page, language):
    def text(key):
        return read_texts(language, "main.json")[f"masked_lora.{key}"]

    panel, browser = page.page.locator(".mlt-panel").first, page.page.locator(".mlt-browser").first
    assert panel.get_attribute("aria-label") == text("runs.panel")
    assert panel.get_by_role("button", name=text("runs.stop"), exact=True).count() == 1
    assert text("runs.smoothing") in panel.text_content()
    assert browser.get_attribute("aria-label") == text("dataset.title")
    assert text("dataset.notYet") in browser.text_content()
    assert browser.get_by_role("button", name=text("dataset.larger"), exact=True).count() == 1


@pytest.fixture
def node_help(page, comfy_server):
    """A function that opens a node's help on the page in a language: the panel's element."""

    def open_help(language, node):
        comfy_server.post("/settings", {LOCALE: language})
        page.page.reload(wait_until="domcontentloaded")
        page.open()
        page.evaluate(SELECT, node)
        page.page.get_by_test_id("info-button").click()
        panel = page.page.locator(".node-help-content")
        panel.locator("h1").wait_for()
        return panel

    yield open_help
    comfy_server.post("/settings", {LOCALE: ENGLISH})


@pytest.mark.parametrize("language", [ENGLISH, *translations()])
def test_a_node_s_help_opens_in_the_page_s_language_with_its_picture(node_help, language):
    panel = node_help(language, "MLT_LoadDataset")
    texts = read_texts(language, "nodeDefs.json")
    assert panel.locator("h1").text_content() == texts["MLT_LoadDataset.display_name"]
    explained = panel.locator("td").all_text_contents()
    assert texts["MLT_LoadDataset.inputs.trigger_word.tooltip"] in explained
    pictures = panel.locator("img").all()
    assert pictures
    for picture in pictures:
        picture.evaluate("one => one.decode()")
        assert picture.evaluate("one => one.naturalWidth") > 300


@pytest.mark.parametrize("language", many(translations()[-1:], translations()))
def test_nodes_and_panels_speak_the_page_s_language_and_english_again(opened, language):
    page = opened(language)
    # ComfyUI resets a language that it does not offer.
    assert page.evaluate("id => window.app.extensionManager.setting.get(id)", LOCALE) == language
    assert_nodes_read(page, language)
    assert_panels_read(page, language)
    assert_words_stay_whole(page)
    page = opened(ENGLISH)
    assert_nodes_read(page, ENGLISH)
    assert_panels_read(page, ENGLISH)
    assert page.problems == []


@pytest.fixture
def failing(page, comfy_server, folders, graph):
    """A function that opens the page in a language and runs a graph there that finds something, and then fails."""
    folders.make("told in a language", captions=False)
    loaded = graph.add("MLT_LoadDataset", folder="told in a language")
    graph.add(
        "MLT_SaveMasks",
        destination="told",
        dataset=[graph.add("MLT_ColorMasks", dataset=[loaded, 0], colours="rêd"), 0],
    )

    def run_in(language):
        comfy_server.post("/settings", {LOCALE: language})
        page.page.reload(wait_until="domcontentloaded")
        page.open()
        page.evaluate("async graph => { await window.app.loadApiJson(graph, 'told') }", graph.nodes)
        page.queue(check=False)
        page.page.locator(".mlt-report p").first.wait_for()
        return page

    yield run_in
    comfy_server.post("/settings", {LOCALE: ENGLISH})


def translation(language, start, *values):
    """The translation of the sentence that begins so, with the values filled in."""
    [template] = [one for one in flat_messages(ENGLISH) if one.startswith(start)]
    return flat_messages(language)[template].format(*values)


@pytest.mark.parametrize("language", translations())
def test_what_a_node_finds_and_why_one_fails_is_told_in_the_page_s_language(failing, language):
    page = failing(language)
    found = page.page.locator(".mlt-report p").all_text_contents()
    wanted = "No picture has a caption: training sees empty texts. Write captions, or set a trigger word."
    assert translation(language, wanted) in found
    assert not [one for one in found if "caption:" in one]
    reason = translation(language, "colours: expected colours such as #00ff00", "'rêd'")
    # By the name that the node's widget has on the page.
    called = read_texts(language, "nodeDefs.json")["MLT_ColorMasks.inputs.colours.name"]
    reason = reason.replace("colours", flat_messages(language)["{0} ({1})"].format(called, "colours"), 1)
    # ComfyUI tells that a node failed, and why in its list of errors.
    page.page.get_by_test_id("error-overlay-see-errors").click()
    page.page.get_by_text(reason).first.wait_for()
    english = translation(ENGLISH, "colours: expected colours such as #00ff00", "'rêd'")
    # What a person would report has the server's own words, among much else.
    assert page.page.get_by_text(english, exact=True).count() == 0
    assert page.problems == []
