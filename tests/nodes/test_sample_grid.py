"""All sample pictures of a run in a grid, and a step of it that becomes the LoRA."""

import json

import pytest
from safetensors import safe_open

from harness.sidebar import Sidebar

GRID = "dialog.mlt-sample-grid"
LOADED = "s => [...document.querySelectorAll(`${s} td img`)].every(one => one.naturalWidth === 128)"


@pytest.fixture
def trained(comfy_client, routes, train_graph):
    """A finished run of six steps with pictures of two prompts at every second, of whose checkpoints two are kept."""

    def make(name):
        comfy_client.run(train_graph(name=name, steps=6, save_every=2, keep_last=2, samples={"every": 2}))
        return routes.named(name)

    return make


def test_a_step_of_the_grid_becomes_the_lora(both_canvases, comfy_server, routes, trained, request):
    name = "grid-" + ("new" if "2.0" in request.node.name else "classic")
    run = trained(name)
    assert run["checkpoints"] == [4, 6]
    loras = comfy_server.base / "output" / "loras"
    before = (loras / f"{name}.safetensors").read_bytes()
    side = Sidebar(both_canvases).open().choose_run(name)
    side.button("All pictures").click()
    grid = side.tab.locator(GRID)
    rows = grid.locator("tbody tr")
    rows.nth(3).wait_for()
    assert [row.locator("th").inner_text().split("\n")[0] for row in rows.all()] == [
        "base model", "step 2", "step 4", "step 6",
    ]  # fmt: skip
    assert grid.locator("thead th").all_inner_texts()[1:] == ["a red star", "a zibble"]
    side.tab.wait_for_function(LOADED, arg=GRID)
    assert "not kept" in rows.nth(1).inner_text() and "This is the LoRA" in rows.nth(3).inner_text()
    rows.nth(1).locator("td button").nth(1).click()
    shown = grid.locator(".mlt-grid-large .mlt-after")
    assert shown.get_attribute("src").split("?")[0].endswith("/samples/2/1")
    assert rows.nth(1).locator("td button").nth(1).get_attribute("aria-pressed") == "true"
    rows.nth(2).get_by_role("button", name="Use this step").click()
    side.tab.wait_for_function(
        "s => document.querySelector(`${s} [aria-current] th`).innerText.includes('step 4')", arg=GRID
    )
    picked = loras / f"{name}-step000004.safetensors"
    with safe_open(picked, "np") as file:
        assert file.metadata()["ss_steps"] == "4"
    assert (loras / f"{name}.safetensors").read_bytes() == before, "the file that was there is lost"
    assert routes.named(name)["written"] == f"output/loras/{picked.name}"
    assert picked.name in grid.inner_text()
    graph = json.dumps(routes.get(f"/runs/{run['id']}/use"))
    assert picked.name in graph and f"{name}.safetensors" not in graph
    # Back again: the whole run's file is found, not written anew.
    rows.nth(3).get_by_role("button", name="Use this step").click()
    side.tab.wait_for_function(
        "s => document.querySelector(`${s} [aria-current] th`).innerText.includes('step 6')", arg=GRID
    )
    assert routes.named(name)["written"] == f"output/loras/{name}.safetensors"
    side.tab.keyboard.press("Escape")
    grid.wait_for(state="detached")
    assert both_canvases.problems == []


def framed(grid):
    """The prompt and the step of each picture in the table that has a frame."""
    return grid.locator("td button[aria-pressed=true] img").evaluate_all("all => all.map(one => one.alt)")


