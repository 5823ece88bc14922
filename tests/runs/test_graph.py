"""The graph that a run keeps: what is stored, and what is not."""

import pytest

from masklora.runs import graph as run_graph
from masklora.runs.graph import has_graph, keep_graph, read_graph

GRAPH = {"prompt": {"1": {"class_type": "X", "inputs": {"text": "ü"}}}, "workflow": None, "node": "1"}


def test_a_graph_comes_back_as_it_was(tmp_path):
    assert not has_graph(tmp_path) and read_graph(tmp_path) is None
    assert keep_graph(tmp_path, GRAPH) and has_graph(tmp_path)
    assert read_graph(tmp_path) == GRAPH


@pytest.mark.parametrize("graph", [{}, {"prompt": None, "workflow": None}, {"prompt": {"1": object()}}])
def test_what_is_no_graph_is_not_kept(tmp_path, graph):
    assert not keep_graph(tmp_path, graph)
    assert not has_graph(tmp_path)


def test_a_huge_graph_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(run_graph, "MOST_BYTES", 50)
    assert not keep_graph(tmp_path, GRAPH)


@pytest.mark.parametrize("text", ["", "{", "[1]"])
def test_a_damaged_file_is_no_graph(tmp_path, text):
    (tmp_path / "graph.json").write_text(text, encoding="utf-8")
    assert read_graph(tmp_path) is None
