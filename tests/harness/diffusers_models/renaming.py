"""Weights of ComfyUI's networks under diffusers' names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from .theirs import Config, State


def by_table(names: Callable[[Config], dict[str, Any]]) -> Callable[[State, Config], State]:
    """By one of ComfyUI's own tables."""
    return lambda state, config: dict(renamed(state, names(config)))


def renamed(state: State, names: dict[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """By a table of ComfyUI's: diffusers' name to ComfyUI's, to a part of its rows, or to what it is made from."""
    for name, source in names.items():
        path, part, change = (*source, None, None)[:3] if isinstance(source, tuple) else (source, None, None)
        if path in state:
            value = state[path] if part is None else state[path].narrow(*part)
            yield name, value if change is None else change(value)


def by_rules(*rules: tuple[str, str], swapped: str = r"norm_out\.linear\.(weight|bias)") -> Callable[[State], State]:
    """By regular expressions, one after the other.

    Args:
        rules: What is replaced in a name, and by what. "{a,b,c}" in the result stands for equal parts of the rows.
        swapped: Names, as they are then, of layers whose two halves of rows change places: diffusers wants the scale
            before the shift.
    """

    def made(state: State) -> State:
        out: State = {}
        for name, value in state.items():
            for pattern, new in rules:
                name = re.sub(pattern, new, name)
            if re.fullmatch(swapped, name):
                value = torch.cat(value.chunk(2)[::-1])
            out |= parts_of(name, value)
        return out

    return made


def parts_of(name: str, value: Tensor, rows: Sequence[int] = ()) -> State:
    """`value` under a name with "{a,b}" in it: the parts of its rows, so many each, or equally many."""
    found = re.search(r"\{(.*)\}", name)
    if not found:
        return {name: value}
    names = found[1].split(",")
    parts = value.split(list(rows)) if rows else value.chunk(len(names))
    return {name.replace(found[0], new): part for new, part in zip(names, parts, strict=True)}
