"""Temporary changes that let ComfyUI's own network be differentiated; each ends with its context."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import comfy.model_management
import comfy.ops
import torch
import torch.nn.functional as F
from comfy.quant_ops import QuantizedTensor
from torch import Tensor, nn

from ..archs import Blocks
from .blocks import read_slot


@contextlib.contextmanager
def training_kernels() -> Iterator[None]:
    """ComfyUI picks kernels that have a backward. The switch is global, so it is put back even on cancel."""
    before = comfy.model_management.in_training
    comfy.model_management.in_training = True
    try:
        yield
    finally:
        comfy.model_management.in_training = before


@contextlib.contextmanager
def autograd_parameters(model: nn.Module) -> Iterator[None]:
    """Parameters and buffers that autograd may save, over the same memory, while the context lasts.

    ComfyUI loads weights in inference mode; backward refuses such tensors. Nothing is copied, and the
    original objects are put back at the end.
    """
    swapped: list[tuple[dict[str, Any], str, Any]] = []
    try:
        for module in model.modules():
            for store in (module._parameters, module._buffers):
                for name, tensor in store.items():
                    if tensor is not None and tensor.is_inference() and not _is_quantised(tensor):
                        swapped.append((store, name, tensor))
                        store[name] = _same_memory(tensor)
        yield
    finally:
        for store, name, tensor in swapped:
            store[name] = tensor


def _same_memory(tensor: Tensor) -> Tensor:
    fresh = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    fresh.set_(tensor.untyped_storage(), tensor.storage_offset(), tensor.size(), tensor.stride())
    return nn.Parameter(fresh, requires_grad=False) if isinstance(tensor, nn.Parameter) else fresh


@contextlib.contextmanager
def hollow_tails(
    block: nn.Module, args: tuple, kwargs: dict[str, Any], *, kinds: Mapping[int, Blocks]
) -> Iterator[None]:
    """The last layers of `block` give gradients but no values while the context lasts.

    When a checkpointed block is repeated for backward, its result is known and nothing reads it: the last
    layer before each residual sum is a quarter to a half of the work, for nothing. Where that layer's result
    is scaled by a gate that is trained, the gate's gradient reads it, and all stays as it is.

    Args:
        block: A block of the network.
        args: The arguments that it is called with.
        kwargs: Those given by name.
        kinds: What the family says of each block, by its id: names the layers and the gates.
    """
    kind = kinds[id(block)]
    layers = [] if _gates_are_trained(block, args, kwargs, kind) else _tails(block, kind)
    kept = [(layer, layer.__dict__.get("forward")) for layer in layers]
    try:
        for layer in layers:
            layer.forward = _hollow_forward(layer)  # type: ignore[method-assign]
        yield
    finally:
        for layer, forward in kept:
            if forward is None:
                layer.__dict__.pop("forward", None)
            else:
                layer.forward = forward  # type: ignore[method-assign]


def _gates_are_trained(block: nn.Module, args: tuple, kwargs: dict[str, Any], kind: Blocks) -> bool:
    for name, module in block.named_modules():
        if name in kind.gate_layers and any(p.requires_grad for p in module.parameters()):
            return True
    gates = [read_slot(block, slot, args, kwargs) for slot in kind.gates]
    return any(gate is None or any(t.requires_grad for t in tensors_in(gate)) for gate in gates)


def tensors_in(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, (tuple, list)):
        return [t for part in value for t in tensors_in(part)]
    return [t for part in vars(value).values() for t in tensors_in(part)]


def _tails(block: nn.Module, kind: Blocks) -> list[nn.Module]:
    found = []
    modules = dict(block.named_modules())
    for path in kind.tails:
        layer = modules.get(path)
        # DoRA's magnitude has a gradient that reads the layer's result.
        if layer is not None and not getattr(layer, "lora_variant", None):
            layer = getattr(layer, "base_layer", layer)
            zeros = getattr(layer, "padding_mode", "zeros") == "zeros" and not isinstance(
                getattr(layer, "padding", None), str
            )
            if isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and zeros):
                found.append(layer)
    return found


def _hollow_forward(layer: Any) -> Callable[..., Tensor]:
    if isinstance(layer, nn.Conv2d):
        return lambda x: _HollowConv2d.apply(x, layer)
    return lambda x: _HollowLinear.apply(x.reshape(-1, x.shape[-1]), layer).reshape(*x.shape[:-1], layer.out_features)


@contextlib.contextmanager
def recast_layers(model: nn.Module, *, dtype: torch.dtype, device: torch.device) -> Iterator[None]:
    """Frozen layers whose weight is not resident in `dtype` on `device` cast it anew in backward.

    Autograd would otherwise keep every cast copy until backward: a second model in memory. Covers manual
    cast, float8 and other quantised weights, offloading and dynamic VRAM. Resident layers use plain ops.
    """
    bound: list[nn.Module] = []
    try:
        for module in model.modules():
            forward = _choose_forward(module, dtype=dtype, device=device)
            if forward is not None:
                module.forward = forward  # type: ignore[method-assign]
                bound.append(module)
        yield
    finally:
        for module in bound:
            module.__dict__.pop("forward", None)


def _choose_forward(module: nn.Module, *, dtype: torch.dtype, device: torch.device) -> Callable[..., Any] | None:
    if not isinstance(module, comfy.ops.CastWeightBiasOp):
        return None
    resident = _resident(module, dtype=dtype, device=device)
    if isinstance(module, nn.Linear):
        return _plain_linear(module) if resident else _recast_linear(module)
    if resident:
        return None
    if isinstance(module, nn.Conv2d) and module.padding_mode == "zeros" and not isinstance(module.padding, str):
        return lambda x: _RecastConv2d.apply(x, module)
    original = getattr(module, "forward_comfy_cast_weights", type(module).forward.__get__(module))

    def forward(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if not (torch.is_grad_enabled() and x.requires_grad):
            with torch.no_grad():
                return original(x, *args, **kwargs)
        return _RecastOther.apply(x, lambda t: original(t, *args, **kwargs))

    return forward


def _resident(module: nn.Module, *, dtype: torch.dtype, device: torch.device) -> bool:
    if hasattr(module, "_v") or len(module.weight_function) or len(module.bias_function):  # type: ignore[arg-type]
        return False
    tensors = [t for t in (module.weight, getattr(module, "bias", None)) if t is not None]
    return all(t.dtype == dtype and t.device == device and not _is_quantised(t) for t in tensors)


def _plain_linear(module: nn.Linear) -> Callable[..., Tensor]:
    return lambda x: F.linear(x, module.weight, module.bias)


def _recast_linear(module: nn.Linear) -> Callable[..., Tensor]:
    def forward(x: Tensor) -> Tensor:
        # Blocks write to the result in place, which autograd forbids on a view made inside a Function.
        return _RecastLinear.apply(x.reshape(-1, x.shape[-1]), module).reshape(*x.shape[:-1], module.out_features)

    return forward


def _is_quantised(tensor: Tensor) -> bool:
    return isinstance(tensor, QuantizedTensor) or isinstance(getattr(tensor, "data", None), QuantizedTensor)


@contextlib.contextmanager
def _cast(module: nn.Module, *, dtype: torch.dtype, device: torch.device) -> Iterator[tuple[Tensor, Tensor | None]]:
    weight, bias, stream = comfy.ops.cast_bias_weight(
        module, dtype=dtype, device=device, bias_dtype=dtype, offloadable=True
    )
    try:
        plain = weight.dequantize().to(dtype) if _is_quantised(weight) else weight
        yield plain, bias
    finally:
        comfy.ops.uncast_bias_weight(module, weight, bias, stream)


class _RecastLinear(torch.autograd.Function):
    """x·Wᵀ + b that keeps the module instead of the cast W; gives the gradient of x only."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, module: nn.Linear) -> Tensor:
        ctx.module, ctx.dtype, ctx.device = module, x.dtype, x.device
        with _cast(module, dtype=x.dtype, device=x.device) as (weight, bias):
            return F.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        with _cast(ctx.module, dtype=ctx.dtype, device=ctx.device) as (weight, _):
            return grad.matmul(weight), None


