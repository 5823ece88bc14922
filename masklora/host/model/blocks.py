"""What a loaded network is made of: layers that training can read, and repeated blocks, with tensors in their calls."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any

from comfy.ops import CastWeightBiasOp
from comfy.quant_ops import QUANT_ALGOS, QuantizedTensor
from torch import Tensor, nn

from ...adapters.layers import is_linear
from ...errors import FamilyError
from ...findings import counted
from ..families import Blocks, Family, Slot

# Whose tensors and layers training can read.
_KNOWN = ("torch", "comfy", "comfy_kitchen", "comfy_aimdo")
# Steps of so few are coarse beside what a LoRA changes.
_FEW_BITS = 4
_INSTEAD = "Load an fp8 or a bf16 file of the model with ComfyUI's Load Diffusion Model instead."


def find_blocks(network: nn.Module, family: Family) -> list[tuple[nn.Module, Blocks]]:
    """The network's blocks, in the family's order and within one kind in the network's own.

    Raises:
        FamilyError: It has none of one kind, which would then silently not be recomputed, routed or hidden, or these
            have no such layer or parameter as the family names.
    """
    found: list[tuple[nn.Module, Blocks]] = []
    for blocks in family.blocks:
        named = [module for path, module in network.named_modules() if re.fullmatch(blocks.path, path)]
        named = [module for module in named if blocks.kind in ("", type(module).__name__)]
        if not named:
            raise FamilyError(
                f"model: this {family.title} network has no blocks {blocks.kind or blocks.path}. The family's file "
                "does not fit this model or this version of ComfyUI; update both."
            )
        missing = _missing(named, blocks)
        if missing:
            raise FamilyError(
                f"model: the {type(named[0]).__name__} of this {family.title} network has no {missing}. The family's "
                "file does not fit this model or this version of ComfyUI; update both."
            )
        found += [(module, blocks) for module in named]
    return found


def _missing(named: list[nn.Module], blocks: Blocks) -> str | None:
    """A layer that none of these has, or a parameter that one does not take, though `blocks` names it."""
    layers = {path for block in named for path, _ in block.named_modules()}
    # Relatives of a family may lack tails, whose work is then done twice; without these gradients or masks were wrong.
    for layer in (*blocks.cross, *blocks.gate_layers):
        if layer not in layers:
            return f"layer {layer!r}"
    slots = [slot for slot in (blocks.image, *blocks.rotary, *blocks.gates) if slot is not None]
    for cls in {type(block) for block in named}:
        for slot in slots:
            if not _takes(cls, slot.at):
                return f"parameter {slot.at!r}"
    return None


def _takes(cls: type[nn.Module], at: int | str | None) -> bool:
    parameters = list(inspect.signature(cls.forward).parameters.values())[1:]
    kinds = {p.kind for p in parameters}
    if isinstance(at, int):
        return at < sum(p.kind in _NAMED for p in parameters) or inspect.Parameter.VAR_POSITIONAL in kinds
    return at in {p.name for p in parameters} or inspect.Parameter.VAR_KEYWORD in kinds


def cross_paths(network: nn.Module, blocks: Sequence[tuple[nn.Module, Blocks]]) -> set[str]:
    """Paths of the layers in `blocks` that look at the text's sequence."""
    layers = {id(block.get_submodule(path)) for block, kind in blocks for path in kind.cross}
    return {path for path, module in network.named_modules() if id(module) in layers}


def paths_of(network: nn.Module, modules: Sequence[nn.Module]) -> list[str]:
    """Where each of these is in the network."""
    paths = {id(module): path for path, module in network.named_modules()}
    return [paths[id(module)] for module in modules]


def counted_paths(network: nn.Module, blocks: Sequence[tuple[nn.Module, Blocks]]) -> list[str]:
    """Paths of the blocks that people count, in the model's order: those that image tokens pass, on U-Nets all.

    Args:
        network: The diffusion network.
        blocks: Of it, with what the family says of each.
    """
    passed = [block for block, kind in blocks if kind.image is not None]
    if passed:
        return paths_of(network, passed)
    # They are found kind by kind.
    found = set(paths_of(network, [block for block, _ in blocks]))
    return [path for path, _ in network.named_modules() if path in found]


