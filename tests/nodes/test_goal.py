"""The goal of a data set through nodes in a real ComfyUI: what it decides, where that is told, and in the page."""

import json

import pytest

from harness.damage import many
from harness.page import ComfyPage
from masklora.goals import goal
from masklora.host.families import families

VUE_NODES = "Comfy.VueNodes.Enabled"
(SD3,) = (family for family in families() if family.title.startswith("Stable Diffusion 3"))
# Pictures into a cache by way of a node that changes masks, and a second data set for Merge Datasets.
BUILD = """async () => {
    const { app, LiteGraph } = window
    app.graph.clear()
    const add = (type, x, y) => {
        const node = LiteGraph.createNode(type)
        app.graph.add(node)
        node.pos = [x, y]
        return node
    }
    const [load, other] = [add("MLT_LoadDataset", 40, 60), add("MLT_LoadDataset", 40, 460)]
    const merge = add("MLT_MergeDatasets", 420, 60), masks = add("MLT_TransformMasks", 720, 60)
    const cache = add("MLT_CacheDataset", 1040, 60)
    load.connect(0, merge, 0)
    other.connect(0, merge, 1)
    merge.connect(0, masks, 0)
    masks.connect(0, cache, 0)
    app.canvas.ds.scale = 0.7
    app.canvas.ds.offset = [40, 40]
    await new Promise(done => setTimeout(done, 500))
}"""
CHOOSE = """([index, name, value]) => {
    const node = window.app.graph.nodes[index], widget = node.widgets.find(one => one.name === name)
    widget.value = value
    widget.callback?.(value, window.app.canvas, node, [0, 0], {})
}"""
UNPLUG = "() => window.app.graph.nodes[2].disconnectInput(1)"
# What is drawn as the crop: by the canvas, or in the page's rows.
CROP = """vue => {
    const node = window.app.graph.nodes.find(one => one.comfyClass === "MLT_CacheDataset")
    const widget = node.widgets.find(one => one.name === "crop")
    if (!vue) return widget._displayValue
    const rows = [...document.querySelectorAll(`[data-node-id="${node.id}"] [data-testid="node-widget"]`)]
    return rows.find(row => row.textContent.startsWith("crop")).textContent.slice("crop".length).trim()
}"""
REOPEN = """async () => {
    await window.app.loadGraphData(JSON.parse(JSON.stringify(window.app.graph.serialize())))
    await new Promise(done => setTimeout(done, 600))
}"""


def text_of(run, node):
    return "\n".join(str(line) for line in run.outputs[node]["text"])


def test_cache_and_training_follow_the_goal_tell_it_and_keep_what_came_of_it(comfy_client, comfy_server, train_graph):
    graph = train_graph(name="goal style")
    graph["2"]["inputs"]["goal"] = "style"
    graph["3"]["inputs"]["infill_variants"] = 1
    run = comfy_client.run(graph)
    assert "By the goal style: crop centre, infill mixed." in text_of(run, "3")
    rank = SD3.defaults.rank * 2
    assert f"By the goal style: rank {rank}, infill_probability 0." in text_of(run, "4")
    (settings,) = (comfy_server.base / "user" / "masked_lora" / "runs").glob("goal_style*/settings.json")
    kept = json.loads(settings.read_text(encoding="utf-8"))
    assert kept["adapter"]["rank"] == rank and kept["loss"]["infill_probability"] == 0
    assert kept["loss"]["preset"] == "masked lora"


def test_what_would_replace_backgrounds_is_not_told_where_none_is_replaced(comfy_client, train_graph):
    graph = train_graph(name="goal clothing")
    graph["2"]["inputs"]["goal"] = "clothing"
    told = text_of(comfy_client.run(graph), "3")
    assert "By the goal clothing: crop around mask." in told and "infill" not in told


def test_what_is_set_on_a_node_goes_before_the_goal(comfy_client, train_graph):
    graph = train_graph(name="goal person")
    graph["2"]["inputs"]["goal"] = "person"
    graph["3"]["inputs"] |= {"crop": "masked crop", "infill": "blur"}
    run = comfy_client.run(graph)
    assert "By the goal" not in text_of(run, "3") + text_of(run, "4")


def test_a_feather_that_is_left_to_the_goal_is_its_own(comfy_client, graph, folders):
    folders.make("feathered", count=2, size=(256, 256), alpha=True)
    texts = {}
    for name in ("own", "style"):
        load = graph.add("MLT_LoadDataset", folder="feathered", goal=name)
        masks = graph.add("MLT_TransformMasks", dataset=[load, 0])
        inspect = graph.add("MLT_InspectDataset", dataset=[masks, 0])
        run = comfy_client.run(graph.nodes)
        texts[name] = "\n".join(run.outputs[inspect]["text"])
        if name == "style":
            assert f"By the goal style: feather {goal(name).feather:g}." in text_of(run, masks)
    assert texts["own"] != texts["style"]


@pytest.mark.parametrize("vue", many([False, True], [False, True]), ids=lambda vue: "Nodes 2.0" if vue else "classic")
def test_the_page_shows_what_the_goal_decides(browser, comfy_server, vue):
    server = comfy_server
    server.post("/settings", {VUE_NODES: vue})
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    try:
        page = ComfyPage(context.new_page(), server).open()
        page.evaluate(BUILD)

        def shown():
            page.page.wait_for_timeout(200)
            return page.evaluate(CROP, vue)

        assert shown() == "by goal: centre"
        page.evaluate(CHOOSE, [0, "goal", "person"])
        assert shown() == "by goal: centre", "two data sets that differ have no goal"
        page.evaluate(CHOOSE, [1, "goal", "person"])
        assert shown() == "by goal: around mask"
        page.evaluate(CHOOSE, [1, "goal", "style"])
        page.evaluate(UNPLUG)
        assert shown() == "by goal: around mask"
        page.evaluate(REOPEN)
        assert shown() == "by goal: around mask"
        page.evaluate(CHOOSE, [4, "crop", "random"])
        assert shown() == "random"
    finally:
        context.close()
        server.post("/settings", {VUE_NODES: False})
