"""Graphs in API format: what is refused of a file, and changes to widgets by name."""

import json

import pytest

from masklora.host.headless.graph import change, read_graph
from masklora.host.headless.problems import RefusedError

SCHEMA = {
    "Train": {
        "model": ("MODEL", {}),
        "steps": ("INT", {"min": 0, "max": 1000, "default": 0}),
        "rate": ("FLOAT", {"min": 0.0, "max": 1.0}),
        "name": ("STRING", {}),
        "flip": ("BOOLEAN", {}),
        "crop": ("COMBO", {"options": ["centre", "random", 3]}),
        "file": (["a.safetensors", "b.safetensors"], {}),
        "mode": ("COMFY_DYNAMICCOMBO_V3", {"options": [{"key": "plain"}, {"key": "wide", "inputs": {}}]}),
        "scale": ("FLOAT", {}),
    },
    "Number": {"value": ("INT", {})},
}


def graph():
    return {
        "1": {"class_type": "Number", "inputs": {"value": 512}, "_meta": {"title": "Resolution"}},
        "2": {"class_type": "Number", "inputs": {"value": 1}, "_meta": {"title": "v1.5 seed"}},
        "7:4": {
            "class_type": "Train",
            "inputs": {"model": ["1", 0], "steps": 5, "rate": ["1", 0], "crop": "centre", "crop.width": 64},
            "_meta": {"title": "Train it"},
        },
    }


def changed(*changes):
    made = graph()
    change(made, list(changes), lambda kind: SCHEMA.get(kind, {}))
    return made


@pytest.mark.parametrize(
    ("where", "node", "widget", "value"),
    [
        ("7:4.steps=30", "7:4", "steps", 30),
        ("Train it.steps=30", "7:4", "steps", 30),
        ("Train.steps = 30", "7:4", "steps", 30),
        ("Train.name=a=b.c", "7:4", "name", "a=b.c"),
        ("Train.name=", "7:4", "name", ""),
        ("Train.flip=No", "7:4", "flip", False),
        ("Train.flip=1", "7:4", "flip", True),
        ("Train.crop=3", "7:4", "crop", 3),
        ("Train.crop.width=32", "7:4", "crop.width", 32),
        ("Train.mode=wide", "7:4", "mode", "wide"),
        ("Train.file=b.safetensors", "7:4", "file", "b.safetensors"),
        ("Resolution.value=256", "1", "value", 256),
        ("v1.5 seed.value=-2", "2", "value", -2),
    ],
)
def test_a_widget_is_set_by_id_title_or_class_in_its_own_type(where, node, widget, value):
    wanted = graph()
    wanted[node]["inputs"][widget] = value
    made = changed(where)
    assert made == wanted
    assert type(made[node]["inputs"][widget]) is type(value)


def test_a_number_with_a_point_is_set():
    made = graph()
    made["7:4"]["inputs"]["rate"] = 0.1
    change(made, ["Train.rate=2e-4"], lambda kind: SCHEMA.get(kind, {}))
    assert made["7:4"]["inputs"]["rate"] == 2e-4


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("steps=30", "expected node.widget=value"),
        ("Train.steps", "expected node.widget=value"),
        ("Trian it.steps=3", "no node has the id, title or class Trian it. Nearest: Train it"),
        ("Train.stesp=3", "Train it (node 7:4) has no stesp. Nearest: steps"),
        ("Number.value=3", "several nodes are called so: Resolution (node 1), v1.5 seed (node 2). Name one by its id"),
        ("Train.steps=many", "expects a whole number from 0 to 1000"),
        ("Train.steps=2.5", "expects a whole number"),
        ("Train.steps=1001", "expects a whole number from 0 to 1000"),
        ("Train.flip=maybe", "expects true or false"),
        ("Train.crop=centr", "does not offer that. Nearest: centre"),
        ("Train.mode=wild", "does not offer that. Nearest: wide"),
        ("Train.scale=inf", "expects a number."),
        ("Train.file=c", "There is: a.safetensors, b.safetensors"),
        ("Train.rate=1", "it comes from Resolution (node 1)"),
        ("Train.model=x", "it comes from Resolution (node 1)"),
    ],
)
def test_what_cannot_be_set_is_refused_with_what_was_meant(where, words):
    with pytest.raises(RefusedError) as refused:
        changed(where)
    assert words in str(refused.value)


def test_a_socket_is_no_widget_and_a_rate_that_is_no_number_is_none():
    made = graph()
    made["7:4"]["inputs"] = {"rate": 0.1}
    for where, words in [("Train.model=x", "takes model from another node (MODEL)"), ("Train.rate=nan", "a number")]:
        with pytest.raises(RefusedError, match=r"expects a number from 0 to 1|takes model") as refused:
            change(made, [where], lambda kind: SCHEMA.get(kind, {}))
        assert words in str(refused.value)


def test_all_wrong_changes_are_told_at_once():
    with pytest.raises(RefusedError) as refused:
        changed("Train.steps=x", "Nobody.value=1", "Resolution.value=64")
    assert len(refused.value.problems) == 2
    assert (refused.value.problems[0].node, refused.value.problems[0].widget) == ("7:4", "steps")


def test_a_graph_alone_or_as_a_run_keeps_it_is_read(tmp_path):
    path = tmp_path / "Übung.json"
    for content in (graph(), {"prompt": graph(), "workflow": None, "node": "7:4"}):
        path.write_text("\ufeff" + json.dumps(content), encoding="utf-8")
        assert read_graph(path).graph == graph()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read"),
        ("{", "is no JSON"),
        ("[]", "holds no graph"),
        ("{}", "holds no graph"),
        ('{"nodes": [], "links": []}', "is a workflow as the page saves it"),
        ('{"1": {"class_type": "A"}}', "node 1 lacks class_type or inputs"),
        ('{"1": {"inputs": {}}}', "node 1 lacks class_type or inputs"),
        ('{"1": {"class_type": "A", "inputs": {"x": ["2", 0]}}}', "A (node 1): x comes from node 2, which is not in"),
    ],
)
def test_a_file_that_is_no_graph_is_refused_with_its_name_and_what_to_do(content, words, tmp_path):
    path = tmp_path / "graph.json"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(RefusedError) as refused:
        read_graph(path)
    assert words in str(refused.value) and str(path) in str(refused.value)
    assert content is None or "Save for headless" in str(refused.value)
