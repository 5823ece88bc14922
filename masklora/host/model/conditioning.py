"""What the networks are told beside the noise: per sample from ComfyUI, then joined for a batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from ...dataset.geometry import Geometry

# ComfyUI's name of the texts' features.
TEXT = "c_crossattn"


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


def rows_alike(conditioning: list[dict[str, Any]], *, repeats: bool) -> list[list[int]]:
    """Rows that can run together: of equal shapes, and of equal values where these are no tensors.

    Args:
        conditioning: One entry a sample.
        repeats: Whether texts of unequal length may be repeated to a common one.
    """
    by_shape: dict[Any, list[int]] = {}
    for i, conds in enumerate(conditioning):
        shapes = {k: _shape(v, free=repeats and k == TEXT) for k, v in conds.items()}
        by_shape.setdefault(repr(sorted(shapes.items())), []).append(i)
    return list(by_shape.values())


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
