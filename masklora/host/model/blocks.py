"""The repeated blocks of a loaded network, and where tensors lie in their calls."""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

from torch import nn

from ...errors import FamilyError
from ..families import Blocks, Family, Slot


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


def block_width(block: nn.Module) -> int:
    """Features of a token that passes `block`: what most of its layers take; 0 where it has none.

    Raises nothing: it serves estimates.
    """
    widths = [
        module.in_features if isinstance(module, nn.Linear) else module.in_channels
        for module in block.modules()
        if isinstance(module, (nn.Linear, nn.Conv2d))
    ]
    return Counter(widths).most_common(1)[0][0] if widths else 0


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
