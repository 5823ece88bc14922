"""A graph as ComfyUI's page saves it, drawn node by node from what ComfyUI tells of its nodes."""

import math
import uuid

from ..convert import SEEDS, widgets_of
from ..recipe import ROOT

TITLE = 30
SLOT = 20
# Nodes 2.0 draws them higher than the classic canvas, and ours with a line for the pack and a button; there is room
# for either.
_WIDGET, _AROUND = 28, 14
_OUR_WIDGET, _BELOW_OURS = 31, 48
# What a text of several lines takes beside its name.
_LINES = 60
# Nodes that the page gives a button beside their widgets.
_WITH_BUTTON = {"MLT_LoadDataset"}
# What Nodes 2.0 puts below a loader whose file is missing, and above a node that may still change.
_NOTICE = 28
# Of core's nodes there is no version to tell; ours is that of the pack.
PACK, CORE, OURS = "masked-lora", "comfy-core", "MLT_"
_OPTIONAL, _LIST = 7, 6
# Not made for the page's own eyes: a graph opens the same for everybody who opens it.
_NAMESPACE = uuid.UUID("6a3f6d6e-6f0b-5b6c-9a55-6d61736b6564")


def identity(name):
    """An id that is the same wherever it is made."""
    return str(uuid.uuid5(_NAMESPACE, name))


def pack_version():
    """The version that pyproject.toml states."""
    lines = (ROOT / "pyproject.toml").read_text(encoding="utf-8").splitlines()
    return next(line.split('"')[1] for line in lines if line.startswith("version = "))


class Node:
    """A node that lies in a `Graph`."""

    def __init__(self, saved, *, sockets, outputs):
        self.saved = saved
        self.sockets = sockets
        self.outputs = outputs

    @property
    def left(self):
        """The x of its left edge."""
        return self.saved["pos"][0]

    @property
    def right(self):
        """The x of its right edge."""
        return self.left + self.saved["size"][0]

    @property
    def bottom(self):
        """The y of its lower edge."""
        return self.saved["pos"][1] + self.saved["size"][1]

    def output_at(self, name):
        """Where the socket of an output is drawn."""
        return self.right, self.saved["pos"][1] + SLOT * (self.outputs.index(name) + 0.5)

    def input_at(self, name):
        """Where the socket of an input is drawn."""
        return self.left, self.saved["pos"][1] + SLOT * (self.sockets.index(name) + 0.5)


class Graph:
    """Nodes, links and groups; `as_json` is the file.

    `info` is ComfyUI's `/object_info`.
    """

    def __init__(self, info, name):
        self.info = info
        self.name = name
        self.nodes, self.links, self.groups, self.reroutes = [], [], [], []
        self._parents = {}

    def add(self, kind, at, width, /, *, tall=None, title=None, models=(), colours=None, **values):
        """A node whose title bar begins at `at`, its widgets at their defaults but for `values`."""
        info = self.info.get(kind, {"input": {}, "output": [], "output_name": []})
        widgets = _Widgets(info, ours=kind.startswith(OURS))
        unknown = values.keys() - widgets.names if info["input"] else set()
        if unknown:
            raise KeyError(f"{kind} has no widget {', '.join(sorted(unknown))}")
        inputs = [*_sockets(info, widgets), *widgets.slots()]
        outputs = _outputs(info)
        least = _AROUND + SLOT * max(len(inputs) - len(widgets.names), len(outputs)) + widgets.height(values)
        least += _NOTICE if models or info.get("experimental") else 0
        saved = {
            "id": len(self.nodes) + 1,
            "type": kind,
            "pos": [at[0], at[1] + TITLE],
            "size": [width, max(least, tall or 0)],
            "flags": {},
            "order": len(self.nodes),
            "mode": 0,
            "inputs": inputs,
            "outputs": outputs,
            "properties": _properties(kind, models),
            "widgets_values": list(values.values()) if not info["input"] else widgets.values(values),
        }
        if title:
            saved["title"] = title
        if colours:
            saved["color"], saved["bgcolor"] = colours
        node = Node(saved, sockets=[one["name"] for one in inputs], outputs=[one["name"] for one in outputs])
        self.nodes.append(node)
        return node

    def link(self, source, output, target, name, *, via=()):
        """A link, drawn by way of the points `via`."""
        slot, end = source.outputs.index(output), target.sockets.index(name)
        number = len(self.links) + 1
        start = source.saved["outputs"][slot]
        self.links.append([number, source.saved["id"], slot, target.saved["id"], end, start["type"]])
        start.setdefault("links", []).append(number)
        target.saved["inputs"][end]["link"] = number
        parent = None
        for point in via:
            parent = self._reroute(list(point), parent, number)
        if parent:
            self._parents[number] = parent

    def _reroute(self, pos, parent, link):
        for known in self.reroutes:
            if known["pos"] == pos and known.get("parentId") == parent:
                known["linkIds"].append(link)
                return known["id"]
        above = {"parentId": parent} if parent else {}
        self.reroutes.append({"id": len(self.reroutes) + 1, **above, "pos": pos, "linkIds": [link]})
        return self.reroutes[-1]["id"]

    def make_room(self, x, width, *, rows=(-math.inf, math.inf), since=(0, 0)):
        """Moves what begins right of `x` and between the two `rows` to the right, for a further column of `width`.

        `since` is a `mark`: what was drawn before it stays.
        """
        nodes, reroutes = since
        places = [node.saved["pos"] for node in self.nodes[nodes:]] + [one["pos"] for one in self.reroutes[reroutes:]]
        for place in [*places, *(group["bounding"] for group in self.groups if since == (0, 0))]:
            if place[0] >= x and rows[0] <= place[1] < rows[1]:
                place[0] += width

    def mark(self):
        """How much is drawn by now, for `make_room`."""
        return len(self.nodes), len(self.reroutes)

    def group(self, title, box, colour):
        """A coloured frame with a title; `box` is left, top, width and height."""
        number = len(self.groups) + 1
        self.groups.append({"id": number, "title": title, "bounding": list(box), "color": colour, "flags": {}})

    def as_json(self, *, scale, offset):
        """The graph as the page saves it, seen at first at `scale` from `offset`."""
        extra = {"ds": {"scale": scale, "offset": list(offset)}}
        if self.reroutes:
            extra["linkExtensions"] = [{"id": link, "parentId": parent} for link, parent in self._parents.items()]
            extra["reroutes"] = self.reroutes
        return {
            "id": identity(self.name),
            "revision": 0,
            "last_node_id": len(self.nodes),
            "last_link_id": len(self.links),
            "nodes": [node.saved for node in self.nodes],
            "links": self.links,
            "groups": self.groups,
            "config": {},
            "extra": extra,
            "version": 0.4,
        }


