"""What ComfyUI's check of a graph finds wrong, in sentences with the node's title, the widget and the remedy."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from typing import Any

from .graph import Graph, Schema, titled
from .problems import Problem, nearest

_IN_PAGE = "Put it right in the page and save it for headless again."


def problems_of(
    graph: Graph,
    error: Mapping[str, Any] | None,
    by_node: Mapping[str, Any],
    *,
    schema: Callable[[str], Schema],
    known: Container[str],
) -> list[Problem]:
    """One problem for everything that is wrong; none where the graph can be executed whole.

    Args:
        graph: that was checked.
        error: why none of it can be executed; None where some of it can.
        by_node: what is wrong with single nodes, by id. ComfyUI leaves out what hangs on these and executes the rest;
            without a page nobody would see that.
        schema: what a node class says of its inputs.
        known: the node classes that there are; of those that are not ComfyUI tells one.
    """
    unknown = [node for node in graph if graph[node]["class_type"] not in known]
    if unknown and error:
        return [_missing(graph, node) for node in unknown]
    found = [_problem(graph, node, one, schema(by_node[node]["class_type"])) for node, one in in_order(graph, by_node)]
    return found or ([_whole(graph, error)] if error else [])


def in_order(graph: Graph, by_node: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """What is wrong with single nodes, each with its node's id, in the graph's order: ComfyUI tells it in no order."""
    return ((node, one) for node in graph for one in by_node.get(node, {}).get("errors", ()))


def _missing(graph: Graph, node: str) -> Problem:
    kind = graph[node]["class_type"]
    text = f"{titled(graph, node)}: no pack in custom_nodes has a node {kind}. Install its pack, or see above whether "
    return Problem(text + "it could not be loaded.", node)


def _whole(graph: Graph, error: Mapping[str, Any]) -> Problem:
    facts = error.get("extra_info") or {}
    node = str(facts.get("node_id", ""))
    if error["type"] == "prompt_no_outputs":
        return Problem("The graph has no node that makes anything, such as Train Masked LoRA. " + _IN_PAGE)
    return Problem(" ".join(filter(None, (error["message"] + ".", str(error.get("details", "")), _IN_PAGE))), node)


def _problem(graph: Graph, node: str, one: Mapping[str, Any], schema: Schema) -> Problem:
    facts = one.get("extra_info") or {}
    widget, value = str(facts.get("input_name", "")), facts.get("received_value")
    kind, options = schema.get(widget, ("", {}))
    where = f"{titled(graph, node)}: {widget}"
    other = f"--set {node}.{widget}=VALUE"
    if one["type"] == "required_input_missing":
        remedy = f"Give it by {other}, or save" if "default" in options else "Connect it in the page, and save"
        return Problem(f"{where} is missing. {remedy} the graph for headless again.", node, widget)
    if one["type"] in ("value_smaller_than_min", "value_bigger_than_max"):
        bounds = f"{options.get('min', '')} to {options.get('max', '')}"
        return Problem(f"{where} is {value}, outside of {bounds}. Choose another: {other}", node, widget)
    if one["type"] == "value_not_in_list":
        choices = kind if isinstance(kind, list) else options.get("options") or []
        words = f"{where} is {value!r}, which is not there. {nearest(str(value), choices)}"
        return Problem(f"{words} Put the file into its folder, or choose another: {other}", node, widget)
    if one["type"] == "invalid_input_type":
        return Problem(f"{where} is {value!r}, which is no {kind}. Choose another: {other}", node, widget)
    told = " ".join(filter(None, (one["message"] + ".", str(one.get("details", "")))))
    return Problem(f"{titled(graph, node)}: {told} {_IN_PAGE}", node, widget)
