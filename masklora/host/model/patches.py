"""Temporary changes that let ComfyUI's own network be differentiated; each ends with its context."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import comfy.model_management
import comfy.ops
import torch
from comfy.ldm.modules import attention
from torch import Tensor, nn

from ...adapters.layers import is_linear
from ...autograd.containers import take_apart
from ...autograd.forwards import Forward, has_foreign_forward, is_altered, replaced_forwards
from ...autograd.places import Place, exchanged
from ...autograd.recompute import (
    Keeping,
    Recalling,
    checkpoint_blocks,
    checkpointed,
    nothing_to_recall,
    recalled,
    trained_parameters,
)
from ...autograd.traced import is_tracing
from ..families import Blocks
from ..layers.low_precision import is_in_low_precision
from ..layers.recast import (
    cast,
    convolution,
    hollow,
    is_quantised,
    is_resident,
    linear,
    smoothing_of,
    unsmoothed_linear,
)
from .blocks import read_slot
from .token_attention import CROSS_MASK, KEY_MASK


@contextlib.contextmanager
def training_kernels() -> Iterator[None]:
    """ComfyUI picks kernels that have a backward, and where it asks for ones that have none, plain ones run.

    All are switches of the whole process, so they are put back even on cancel.
    """
    before = comfy.model_management.in_training
    comfy.model_management.in_training = True
    try:
        with exchanged(_named(_plain_rotary() | _plain_attention())):
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


@contextlib.contextmanager
def adapted_layers_asked() -> Iterator[None]:
    """Outside of training too, ComfyUI lets a layer that carries an adapter multiply, not itself by its weight.

    Where the weight is int8 it would fold the activation before such a layer into the product, past any adapter.
    """
    folded = getattr(comfy.ops, "linear_input_act", None)

    def asked(linear: Any, x: Tensor, activation: str) -> Tensor:
        if not hasattr(linear, "base_layer"):
            return folded(linear, x, activation)
        return linear(comfy.ops.INPUT_ACT_EAGER[activation](x))

    with exchanged(_named({folded: asked} if folded else {})):
        yield


def _plain_attention() -> dict[Any, Any]:
    """What ComfyUI chose for attention, and torch's: networks that pass no options on cannot be told otherwise."""
    chosen = attention.optimized_attention, attention.optimized_attention_masked
    return dict.fromkeys(chosen, attention.attention_pytorch)


def _named(functions: dict[Any, Any]) -> Iterator[tuple[Place, Any]]:
    """Wherever ComfyUI names one of these functions, and the other that is to be found there."""
    users = [m for name, m in list(sys.modules.items()) if m and (name.startswith("comfy.") or name == "comfy_kitchen")]
    others = {id(f): other for f, other in functions.items() if f is not other}
    for space in map(vars, users):
        for name, function in [(n, f) for n, f in space.items() if id(f) in others]:
            yield Place(space, name), others[id(function)]


@contextlib.contextmanager
def autograd_parameters(model: nn.Module) -> Iterator[None]:
    """Parameters and buffers that autograd may save, over the same memory, while the context lasts.

    ComfyUI loads weights in inference mode; backward refuses such tensors. Nothing is copied, and the
    original objects are put back at the end.
    """
    stores = [store for module in model.modules() for store in (module._parameters, module._buffers)]
    with exchanged(
        (Place(store, name), _same_memory(tensor))
        for store in stores
        for name, tensor in store.items()
        if tensor is not None and tensor.is_inference() and not is_quantised(tensor)
    ):
        yield


def _same_memory(tensor: Tensor) -> Tensor:
    fresh = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    fresh.set_(tensor.untyped_storage(), tensor.storage_offset(), tensor.size(), tensor.stride())
    return nn.Parameter(fresh, requires_grad=False) if isinstance(tensor, nn.Parameter) else fresh


@contextlib.contextmanager
def recomputed(
    blocks: Sequence[tuple[nn.Module, Blocks]],
    *,
    mutates: bool,
    holding: Callable[[nn.Module, bool], contextlib.AbstractContextManager],
    keeping: Keeping,
    recalling: Recalling,
) -> Iterator[None]:
    """Each of a network's blocks keeps only its inputs for backward, and is repeated there; see `checkpoint_blocks`."""
    repeating = functools.partial(hollow_tails, kinds={id(block): kind for block, kind in blocks})
    modules = [block for block, _ in blocks]
    given = {"repeating": repeating, "holding": holding, "keeping": keeping, "recalling": recalling}
    with checkpoint_blocks(modules, mutates=mutates, **given):
        yield


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
    with replaced_forwards([] if read else _tails(block, kind), lambda layer, _: hollow(layer)):
        yield


def _others_read(block: nn.Module, arguments: dict[str, Any]) -> bool:
    options = arguments.get("transformer_options") or {}
    if any(options.get(patches) for patches in ("patches", "patches_replace")):
        return True
    return any(is_altered(module) for module in block.modules())


