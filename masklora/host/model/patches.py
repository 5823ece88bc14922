"""Temporary changes that let ComfyUI's own network be differentiated; each ends with its context."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import comfy.model_management
import comfy.ops
import torch
import torch.nn.functional as F
from comfy.ldm.modules import attention
from comfy.quant_ops import QuantizedTensor
from torch import Tensor, nn

from ...autograd.containers import take_apart
from ...autograd.forwards import Forward, has_foreign_forward, is_altered, replaced_forwards
from ...autograd.recompute import checkpointed, trained_parameters
from ..families import Blocks
from .blocks import read_slot


@contextlib.contextmanager
def training_kernels() -> Iterator[None]:
    """ComfyUI picks kernels that have a backward, and where it asks for ones that have none, plain ones run.

    All are switches of the whole process, so they are put back even on cancel.
    """
    before = comfy.model_management.in_training
    comfy.model_management.in_training = True
    try:
        with _exchanged(_plain_rotary() | _plain_attention()):
            yield
    finally:
        comfy.model_management.in_training = before


def _plain_rotary() -> dict[Any, Any]:
    """The rotary functions of ComfyUI's kernels, and the plain version of each."""
    try:
        import comfy_kitchen
        from comfy_kitchen.backends.eager import rope
    except ImportError:
        return {}
    named = {name: f for name, f in vars(comfy_kitchen).items() if "rope" in name and callable(f)}
    return {f: getattr(rope, name) for name, f in named.items() if callable(getattr(rope, name, None))}


def _plain_attention() -> dict[Any, Any]:
    """What ComfyUI chose for attention, and torch's: networks that pass no options on cannot be told otherwise."""
    chosen = attention.optimized_attention, attention.optimized_attention_masked
    return dict.fromkeys(chosen, attention.attention_pytorch)


@contextlib.contextmanager
def _exchanged(functions: dict[Any, Any]) -> Iterator[None]:
    """Wherever ComfyUI names one of these functions, it finds the other while the context lasts."""
    users = [m for name, m in list(sys.modules.items()) if m and (name.startswith("comfy.") or name == "comfy_kitchen")]
    others = {id(f): other for f, other in functions.items() if f is not other}
    replaced: list[tuple[dict[str, Any], str, Any]] = []
    try:
        for space in map(vars, users):
            for name, function in [(n, f) for n, f in space.items() if id(f) in others]:
                replaced.append((space, name, function))
                space[name] = others[id(function)]
        yield
    finally:
        for space, name, function in reversed(replaced):
            space[name] = function


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
def hollow_tails(block: nn.Module, arguments: dict[str, Any], *, kinds: Mapping[int, Blocks]) -> Iterator[None]:
    """The last layers of `block` give gradients but no values while the context lasts.

    When a checkpointed block is repeated for backward, its result is known and nothing reads it: the last
    layer before each residual sum is a quarter to a half of the work, for nothing. Where that layer's result
    is scaled by a gate that is trained, the gate's gradient reads it, and all stays as it is.

    So it does where anybody else has put a forward, a hook or a patch into the block, which may read it.

    Args:
        block: A block of the network.
        arguments: What it is called with, by name.
        kinds: What the family says of each block, by its id: names the layers and the gates.
    """
    kind = kinds[id(block)]
    read = _others_read(block, arguments) or _gates_are_trained(block, arguments, kind)
    with replaced_forwards([] if read else _tails(block, kind), lambda layer, _: _hollow_forward(layer)):
        yield


def _others_read(block: nn.Module, arguments: dict[str, Any]) -> bool:
    options = arguments.get("transformer_options") or {}
    if any(options.get(patches) for patches in ("patches", "patches_replace")):
        return True
    return any(is_altered(module) for module in block.modules())


def _gates_are_trained(block: nn.Module, arguments: dict[str, Any], kind: Blocks) -> bool:
    for name, module in block.named_modules():
        if name in kind.gate_layers and any(p.requires_grad for p in module.parameters()):
            return True
    return any(_is_trained(read_slot(block, slot, (), arguments)) for slot in kind.gates)


def _is_trained(gate: Any) -> bool:
    """Whether a gate's gradient is asked for; also where there is nothing that could tell."""
    tensors, _ = take_apart(gate)
    return not tensors or any(tensor.requires_grad for tensor in tensors)


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

    def make(module: nn.Module, inner: Forward) -> Forward | None:
        if not isinstance(module, comfy.ops.CastWeightBiasOp):
            return None
        resident = _resident(module, dtype=dtype, device=device)
        if has_foreign_forward(module):
            return None if resident else _repeated(inner, reads=model)
        return _choose_forward(module, inner, resident=resident)

    with contextlib.ExitStack() as stack:
        for module in model.modules():
            if _is_cast_by_others(module, dtype=dtype, device=device):
                stack.enter_context(_casting(module))
        stack.enter_context(replaced_forwards(model.modules(), make))
        yield


def _choose_forward(module: nn.Module, inner: Forward, *, resident: bool) -> Forward | None:
    if isinstance(module, nn.Linear):
        return _plain_linear(module) if resident else _recast_linear(module)
    if resident:
        return None
    if isinstance(module, nn.Conv2d) and module.padding_mode == "zeros" and not isinstance(module.padding, str):
        return lambda x: _RecastConv2d.apply(x, module)
    return _repeated(getattr(module, "forward_comfy_cast_weights", inner))


def _repeated(layer: Forward, *, reads: nn.Module | None = None) -> Forward:
    """Any other layer: keeps its inputs and is repeated in backward, when the cast is short-lived.

    That of another pack may run any layer that it `reads`.
    """

    def forward(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return layer(*args, **kwargs)
        parameters = trained_parameters(*([reads] if reads else []))
        return checkpointed(layer, args, kwargs, parameters=parameters, mutates=False)

    return forward


def _is_cast_by_others(module: nn.Module, *, dtype: torch.dtype, device: torch.device) -> bool:
    if not isinstance(module, comfy.ops.CastWeightBiasOp) or not has_foreign_forward(module):
        return False
    return not _resident(module, dtype=dtype, device=device)


@contextlib.contextmanager
def _casting(module: Any) -> Iterator[None]:
    """The class's own forward casts the weights, which others will call without knowing that it has to."""
    before = module.__dict__.get("comfy_cast_weights")
    module.comfy_cast_weights = True
    try:
        yield
    finally:
        if before is None:
            del module.comfy_cast_weights
        else:
            module.comfy_cast_weights = before


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
