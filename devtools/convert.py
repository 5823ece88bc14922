"""Turns a workflow as the page saves it into the form that ComfyUI's HTTP API takes."""

from .console import DevError

WIDGET_TYPES = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "COMFY_DYNAMICCOMBO_V3"}
# Widgets that the page gives a menu for what follows a run, whatever their node says.
SEEDS = ("seed", "noise_seed")
ONLY_ON_THE_PAGE = {"Note", "MarkdownNote"}
MUTED, BYPASSED = 2, 4
_UPLOADS = ("image_upload", "video_upload", "audio_upload", "file_upload")


def to_api(workflow, object_info):
    """The graph in API form.

    Follows reroutes and bypassed nodes to where their values come from, and leaves out muted nodes and notes.
    """
    if (workflow.get("definitions") or {}).get("subgraphs"):
        raise DevError("This workflow holds subgraphs; open it in the page instead.")
    nodes = {node["id"]: node for node in workflow["nodes"]}
    links = {link[0]: (link[1], link[2]) for link in map(_as_list, workflow["links"])}
    graph = _Graph(nodes, links)
    prompt = {}
    for node in sorted(workflow["nodes"], key=lambda one: one.get("order", 0)):
        if graph.is_active(node):
            if node["type"] not in object_info:
                raise DevError(f"ComfyUI does not know the node {node['type']}.")
            prompt[str(node["id"])] = _api_node(node, graph, object_info[node["type"]])
    return prompt


def _as_list(link):
    if isinstance(link, dict):
        return [link["id"], link["origin_id"], link["origin_slot"]]
    return link


class _Graph:
    """Nodes by id, and for each link where it starts."""

    def __init__(self, nodes, links):
        self.nodes = nodes
        self.links = links

    def is_active(self, node):
        kept = node["type"] not in ONLY_ON_THE_PAGE and node["type"] not in ("Reroute", "PrimitiveNode")
        return kept and node.get("mode", 0) not in (MUTED, BYPASSED)

    def source(self, link):
        """[node id, slot] that a link's value really comes from, or None."""
        while link is not None and link in self.links:
            origin, slot = self.links[link]
            node = self.nodes[origin]
            if node.get("mode", 0) == MUTED or node["type"] == "PrimitiveNode":
                return None
            if node["type"] == "Reroute":
                link = node["inputs"][0].get("link")
            elif node.get("mode", 0) == BYPASSED:
                link = _passed_through(node, slot)
            else:
                return [str(origin), slot]
        return None


def _passed_through(node, slot):
    """The link that a bypassed node hands on at output `slot`: the input in its place, else of its type."""
    wanted = node["outputs"][slot]["type"]
    inputs = node.get("inputs", [])
    for candidate in [*inputs[slot : slot + 1], *inputs]:
        if candidate["type"] == wanted:
            return candidate.get("link")
    return None


def _api_node(node, graph, info):
    inputs = widget_values(node, info)
    for slot in node.get("inputs", []):
        source = graph.source(slot.get("link"))
        if source:
            inputs[slot["name"]] = source
    return {"class_type": node["type"], "inputs": inputs}


def widget_values(node, info):
    """Values by input name: the page saves them as a list in the order of the node's widgets.

    Widgets that the node has got since have their defaults, as on the page.
    """
    saved = node.get("widgets_values") or []
    if isinstance(saved, dict):
        return {name: saved[name] for name, _ in widgets_of(info) if name in saved}
    values, position = {}, 0
    for name, options in widgets_of(info):
        if position >= len(saved):
            if "default" in options:
                values[name] = options["default"]
            continue
        values[name] = saved[position]
        position += 1 + _has_companion(name, options, saved[position:])
    return values


def widgets_of(info):
    """(name, options) of each input that the page draws as a widget, in its order."""
    for group in ("required", "optional"):
        for name in info.get("input_order", {}).get(group, []):
            kind, options = (*info["input"][group][name], {})[:2]
            is_widget = isinstance(kind, list) or kind in WIDGET_TYPES or options.get("widgetType")
            if is_widget and not options.get("forceInput"):
                yield name, options


def _has_companion(name, options, rest):
    """Whether the next saved value belongs to a button or a menu that the page adds to this widget."""
    if options.get("control_after_generate") or name in SEEDS:
        return len(rest) > 1 and rest[1] in ("fixed", "increment", "decrement", "randomize")
    return any(options.get(key) for key in _UPLOADS) and len(rest) > 1