def uncompiled_because(block: nn.Module, arguments: dict[str, Any]) -> str:
    """Why a block that is called with these arguments cannot run as a graph; "" where nothing is known to hinder."""
    if _others_read(block, arguments):
        return "another pack has a part in them"
    options = arguments.get("transformer_options") or {}
    if options.get(KEY_MASK) or options.get(CROSS_MASK):
        # Attention makes its mask where it is first asked for, out of sight of a graph.
        return (
            "tokens are hidden from them, as attention_mask, text_padding_mask and a batch_size above 1 with captions "
            "of unequal length do"
        )
    if any(is_in_low_precision(module) for module in block.modules()):
        return "they are multiplied in low precision, by kernels of ComfyUI's that no graph takes up"
    return ""


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
            if is_linear(layer) or (isinstance(layer, nn.Conv2d) and zeros):
                found.append(layer)
    return found


@contextlib.contextmanager
def recast_layers(
    model: nn.Module,
    *,
    dtype: torch.dtype,
    device: torch.device,
    quantised: bool = False,
    recalling: Recalling = nothing_to_recall,
) -> Iterator[None]:
    """Frozen layers whose weight is not resident in `dtype` on `device` cast it anew in backward.

    Autograd would otherwise keep every cast copy until backward: a second model in memory. Covers manual
    cast, float8 and other quantised weights, offloading and dynamic VRAM. Resident layers use plain ops.

    Args:
        model: The network.
        dtype: What it computes in.
        device: Where it does.
        quantised: Whether layers that ComfyUI multiplies in low precision are multiplied so here.
        recalling: See `Recalling`.
    """

    def make(module: nn.Module, inner: Forward) -> Forward | None:
        if not isinstance(module, comfy.ops.CastWeightBiasOp):
            return None
        resident = is_resident(module, dtype=dtype, device=device)
        if has_foreign_forward(module):
            return None if resident else _repeated(inner, reads=model, recalling=recalling)
        return _choose_forward(module, inner, resident=resident, quantised=quantised)

    with contextlib.ExitStack() as stack:
        for module in model.modules():
            if _is_cast_by_others(module, dtype=dtype, device=device):
                stack.enter_context(_casting(module))
        stack.enter_context(replaced_forwards(model.modules(), make))
        yield


def _choose_forward(module: nn.Module, inner: Forward, *, resident: bool, quantised: bool) -> Forward | None:
    if is_linear(module):
        return linear(module, resident=resident, quantised=quantised)
    if resident:
        return None
    if isinstance(module, nn.Conv2d) and module.padding_mode == "zeros" and not isinstance(module.padding, str):
        return convolution(module)
    return _repeated(getattr(module, "forward_comfy_cast_weights", inner))


def _repeated(layer: Forward, *, reads: nn.Module | None = None, recalling: Recalling = nothing_to_recall) -> Forward:
    """Any other layer: keeps its inputs and is repeated in backward, when the cast is short-lived.

    That of another pack may run any layer that it `reads`.
    """

    def forward(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled() or is_tracing():
            return layer(*args, **kwargs)
        parameters = trained_parameters(*([reads] if reads else []))
        again = recalled(recalling(), layer)
        return checkpointed(layer, args, kwargs, parameters=parameters, mutates=False, again=again)

    return forward


def _is_cast_by_others(module: nn.Module, *, dtype: torch.dtype, device: torch.device) -> bool:
    if not isinstance(module, comfy.ops.CastWeightBiasOp) or not has_foreign_forward(module):
        return False
    return not is_resident(module, dtype=dtype, device=device)


@contextlib.contextmanager
def _casting(module: Any) -> Iterator[None]:
    """The class's own forward casts the weights, which others will call without knowing that it has to.

    Where it would multiply in low precision, it is told not to, and what it then calls is ours.
    """
    changes: dict[str, Any] = {"comfy_cast_weights": True}
    if is_linear(module):
        exact = unsmoothed_linear(module)
        changes |= {"comfy_force_cast_weights": True, "forward_comfy_cast_weights": lambda x, *_, **__: exact(x)}
    before = {name: vars(module)[name] for name in changes if name in vars(module)}
    try:
        vars(module).update(changes)
        yield
    finally:
        for name in changes:
            del vars(module)[name]
        vars(module).update(before)


@contextlib.contextmanager
def given_weights(block: nn.Module, *, dtype: torch.dtype, device: torch.device) -> Iterator[None]:
    """The layers of `block` whose weights are not resident in `dtype` on `device` have these as `given` meanwhile.

    `recast_layers` must be in force. It is for who reads a block's weights all at once; they are the block's in memory.
    """
    layers = [
        module
        for module in block.modules()
        if isinstance(module, comfy.ops.CastWeightBiasOp)
        and (is_linear(module) or isinstance(module, nn.Conv2d))
        and not is_resident(module, dtype=dtype, device=device)
    ]
    with contextlib.ExitStack() as stack:
        try:
            for layer in layers:
                weight, bias = stack.enter_context(cast(layer, dtype=dtype, device=device, lasting=True))
                vars(layer)["given"] = weight, bias, smoothing_of(layer)
            yield
        finally:
            for layer in layers:
                vars(layer).pop("given", None)
