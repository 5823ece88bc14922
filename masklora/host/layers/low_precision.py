"""Layers that ComfyUI multiplies in the 8 bits that their weights are stored in: in training too, both ways.

Forward is what ComfyUI's own layer computes: it rounds x and multiplies the rounded. For the gradient of x the gradient
of the result is rounded, each row by a scale of its own, since masks leave rows that are far smaller than others.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Iterator
from typing import Any

import comfy.model_management
import comfy.ops
import torch
import torch.nn.functional as F
from comfy.quant_ops import QuantizedTensor, TensorCoreFP8Layout, TensorWiseINT8Layout
from torch import Tensor, nn

from ...adapters.layers import is_linear
from ...autograd.forwards import has_foreign_forward
from ...autograd.frozen import FrozenLinear, frozen_linear

# Kernels for 8 bits read so many numbers of a row at a time.
_GROUP = 16
# ComfyUI's name of float8 e4m3 with one scale.
_FLOAT8 = "TensorCoreFP8Layout"


class _LowPrecisionLinear(FrozenLinear):
    """x·Wᵀ + b in 8 bits; as `exact` has it where ComfyUI brings W with a patch on it, which leaves it in more."""

    def __init__(self, module: Any, exact: FrozenLinear) -> None:
        super().__init__(module.out_features)
        self.module, self.exact = module, exact

    def product(self, x: Tensor) -> Tensor:
        with _brought(self.module, like=x) as (weight, bias):
            if weight is not None:
                return F.linear(self._rounded(x), weight, bias)
        return self.exact.product(x)

    def gradient(self, grad: Tensor, added: Tensor | None = None) -> Tensor:
        with _brought(self.module, like=grad) as (weight, _):
            if weight is not None:
                found = self._back(grad, weight)
                return found if added is None else found.add_(added)
        return self.exact.gradient(grad, added)

    def _rounded(self, x: Tensor) -> Tensor:
        """What ComfyUI multiplies by the weight."""
        raise NotImplementedError

    def _back(self, grad: Tensor, weight: QuantizedTensor) -> Tensor:
        """grad·W, (n, out) to (n, in)."""
        raise NotImplementedError


class _Float8Linear(_LowPrecisionLinear):
    """In float8 e4m3."""

    def _rounded(self, x: Tensor) -> Tensor:
        scale = getattr(self.module, "input_scale", None)
        if scale is not None:
            scale = comfy.model_management.cast_to_device(scale, x.device, None)
        return QuantizedTensor.from_float(x, _FLOAT8, scale=scale)

    def _back(self, grad: Tensor, weight: QuantizedTensor) -> Tensor:
        most, least = torch.finfo(torch.float8_e4m3fn).max, torch.finfo(grad.dtype).tiny
        rows = (grad.abs().amax(1, keepdim=True) / most).clamp_(min=least)
        rounded = QuantizedTensor.from_float(grad / rows, weight._layout_cls)
        return F.linear(rounded, _turned(weight)).mul_(rows)


class _Int8Linear(_LowPrecisionLinear):
    """In int8; ComfyUI's kernel rounds rows itself, and rotates them where the weight is rotated."""

    def _rounded(self, x: Tensor) -> Tensor:
        return x

    def _back(self, grad: Tensor, weight: QuantizedTensor) -> Tensor:
        params = weight.params
        scale = params.scale
        if scale.numel() > 1:
            # One for each feature of the result: no scale of the product any more.
            grad, scale = grad * scale.reshape(1, -1).to(grad.dtype), torch.ones_like(scale.reshape(-1)[0])
        found = F.linear(grad, _turned(weight, scale=scale, convrot=False))
        return _rotated_back(found, weight) if params.convrot else found


_KINDS = {TensorCoreFP8Layout: _Float8Linear, TensorWiseINT8Layout: _Int8Linear}


def low_precision_linear(module: nn.Module, exact: FrozenLinear) -> FrozenLinear | None:
    """The layer in the low precision in which ComfyUI multiplies it here; None where it does not, or has no kernel.

    Args:
        module: A layer of ComfyUI's.
        exact: What it computes without rounding.
    """
    kind = _kind(module)
    return kind(module, exact) if kind else None


