"""A graph in which a run's LoRA is used: a picture of the base model beside one with the LoRA, else alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..documents import fits
from ..errors import RunError
from ..folder.captions import asks_for
from .sample_pictures import SIDES, SampleSettings

TRAIN = "MLT_TrainLoRA"
# The training node's inputs behind which text encoder and VAE are looked for, in this order.
_BEHIND = ("samples", "cache")
_UNKNOWN = (
    "The loaders of this run's model cannot be told from its graph: {reason}. Load the model as you did for the "
    "training and put Load LoRA behind it, with {lora}."
)
# KSampler's own, where the run drew no pictures.
_KSAMPLER = {"steps": 20, "cfg": 8.0, "sampler": "euler", "scheduler": "normal"}

Link = list[Any]
Nodes = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Pictures:
    """What is drawn.

    Attributes:
        settings: samples.json of the run; empty where it drew no pictures.
        trigger: word that asks for the subject; may be empty.
        size: (width, height) in px where `settings` tell none.
    """

    settings: Mapping[str, Any]
    trigger: str
    size: tuple[int, int]

    def told(self, name: str, default: Any) -> Any:
        """A setting, `default` where it is missing or of another kind."""
        value = self.settings.get(name)
        return value if fits(value, type(default)) else default

    def prompt(self) -> str:
        """The first prompt that holds the trigger word; else the first one, behind that word."""
        prompts = [one for one in self.told("prompts", []) if isinstance(one, str)]
        holding = [one for one in prompts if not self.trigger or asks_for(one, self.trigger)]
        return holding[0] if holding else ", ".join(filter(None, (self.trigger, *prompts[:1])))


def side_by_side(kept: Mapping[str, Any], *, lora: str, pictures: Pictures) -> tuple[Nodes, dict[str, str]]:
    """The graph in API form, and what those of its nodes that a person looks at are there for: their role by id.

    Args:
        kept: `read_graph` of the run.
        lora: the LoRA's name in ComfyUI's list.
        pictures: what is drawn.

    Raises:
        RunError: the loaders of model, text encoder or VAE cannot be told.
    """
    prompt = _nodes(kept.get("prompt"))
    try:
        train = _training(prompt, kept.get("node"))
        links = {"model": _link(prompt[train], "model"), **_behind(prompt, train, ("clip", "vae"))}
        loaders = _upstream(prompt, links.values())
    except RunError as error:
        raise RunError(_UNKNOWN.format(reason=error, lora=lora)) from error
    graph = _Graph()
    graph.take(prompt, loaders)
    _draw(graph, {name: graph.moved(link) for name, link in links.items()}, lora, pictures)
    return graph.nodes, graph.roles


class _Graph:
    """Nodes with ids of their own, and their roles."""

    def __init__(self) -> None:
        self.nodes: Nodes = {}
        self.roles: dict[str, str] = {}
        self._ids: dict[str, str] = {}

    def add(self, kind: str, role: str = "", **inputs: Any) -> Link:
        """The link to a new node's first output."""
        name = str(len(self.nodes) + 1)
        self.nodes[name] = {"class_type": kind, "inputs": inputs}
        if role:
            self.roles[name] = role
        return [name, 0]

    def take(self, prompt: Nodes, names: list[str]) -> None:
        """Copy nodes of another graph, those that others need first."""
        for name in names:
            inputs = prompt[name]["inputs"].items()
            values = {key: self.moved(value) if _is_link(value) else value for key, value in inputs}
            self._ids[name] = self.add(prompt[name]["class_type"], **values)[0]

    def moved(self, link: Link) -> Link:
        """A link of the other graph in this one."""
        return [self._ids[link[0]], link[1]]


