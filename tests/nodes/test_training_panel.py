"""The training panel in the real page: a person sees a training grow, stops it, and finds it again."""

import numpy as np
import pytest

from harness.panel import INK, PANEL, Panel


@pytest.fixture
def panel(both_canvases):
    return Panel(both_canvases)


def test_a_training_is_seen_stopped_and_found_again(panel, comfy_server, train_graph, request):
    name = "seen-" + ("new" if "2.0" in request.node.name else "classic")
    prompt = train_graph(name=name, steps=3000)
    panel.load(prompt)
    assert panel.button("Stop and save").is_disabled()
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


def test_a_broken_connection_leaves_no_gap_in_the_curves(panel, comfy_server, train_graph, request):
    name = "broken-" + ("new" if "2.0" in request.node.name else "classic")
    prompt = train_graph(name=name, steps=3000)
    prompt_id = panel.load(prompt).start()
    panel.at_step(8)
    for least in (16, 30):
        panel.page.evaluate("() => window.app.api.socket.close()")
        panel.at_step(least)
    panel.page.evaluate("() => window.app.api.socket.close()")
    panel.button("Stop and save").click()
    comfy_server.wait(prompt_id, timeout=120)
    panel.in_state("stopped")
    panel.tab.wait_for_timeout(1500)
    seen = panel.pixels()
    panel.tab.reload(wait_until="domcontentloaded")
    panel.page.open()
    panel.load(prompt).in_state("stopped")
    panel.tab.wait_for_function(f"selector => ({INK})(selector) > 0", arg=PANEL)
    panel.tab.wait_for_timeout(1500)
    assert np.array_equal(panel.pixels(), seen)
    assert panel.page.problems == []