def features_of(network: nn.Module, pattern: str) -> int:
    """What the first layer takes whose path `pattern` matches; 0 where none does."""
    for path, module in network.named_modules():
        if pattern and re.fullmatch(pattern, path) and is_linear(module):
            return int(module.in_features)  # type: ignore[arg-type]
    return 0


def read_slot(block: nn.Module, slot: Slot, args: tuple, kwargs: dict[str, Any]) -> Any:
    """What lies in `slot` of a call of `block`; None where the call leaves it out."""
    place = _place(block, slot, args, kwargs)
    if place is None:
        return None
    value = kwargs[place] if isinstance(place, str) else args[place]
    return value if slot.item is None or value is None else value[slot.item]


def with_slot(
    block: nn.Module, slot: Slot, args: tuple, kwargs: dict[str, Any], change: Callable[[Any], Any]
) -> tuple[tuple, dict[str, Any]]:
    """The arguments of a call of `block` with what lies in `slot` changed; the caller's stay as they are.

    Raises:
        FamilyError: The call has nothing there: the family's file does not fit this ComfyUI.
    """
    place = _place(block, slot, args, kwargs)
    if place is None or _is_empty(kwargs[place] if isinstance(place, str) else args[place], slot.item):
        raise FamilyError(
            f"model: ComfyUI calls {type(block).__name__} without {slot.at!r}. The family's file does not fit this "
            "version of ComfyUI; empty routes and switch attention_mask and text_padding_mask off."
        )
    if isinstance(place, str):
        return args, {**kwargs, place: _changed(kwargs[place], slot.item, change)}
    return (*args[:place], _changed(args[place], slot.item, change), *args[place + 1 :]), kwargs


def with_result(slot: Slot, out: Any, change: Callable[[Any], Any]) -> Any:
    """What a block returned, with what lies in `slot` changed.

    Raises:
        FamilyError: Nothing lies there.
    """
    if slot.at is None and not _is_empty(out, slot.item):
        return _changed(out, slot.item, change)
    if not isinstance(slot.at, int) or _is_empty(out, slot.at) or _is_empty(out[slot.at], slot.item):
        raise FamilyError(
            f"model: a block of this network gives back a {type(out).__name__} without image tokens at {slot.at}. The "
            "family's file does not fit this version of ComfyUI; empty routes."
        )
    return tuple(_changed(x, slot.item, change) if i == slot.at else x for i, x in enumerate(out))


def _is_empty(value: Any, item: int | None) -> bool:
    """Whether nothing lies at this element of a value, or, without one, in the value itself."""
    if item is None:
        return value is None
    return not isinstance(value, (tuple, list)) or item >= len(value) or value[item] is None


def _changed(value: Any, item: int | None, change: Callable[[Any], Any]) -> Any:
    if item is None:
        return change(value)
    return type(value)(change(x) if i == item else x for i, x in enumerate(value))


def _place(block: nn.Module, slot: Slot, args: tuple, kwargs: dict[str, Any]) -> int | str | None:
    """Where the slot's parameter is in this call: ComfyUI passes it by place in one network, by name in another."""
    at = slot.at
    if isinstance(at, str) and at in kwargs:
        return at
    if isinstance(at, int) and at < len(args):
        return at
    names = [p.name for p in inspect.signature(type(block).forward).parameters.values() if p.kind in _NAMED][1:]
    if isinstance(at, int):
        return names[at] if at < len(names) and names[at] in kwargs else None
    return names.index(at) if at in names and names.index(at) < len(args) else None