def _draw(graph: _Graph, links: dict[str, Link], lora: str, pictures: Pictures) -> None:
    usual = SampleSettings()
    role = "triggerPrompt" if pictures.trigger else "prompt"
    positive = graph.add("CLIPTextEncode", role, clip=links["clip"], text=pictures.prompt())
    negative = graph.add("CLIPTextEncode", "negative", clip=links["clip"], text=pictures.told("negative", ""))
    if (guidance := pictures.told("guidance", -1.0)) >= 0:
        positive = graph.add("FluxGuidance", conditioning=positive, guidance=guidance)
    width, height = (
        min(max(pictures.told(name, side), SIDES[0]), SIDES[1])
        for name, side in zip(("width", "height"), pictures.size, strict=True)
    )
    empty = graph.add("EmptyLatentImage", "size", width=width, height=height, batch_size=1)
    sampler = {
        "seed": pictures.told("seed", usual.seed),
        "steps": pictures.told("steps", _KSAMPLER["steps"]),
        "cfg": pictures.told("cfg", _KSAMPLER["cfg"]),
        "sampler_name": pictures.told("sampler", _KSAMPLER["sampler"]),
        "scheduler": pictures.told("scheduler", _KSAMPLER["scheduler"]),
        "denoise": 1.0,
    }
    with_lora = graph.add("LoraLoaderModelOnly", "lora", model=links["model"], lora_name=lora, strength_model=1.0)
    for model, drawing, shown in ((links["model"], "drawBase", "base"), (with_lora, "drawLora", "withLora")):
        latent = graph.add(
            "KSampler", drawing, model=model, positive=positive, negative=negative, latent_image=empty, **sampler
        )
        graph.add("PreviewImage", shown, images=graph.add("VAEDecode", samples=latent, vae=links["vae"]))


def _nodes(prompt: Any) -> Nodes:
    nodes = prompt.items() if isinstance(prompt, dict) else ()
    return {
        str(name): node
        for name, node in nodes
        if isinstance(node, dict) and isinstance(node.get("class_type"), str) and isinstance(node.get("inputs"), dict)
    }


def _training(prompt: Nodes, node: Any) -> str:
    if str(node) in prompt and prompt[str(node)]["class_type"] == TRAIN:
        return str(node)
    raise RunError("it holds no training node")


def _is_link(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and type(value[1]) is int


def _link(node: dict[str, Any], name: str) -> Link:
    value = node["inputs"].get(name)
    if not _is_link(value):
        raise RunError(f"nothing is connected to {name} of {node['class_type']}")
    return value


def _behind(prompt: Nodes, train: str, wanted: Iterable[str]) -> dict[str, Link]:
    """The links to those inputs of the nearest node behind the training that has them all."""
    starts = [prompt[train]["inputs"].get(name) for name in _BEHIND]
    waiting = [link[0] for link in starts if _is_link(link)]
    for name in waiting:
        inputs = prompt[name]["inputs"] if name in prompt else {}
        if all(_is_link(inputs.get(key)) for key in wanted):
            return {key: inputs[key] for key in wanted}
        waiting += [value[0] for value in inputs.values() if _is_link(value) and value[0] not in waiting]
    raise RunError(f"no node before the training takes {' and '.join(wanted)}")


def _upstream(prompt: Nodes, links: Iterable[Link]) -> list[str]:
    """The nodes that the links come from and all before them, those that others need first."""
    found: dict[str, None] = {}
    entered: set[str] = set()
    waiting = [(link[0], False) for link in links]
    while waiting:
        name, ready = waiting.pop()
        if ready:
            found[name] = None
        elif name in entered:
            if name not in found:
                raise RunError("its nodes lead in a circle")
        else:
            entered.add(name)
            waiting.append((name, True))
            waiting += [(link[0], False) for link in _links_into(prompt, name)]
    return list(found)


def _links_into(prompt: Nodes, name: str) -> list[Link]:
    if name not in prompt:
        raise RunError("a node that it names is missing")
    if prompt[name]["class_type"] == TRAIN:
        raise RunError("the model comes out of another training")
    return [value for value in prompt[name]["inputs"].values() if _is_link(value)]
