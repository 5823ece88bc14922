"""A graph in ComfyUI's API format, `{node id: {"class_type", "inputs"}}`, and changes to its widgets by name."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .problems import Problem, RefusedError, nearest

Graph = dict[str, dict[str, Any]]
Schema = Mapping[str, tuple[Any, Mapping[str, Any]]]
"""What a node class says of its inputs: the type, or the list of choices, and the options, by name."""

# A list of choices each of which brings inputs of its own.
_OPENING = "COMFY_DYNAMICCOMBO_V3"
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
_PAGE = "In the page, press Save for headless on Train Masked LoRA, or Export (API) in ComfyUI's menu."


@dataclass(frozen=True)
class SavedGraph:
    """What a file holds.

    Attributes:
        graph: what is executed.
        workflow: how the page shows it; None where the file does not tell it.
    """

    graph: Graph
    workflow: dict[str, Any] | None = None


def read_graph(path: Path) -> SavedGraph:
    """The graph in a file: alone, or as `prompt` of what a run's folder keeps as graph.json, beside its `workflow`.

    Raises:
        RefusedError: there is no such file, it is no JSON, or no graph in API format.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise RefusedError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise RefusedError(f"{path} is no JSON: {error}. {_PAGE}") from error
    workflow = None
    if isinstance(found, dict) and isinstance(found.get("prompt"), dict):
        workflow = found["workflow"] if isinstance(found.get("workflow"), dict) else None
        found = found["prompt"]
    if not isinstance(found, dict) or not found:
        raise RefusedError(f"{path} holds no graph. {_PAGE}")
    if isinstance(found.get("nodes"), list):
        raise RefusedError(f"{path} is a workflow as the page saves it, not in API format. {_PAGE}")
    return SavedGraph(_checked(path, found), workflow)


def _checked(path: Path, graph: dict[str, Any]) -> Graph:
    for name, node in graph.items():
        parts = node if isinstance(node, dict) else {}
        if not isinstance(parts.get("class_type"), str) or not isinstance(parts.get("inputs"), dict):
            raise RefusedError(f"{path}: node {name} lacks class_type or inputs. {_PAGE}")
    for name, node in graph.items():
        for widget, value in node["inputs"].items():
            if is_link(value) and value[0] not in graph:
                text = f"{titled(graph, name)}: {widget} comes from node {value[0]}, which is not in {path}. {_PAGE}"
                raise RefusedError(Problem(text, name, widget))
    return graph


def is_link(value: Any) -> bool:
    """Whether an input's value is another node's output, `[node id, slot]`."""
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int)


def title(graph: Graph, node: str) -> str:
    """What stands on the node in the page; the class where the file does not tell it."""
    meta = graph[node].get("_meta")
    told = meta.get("title") if isinstance(meta, dict) else None
    return str(told or graph[node]["class_type"])


def titled(graph: Graph, node: str) -> str:
    """The node as errors name it: title and id."""
    return f"{title(graph, node)} (node {node})"


def as_from_the_page(server: Any, graph: Graph, client: str) -> Graph:
    """What ComfyUI would queue of a graph: other packs have their say on it, and old nodes are replaced.

    Args:
        server: ComfyUI's.
        graph: may be changed.
        client: who asks, to other packs.
    """
    found: Graph = server.trigger_on_prompt({"prompt": dict(graph), "client_id": client, "extra_data": {}})["prompt"]
    for one in found.values():
        # ComfyUI replaces no node without it, which only the page writes.
        if not isinstance(one.get("_meta"), dict):
            one["_meta"] = {"title": one["class_type"]}
    server.node_replace_manager.apply_replacements(found)
    return found


def change(graph: Graph, changes: list[str], schema: Callable[[str], Schema]) -> None:
    """Set widgets of `graph`, in place.

    Args:
        graph: as `read_graph` gives it.
        changes: each `node.widget=value`; the node by its id, or by its title or class where only one has that.
        schema: what a class says of its inputs, for which values are read and checked; empty for an unknown class.

    Raises:
        RefusedError: with every change that names no node or widget, or a value that the widget does not take.
    """
    problems: list[Problem] = []
    for one in changes:
        try:
            node, widget, text = _addressed(graph, one, schema)
            graph[node]["inputs"][widget] = _value(graph, node, widget, text, schema(graph[node]["class_type"]))
        except RefusedError as refusal:
            problems += refusal.problems
    if problems:
        raise RefusedError(*problems)


