"""The tab of the trainings in the real page: old runs and new, in one browser and in a second one."""

import re
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch

from harness.page import ComfyPage
from harness.panel import INK, PANEL, Panel
from harness.sidebar import OPEN, TAB, Sidebar

# The least contrast of text in a panel, and that of its curves, against the backgrounds that they lie on.
CONTRAST = """selector => {
    const channels = colour => {
        const context = document.createElement("canvas").getContext("2d")
        context.fillStyle = colour
        context.fillRect(0, 0, 1, 1)
        return [...context.getImageData(0, 0, 1, 1).data]
    }
    const light = colour => {
        const linear = v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4
        const [r, g, b] = channels(colour).map(v => linear(v / 255))
        return 0.2126 * r + 0.7152 * g + 0.0722 * b
    }
    const ratio = (one, other) => {
        const [low, high] = [light(one), light(other)].sort((a, b) => a - b)
        return (high + 0.05) / (low + 0.05)
    }
    const behind = element => {
        for (let at = element; at; at = at.parentElement) {
            const colour = getComputedStyle(at).backgroundColor
            if (channels(colour)[3] === 255) return colour
        }
        return "white"
    }
    const panel = document.querySelector(selector)
    const style = element => getComputedStyle(element)
    const words = [...panel.querySelectorAll("*")].filter(one =>
        one.checkVisibility() && !one.disabled && [...one.childNodes].some(n => n.nodeType === 3 && n.data.trim()))
    const curves = [...panel.querySelectorAll(".mlt-swatch")].filter(one => one.checkVisibility())
    return {
        text: words.map(one => [ratio(style(one).color, behind(one)), one.textContent]).sort((a, b) => a[0] - b[0])[0],
        curves: curves.map(one => ratio(style(one).backgroundColor, behind(panel))).sort((a, b) => a - b)[0],
        words: words.length,
    }
}"""


@pytest.fixture
def kind(request):
    """A word for the page that a test runs in, so that its runs have their own names."""
    return "new" if "2.0" in request.node.name else "classic"


@pytest.fixture
def training(routes, comfy_client, train_graph):
    """Starts long trainings that nobody's page has queued; stops them at the end."""
    started = []

    def start(name, **options):
        started.append(comfy_client.submit(train_graph(name=name, steps=3000, **options)))
        return routes.running(name)

    yield start
    comfy_client.interrupt()
    for prompt_id in started:
        comfy_client.finish(prompt_id, check=False)


def test_a_second_browser_sees_the_curve_grow_and_can_save(browser, comfy_server, routes, training):
    run = training("of-another-browser")
    name = run["name"]
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    try:
        side = Sidebar(ComfyPage(context.new_page(), comfy_server).open()).watch().open().choose_run(name)
        side.in_state("running").at_step(run["step"])
        side.tab.wait_for_function(f"selector => ({INK})(selector) > 0", arg=side.selector)
        before, step = side.pixels(), routes.named(name)["step"]
        side.at_step(step + 10)
        # Words and curve may come in answers of their own.
        drawn = side.tab.wait_for_function("step => window.drawn.steps.at(-1) >= step && window.drawn", arg=step + 10)
        steps = drawn.json_value()["steps"]
        assert steps == list(range(1, len(steps) + 1))
        side.tab.wait_for_timeout(500)
        assert not np.array_equal(before, side.pixels())
        side.button("Save now").click()
        (saved,) = routes.until(lambda: routes.named(name)["checkpoints"])
        assert saved >= step
        side.button("Stop and save").click()
        side.in_state("stopped")
        assert side.page.problems == []
    finally:
        context.close()


def test_a_tab_that_was_left_goes_on_where_the_training_is(both_canvases, training, kind):
    run = training("left-" + kind)
    side = Sidebar(both_canvases).open().choose_run(run["name"]).at_step(run["step"])
    both_canvases.evaluate(OPEN, "node-library")
    side.tab.wait_for_selector(side.selector, state="detached")
    side.tab.wait_for_timeout(1000)
    side.open().choose_run(run["name"]).in_state("running").at_step(run["step"] + 5)
    side.tab.wait_for_function(f"selector => ({INK})(selector) > 0", arg=side.selector)
    assert both_canvases.problems == []


def coloured(pixels, colour, *, near=40):
    """Which pixels (H, W) have about this colour."""
    apart = np.abs(pixels[..., :3].astype(int) - colour).max(axis=2)
    return (apart < near) & (pixels[..., 3] > 200)


