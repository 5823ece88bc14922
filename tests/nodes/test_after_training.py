"""What a person meets after a training in the real page: the new LoRA in ComfyUI's lists, ready to be used."""

import os
import time

import filelock
import numpy as np
import pytest
from PIL import Image

from harness.page import ComfyPage
from harness.panel import Panel
from harness.sidebar import Sidebar

# Counts how often ComfyUI's lists are read anew, from here on.
COUNT = """() => {
    const { app } = window, reload = app.reloadNodeDefs
    window.listsRead = 0
    app.reloadNodeDefs = function () { window.listsRead += 1; return reload.call(this) }
}"""
READ = "() => window.listsRead"
# Of a node of core's that was on the graph before, and of one that is made now.
OFFERED = """name => {
    const { app, LiteGraph } = window
    const offers = node => node.widgets.find(one => one.name === "lora_name").options.values.includes(name)
    const there = app.graph.nodes.find(one => one.type === "LoraLoaderModelOnly")
    return offers(there) && offers(LiteGraph.createNode("LoraLoaderModelOnly"))
}"""
VALUES = "() => window.app.graph.nodes.map(node => (node.widgets ?? []).map(one => [node.id, one.name, one.value]))"


@pytest.fixture
def paged(browser, comfy_server):
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    yield ComfyPage(context.new_page(), comfy_server).open()
    context.close()


@pytest.fixture
def trained(paged, train_graph):
    """A function that trains in the page, with a node of core's beside that takes a LoRA which is not there."""

    def train(name, **settings):
        graph = train_graph(name=name, **{"steps": 2, **settings})
        model = {"model": ["1", 0], "lora_name": "another.safetensors", "strength_model": 0.5}
        graph["2"]["inputs"]["trigger_word"] = "zibble"
        graph["9"] = {"class_type": "LoraLoaderModelOnly", "inputs": model}
        panel = Panel(paged).load(graph)
        paged.evaluate(COUNT)
        paged.server.wait(panel.start(), timeout=120)
        return panel.in_state("finished")

    return train


def test_a_lora_is_in_the_lists_of_comfyui_once_it_is_written_and_they_are_read_no_more_often(trained, paged):
    values = None

    def same():
        nonlocal values
        values = values or paged.evaluate(VALUES)
        return paged.evaluate(VALUES) == values

    panel = trained("listed at once")
    panel.tab.wait_for_function(OFFERED, arg="listed at once.safetensors")
    assert paged.evaluate(READ) == 1 and same()
    # A run that is there is loaded, and writes nothing.
    paged.server.wait(panel.start(), timeout=120)
    panel.tab.wait_for_timeout(3000)
    assert paged.evaluate(READ) == 1 and same()
    assert any("another.safetensors" in map(str, one) for node in values for one in node)


def drawn(page):
    """The pictures of the graph that is open, run as it is: of the base model, and with the LoRA."""
    record = page.queue()
    titles = page.evaluate("() => Object.fromEntries(window.app.graph.nodes.map(node => [node.title, node.id]))")
    pictures = []
    for title in ("Picture WITHOUT the LoRA", "Picture WITH the LoRA"):
        (file,) = record["outputs"][str(titles[title])]["images"]
        pictures.append(np.asarray(Image.open(page.server.base / "temp" / file["filename"]).convert("RGB")).astype(int))
    return pictures


PLACES = """() => window.app.graph.nodes.filter(one => one.type === "PreviewImage")
    .map(one => [one.pos[1] - 30, one.pos[1] + one.size[1]])"""
STRENGTH = """value => {
    const node = window.app.graph.nodes.find(one => one.type === "LoraLoaderModelOnly")
    node.widgets.find(one => one.name === "strength_model").value = value
}"""


def test_the_new_lora_is_used_beside_the_base_model_with_one_click(trained, paged):
    panel = trained("used", samples={}, learning_rate=0.01, steps=6)
    tab = panel.tab
    # The node may lie below the side bar.
    panel.button("Use this LoRA").press("Enter")
    tab.wait_for_function("() => window.app.graph.nodes.filter(one => one.type === 'KSampler').length === 2")
    tab.wait_for_timeout(1000)
    values = dict(tuple(one[1:]) for node in paged.evaluate(VALUES) for one in node)
    assert values["lora_name"] == "used.safetensors" and values["width"] == 128 and values["steps"] == 4
    assert values["control_after_generate"] == "fixed"
    texts = [one for node in paged.evaluate(VALUES) for _, name, one in node if name == "text"]
    assert "a zibble" in texts
    base, with_lora = drawn(paged)
    # The pictures lie below each other, and none hides another; titles are drawn from a scale of 0.6 on.
    upper, lower = paged.evaluate(PLACES)
    assert upper[1] < lower[0] and paged.evaluate("() => window.app.canvas.ds.scale") > 0.6
    assert base.shape == with_lora.shape == (128, 128, 3) and base.std() > 5
    assert np.abs(base - with_lora).max() > 8
    paged.evaluate(STRENGTH, 0)
    _, without = drawn(paged)
    assert np.array_equal(base, without)
    if folder := os.environ.get("MASKLORA_SHOTS"):
        paged.graph_picture(width=1600, height=900).save(f"{folder}/use graph.png")
        paged.evaluate("() => window.app.extensionManager.command.execute('Comfy.Canvas.FitView')")
        tab.wait_for_timeout(2000)
        tab.screenshot(path=f"{folder}/use.png")
    assert paged.problems == []


