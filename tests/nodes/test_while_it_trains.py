"""What the page says while a training goes on, besides its curves: in the tab's title, in words, at its end."""

import json
import time

import numpy as np
import pytest

from harness.damage import many
from harness.page import NOTIFIED, ComfyPage
from harness.panel import Panel

VUE_NODES = "Comfy.VueNodes.Enabled"
TITLES = """() => {
    window.titles = [document.title]
    new MutationObserver(() => window.titles.push(document.title))
        .observe(document.querySelector("title"), { childList: true, characterData: true, subtree: true })
}"""
CUT = """() => {
    const panel = document.querySelector(".mlt-panel")
    return [panel.scrollHeight, panel.clientHeight, panel.querySelector(".mlt-verdict").offsetHeight]
}"""
FALLING = """Inside falls, outside does not: the mask works."""


@pytest.fixture(params=many([False], [False, True]), ids=["classic canvas", "Nodes 2.0"][: many(1, 2)])
def paged(request, browser, comfy_server):
    comfy_server.post("/settings", {VUE_NODES: request.param, "masked_lora.notify": True})
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    yield ComfyPage(context.new_page(), comfy_server).open()
    context.close()
    comfy_server.post("/settings", {VUE_NODES: False, "masked_lora.notify": False})


def test_the_tab_bears_the_lora_s_name_and_its_end_is_notified_where_that_is_wished(paged, train_graph):
    # Of a graph that it has run before, ComfyUI would train nothing.
    name = f"a good cat {time.monotonic_ns()}"
    panel = Panel(paged).load(train_graph(name=name, steps=6))
    paged.evaluate(NOTIFIED)
    paged.evaluate(TITLES)
    paged.server.wait(panel.start(), timeout=120)
    panel.in_state("finished")
    panel.tab.wait_for_function("() => window.notified.length", timeout=5000)
    shown = name.replace(" ", "_")
    assert paged.evaluate("() => window.notified") == [[shown, f"Written: output/loras/{name}.safetensors"]]
    titles = paged.evaluate("() => window.titles")
    assert any(shown in title for title in titles)
    assert "MLT_TrainLoRA" not in titles[-1]


def test_a_page_that_is_opened_during_a_training_knows_its_messages(paged, train_graph):
    words = []
    paged.page.on("console", lambda message: words.append(message.text))
    panel = Panel(paged).load(train_graph(name="opened late", steps=40))
    prompt = panel.start()
    panel.at_step(2)
    paged.page.reload(wait_until="domcontentloaded")
    paged.open()
    # Of graphs without our nodes, too.
    paged.evaluate("() => window.app.graph.clear()")
    paged.server.wait(prompt, timeout=120)
    assert [text for text in words if "masked_lora" in text] == []


def learned(folder, outside):
    """The rows of a training of 400 steps in which the inside is learned, and `outside` goes from 1 to that."""
    rng = np.random.default_rng(4)
    rows = [
        {"step": i + 1, "loss": 1.0, "inside": inside * jump, "outside": beside * jump}
        for i, (inside, beside, jump) in enumerate(
            zip(np.linspace(1, 0.5, 400), np.linspace(1, outside, 400), rng.uniform(0.5, 1.5, 400), strict=True)
        )
    ]
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    (folder / "result.json").write_text(json.dumps(result | {"steps": 400}), encoding="utf-8")


@pytest.mark.parametrize(("outside", "words"), [(1.0, FALLING), (0.5, "Outside falls too")], ids=["works", "leaks"])
def test_the_panel_says_in_words_what_the_curves_say_and_no_line_of_it_is_cut(paged, train_graph, outside, words):
    name = f"judged {outside}"
    graph = train_graph(name=name, steps=2)
    paged.server.run(graph)
    runs = paged.server.base / "user" / "masked_lora" / "runs"
    (folder,) = runs.glob(f"judged_{outside}-*")
    learned(folder, outside)
    panel = Panel(paged).load(graph)
    said = panel.tab.locator(".mlt-verdict").first
    panel.tab.wait_for_function("() => document.querySelector('.mlt-verdict')?.textContent")
    assert said.text_content().startswith(words)
    # The node grows to its panel with one of the next frames.
    panel.tab.wait_for_function(f"() => {{ const [needed, there] = ({CUT})(); return needed <= there + 1 }}")
    assert paged.evaluate(CUT)[2] > 0
    hints = panel.tab.locator(".mlt-curve").evaluate_all("all => all.map(one => one.title)")
    assert len(hints) == 16 and all(len(hint) > 20 for hint in hints)
    assert paged.problems == []
