"""What nodes report, on the nodes of the real page: drawn in both ways, by ComfyUI's own and the newest frontend."""

import os
import re

import numpy as np
import pytest
from PIL import Image

from devtools.page_modules import address
from harness.frontends import VUE_NODES, cases, name

PALETTE = "Comfy.ColorPalette"
REPORT = ".mlt-report"
TEXTS = "() => [...document.querySelectorAll('.mlt-report p')].map(p => [p.dataset.level, p.textContent])"
# The line of progress, which would say the first line of the report again.
PROGRESS = """() => window.app.graph.nodes.find(n => n.type === "MLT_ColorMasks").widgets
    .filter(w => w.name === "$$node-text-preview").length"""
LOOK = """() => {
    // Not those of the nodes before and after it.
    const report = [...document.querySelectorAll(".mlt-report")].find(one => one.textContent.includes("Colour masks"))
    const pixel = document.createElement("canvas").getContext("2d")
    const colour = value => {
        pixel.fillStyle = value
        pixel.fillRect(0, 0, 1, 1)
        return [...pixel.getImageData(0, 0, 1, 1).data].slice(0, 3)
    }
    const of = level => colour(getComputedStyle(report.querySelector(`[data-level=${level}]`)).color)
    const style = getComputedStyle(report)
    return {
        note: of("note"), warning: of("warning"), ground: colour(style.backgroundColor), select: style.userSelect,
        high: report.offsetHeight, content: report.scrollHeight, shown: report.clientHeight,
    }
}"""


@pytest.fixture(params=cases(), ids=name)
def reporting(request, browser, server_with):
    """A page of a person who comes back: the browser keeps what the page stores."""
    from harness.page import ComfyPage

    frontend, vue = request.param
    server = server_with(frontend)
    server.post("/settings", {VUE_NODES: vue})
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    yield ComfyPage(context.new_page(), server).open()
    context.close()
    server.post("/settings", {VUE_NODES: False, PALETTE: "dark"})


@pytest.fixture
def graph_of(reporting):
    """Makes a graph that looks for red in pictures, the last of which are blue."""
    info = reporting.server.object_info()

    def inputs(node_id, **changes):
        given = info[node_id]["input"]["required"].items()
        values = {name: (one[1] if len(one) > 1 else {}).get("default") for name, one in given}
        return {name: value for name, value in (values | changes).items() if value is not None}

    def make(name, red, blue):
        folder = reporting.server.base / "input" / name
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(red + blue):
            pixels = np.zeros((64, 64, 3), np.uint8)
            pixels[16:48, 16:48, 0 if number < red else 2] = 255
            Image.fromarray(pixels).save(folder / f"{number:02}.png")
        loaded = inputs("MLT_LoadDataset", folder=name)
        found = inputs("MLT_ColorMasks", dataset=["1", 0], colours="#ff0000", nothing_found="black", tolerance=20)
        return {
            "1": {"class_type": "MLT_LoadDataset", "inputs": loaded},
            "2": {"class_type": "MLT_ColorMasks", "inputs": found},
            "3": {"class_type": "MLT_SaveMasks", "inputs": inputs("MLT_SaveMasks", dataset=["2", 0], destination=name)},
        }

    return make


def shows(page, prompt):
    page.evaluate(
        """async graph => {
            await window.app.loadApiJson(graph, 'reports')
            // As a saved workflow, which has a name of its own.
            await window.app.loadGraphData(window.app.graph.serialize())
        }""",
        prompt,
    )
    look_at(page)


def look_at(page):
    """Moves the canvas to the node that reports, at full size."""
    page.evaluate(
        """() => {
            const canvas = window.app.canvas, node = window.app.graph.nodes.find(n => n.type === "MLT_ColorMasks")
            canvas.ds.scale = 1
            canvas.ds.offset[0] = 200 - node.pos[0]
            canvas.ds.offset[1] = 120 - node.pos[1]
            canvas.setDirty(true, true)
        }"""
    )


def of_node(page):
    page.page.locator(REPORT).filter(has_text="Colour masks").wait_for()
    # By then a job has told its end, and the newest frontend has taken the progress away.
    page.page.wait_for_timeout(1200)
    return [(level, words) for level, words in page.evaluate(TEXTS) if re.match(r"\d\d\.png: |Colour", words)]