def question(side):
    dialog = side.tab.get_by_role("alertdialog")
    dialog.wait_for()
    return dialog


def test_a_run_is_deleted_after_a_question_that_says_what_goes_and_what_stays(page, comfy_client, routes, train_graph):
    comfy_client.run(train_graph(name="goes", steps=2, learning_rate=0.002))
    run = routes.named("goes")
    size = routes.get(f"/runs/{run['id']}/size")
    base = page.server.base
    (folder,) = (base / "user" / "masked_lora" / "runs").glob("goes-*")
    assert size["bytes"] == sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    side = Sidebar(page).open().choose_run("goes")
    item = side.tab.locator(".mlt-runs li").filter(has_text="goes ·").first
    year = str(time.localtime(run["started"]).tm_year)
    assert year in item.locator(".mlt-begun").inner_text()
    side.action("Delete").click()
    words = question(side).inner_text()
    assert f"frees {size['bytes'] / 1e6:.3g} MB" in words and "output/loras/goes.safetensors stays" in words
    # Whoever presses Enter at once has deleted nothing.
    side.tab.keyboard.press("Enter")
    question_is_gone = "() => !document.querySelector('.mlt-ask')"
    side.tab.wait_for_function(question_is_gone)
    assert folder.is_dir() and routes.named("goes")
    side.action("Delete").click()
    if shots := os.environ.get("MASKLORA_SHOTS"):
        side.tab.screenshot(path=f"{shots}/delete.png")
    question(side).get_by_role("button", name="Delete").click()
    side.says("goes is deleted")
    assert not folder.exists() and routes.named("goes") is None
    assert side.tab.locator(".mlt-runs li").filter(has_text="goes ·").count() == 0
    assert (base / "output" / "loras" / "goes.safetensors").is_file()
    assert page.problems == []


def test_a_run_in_training_offers_no_deletion_and_its_route_refuses_it(page, comfy_client, routes, train_graph):
    prompt_id = comfy_client.submit(train_graph(name="stays", steps=3000))
    try:
        run = routes.running("stays")
        side = Sidebar(page).open().choose_run("stays")
        assert side.action("Delete").is_disabled() and side.action("Use this LoRA").is_disabled()
        status, told = routes.post(f"/runs/{run['id']}/delete")
        assert status == 409 and "Stop it first" in told["error"]
        assert routes.named("stays")["state"] == "running"
    finally:
        comfy_client.interrupt()
        comfy_client.finish(prompt_id, check=False)
    (folder,) = (page.server.base / "user" / "masked_lora" / "runs").glob("stays-*")
    # As if another ComfyUI trained there.
    with filelock.FileLock(folder / "run.lock"):
        assert routes.post(f"/runs/{run['id']}/delete")[0] == 409
    assert folder.is_dir() and routes.named("stays")
    status, told = routes.ask("GET", f"/runs/{run['id']}/use")[::2]
    assert status == 404 and "written no LoRA" in told["error"]


@pytest.mark.parametrize("tail", ["use", "size"])
def test_what_belongs_to_no_run_is_not_found(routes, tail):
    assert routes.ask("GET", f"/runs/{'0' * 20}/{tail}")[0] == 404
    assert routes.ask("GET", f"/runs/..%2f..%2fuser/{tail}")[0] in (400, 404)


def test_only_the_page_itself_may_delete(routes, comfy_client, train_graph):
    comfy_client.run(train_graph(name="foreign", steps=2))
    path = f"/runs/{routes.named('foreign')['id']}/delete"
    assert routes.post(path, Origin="http://evil.example")[0] == 403
    assert routes.post(path, b'{"path": "/"}')[0] == 400
    assert routes.ask("GET", path)[0] in (404, 405)
    assert routes.named("foreign")
    assert routes.post(f"/runs/{'0' * 20}/delete")[0] == 404