_NAMED = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def refuse_foreign_layers(network: nn.Module, *, widget: str = "model") -> None:
    """Nothing if the weights of `network` are tensors of torch or of ComfyUI's own quantisation.

    Packs that load other files, GGUF among them, put layers into the network whose weight is bytes that only these
    packs can read: training would multiply by something else, or fail in the middle of its first step.

    Raises:
        FamilyError: One is not; names the layer, and what it is.
    """
    for path, module in network.named_modules():
        fault = _fault(module)
        if fault:
            raise FamilyError(f"{widget}: {path} {fault}, which training cannot read. {_INSTEAD}")


def quantisation_notes(network: nn.Module) -> list[str]:
    """Lines where ComfyUI applies a LoRA to quantised weights otherwise than training does."""
    notes, layers = [], list(network.modules())
    smoothed = sum(getattr(module, "pre_quant_scale", None) is not None for module in layers)
    if smoothed:
        notes.append(
            f"{counted(smoothed, '[layer of the MODEL scales its|layers of the MODEL scale their]')} input before the "
            "weight (pre_quant_scale), and ComfyUI puts a LoRA behind that scale. Sample pictures are right; to use "
            "the LoRA, load an fp8 or a bf16 file of the model."
        )
    coarse = sum(0 < _bits(getattr(module, "weight", None)) <= _FEW_BITS for module in layers)
    if coarse:
        notes.append(
            f"{counted(coarse, '[layer of the MODEL holds its weight|layers of the MODEL hold their weights]')} in "
            f"{_FEW_BITS} bits a number, to which ComfyUI rounds weight and LoRA together again. Sample pictures show "
            "the whole LoRA; ComfyUI's loaders and model_with_lora show less of it. To use it, load an fp8 or a bf16 "
            "file of the model."
        )
    return notes


def _bits(weight: Any) -> float:
    """Stored bits of a number of a quantised weight; 0 for others."""
    return 8 * weight._qdata.nbytes / weight.numel() if isinstance(weight, QuantizedTensor) else 0


def _fault(module: nn.Module) -> str | None:
    name = _class_name(type(module))
    for tensor in (*module._parameters.values(), *module._buffers.values()):
        if tensor is not None and not _is_known(tensor):
            kind = "GGUF's " if type(tensor).__name__.startswith("GGML") else "a "
            return f"is of the class {name} and holds {kind}{type(tensor).__name__}"
    weight = getattr(module, "weight", None)
    if isinstance(weight, QuantizedTensor):
        return _fault_of_quantised(module, weight, name)
    sizes = getattr(module, "out_features", None), getattr(module, "in_features", None)
    if not all(isinstance(size, int) for size in sizes):
        return None
    if not isinstance(weight, Tensor):
        return f"is of the class {name} and has no weight"
    if not weight.is_floating_point():
        return f"is of the class {name} and stores its weight as {_dtype(weight)}"
    if weight.dtype.itemsize == 1 and not _is_plain(type(module)):
        return f"is of the class {name} of another pack and stores its weight as {_dtype(weight)}"
    return None


def _fault_of_quantised(module: nn.Module, weight: Any, name: str) -> str | None:
    layout = weight._layout_cls
    known = {algorithm["comfy_tensor_layout"] for algorithm in QUANT_ALGOS.values()}
    if layout not in known:
        return f"is of the class {name} and is quantised as {layout}"
    multiplies = isinstance(module, CastWeightBiasOp) and (is_linear(module) or isinstance(module, nn.Embedding))
    if not multiplies or not _is_plain(type(module)):
        return f"is of the class {name} and holds a quantised weight"
    return None


def _is_known(tensor: Tensor) -> bool:
    return type(tensor).__module__.partition(".")[0] in _KNOWN


def _is_plain(kind: type) -> bool:
    """Whether what it computes is written by torch or ComfyUI, with nothing of another pack in between."""
    return all(base.__module__.partition(".")[0] in _KNOWN for base in kind.__mro__ if base is not object)


def _class_name(kind: type) -> str:
    return kind.__qualname__.rpartition("<locals>.")[2]


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