def test_two_runs_are_compared_in_one_chart(page, comfy_client, routes, train_graph):
    comfy_client.run(train_graph(name="short", steps=20))
    comfy_client.run(train_graph(name="long", steps=60, seed=1))
    side = Sidebar(page).open().choose_run("short").at_step(20)
    for key in ("inside", "outside"):
        side.tab.locator(f"{side.selector} .mlt-curve:not([hidden])").filter(has_text=key).locator("input").uncheck()
    colour = side.choose(".mlt-swatch").evaluate("one => getComputedStyle(one).backgroundColor")
    loss = [int(part) for part in re.findall(r"\d+", colour)]
    side.tab.wait_for_timeout(500)
    alone = coloured(side.pixels(), loss)
    columns = np.flatnonzero(alone.any(axis=0))
    middle = (columns[0] + columns[-1]) // 2
    assert alone[:, middle + 10 :].sum() > 20
    other = side.choose(".mlt-settings select")
    names = other.locator("option").all_text_contents()
    other.select_option(label=next(text for text in names if text.startswith("long")))
    side.tab.wait_for_function(
        "s => document.querySelector(`${s} .mlt-chart`).ariaLabel?.includes('dashed, of long')", arg=side.selector
    )
    side.tab.wait_for_timeout(1500)
    both = coloured(side.pixels(), loss)
    wide = np.flatnonzero(both.any(axis=0))
    # The short run now ends at a third of the width; what is drawn beyond it is the other one, in dashes.
    third = wide[0] + (wide[-1] - wide[0]) * 2 // 5
    beyond = both[:, third:].any(axis=0)
    assert wide[-1] >= columns[-1] - 5
    assert 0.1 < beyond[: wide[-1] - third].mean() < 0.95
    assert page.problems == []


def test_pointing_at_the_chart_reads_its_numbers(page, comfy_client, routes, train_graph):
    comfy_client.run(train_graph(name="short", steps=20))
    run = routes.named("short")
    rows = {row["step"]: row for row in routes.get(f"/runs/{run['id']}")["rows"]}
    side = Sidebar(page).open().choose_run("short").at_step(20)
    side.choose(".mlt-settings input[type=range]").fill("0")
    loss = side.tab.locator(f"{side.selector} .mlt-curve").filter(has_text="loss").first
    # The rows come after the run's name; the chart that was empty until then makes room for one with curves.
    loss.wait_for()
    over = side.choose(".u-over")
    legend = side.choose(".mlt-legend")
    # A hand does not hold still either, while the page may yet move the chart.
    for shake in range(100):
        box = over.evaluate("over => over.getBoundingClientRect().toJSON()")
        side.tab.mouse.move(box["x"] + box["width"] / 2 + shake % 3, box["y"] + box["height"] / 2)
        side.tab.wait_for_timeout(100)
        if hovered := legend.get_attribute("data-hovered"):
            break
    step = int(hovered)
    assert 8 <= step <= 13
    assert float(loss.locator(".mlt-value").text_content()) == pytest.approx(rows[step]["loss"], rel=0.01)
    side.tab.mouse.move(5, 5)
    side.tab.wait_for_function("s => !document.querySelector(`${s} .mlt-legend`).dataset.hovered", arg=side.selector)


def test_a_cached_rerun_shows_its_stored_run(both_canvases, comfy_client, train_graph, kind):
    name = "stored-" + kind
    prompt = train_graph(name=name, steps=12)
    comfy_client.run(prompt)
    panel = Panel(both_canvases).load(prompt)
    prompt_id = panel.start()
    panel.page.server.wait(prompt_id, timeout=120)
    panel.in_state("finished").at_step(12)
    panel.tab.wait_for_function(f"selector => ({INK})(selector) > 0", arg=PANEL)
    assert both_canvases.problems == []


@pytest.mark.parametrize("palette", ["dark", "light"])
def test_text_and_curves_stand_out_from_the_page(palette, page, comfy_server, comfy_client, train_graph):
    comfy_client.run(train_graph(name="seen", steps=6, samples={}, validate_every=3, validation_share=0.2))
    comfy_server.post("/settings", {"Comfy.ColorPalette": palette})
    try:
        page.page.reload(wait_until="domcontentloaded")
        side = Sidebar(page.open()).open().choose_run("seen").at_step(6)
        side.tab.wait_for_selector(f"{side.selector} .mlt-compare img")
        found = page.evaluate(CONTRAST, TAB)
        assert found["words"] > 10
        assert found["text"][0] >= 4.5, found
        assert found["curves"] >= 3, found
    finally:
        comfy_server.post("/settings", {"Comfy.ColorPalette": "dark"})


