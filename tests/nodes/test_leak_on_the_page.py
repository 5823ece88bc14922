"""What a training says of the backgrounds it learned, in the real page: curve, words, table and favoured step."""

import os

import numpy as np
import pytest

from harness.panel import INK, Panel
from harness.sidebar import TAB, Sidebar

TABLE = "dialog.mlt-picture-table"
LIMIT = 0.03
# Channels of a colour of the page, as a browser writes them.
COLOUR = "(one, name) => getComputedStyle(one)[name].match(/\\d+/g).slice(0, 3).map(Number)"


@pytest.fixture(scope="module")
def ran():
    """What this module's graphs have trained already, by name."""
    return set()


@pytest.fixture
def leaky(comfy_client, train_graph, defaults, ran):
    """A graph whose floor lets the background in, trained and measured three times."""
    samples = {"prompts": "a zibble", "every": 4, "steps": 1}
    rates = {"learning_rate": 1e-2, "batch_size": 4}
    graph = train_graph(name="leaky", steps=12, leak_every=4, keep_last=3, seed=3, samples=samples, **rates)
    graph["2"]["inputs"]["trigger_word"] = "zibble"
    loss = defaults("MLT_MaskedLoss", preset="custom", floor=1.0, infill_probability=0.0)
    graph["7"] = {"class_type": "MLT_MaskedLoss", "inputs": loss}
    graph["4"]["inputs"]["loss"] = ["7", 0]
    if "leaky" not in ran:
        comfy_client.run(graph)
        ran.add("leaky")
    return graph


def channels(locator, name="color"):
    return locator.evaluate(f"one => ({COLOUR})(one, '{name}')")


def shot(tab, name):
    if folder := os.environ.get("MASKLORA_SHOTS"):
        tab.screenshot(path=f"{folder}/{name}.png")


def measured(routes, name):
    run = routes.named(name)
    return run, [row for row in routes.get(f"/runs/{run['id']}")["rows"] if "leak" in row]


def leak_alone(panel):
    """How wide the curve of the leak is, in pixels, once it is the only one that is shown."""
    legend = panel.tab.locator(f"{panel.selector} .mlt-legend").first
    colour = np.array(channels(legend.locator(".mlt-curve", has_text="leak").locator(".mlt-swatch"), "backgroundColor"))
    for one in legend.locator(".mlt-curve:visible").all():
        one.locator("input").set_checked("leak" in one.inner_text())
    alone = "s => document.querySelector(`${s} .mlt-chart`).ariaLabel.endsWith('leak')"
    panel.tab.wait_for_function(alone, arg=panel.selector)
    panel.tab.wait_for_function(f"s => ({INK})(s) > 0", arg=panel.selector)
    pixels = panel.pixels()
    near = (np.abs(pixels[..., :3].astype(int) - colour).max(axis=2) < 30) & (pixels[..., 3] > 200)
    columns = np.flatnonzero(near.any(axis=0))
    return 1 + columns[-1] - columns[0] if len(columns) else 0


def test_a_leak_is_a_curve_words_a_column_and_a_favoured_step(page, routes, leaky):
    run, rows = measured(routes, "leaky")
    leaks = [row["leak"] for row in rows]
    assert [row["step"] for row in rows] == run["checkpoints"] == [4, 8, 12]
    assert leaks[-1] > LIMIT and all(row["drift_plain"] > 0 for row in rows)
    panel = Panel(page).load(leaky).in_state("finished").at_step(12)
    tab = panel.tab
    said = panel.choose(".mlt-verdict")
    tab.wait_for_function("() => document.querySelector('.mlt-verdict')?.dataset.verdict === 'leaks'")
    assert said.inner_text().startswith("Background learned") and said.get_attribute("title")
    curves = panel.choose(".mlt-legend").locator(".mlt-curve:visible")
    leak = curves.filter(has_text="leak")
    # As it was measured: a mean with what was before it would hide what the words say.
    assert float(leak.locator(".mlt-value").inner_text()) == pytest.approx(leaks[-1], rel=0.01)
    assert "0.03" in leak.get_attribute("title")
    wide = leak_alone(panel)
    shot(tab, "leak-panel")
    assert wide > 0.3 * panel.pixels().shape[1]

    panel.button("Pictures, worst first").press("Enter")
    table = tab.locator(TABLE)
    table.locator("tbody tr").first.wait_for()
    each = {row["name"]: row["leak"] for row in routes.get(f"/runs/{run['id']}/pictures")["rows"]}
    table.get_by_role("button", name="Leak").click()
    assert table.locator("th[aria-sort=descending]").inner_text().startswith("Leak")
    shot(tab, "leak-table")
    found = [(row.locator("button").inner_text(), row.locator("td").last) for row in table.locator("tbody tr").all()]
    assert [name for name, _ in found] == sorted(each, key=lambda name: -each[name])
    assert [float(cell.inner_text()) for _, cell in found] == pytest.approx([each[n] for n, _ in found], rel=0.01)
    assert {"mlt-bad" in cell.get_attribute("class") for _, cell in found} == {True}
    usual, bad = channels(table.locator("td").nth(1)), channels(found[0][1])
    assert bad != usual and bad[0] > max(bad[1:]) + 50, "what is above the limit does not stand out"
    tab.keyboard.press("Escape")
    table.wait_for(state="detached")
    assert page.problems == []


def test_the_favoured_step_is_marked_where_a_step_is_chosen_and_a_good_mask_has_other_words(
    page, routes, comfy_client, train_graph, leaky
):
    comfy_client.run(train_graph(name="tight", steps=4, leak_every=0))
    run, _ = measured(routes, "leaky")
    assert run["favoured"] == 4
    side = Sidebar(page).open().choose_run("leaky")
    tab = side.tab
    steps = tab.locator(f"{TAB} .mlt-actions select option")
    steps.nth(2).wait_for(state="attached")
    assert steps.all_inner_texts() == ["newest (step 12)", "step 8", "step 4 · favoured"]
    side.button("All pictures").click()
    grid = tab.locator("dialog.mlt-sample-grid tbody tr")
    grid.nth(3).wait_for()
    assert "held-out loss" in grid.nth(1).locator("th").get_attribute("title")
    assert [row.locator("th").inner_text().split("\n")[0] for row in grid.all()] == [
        "base model", "step 4 · favoured", "step 8", "step 12",
    ]  # fmt: skip
    shot(tab, "leak-grid")
    tab.keyboard.press("Escape")
    side.choose_run("tight")
    tab.wait_for_function(
        "s => document.querySelector(`${s} .mlt-verdict`).dataset.verdict === 'noLeak'", arg=side.selector
    )
    assert side.choose(".mlt-verdict").inner_text().startswith("Background not learned")
    # Measured once, at the end: a point, where a line has no length.
    assert 2 <= leak_alone(side) <= 12
    shot(tab, "leak-none")
    assert routes.named("tight")["favoured"] is None and page.problems == []