def test_the_grid_shows_each_strength_that_was_drawn(comfy_client, page, train_graph, routes, trained):
    name = "grid-strengths"
    run = trained(name)
    side = Sidebar(page).open().choose_run(name)
    side.button("All pictures").click()
    grid = side.tab.locator(GRID)
    grid.locator("tbody tr").nth(3).wait_for()
    choice = grid.locator("label", has_text="Strength").locator("select")
    assert choice.count() == 1 and not choice.is_visible(), "there is nothing to choose yet"
    graph = train_graph(samples={})
    inputs = {"model": ["1", 0], "samples": ["5", 0], "run": name, "steps": "", "strengths": "0.5, 1"}
    asked = {key: graph[key] for key in ("1", "5")} | {"6": {"class_type": "MLT_SampleRun", "inputs": inputs}}
    comfy_client.run(asked)
    choice.wait_for()
    assert choice.locator("option").all_inner_texts() == ["0.50", "1.00"] and choice.input_value() == "1.00"
    rows = grid.locator("tbody tr")
    rows.nth(2).locator("td button").nth(1).click()
    assert framed(grid) == ["“a zibble” after step 4"]
    choice.select_option("0.50")
    side.tab.wait_for_function(LOADED, arg=GRID)
    assert framed(grid) == ["“a zibble” after step 4 × 0.50"]
    names = [row.locator("th").inner_text().split("\n")[0] for row in rows.all()]
    assert names == ["base model", "step 4", "step 6"]
    sources = [one.get_attribute("src") for one in grid.locator("td img").all()]
    assert ["strength=0.50" in one for one in sources] == [False, False, True, True, True, True]
    shown = grid.locator(".mlt-grid-large .mlt-after")
    assert shown.get_attribute("src").split("?")[0].endswith("/samples/4/1")
    assert "strength=0.50" in shown.get_attribute("src")
    assert "step 4 × 0.50" in grid.locator(".mlt-grid-large").inner_text()
    rows.nth(1).get_by_role("button", name="Use this step").click()
    side.tab.wait_for_function(
        "s => document.querySelector(`${s} [aria-current] th`).innerText.includes('step 4')", arg=GRID
    )
    assert routes.named(name)["written"] == f"output/loras/{name}-step000004.safetensors"
    choice.select_option("1.00")
    rows.nth(3).wait_for()
    assert framed(grid) == ["“a zibble” after step 4"]
    # What is shown large is framed, however it was chosen.
    grid.locator(".mlt-grid-large select").select_option("0")
    assert framed(grid) == ["“a red star” after step 4"]
    rows.nth(1).locator("td button").nth(1).click()
    assert framed(grid) == ["“a zibble” after step 2"]
    # Of half the strength there is no picture of that step: the nearest before it is shown.
    choice.select_option("0.50")
    side.tab.wait_for_function(LOADED, arg=GRID)
    assert framed(grid) == ["“a zibble” by the base model"]
    choice.select_option("1.00")
    assert not any("strength" in one.get_attribute("src") for one in grid.locator("td img").all())
    assert run["id"] == routes.named(name)["id"] and page.problems == []


def ask(routes, path, body):
    return routes.ask("POST", path, body=json.dumps(body), headers={"Content-Type": "application/json"})


def test_only_a_kept_step_of_a_run_that_rests_is_picked(routes, comfy_client, train_graph, trained):
    run = trained("picked")
    path = f"/runs/{run['id']}/pick"
    for body, status in (
        ({"step": 3}, 404),
        ({"step": 0}, 400),
        ({"step": "4"}, 400),
        ({"step": True}, 400),
        ({}, 400),
        ({"step": 4, "file": "x"}, 400),
    ):
        assert ask(routes, path, body)[0] == status, body
    assert ask(routes, "/runs/0123456789abcdef/pick", {"step": 4})[0] in (400, 404)
    assert routes.named("picked")["written"] == run["written"]
    prompt_id = comfy_client.submit(train_graph(name="still trained", steps=3000, save_every=2))
    try:
        live = routes.running("still_trained")
        status, _, content = ask(routes, f"/runs/{live['id']}/pick", {"step": 2})
        assert status == 409 and "still being trained" in content["error"]
    finally:
        comfy_client.interrupt()
        comfy_client.finish(prompt_id, check=False)
