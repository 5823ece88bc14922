"""Sample pictures that a small DINOv2 of the disk looks at, from the node to the curves of the page."""

import json
import os

import pytest

from harness.dinov2 import write_dinov2
from harness.panel import INK, Panel
from masklora.loss.likeness import FIGURES

NAMES = ["picture likeness", "picture leak", "picture drift"]


@pytest.fixture(scope="module")
def small(comfy_server):
    """A folder that appears in the models tree of a ComfyUI which already runs."""
    root = comfy_server.base / "models" / "dinov2"
    write_dinov2(root / "small one")
    (root / "not filled").mkdir()
    return "small one"


def test_the_list_offers_the_folders_that_are_there_now_and_none(comfy_server, small):
    _, told = comfy_server.object_info()["MLT_Samples"]["input"]["optional"]["likeness"]
    assert told["options"] == ["none", "not filled", small] and told["default"] == "none"


@pytest.mark.parametrize(
    ("chosen", "words"),
    [("not filled", "not filled lacks config.json, model.safetensors"), ("gone", "There are: not filled, small one")],
)
def test_a_folder_that_is_no_model_is_told_by_its_name(comfy_client, train_graph, small, chosen, words):
    told = comfy_client.refusal(train_graph(name="refused", samples={"likeness": chosen}))
    assert words in told and "facebook/dinov2" in told


def test_a_training_of_the_page_shows_how_its_pictures_resemble_what_is_learned(page, routes, train_graph, small):
    prompts = {"prompts": "a zibble\na red star", "steps": 1, "every": 10, "likeness": small}
    graph = train_graph(name="resembling", steps=20, learning_rate=1e-2, samples=prompts)
    graph["2"]["inputs"]["trigger_word"] = "zibble"
    panel = Panel(page).load(graph)
    page.server.wait(panel.start(), timeout=120)
    panel.in_state("finished").at_step(20)
    run = routes.named("resembling")
    rows = [row for row in routes.get(f"/runs/{run['id']}")["rows"] if FIGURES[0] in row]
    assert [row["step"] for row in rows] == [10, 20] and all(set(FIGURES) <= row.keys() for row in rows)
    (folder,) = (page.server.base / "user" / "masked_lora" / "runs").glob("resembling-*")
    kept = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [set(row) for row in kept if FIGURES[0] in row] == [{"step", *FIGURES}] * 2

    tab, group = panel.tab, panel.tab.get_by_role("group", name="Sample pictures")
    group.locator(".mlt-curve:visible").nth(2).wait_for()
    curves = group.locator(".mlt-curve")
    for curve, name, key in zip(curves.all(), NAMES, FIGURES, strict=True):
        assert curve.inner_text().startswith(name) and len(curve.get_attribute("title")) > 60
        # They came while it trained, and are told as they were measured.
        assert float(curve.locator(".mlt-value").inner_text()) == pytest.approx(rows[-1][key], rel=0.01)
    label = "s => document.querySelector(`${s} .mlt-chart`).ariaLabel.includes('picture drift')"
    tab.wait_for_function(label, arg=panel.selector)
    if shots := os.environ.get("MASKLORA_SHOTS"):
        tab.screenshot(path=f"{shots}/likeness.png")
    for one in panel.choose(".mlt-legend").locator(".mlt-curve:visible input").all():
        one.uncheck()
    alone = "s => document.querySelector(`${s} .mlt-chart`).ariaLabel.endsWith('likeness, picture leak, picture drift')"
    tab.wait_for_function(alone, arg=panel.selector)
    tab.wait_for_function(f"s => ({INK})(s) > 0", arg=panel.selector)
    assert panel.ink() > 200 and page.problems == []