def contrast(one, other):
    def light(colour):
        parts = [v / 3294.6 if v <= 10 else ((v / 255 + 0.055) / 1.055) ** 2.4 for v in colour]
        return np.dot(parts, [0.2126, 0.7152, 0.0722])

    low, high = sorted((light(one), light(other)))
    return (high + 0.05) / (low + 0.05)


def test_a_report_stays_on_its_node_and_in_no_workflow(reporting, graph_of, request):
    page, tab = reporting, reporting.page
    shows(page, graph_of("reports long", red=9, blue=2))
    saved = page.evaluate("() => window.app.graph.nodes.map(n => n.serialize().widgets_values)")
    page.queue()
    lines = of_node(page)
    assert [level for level, _ in lines] == ["warning"] * 3 + ["note"] * 9
    assert "2 black because nothing was found" in lines[0][1]
    assert [words[:6] for _, words in lines[1:3]] == ["09.png", "10.png"]
    assert page.evaluate(PROGRESS) == 0
    assert page.evaluate("() => window.app.graph.nodes.map(n => n.serialize().widgets_values)") == saved
    assert all("masked_lora_report" not in node["inputs"] for node in page.api_prompt().values())

    look = page.evaluate(LOOK)
    assert look["content"] > look["shown"] and 100 <= look["high"] <= 168 and look["select"] == "text"
    for palette in ("dark", "light"):
        page.evaluate("([id, name]) => window.app.extensionManager.setting.set(id, name)", [PALETTE, palette])
        tab.wait_for_function("name => document.documentElement.dataset.mltTheme === name", arg=palette)
        look = page.evaluate(LOOK)
        red, green, blue = look["warning"]
        assert red > max(green, blue) + 60
        assert min(contrast(look[level], look["ground"]) for level in ("note", "warning")) >= 4.5, palette

    if folder := os.environ.get("MASKLORA_SHOTS"):
        tab.screenshot(path=f"{folder}/report {request.node.callspec.id}.png")
    box = tab.locator(REPORT).filter(has_text="Colour masks").locator("p").first.bounding_box()
    tab.mouse.move(box["x"] + 18, box["y"] + 8)
    tab.mouse.down()
    tab.mouse.move(box["x"] + box["width"] - 20, box["y"] + 8, steps=5)
    tab.mouse.up()
    assert len(page.evaluate("() => String(getSelection())")) > 10
    assert page.problems == []


# Where it is kept has nothing to do with how a node is drawn, nor with the frontend.
@pytest.mark.parametrize("reporting", cases()[:1], ids=name, indirect=True)
def test_a_report_comes_back_with_the_page_and_with_a_job_that_had_nothing_to_do(reporting, graph_of):
    page, tab = reporting, reporting.page
    prompt = graph_of("reports short", red=1, blue=1)
    shows(page, prompt)
    page.queue()
    before = of_node(page)
    assert [level for level, _ in before] == ["warning", "note", "warning"]
    look = page.evaluate(LOOK)
    assert look["content"] <= look["shown"] + 1
    kept = page.evaluate("() => window.app.graph.serialize()")

    tab.reload(wait_until="domcontentloaded")
    page.open()
    page.load_workflow(kept)
    look_at(page)
    assert of_node(page) == before
    look = page.evaluate(LOOK)
    assert look["content"] <= look["shown"] + 1

    page.evaluate("() => sessionStorage.clear()")
    tab.reload(wait_until="domcontentloaded")
    page.open()
    shows(page, prompt)
    assert tab.locator(f"{REPORT} p").count() == 0
    # Of nodes that it need not run again, ComfyUI tells the output nodes' results again.
    page.queue()
    tab.wait_for_selector(f"{REPORT} p")
    assert any("masks written to" in words for _, words in page.evaluate(TEXTS))
    assert page.problems == []


def test_a_warning_after_notes_is_in_sight_where_few_lines_are_long(page):
    page.evaluate(
        "async graph => { await window.app.loadApiJson(graph, 'few lines') }",
        {"1": {"class_type": "MLT_LoadDataset", "inputs": {}}},
    )
    for length, first in ((10, "note"), (400, "warning")):
        lines = [{"level": level, "text": "word " * (length // 5)} for level in ("note", "note", "warning")]
        page.evaluate(
            """async ([module, lines]) => {
                const { showReport } = await import(module)
                showReport(window.app.graph.nodes[0], lines)
            }""",
            [address("page/report"), lines],
        )
        assert page.evaluate(TEXTS)[0][0] == first