def _addressed(graph: Graph, one: str, schema: Callable[[str], Schema]) -> tuple[str, str, str]:
    where, equals, text = one.partition("=")
    if not equals or "." not in where.strip("."):
        raise RefusedError(f"--set {one}: expected node.widget=value, such as --set 4.steps=2000.")
    known: list[tuple[str, str]] = []
    for name, widget in _splits(where):
        for node in _nodes(graph, name):
            known.append((node, widget))
    if not known:
        name, _, _ = where.rpartition(".")
        told = nearest(name, [*(title(graph, node) for node in graph), *graph, *_classes(graph)])
        raise RefusedError(f"--set {one}: no node has the id, title or class {name}. {told}")
    found = [(node, widget) for node, widget in known if widget in _inputs(graph, node, schema)]
    if not found:
        node, widget = known[0]
        told = nearest(widget, _inputs(graph, node, schema))
        raise RefusedError(Problem(f"--set {one}: {titled(graph, node)} has no {widget}. {told}", node, widget))
    if len(found) > 1:
        several = ", ".join(titled(graph, node) for node, _ in found)
        raise RefusedError(f"--set {one}: several nodes are called so: {several}. Name one by its id.")
    return *found[0], text


def _splits(where: str) -> Iterator[tuple[str, str]]:
    """Every way to read a node and a widget: titles and widgets may hold dots themselves."""
    parts = where.split(".")
    for i in range(len(parts) - 1, 0, -1):
        yield ".".join(parts[:i]).strip(), ".".join(parts[i:]).strip()


def _nodes(graph: Graph, name: str) -> list[str]:
    if name in graph:
        return [name]
    return [node for node in graph if title(graph, node) == name] or [
        node for node in graph if graph[node]["class_type"] == name
    ]


def _classes(graph: Graph) -> list[str]:
    return [node["class_type"] for node in graph.values()]


def _inputs(graph: Graph, node: str, schema: Callable[[str], Schema]) -> list[str]:
    return [*schema(graph[node]["class_type"]), *graph[node]["inputs"]]


def _value(graph: Graph, node: str, widget: str, text: str, schema: Schema) -> Any:
    """`text` as the widget's type."""
    now = graph[node]["inputs"].get(widget)
    where = f"--set {widget}={text}: {titled(graph, node)}"

    def refused(words: str) -> RefusedError:
        return RefusedError(Problem(f"{where} {words}", node, widget))

    if is_link(now):
        source = titled(graph, now[0])
        raise refused(f"has no value of its own for {widget}: it comes from {source}. Set that node's widget.")
    kind, options = schema.get(widget, (_kind_of(now), {}))
    if isinstance(kind, list) or kind == "COMBO":
        return _choice(text, kind if isinstance(kind, list) else options.get("options") or [], refused)
    if kind == _OPENING:
        return _choice(text, [one["key"] for one in options["options"]], refused)
    if kind == "BOOLEAN":
        if text.casefold() not in (*_TRUE, *_FALSE):
            raise refused("expects true or false.")
        return text.casefold() in _TRUE
    if kind in ("INT", "FLOAT"):
        return _number(kind, text, options, refused)
    if kind == "STRING":
        return text
    raise refused(f"takes {widget} from another node ({kind}): connect it in the page.")


def _kind_of(value: Any) -> str:
    """The type of a widget that only the graph knows, as those that a choice brings with it."""
    kinds = {bool: "BOOLEAN", int: "INT", float: "FLOAT", str: "STRING"}
    return kinds.get(type(value), type(value).__name__)


def _choice(text: str, choices: list[Any], refused: Callable[[str], RefusedError]) -> Any:
    for one in choices:
        if str(one) == text:
            return one
    # Without a list the page asks a server for it.
    if choices:
        raise refused(f"does not offer that. {nearest(text, choices)}")
    return text


def _number(kind: str, text: str, options: Mapping[str, Any], refused: Callable[[str], RefusedError]) -> int | float:
    least, most = options.get("min", -math.inf), options.get("max", math.inf)
    try:
        number = int(text) if kind == "INT" else float(text)
    except ValueError:
        number = math.nan
    if not (least <= number <= most and math.isfinite(number)):
        what = "a whole number" if kind == "INT" else "a number"
        bounds = f" from {least:g} to {most:g}" if math.isfinite(least) and math.isfinite(most) else ""
        raise refused(f"expects {what}{bounds}.")
    return number
