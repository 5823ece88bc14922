"""In the page a node shows the widgets that have an effect as the others stand; all keep their values."""

import itertools

import pytest

from harness.damage import many
from harness.frontends import VUE_NODES, cases, name
from harness.page import ComfyPage
from masklora.loss.presets import PRESET_NAMES

ADD = """async type => {
    const { app, LiteGraph } = window, node = LiteGraph.createNode(type)
    app.graph.clear()
    app.graph.add(node)
    node.pos = [40, 60]
    app.canvas.ds.scale = 1
    app.canvas.ds.offset = [60, 60]
    await new Promise(done => setTimeout(done, 400))
}"""
CHOOSE = """([name, value]) => {
    const node = window.app.graph.nodes[0], widget = node.widgets.find(one => one.name === name)
    widget.value = value
    widget.callback?.(value, window.app.canvas, node, [0, 0], {})
}"""
MORE = "() => { window.app.graph.nodes[0].showAdvanced = true }"
# What is drawn: on the classic canvas what takes room there, in Nodes 2.0 the rows of the page.
SHOWN = """vue => {
    const node = window.app.graph.nodes[0]
    if (!vue) return node.getLayoutWidgets().filter(one => node.isWidgetVisible(one)).map(one => one.name)
    const rows = [...document.querySelectorAll(`[data-node-id="${node.id}"] [data-testid="node-widget"]`)]
    return rows.map(row => node.widgets.map(one => one.name)
        .filter(name => row.textContent.startsWith(name)).sort((a, b) => b.length - a.length)[0])
}"""
VALUES = "() => Object.fromEntries(window.app.graph.nodes[0].widgets.map(one => [one.name, one.value]))"
# As a page that is opened anew finds the graph.
REOPEN = """async () => {
    await window.app.loadGraphData(JSON.parse(JSON.stringify(window.app.graph.serialize())))
    await new Promise(done => setTimeout(done, 600))
}"""
LINK = """name => {
    const [node] = window.app.graph.nodes, source = window.LiteGraph.createNode("PrimitiveBoolean")
    window.app.graph.add(source)
    source.pos = [700, 60]
    source.connect(0, node, node.inputs.findIndex(one => one.widget?.name === name))
}"""
HEIGHTS = "() => [window.app.graph.nodes[0].size[1], window.app.graph.nodes[0].computeSize()[1]]"
PRESETS = many(["masked lora", "blissful per sample", "custom"], list(PRESET_NAMES))


class Shown:
    """A node alone on the page, and which of its widgets are drawn."""

    def __init__(self, page, vue):
        self.page, self.vue = page, vue

    def add(self, kind):
        self.page.evaluate(ADD, kind)
        return self

    def choose(self, **values):
        for pair in values.items():
            self.page.evaluate(CHOOSE, list(pair))
        return self._settled()

    def more(self):
        self.page.evaluate(MORE)
        return self._settled()

    def toggled(self, label):
        """The first node, once its button was pressed; the classic canvas has it in the node's menu."""
        if self.vue:
            node = self.page.evaluate("() => window.app.graph.nodes[0].id")
            # The view may end above it.
            self.page.page.locator(f'[data-node-id="{node}"]').get_by_text(label).evaluate("button => button.click()")
        else:
            self.page.evaluate("() => window.app.graph.nodes[0].toggleAdvanced()")
        self.page.page.wait_for_timeout(1500)
        return self

    def _settled(self):
        self.page.page.wait_for_timeout(150)
        return self

    def rows(self):
        return self.page.evaluate(SHOWN, self.vue)


@pytest.fixture(scope="module", params=cases(), ids=name)
def shown(request, browser, server_with):
    frontend, vue = request.param
    server = server_with(frontend)
    server.post("/settings", {VUE_NODES: vue})
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    yield Shown(ComfyPage(context.new_page(), server).open(), vue)
    context.close()
    server.post("/settings", {VUE_NODES: False})


def test_the_masked_loss_shows_at_most_eight_rows_and_only_what_the_preset_reads(shown):
    shown.add("MLT_MaskedLoss")
    for preset in PRESETS:
        rows = shown.choose(preset=preset).rows()
        assert rows[0] == "preset" and 2 <= len(rows) <= 8, (preset, rows)
    assert shown.choose(preset="OneTrainer").rows() == ["preset", "floor", "elementwise", "prior_weight"]
    rows = shown.choose(elementwise="huber").rows()
    assert rows == ["preset", "floor", "elementwise", "elementwise_param", "prior_weight"]
    everything = shown.more().rows()
    assert {"timestep_sampling", "noise_offset", "routes"} <= set(everything)
    assert not {"gamma", "normalize", "snr_gamma", "prior_pivot", "route_until"} & set(everything)
    assert "snr_gamma" in shown.choose(timestep_weight="min-snr").rows()