def test_the_gallery_shows_each_step_beside_the_base_model(both_canvases, routes, training, kind):
    run = training("gallery-" + kind, samples={})
    side = Sidebar(both_canvases).open().choose_run(run["name"])
    # Presses until as many steps have their pictures, the base model's among them.
    for count in (2, 3):
        side.button("Sample now").click()
        steps = routes.until(
            lambda wanted=count: len(found := routes.get(f"/runs/{run['id']}/samples")["steps"]) == wanted and found
        )
    side.button("Pause").click()
    side.in_state("paused")
    (base, first, second) = (one["step"] for one in steps)
    assert base == 0
    at = "([s, step]) => document.querySelector(`${s} .mlt-step output`).textContent === `step ${step}`"
    side.tab.wait_for_function(at, arg=[side.selector, second])
    loaded = "s => [...document.querySelectorAll(`${s} .mlt-compare img`)].every(one => one.naturalWidth === 128)"
    side.tab.wait_for_function(loaded, arg=side.selector)
    before, after = side.choose(".mlt-before"), side.choose(".mlt-after")
    assert before.get_attribute("src").split("?")[0].endswith("/samples/0/0")
    assert "a red star" in after.get_attribute("alt") and "base model" in before.get_attribute("alt")
    side.choose(".mlt-step input").focus()
    for key, step in (("Home", 0), ("ArrowRight", first), ("End", second), ("ArrowLeft", first)):
        side.tab.keyboard.press(key)
        assert side.choose(".mlt-step output").text_content() == f"step {step}"
        assert after.get_attribute("src").split("?")[0].endswith(f"/samples/{step}/0")
    side.choose(".mlt-wipe").focus()
    side.tab.keyboard.press("Home")
    assert before.evaluate("one => getComputedStyle(one).clipPath") == "inset(0px 100% 0px 0px)"
    side.tab.keyboard.press("End")
    assert before.evaluate("one => getComputedStyle(one).clipPath") in ("inset(0px 0% 0px 0px)", "inset(0px)")
    side.choose(".mlt-gallery select").select_option(label="a zibble")
    assert after.get_attribute("src").split("?")[0].endswith(f"/samples/{first}/1")
    assert both_canvases.problems == []


def test_the_current_sample_is_shown_while_a_run_trains(both_canvases, training, kind):
    run = training("current-" + kind)
    side = Sidebar(both_canvases).open().choose_run(run["name"])
    shown = side.choose(".mlt-current img")
    shown.wait_for()
    assert "zibble_" in shown.get_attribute("alt")
    assert shown.evaluate("one => one.naturalWidth") > 200
    assert "GiB" in side.choose(".mlt-numbers").text_content()
    first = shown.get_attribute("src")
    side.tab.wait_for_function(
        "([s, first]) => document.querySelector(`${s} .mlt-current img`).src !== first", arg=[side.selector, first]
    )
    assert both_canvases.problems == []


def test_an_old_run_is_exported_opened_and_trained_on(both_canvases, comfy_server, routes, train_graph, kind):
    name = "old-" + kind
    panel = Panel(both_canvases).load(train_graph(name=name, steps=3000))
    prompt_id = panel.start()
    panel.at_step(3)
    panel.button("Stop and save").click()
    comfy_server.wait(prompt_id, timeout=120)
    panel.tab.reload(wait_until="domcontentloaded")
    both_canvases.open()
    both_canvases.evaluate("() => window.app.graph.clear()")
    side = Sidebar(both_canvases).open().choose_run(name).in_state("stopped")
    side.action("Export").click()
    side.says("Wrote output/loras/")
    words = side.tab.locator(f"{TAB} .mlt-actions .mlt-note").text_content()
    file = Path(comfy_server.base, words.removeprefix("Wrote "))
    own = safetensors.torch.load_file(comfy_server.base / "output" / "loras" / f"{name}.safetensors")
    assert safetensors.torch.load_file(file).keys() == own.keys()
    side.action("Open workflow").click()
    side.says("The graph is open.")
    types = both_canvases.evaluate("() => window.app.graph.nodes.map(one => one.type).sort()")
    assert types == ["CheckpointLoaderSimple", "MLT_CacheDataset", "MLT_LoadDataset", "MLT_TrainLoRA"]
    step = routes.named(name)["step"]
    side.action("Train on").press("Enter")
    again = routes.until(lambda: (run := routes.named(name))["state"] == "running" and run["step"] > step and run)
    assert again["total"] == 3000
    side.in_state("running")
    told = "s => document.querySelector(`${s} .mlt-panel > .mlt-note`).textContent.includes('Going on from')"
    side.tab.wait_for_function(told, arg=TAB)
    side.button("Stop and save").click()
    side.in_state("stopped")
    assert both_canvases.problems == []
