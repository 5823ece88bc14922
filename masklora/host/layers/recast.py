"""What ComfyUI's layers compute while their weights are not trained, and how a weight is brought for it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import comfy.model_management
import comfy.ops
import torch
import torch.nn.functional as F
from comfy.quant_ops import QuantizedTensor
from torch import Tensor, nn

from ...autograd.frozen import FrozenLinear, frozen_linear
from .low_precision import low_precision_linear


def is_resident(module: nn.Module, *, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether the layer's tensors lie on `device` in `dtype`, with nothing to be done to them before they are used."""
    if hasattr(module, "_v") or len(module.weight_function) or len(module.bias_function):  # type: ignore[arg-type]
        return False
    tensors = [t for t in (module.weight, getattr(module, "bias", None)) if t is not None]
    return all(t.dtype == dtype and t.device == device and not is_quantised(t) for t in tensors)


def smoothing_of(module: nn.Module) -> Tensor | None:
    """What the input is scaled by, feature by feature, before the quantised weight (in, ); files of AWQ have it."""
    return getattr(module, "pre_quant_scale", None)


def _smooth(x: Tensor, scale: Tensor | None) -> Tensor:
    return x if scale is None else x * comfy.model_management.cast_to_device(scale, x.device, x.dtype)


def is_quantised(tensor: Tensor) -> bool:
    """Whether it is ComfyUI's stand-in for numbers that are stored in another way, or a parameter of one."""
    return isinstance(tensor, QuantizedTensor) or isinstance(getattr(tensor, "data", None), QuantizedTensor)


@contextlib.contextmanager
def cast(
    module: nn.Module, *, dtype: torch.dtype, device: torch.device, lasting: bool = False
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """The weight and bias of a layer; with `lasting` they are no part of what ComfyUI casts its next layer into."""
    weight, bias, stream = comfy.ops.cast_bias_weight(
        module, dtype=dtype, device=device, bias_dtype=dtype, offloadable=True
    )
    try:
        plain = weight.dequantize().to(dtype) if is_quantised(weight) else weight
        if lasting and _is_streamed(stream):
            plain, bias = plain.clone(), bias if bias is None else bias.clone()
        yield plain, bias
    finally:
        comfy.ops.uncast_bias_weight(module, weight, bias, stream)


def _is_streamed(stream: Any) -> bool:
    """Whether ComfyUI has brought a weight for this use only, by the last of what `cast_bias_weight` gives."""
    if stream is None:
        return False
    copying, held = stream[0], stream[1]
    # Where dynamic VRAM keeps a weight after this use, it gives the device that it is on.
    return copying is not None and (held is None or isinstance(held, Tensor))


class _ResidentLinear(FrozenLinear):
    """A layer whose weight lies on the device as the computation has it."""

    def __init__(self, module: Any) -> None:
        super().__init__(module.out_features)
        self.module = module

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, self.module.weight, self.module.bias)

    def product(self, x: Tensor) -> Tensor:
        return F.linear(x, self.module.weight, self.module.bias)

    def gradient(self, grad: Tensor, added: Tensor | None = None) -> Tensor:
        return _plus(added, grad, self.module.weight)


class _RecastLinear(FrozenLinear):
    """x·s·Wᵀ + b that keeps the module instead of the cast W.

    W is what ComfyUI's quantised weight stands for, in the dtype of x and in the basis of x: where ComfyUI itself would
    round x too, or rotate it to multiply by a rotated W, the product here is the one that these approach.
    """

    def __init__(self, module: Any, *, smoothing: Tensor | None) -> None:
        super().__init__(module.out_features)
        self.module, self.smoothing = module, smoothing

    def __call__(self, x: Tensor) -> Tensor:
        given = vars(self.module).get("given")
        if given is None:
            return super().__call__(x)
        weight, bias, smoothing = given
        return F.linear(_smooth(x, smoothing), weight, bias)

    def product(self, x: Tensor) -> Tensor:
        with cast(self.module, dtype=x.dtype, device=x.device) as (weight, bias):
            return F.linear(_smooth(x, self.smoothing), weight, bias)

    def gradient(self, grad: Tensor, added: Tensor | None = None) -> Tensor:
        with cast(self.module, dtype=grad.dtype, device=grad.device) as (weight, _):
            if self.smoothing is None:
                return _plus(added, grad, weight)
            found = _smooth(grad.mm(weight), self.smoothing)
        return found if added is None else found.add_(added)


def _plus(added: Tensor | None, a: Tensor, b: Tensor) -> Tensor:
    return a.mm(b) if added is None else torch.addmm(added, a, b)


class _HollowLinear(FrozenLinear):
    """Another's gradient without its values."""

    hollow = True

    def __init__(self, whole: FrozenLinear) -> None:
        super().__init__(whole.features)
        self.whole = whole

    def product(self, x: Tensor) -> Tensor:
        return x.new_zeros(x.shape[0], self.features)

    def gradient(self, grad: Tensor, added: Tensor | None = None) -> Tensor:
        return self.whole.gradient(grad, added)


class _RecastConv2d(torch.autograd.Function):
    """A 2-D convolution, likewise."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, module: nn.Conv2d) -> Tensor:
        ctx.module, ctx.shape, ctx.dtype, ctx.device = module, x.shape, x.dtype, x.device
        with cast(module, dtype=x.dtype, device=x.device) as (weight, bias):
            return F.conv2d(x, weight, bias, module.stride, module.padding, module.dilation, module.groups)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        m = ctx.module
        with cast(m, dtype=ctx.dtype, device=ctx.device) as (weight, _):
            found = torch.nn.grad.conv2d_input(ctx.shape, weight, grad, m.stride, m.padding, m.dilation, m.groups)
        return found, None


class _HollowConv2d(_RecastConv2d):
    """Its gradient without its values."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, module: nn.Conv2d) -> Tensor:
        ctx.module, ctx.shape, ctx.dtype, ctx.device = module, x.shape, x.dtype, x.device
        rows, columns = (
            (side + 2 * padding - dilation * (size - 1) - 1) // stride + 1
            for side, padding, dilation, size, stride in zip(
                x.shape[2:], module.padding, module.dilation, module.kernel_size, module.stride, strict=True
            )
        )
        return x.new_zeros(x.shape[0], module.out_channels, rows, columns)


def linear(module: nn.Module, *, resident: bool, quantised: bool) -> FrozenLinear:
    """The forward of a linear layer; `quantised`: in low precision where ComfyUI itself multiplies it so."""
    if resident:
        return _ResidentLinear(module)
    exact = _RecastLinear(module, smoothing=smoothing_of(module))
    return (low_precision_linear(module, exact) if quantised else None) or exact


def unsmoothed_linear(module: nn.Module) -> FrozenLinear:
    """That of one whose input somebody else has scaled."""
    return _RecastLinear(module, smoothing=None)


def hollow(layer: Any) -> Callable[..., Tensor]:
    """The forward of a layer that gives gradients but no values."""
    if isinstance(layer, nn.Conv2d):
        return lambda x: _HollowConv2d.apply(x, layer)
    return _HollowLinear(frozen_linear(layer) or _RecastLinear(layer, smoothing=smoothing_of(layer)))


def convolution(module: Any) -> Callable[..., Tensor]:
    """That of a 2-D convolution that keeps the module instead of its cast weight."""

    def forward(x: Tensor) -> Tensor:
        given = vars(module).get("given")
        if given is None:
            return _RecastConv2d.apply(x, module)
        weight, bias, _ = given
        return F.conv2d(x, weight, bias, module.stride, module.padding, module.dilation, module.groups)

    return forward