class _Widgets:
    """The widgets of a node: their names, their values in saved order, and how much room they take."""

    def __init__(self, info, *, ours):
        self._all = list(widgets_of(info))
        self.names = [name for name, _ in self._all]
        self._info, self._ours = info, ours

    def slots(self):
        """Their inputs; the page gives every widget one."""
        return [{**_slot(self._info, name), "widget": {"name": name}} for name in self.names]

    def height(self, chosen):
        """Of those that are shown at first; the classic canvas hides the advanced ones of our nodes only."""
        if self._ours:
            shown = [options for name, options in self._all if self._is_shown(name, options, chosen)]
            lines = _LINES * sum(bool(options.get("multiline")) for options in shown)
            return _OUR_WIDGET * (len(shown) + (self._info["name"] in _WITH_BUTTON)) + _BELOW_OURS + lines
        return _WIDGET * sum(1 + self._companion(name, options) for name, options in self._all)

    def values(self, chosen):
        """In the order of the widgets, a button's beside its own."""
        values = []
        for name, options in self._all:
            values.append(chosen.get(name, _default(self._info, name, options)))
            if self._companion(name, options):
                values.append("fixed")
        return values

    @staticmethod
    def _is_shown(name, options, chosen):
        # An advanced one that its own value brings forward stands at its default unless it is chosen.
        forward = name in chosen and any(name in way for way in options.get("first_when", []))
        return forward or not options.get("advanced")

    @staticmethod
    def _companion(name, options):
        return bool(options.get("control_after_generate", name in SEEDS))


def _declared(info, name):
    inputs = info["input"]
    return (*{**inputs.get("required", {}), **inputs.get("optional", {})}[name], {})[:2]


def _default(info, name, options):
    if "default" in options:
        return options["default"]
    kind, _ = _declared(info, name)
    choices = kind if isinstance(kind, list) else options.get("options", [])
    # A choice among a person's files is never a default.
    return {"STRING": "", "INT": 0, "BOOLEAN": False}.get(str(kind), choices[0] if choices else "")


def _slot(info, name):
    kind, _ = _declared(info, name)
    shape = {"shape": _OPTIONAL} if name in info["input"].get("optional", {}) else {}
    return {"name": name, "type": "COMBO" if isinstance(kind, list) else kind, **shape, "link": None}


def _sockets(info, widgets):
    order = info.get("input_order", {})
    names = [*order.get("required", []), *order.get("optional", [])]
    return [_slot(info, name) for name in names if name not in widgets.names]


def _outputs(info):
    lists = info.get("output_is_list") or [False] * len(info["output"])
    return [
        {"name": name, "type": kind, **({"shape": _LIST} if many else {})}
        for name, kind, many in zip(info["output_name"], info["output"], lists, strict=True)
    ]


def _properties(kind, models):
    properties = {"Node name for S&R": kind}
    if kind.startswith(OURS):
        properties |= {"cnr_id": PACK, "ver": pack_version()}
    elif kind != "MarkdownNote":
        properties["cnr_id"] = CORE
    if models:
        properties["models"] = [one.as_json() for one in models]
    return properties