class _RecastConv2d(torch.autograd.Function):
    """A 2-D convolution, likewise."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, module: nn.Conv2d) -> Tensor:
        ctx.module, ctx.shape, ctx.dtype, ctx.device = module, x.shape, x.dtype, x.device
        with _cast(module, dtype=x.dtype, device=x.device) as (weight, bias):
            return F.conv2d(x, weight, bias, module.stride, module.padding, module.dilation, module.groups)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        m = ctx.module
        with _cast(m, dtype=ctx.dtype, device=ctx.device) as (weight, _):
            found = torch.nn.grad.conv2d_input(ctx.shape, weight, grad, m.stride, m.padding, m.dilation, m.groups)
        return found, None


class _HollowLinear(_RecastLinear):
    """The layer's gradient without its values: for a result that nothing reads."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, module: nn.Linear) -> Tensor:
        ctx.module, ctx.dtype, ctx.device = module, x.dtype, x.device
        return x.new_zeros(x.shape[0], module.out_features)


class _HollowConv2d(_RecastConv2d):
    """A 2-D convolution, likewise."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, module: nn.Conv2d) -> Tensor:
        ctx.module, ctx.shape, ctx.dtype, ctx.device = module, x.shape, x.dtype, x.device
        with torch.device("meta"):
            shape = F.conv2d(
                torch.empty(x.shape),
                torch.empty(module.weight.shape),
                None,
                module.stride,
                module.padding,
                module.dilation,
                module.groups,
            ).shape
        return x.new_zeros(shape)


class _RecastOther(torch.autograd.Function):
    """Any other layer: keeps its input and repeats the layer in backward, when the cast is short-lived."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.layer = layer
        ctx.save_for_backward(x)
        return layer(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        x = ctx.saved_tensors[0].detach().requires_grad_()
        with torch.enable_grad():
            out = ctx.layer(x)
        return torch.autograd.grad(out, x, grad)[0], None
