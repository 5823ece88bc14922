"""The training panel in the real page: a person sees a training grow, stops it, and finds it again."""

from pathlib import Path

import pytest

from harness.panel import INK, PANEL, Panel
from masklora.host.headless.graph import read_graph


@pytest.fixture
def panel(both_canvases):
    return Panel(both_canvases)


def test_a_graph_is_saved_for_headless_and_its_training_seen_stopped_and_found_again(
    panel, comfy_server, train_graph, request
):
    name = "seen-" + ("new" if "2.0" in request.node.name else "classic")
    prompt = train_graph(name=name, steps=3000)
    panel.load(prompt)
    assert panel.button("Stop and save").is_disabled()
    with panel.tab.expect_download() as caught:
        panel.button("Save for headless").click()
    assert caught.value.suggested_filename == f"{name}.json"
    assert read_graph(Path(caught.value.path())).graph == panel.page.api_prompt()
    note = panel.tab.locator(f"{PANEL} .mlt-note").first.text_content()
    assert note == f"Downloaded: {name}.json. In a terminal: python train.py {name}.json"
    prompt_id = panel.start()
    panel.at_step(3)
    assert "of 3000" in panel.tab.locator(f"{PANEL} .mlt-numbers").first.text_content()
    panel.at_step(12)
    assert panel.ink() > 0
    panel.button("Save now").press("Enter")
    panel.tab.wait_for_function(
        "() => document.querySelector('.mlt-panel .mlt-note').textContent.includes('Asked for')"
    )
    panel.button("Stop and save").click()
    comfy_server.wait(prompt_id, timeout=120)
    panel.in_state("stopped")
    assert (comfy_server.base / "output" / "loras" / f"{name}.safetensors").is_file()
    panel.tab.reload(wait_until="domcontentloaded")
    panel.page.open()
    panel.load(prompt).in_state("stopped").at_step(12)
    panel.tab.wait_for_function(f"selector => ({INK})(selector) > 0", arg=PANEL)
    assert panel.page.problems == []


def test_a_page_that_is_opened_during_a_training_shows_it_and_can_stop_it(panel, comfy_server, train_graph, request):
    name = "found-" + ("new" if "2.0" in request.node.name else "classic")
    prompt = train_graph(name=name, steps=3000)
    prompt_id = panel.load(prompt).start()
    panel.at_step(12)
    panel.tab.reload(wait_until="domcontentloaded")
    panel.page.open()
    panel.load(prompt).in_state("running").at_step(13)
    panel.tab.wait_for_function(f"selector => ({INK})(selector) > 0", arg=PANEL)
    panel.button("Stop and save").click()
    comfy_server.wait(prompt_id, timeout=120)
    panel.in_state("stopped")
    assert (comfy_server.base / "output" / "loras" / f"{name}.safetensors").is_file()
    assert panel.page.problems == []


def test_a_broken_connection_leaves_no_gap_in_the_curves(panel, comfy_server, routes, train_graph, request):
    name = "broken-" + ("new" if "2.0" in request.node.name else "classic")
    prompt = train_graph(name=name, steps=3000)
    prompt_id = panel.watch().load(prompt).start()
    panel.at_step(8)
    for least in (16, 30):
        panel.page.evaluate("() => window.app.api.socket.close()")
        panel.at_step(least)
    panel.page.evaluate("() => window.app.api.socket.close()")
    panel.button("Stop and save").click()
    comfy_server.wait(prompt_id, timeout=120)
    run = routes.named(name)
    rows = routes.get(f"/runs/{run['id']}")["rows"]
    assert [row["step"] for row in rows] == list(range(1, run["step"] + 1))
    panel.in_state("stopped").draws(rows)
    panel.tab.reload(wait_until="domcontentloaded")
    panel.page.open()
    panel.watch().load(prompt).in_state("stopped").draws(rows)
    assert panel.page.problems == []


def test_numbers_follow_the_training_of_a_node_that_was_hidden_when_its_chart_was_made(
    panel, comfy_server, train_graph, request
):
    """As templates open: so small that the canvas shows no panels."""
    name = "far-" + ("new" if "2.0" in request.node.name else "classic")
    panel.page.evaluate(
        "async graph => { await window.app.loadApiJson(graph, 'training') }", train_graph(name=name, steps=3000)
    )
    panel.page.evaluate("() => { window.app.canvas.ds.scale = 0.2; window.app.canvas.setDirty(true, true) }")
    prompt_id = panel.start()
    panel.at_step(6)
    panel.page.evaluate("() => window.app.extensionManager.command.execute('Comfy.Canvas.FitView')")
    panel.at_step(9)
    assert panel.page.evaluate("() => document.querySelector('.mlt-panel .mlt-legend').dataset.hovered") == ""
    assert "at step" not in panel.tab.locator(f"{PANEL} .mlt-legend").first.text_content()
    panel.button("Stop and save").click()
    comfy_server.wait(prompt_id, timeout=120)
    assert panel.page.problems == []


# Who listens asks for the list of runs when the queue has changed.
QUEUE_CHANGED = """() => window.app.api.dispatchEvent(
    new CustomEvent("status", { detail: { exec_info: { queue_remaining: 0 } } })
)"""


def asks(panel):
    """How often the page asks for the list of runs at a change of the queue."""
    asked = []

    def note(request):
        if request.url.endswith("/masked_lora/runs"):
            asked.append(request.url)

    panel.tab.on("request", note)
    panel.page.evaluate(QUEUE_CHANGED)
    panel.tab.wait_for_timeout(700)
    panel.tab.remove_listener("request", note)
    return len(asked)


def test_copies_of_the_node_leave_nothing_behind(panel, train_graph):
    panel.load(train_graph(name="copied"))
    panel.tab.wait_for_timeout(700)
    assert asks(panel) > 0
    panel.page.evaluate("() => { window.copies = [1, 2, 3].map(() => window.app.graph.getNodeById(4).clone()) }")
    panel.page.evaluate("() => { window.app.graph.remove(window.app.graph.getNodeById(4)) }")
    panel.tab.wait_for_selector(PANEL, state="detached")
    assert asks(panel) == 0
    # One that gets onto the graph wakes.
    panel.page.evaluate("() => { window.app.graph.add(window.copies[0]) }")
    panel.tab.wait_for_selector(PANEL)
    panel.tab.wait_for_function("() => document.querySelector('.mlt-panel .mlt-note').textContent !== ''")
    assert asks(panel) > 0
    assert panel.page.problems == []
