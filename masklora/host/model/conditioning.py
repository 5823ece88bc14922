"""What the networks are told beside the noise: per sample from ComfyUI, then joined for a batch."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...autograd.containers import take_apart
from ...errors import ConfigError
from ...findings import counted
from .encoders import TEXT_MASK

if TYPE_CHECKING:
    from ...dataset.geometry import Geometry

# ComfyUI's name of the texts' features.
TEXT = "c_crossattn"
# Conditions that a text encoder's features and its pooled ones become.
FROM_TEXT = (TEXT, "y")
# Conditions that have an entry for each token of the text, beside its features.
_BY_TOKEN = (TEXT_MASK, "attention_mask")


def size_conditioning(geometry: Geometry) -> dict[str, int]:
    """Original size, crop and target size of a training picture, by ComfyUI's names; most networks read none."""
    (width, height), (x, y, w, h) = geometry.source, geometry.crop
    if geometry.flip:
        # The crop of the mirrored picture, which is what the network is shown.
        x = geometry.resized[0] - x - w
    # A turned crop may begin beyond the picture, which no network was shown.
    x, y = max(0, x), max(0, y)
    return {
        "width": width,
        "height": height,
        "crop_w": x,
        "crop_h": y,
        "target_width": w,
        "target_height": h,
    }


def mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """`value` with each tensor in it, also in lists, tuples and dicts, replaced by `change` of it."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        return {key: mapped(part, change) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(mapped(part, change) for part in value)
    return value


def layers_behind(conds: dict[str, Any], parameters: Mapping[str, Tensor]) -> list[str]:
    """Paths of the layers of whose parameters, by name, something in `conds` is a function that can be derived."""
    learned = [t for t in take_apart(conds)[0] if t.requires_grad]
    if not learned:
        return []
    found = torch.autograd.grad([t.sum() for t in learned], list(parameters.values()), allow_unused=True)
    there = [name.rpartition(".")[0] for name, g in zip(parameters, found, strict=True) if g is not None]
    return list(dict.fromkeys(there))


def refuse_trained(conds: dict[str, Any], parameters: Mapping[str, Tensor], *, title: str) -> None:
    """Nothing if none of the adapters' parameters has a part in what is made of a text before the step.

    It would learn nothing there.

    Raises:
        ConfigError: One has; names its layers.
    """
    layers = layers_behind(conds, parameters)
    if not layers:
        return
    raise ConfigError(
        f"targets, include: ComfyUI puts texts through {counted(len(layers), '[layer|layers]')} of those chosen, "
        f"such as {layers[0]}, before the step, where {title} cannot learn. Exclude them, with "
        f"{re.escape(layers[0].split('.')[0])} in exclude."
    )


def rows_alike(conditioning: list[dict[str, Any]], *, unequal: bool) -> list[list[int]]:
    """Rows that can run together: of equal shapes, and of equal values where these are no tensors.

    Args:
        conditioning: One entry a sample.
        unequal: Whether texts of unequal length can run together.
    """
    by_shape: dict[Any, list[int]] = {}
    for i, conds in enumerate(conditioning):
        free = {name for name, _ in _by_token(conds)} if unequal else set()
        shapes = {k: _shape(v, free=k in free) for k, v in conds.items()}
        by_shape.setdefault(repr(sorted(shapes.items())), []).append(i)
    return list(by_shape.values())


def _by_token(conds: dict[str, Any]) -> list[tuple[str, Tensor]]:
    """What of one sample has an entry for each token of its text, (1, T, …); nothing where there is no text."""
    text = conds.get(TEXT)
    if not isinstance(text, Tensor) or text.ndim != 3 or not text.shape[1]:
        return []
    rest = [(name, conds[name]) for name in _BY_TOKEN if isinstance(conds.get(name), Tensor)]
    return [(TEXT, text), *((name, v) for name, v in rest if v.shape[1:2] == text.shape[1:2])]


def filled(conditioning: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], Tensor | None]:
    """Texts of unequal length, each filled up with zeros at its end to the longest one's.

    Args:
        conditioning: One entry a sample, which `rows_alike` has put together.

    Returns:
        The conditions, and (B, tokens) bool, False for what fills; None where all texts are of one length.
    """
    given = [_by_token(conds) for conds in conditioning]
    lengths = [parts[0][1].shape[1] if parts else 0 for parts in given]
    longest = max(lengths)
    if min(lengths) == longest:
        return conditioning, None
    device = given[0][0][1].device
    seen = torch.arange(longest, device=device) < torch.tensor(lengths, device=device)[:, None]
    whole = [{**conds, **_lengthened(parts, longest)} for conds, parts in zip(conditioning, given, strict=True)]
    return whole, seen


def _lengthened(parts: list[tuple[str, Tensor]], longest: int) -> dict[str, Tensor]:
    lacking = {name: v.new_zeros(len(v), longest - v.shape[1], *v.shape[2:]) for name, v in parts}
    return {name: torch.cat([v, lacking[name]], dim=1) for name, v in parts}


def _shape(value: Any, *, free: bool) -> Any:
    if isinstance(value, Tensor):
        return tuple(value.shape[2:] if free else value.shape)
    if isinstance(value, dict):
        return {key: _shape(part, free=False) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_shape(part, free=False) for part in value]
    return value


def joined(conditioning: list[dict[str, Any]]) -> dict[str, Any]:
    """The conditions of a batch from those of its samples, which `rows_alike` has put together."""
    return {name: _join([conds[name] for conds in conditioning]) for name in conditioning[0]}


def _join(values: list[Any]) -> Any:
    first = values[0]
    if isinstance(first, dict):
        return {key: _join([value[key] for value in values]) for key in first}
    if isinstance(first, (list, tuple)):
        return type(first)(_join(list(parts)) for parts in zip(*values, strict=True))
    if not isinstance(first, Tensor):
        return first
    lengths = {v.shape[1] for v in values if v.ndim == 3}
    if len(lengths) > 1:
        common = math.lcm(*lengths)
        values = [v.repeat(1, common // v.shape[1], 1) for v in values]
    return torch.cat(values)
