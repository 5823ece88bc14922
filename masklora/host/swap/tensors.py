"""Tensors of modules as bytes in one piece of memory, quantised ones among them."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from comfy.quant_ops import QuantizedTensor
from torch import Tensor, nn

from ...autograd.places import Place

# Where each tensor begins; no dtype and no kernel asks for more.
_ALIGNMENT = 256


def places_in(modules: Iterable[nn.Module]) -> list[Place]:
    """Of all tensors with data in these modules, without those in modules inside of them; each place once."""
    stores = [store for module in modules for store in (module._parameters, module._buffers)]
    return [Place(store, name) for store in stores for name, t in store.items() if t is not None and not t.is_meta]


def stored_bytes(tensor: Tensor) -> int:
    """Bytes of its data; of a quantised one those of all that it is made of."""
    return sum(math.prod(part.shape) * _dtype(part).itemsize for part in parts_of(tensor))


def room_for(tensors: Iterable[Tensor]) -> int:
    """Bytes of the memory in which `laid_out` puts them."""
    return sum(_aligned(part) for tensor in tensors for part in parts_of(tensor))


def laid_out(tensors: Iterable[Tensor], memory: Tensor) -> list[Tensor]:
    """Tensors of the same kinds, shapes and strides whose data is in `memory` (n,) uint8, one behind the other.

    A plain one has the dtype that ComfyUI would give it on the device.
    """
    found, at = [], 0
    for tensor in tensors:
        parts = []
        for part in parts_of(tensor):
            size = math.prod(part.shape) * _dtype(part).itemsize
            flat = memory[at : at + size].view(_dtype(part))
            parts.append(torch.as_strided(flat, part.shape, _strides(part), flat.storage_offset()))
            at += _aligned(part)
        found.append(_like(tensor, parts))
    return found


def parts_of(tensor: Tensor) -> list[Tensor]:
    """The plain tensors that a tensor is made of."""
    if isinstance(tensor, QuantizedTensor):
        return [getattr(tensor, name) for name in tensor.__tensor_flatten__()[0]]
    return [tensor]


def _like(tensor: Tensor, parts: list[Tensor]) -> Tensor:
    is_parameter = isinstance(tensor, nn.Parameter)
    if not isinstance(tensor, QuantizedTensor):
        return nn.Parameter(parts[0], requires_grad=False) if is_parameter else parts[0]
    names, context = tensor.__tensor_flatten__()
    made = type(tensor).__tensor_unflatten__(dict(zip(names, parts, strict=True)), context, None, None)
    # Made a parameter in the usual way it would hold copies of its scales.
    made._is_param = is_parameter  # type: ignore[attr-defined]
    return made


def _dtype(part: Tensor) -> torch.dtype:
    # With dynamic VRAM a file's weights keep their dtype until they are on the device.
    return getattr(part, "_model_dtype", None) or part.dtype


def _strides(part: Tensor) -> tuple[int, ...]:
    return torch.empty_like(part, device="meta").stride()


def _aligned(part: Tensor) -> int:
    size = math.prod(part.shape) * _dtype(part).itemsize
    return -(-size // _ALIGNMENT) * _ALIGNMENT