def is_in_low_precision(module: nn.Module) -> bool:
    """Whether the forward that the layer has now multiplies in low precision."""
    return isinstance(frozen_linear(module), _LowPrecisionLinear)


def quantised_formats(network: nn.Module) -> tuple[Counter[str], Counter[str]]:
    """How many layers of a network would be multiplied in low precision, and how many others are stored in it.

    By ComfyUI's name of their format.
    """
    low: Counter[str] = Counter()
    others: Counter[str] = Counter()
    for module in network.modules():
        if is_linear(module) and (stored := _format(module)):
            (low if _kind(module) else others)[stored] += 1
    return low, others


def _format(module: Any) -> str:
    weight = module.weight
    if isinstance(weight, QuantizedTensor):
        return str(getattr(module, "quant_format", weight._layout_cls))
    return str(weight.dtype).removeprefix("torch.") if weight is not None and weight.dtype.itemsize == 1 else ""


def _kind(module: Any) -> type[_LowPrecisionLinear] | None:
    weight = getattr(module, "weight", None)
    if weight is None or not is_linear(module) or any(side % _GROUP for side in weight.shape):
        return None
    if has_foreign_forward(module) or len(module.weight_function) or len(module.bias_function):
        return None
    if not isinstance(weight, QuantizedTensor):
        # What ComfyUI makes of layers without scales where it is asked for fast fp8.
        fast = isinstance(module, comfy.ops.fp8_ops.Linear) and weight.dtype == torch.float8_e4m3fn
        return _Float8Linear if fast else None
    # ComfyUI's own conditions; it forbids a layer to multiply in a format for which the device has no kernel.
    if getattr(module, "_full_precision_mm", True) or getattr(module, "comfy_force_cast_weights", False):
        return None
    smoothed = getattr(module, "pre_quant_scale", None) is not None
    return None if smoothed else _KINDS.get(weight.layout_cls)


@contextlib.contextmanager
def _brought(module: Any, *, like: Tensor) -> Iterator[tuple[QuantizedTensor | None, Tensor | None]]:
    """The quantised weight, None where what ComfyUI brings is not that, and the bias; where and as what `like` is."""
    weight, bias, stream = comfy.ops.cast_bias_weight(
        module,
        # Of the weight: for another one ComfyUI would bring the numbers that it stands for.
        dtype=module.weight.dtype,
        device=like.device,
        bias_dtype=like.dtype,
        offloadable=True,
        compute_dtype=like.dtype,
        want_requant=True,
    )
    try:
        yield _quantised(weight, like.dtype), bias
    finally:
        comfy.ops.uncast_bias_weight(module, weight, bias, stream)


def _quantised(weight: Tensor, dtype: torch.dtype) -> QuantizedTensor | None:
    if isinstance(weight, QuantizedTensor):
        return weight.to(dtype=dtype)
    if weight.dtype != torch.float8_e4m3fn:
        return None
    one = torch.ones((), device=weight.device)
    params = TensorCoreFP8Layout.Params(scale=one, orig_dtype=dtype, orig_shape=tuple(weight.shape))
    return QuantizedTensor(weight, _FLOAT8, params)


def _turned(weight: QuantizedTensor, **changes: Any) -> QuantizedTensor:
    """Wᵀ (in, out) laid out for the kernels, which read rows; `changes` are to its layout's parameters."""
    params = dataclasses.replace(weight.params, orig_shape=tuple(reversed(weight.shape)), **changes)
    return QuantizedTensor(weight._qdata.t().contiguous(), weight._layout_cls, params)


def _rotated_back(rows: Tensor, weight: QuantizedTensor) -> Tensor:
    """Rows in the basis in which a rotated weight is stored, (n, in), in that of x."""
    size = weight.params.convrot_groupsize
    unit = torch.eye(size, dtype=torch.int8, device=rows.device)
    params = dataclasses.replace(
        weight.params, scale=torch.ones(size, 1, device=rows.device), orig_shape=(size, size), orig_dtype=rows.dtype
    )
    # What a file means by a unit matrix is the rotation itself.
    rotation = weight.layout_cls.dequantize(unit, params)
    return rows.view(len(rows), -1, size).matmul(rotation).view(rows.shape)
