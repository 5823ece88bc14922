"""ComfyUI's own templates, read through their subgraphs: what a picture in them is made with."""

import importlib.resources
import json

from devtools.convert import widget_values

PACKAGE = "comfyui_workflow_templates_json"
BYPASSED = (2, 4)
# Where a subgraph's own inputs come from.
FROM_OUTSIDE = -10
DECODERS = {"VAEDecode", "VAEDecodeTiled"}
SAMPLERS = {"KSampler", "KSamplerAdvanced", "SamplerCustomAdvanced"}
# What a person writes or a chance decides.
FREE = {"text", "prompt", "seed", "noise_seed", "batch_size"}
PICTURE = "LoadImage"


def official_graph(name):
    """ComfyUI's template of this name, as its page opens it."""
    file = importlib.resources.files(PACKAGE) / "templates" / f"{name}.json"
    return json.loads(file.read_text(encoding="utf-8"))


def sampled_parts(graph, info, *, subgraph=""):
    """For each picture of a graph the nodes that make it, from the loaders on: (type, widgets, models).

    Of a sampling in two halves, with two models, it is the first, decoded as the second is.

    Args:
        graph: As the page saves it.
        info: ComfyUI's `/object_info`.
        subgraph: Name of the only subgraph that counts.
    """
    active = {node["type"] for node in graph["nodes"] if node.get("mode", 0) not in BYPASSED}
    inner = [one for one in graph.get("definitions", {}).get("subgraphs", []) if one["id"] in active]
    scopes = [_Scope(one, info) for one in [graph, *inner] if not subgraph or one.get("name") == subgraph]
    return [scope.picture(node) for scope in scopes for node in scope.decoders()]


def values_of(scope, info):
    """One level of a graph, which tells what the widgets of its nodes hold."""
    return _Scope(scope, info)


class _Scope:
    """One level of a graph: its nodes and links, and what values these carry."""

    def __init__(self, graph, info):
        self.info = info
        self.nodes = {node["id"]: node for node in graph["nodes"]}
        self.links = dict(_link(one) for one in graph["links"])

    def decoders(self):
        """What makes pictures of what was sampled."""
        return [n for n in self.nodes.values() if n["type"] in DECODERS and n.get("mode", 0) not in BYPASSED]

    def picture(self, decoder):
        """The parts of a decoder's picture."""
        parts = self.parts(decoder)
        halves = [n for n in self.nodes.values() if n["type"] in SAMPLERS]
        whole = [self.parts(one) for one in halves]
        first = next((one for one in whole if _samplers(one) == 1), parts)
        return parts if _samplers(parts) == 1 else [*first, *self.decoding(decoder)]

    def parts(self, last):
        """(type, widgets, models) of a node and of everything that it is fed by."""
        found, waiting = {}, [last]
        while waiting:
            node = waiting.pop()
            if node["id"] in found or node["type"] == PICTURE:
                continue
            found[node["id"]] = node["type"], self.widgets(node), _models(node)
            waiting += [one for one in map(self.source, _sockets(node, self._own(node))) if one]
        return list(found.values())

    def decoding(self, node):
        """The same of what stands between a sampler and a picture."""
        if node is None or node["type"] in SAMPLERS:
            return []
        (latent,) = (one for one in node["inputs"] if one["type"] == "LATENT")
        return [(node["type"], self.widgets(node), _models(node)), *self.decoding(self.source(latent))]

    def widgets(self, node):
        """The values of its widgets by name, those that are linked as their sources give them."""
        return {name: self.value(node, name) for name in self._own(node) if name not in FREE}

    def value(self, node, name):
        """What a widget holds: what comes over its link, or what is saved where a person gives it from outside."""
        slot = next((one for one in node.get("inputs", []) if one["name"] == name), {})
        source = self.source(slot)
        if source is None:
            return self._own(node).get(name)
        return self.size(source)[name] if source["type"] == "GetImageSize" else self._made(source)

    def size(self, node):
        """Width and height of a picture that is only made to be measured; None where a person chooses one."""
        if node is None or node["type"] == PICTURE:
            return {"width": None, "height": None}
        if node["type"] == "EmptyImage":
            return {side: self.value(node, side) for side in ("width", "height")}
        (picture,) = (self.source(one) for one in node["inputs"] if one["name"] == "image")
        scale = self.value(node, "scale_by") if node["type"] == "ImageScaleBy" else 1
        return {name: side and round(scale * side) for name, side in self.size(picture).items()}

    def source(self, slot):
        """The node that an input's value comes from, past what is bypassed and the switches, or None."""
        origin = self.links.get(slot.get("link"), FROM_OUTSIDE)
        node = self.nodes.get(origin)
        if node and node.get("mode", 0) in BYPASSED:
            return self.source(next((one for one in node["inputs"] if one["type"] == slot["type"]), {}))
        if node is None or node["type"] != "ComfySwitchNode":
            return node
        chosen = "on_true" if self.value(node, "switch") else "on_false"
        return self.source(next(one for one in node["inputs"] if one["name"] == chosen))

    def _made(self, node):
        kind = node["type"]
        if kind == "PrimitiveNode":
            return node["widgets_values"][0]
        if kind == "JsonExtractString":
            return str(json.loads(self.value(node, "json_string"))[self.value(node, "key")])
        if kind == "StringReplace":
            return self.value(node, "string").replace(self.value(node, "find"), self.value(node, "replace"))
        if kind == "CustomCombo":
            return node["widgets_values"][0]
        if kind == "ComfyMathExpression":
            # Rounds what a person chooses outside; inside the subgraph there is no number to round.
            return None
        made = self.value(node, "value")
        return float(made) if kind == "ComfyNumberConvert" else made

    def _own(self, node):
        return widget_values(node, self.info[node["type"]]) if node["type"] in self.info else {}


def _samplers(parts):
    return sum(kind in SAMPLERS for kind, *_ in parts)


def _link(one):
    return (one["id"], one["origin_id"]) if isinstance(one, dict) else (one[0], one[1])


def _sockets(node, widgets):
    return [slot for slot in node.get("inputs", []) if slot["name"] not in widgets]


def _models(node):
    files = {(one["name"], one["url"], one["directory"]) for one in node.get("properties", {}).get("models", [])}
    return sorted(files)
