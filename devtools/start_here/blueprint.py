"""Groups 1 to 4 as one node: the blueprint that ComfyUI's node library offers of the pack."""

from .graph import CORE, Graph, identity
from .layout import GAP, HEAD, MARGIN, TITLE

NAME = "Masked LoRA from a folder"
TOLD = "Trains a LoRA on the masked part of each picture of a folder; gives it, its file and the model with it."
# The pictures' side that SDXL and most later models were made for; a widget of the node.
RESOLUTION = 1024
_OUTSIDE, _BEYOND = -10, -20
_COLUMNS = (60, 520, 1130)
_WIDE = 400, 550
_SOCKET = 20


def blueprint(info):
    """The blueprint as ComfyUI keeps it: a graph of one node, and what that node consists of."""
    graph = Graph(info, NAME)
    inner = _Inner(graph)
    loaded = graph.add("MLT_LoadDataset", (_COLUMNS[0], HEAD), _WIDE[0], folder="my-pictures")
    cache = graph.add("MLT_CacheDataset", (_COLUMNS[1], HEAD), _WIDE[1], resolution=RESOLUTION)
    look = graph.add(
        "MLT_InspectDataset", (_COLUMNS[1], cache.bottom + GAP + MARGIN), _WIDE[1], tall=562, resolution=RESOLUTION
    )
    train = graph.add("MLT_TrainLoRA", (_COLUMNS[2], HEAD), _WIDE[1], name="my-lora")
    graph.link(loaded, "dataset", cache, "dataset")
    graph.link(loaded, "dataset", look, "dataset")
    graph.link(cache, "cache", train, "cache")
    inner.take("model", "MODEL", (cache, "model"), (train, "model"))
    inner.take("clip", "CLIP", (cache, "clip"))
    inner.take("vae", "VAE", (cache, "vae"))
    inner.take("folder", "STRING", (loaded, "folder"))
    inner.take("resolution", "INT", (cache, "resolution"), (look, "resolution"))
    inner.take("name", "STRING", (train, "name"))
    for name in ("model_with_lora", "lora", "path"):
        inner.give(train, name)
    return inner.as_json()


class _Inner:
    """The inputs and outputs of the one node, and their links to what is inside it."""

    def __init__(self, graph):
        self.graph = graph
        self.inputs, self.outputs, self.widgets = [], [], []

    def take(self, name, kind, *targets):
        """An input that goes to the inputs of nodes inside; a widget where theirs is one."""
        slot, links = len(self.inputs), []
        for node, target in targets:
            end = node.sockets.index(target)
            links.append(self._link(_OUTSIDE, slot, node.saved["id"], end, kind))
            node.saved["inputs"][end]["link"] = links[-1]
        self.inputs.append({"id": identity(f"in {name}"), "name": name, "type": kind, "linkIds": links})
        node, target = targets[0]
        if "widget" in node.saved["inputs"][node.sockets.index(target)]:
            self.widgets.append(name)

    def give(self, node, name):
        """An output that comes from a node inside."""
        start = node.outputs.index(name)
        socket = node.saved["outputs"][start]
        number = self._link(node.saved["id"], start, _BEYOND, len(self.outputs), socket["type"])
        socket.setdefault("links", []).append(number)
        told = {"id": identity(f"out {name}"), "name": name, "type": socket["type"], "linkIds": [number]}
        self.outputs.append(told)

    def _link(self, *ends):
        self.graph.links.append([len(self.graph.links) + 1, *ends])
        return len(self.graph.links)

    def as_json(self):
        """The whole file."""
        graph = self.graph
        names = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
        state = {"lastGroupId": 0, "lastNodeId": len(graph.nodes), "lastLinkId": len(graph.links), "lastRerouteId": 0}
        inside = {
            "id": identity(NAME),
            "version": 1,
            "state": state,
            "revision": 0,
            "config": {},
            "name": NAME,
            "inputNode": {"id": _OUTSIDE, "bounding": [-160, HEAD, 120, _SOCKET * (len(self.inputs) + 2)]},
            "outputNode": {"id": _BEYOND, "bounding": [1760, HEAD, 140, _SOCKET * (len(self.outputs) + 2)]},
            "inputs": _placed(self.inputs, -60),
            "outputs": _placed(self.outputs, 1780),
            "widgets": [],
            "nodes": [node.saved for node in graph.nodes],
            "groups": [],
            "links": [dict(zip(names, link, strict=True)) for link in graph.links],
            "extra": {},
            "category": "masked lora",
            "description": TOLD,
        }
        node = {
            "id": len(graph.nodes) + 1,
            "type": inside["id"],
            "pos": [0, TITLE],
            "size": [340, 190],
            "flags": {},
            "order": 0,
            "mode": 0,
            "inputs": [self._outer(one) for one in self.inputs],
            "outputs": [{"name": one["name"], "type": one["type"], "links": []} for one in self.outputs],
            "title": NAME,
            "properties": {"cnr_id": CORE},
            "widgets_values": [],
        }
        return {
            "id": identity(f"file of {NAME}"),
            "revision": 0,
            "last_node_id": node["id"],
            "last_link_id": 0,
            "nodes": [node],
            "links": [],
            "groups": [],
            "definitions": {"subgraphs": [inside]},
            "config": {},
            "extra": {},
            "version": 0.4,
        }

    def _outer(self, one):
        widget = {"widget": {"name": one["name"]}} if one["name"] in self.widgets else {}
        return {"name": one["name"], "type": one["type"], **widget, "link": None}


def _placed(sockets, x):
    return [{**one, "pos": [x, HEAD + _SOCKET * (row + 1)]} for row, one in enumerate(sockets)]