def test_what_is_hidden_keeps_its_value_and_is_found_again_in_a_saved_graph(shown):
    shown.add("MLT_Optimizer").choose(schedule="polynomial", power=2.5).more()
    assert "power" in shown.rows()
    assert "power" not in shown.choose(schedule="cosine").rows()
    before = shown.page.evaluate(VALUES)
    assert before["power"] == 2.5
    shown.page.evaluate(REOPEN)
    shown.more()
    assert shown.page.evaluate(VALUES) == before
    assert "power" not in shown.rows() and "min_lr_ratio" in shown.rows()
    assert "power" in shown.choose(schedule="polynomial").rows()
    assert shown.page.problems == []


def test_a_node_is_as_high_as_what_it_shows(shown):
    if shown.vue:
        pytest.skip("there the page itself gives a node its height")
    shown.add("MLT_MaskedLoss")
    for preset in ("kohya", "custom", "OneTrainer"):
        high, needed = shown.choose(preset=preset).page.evaluate(HEIGHTS)
        assert high == needed


def test_where_a_link_decides_nothing_is_hidden_by_it(shown):
    shown.add("MLT_TransformMasks").more()
    assert "threshold" not in shown.rows()
    shown.page.evaluate(LINK, "binarize")
    shown.page.page.wait_for_timeout(150)
    assert "threshold" in shown.rows()


ROOM = """async () => {
    const { app, LiteGraph } = window
    app.graph.clear()
    const nodes = [["MLT_CacheDataset", 60], ["MLT_Optimizer", 420], ["MLT_Adapter", 760]].map(([type, y]) => {
        const node = LiteGraph.createNode(type)
        app.graph.add(node)
        node.pos = [60, y]
        return node
    })
    app.canvas.ds.scale = 0.5
    app.canvas.ds.offset = [200, 200]
    await new Promise(done => setTimeout(done, 600))
    const high = node => (document.querySelector(`[data-node-id="${node.id}"]`)?.offsetHeight ?? node.size[1] + 30) - 30
    nodes[1].pos = [60, nodes[0].pos[1] + high(nodes[0]) + 50]
    nodes[2].pos = [160, nodes[1].pos[1] + high(nodes[1]) + 50]
    await new Promise(done => setTimeout(done, 300))
}"""
# Left, top, right and bottom of the nodes, with their titles, as they are drawn.
DRAWN = """vue => window.app.graph.nodes.map(node => {
    const { scale, offset } = window.app.canvas.ds
    const at = (x, y) => [(x + offset[0]) * scale, (y + offset[1]) * scale]
    const [x, y] = node.pos, [wide, high] = node.size
    if (!vue) return [...at(x, y - 30), ...at(x + wide, y + high)]
    const { left, top, right, bottom } = document.querySelector(`[data-node-id="${node.id}"]`).getBoundingClientRect()
    return [left, top, right, bottom]
}).map(box => box.map(Math.round))"""


def test_advanced_inputs_grow_over_no_node_and_what_gave_way_comes_back(shown):
    shown.page.evaluate(ROOM)
    before = shown.page.evaluate(DRAWN, shown.vue)
    boxes = shown.toggled("Show advanced inputs").page.evaluate(DRAWN, shown.vue)
    assert boxes[0][3] > before[0][3] + 50
    for one in (before, boxes):
        assert all(upper[3] < lower[1] for upper, lower in itertools.pairwise(one))
    assert shown.toggled("Hide advanced inputs").page.evaluate(DRAWN, shown.vue) == before
    assert shown.page.problems == []


def test_a_graph_that_is_opened_with_advanced_inputs_shown_stays_as_it_is(shown):
    shown.page.evaluate(ROOM)
    shown.toggled("Show advanced inputs")
    # As somebody likes it who laid it out so.
    shown.page.evaluate(
        "() => { const [first, second] = window.app.graph.nodes; second.pos = [90, first.pos[1] + 60] }"
    )
    places = shown.page.evaluate("() => window.app.graph.nodes.map(one => [...one.pos])")
    shown.page.evaluate(REOPEN)
    shown.page.page.wait_for_timeout(1500)
    assert shown.page.evaluate("() => window.app.graph.nodes.map(one => [...one.pos])") == places
