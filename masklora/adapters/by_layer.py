"""A value for each layer from one line of text, such as "blocks 10-19: 32, attn: 16, others 8"."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from ..errors import AdapterError
from ..findings import counted

T = TypeVar("T", int, float)

_VALUED = re.compile(r"(?P<what>.*?)\s*:\s*(?P<value>[^\s:]+)")
_OTHERS = re.compile(r"others\s*:?\s*(?P<value>[^\s:]+)")
_NUMBERED = re.compile(r"(?P<name>[^\s:]+)\s+(?P<first>\d+)(?:\s*-\s*(?P<last>\d+))?")


@dataclass(frozen=True)
class Values(Generic[T]):
    """What may stand behind the colons of a widget.

    Attributes:
        widget: Its name, for messages.
        read: A value of its text; raises ValueError where it is none.
        least: The smallest value.
        most: The largest one.
        shown: Parts that a person could write.
        none: What to do instead where a value is too small or too large; may be empty.
    """

    widget: str
    read: Callable[[str], T]
    least: T
    most: T
    shown: str
    none: str = ""


@dataclass(frozen=True)
class _Part(Generic[T]):
    """What one part says; the numbers are those of blocks, `name` is "" for all others."""

    text: str
    value: T
    name: str = ""
    numbers: range | None = None

    def names(self, path: str, number: int | None) -> bool:
        """Whether it is about the layer of this path, in the block of that number if it is in one."""
        if self.numbers is None:
            return bool(re.search(rf"(?:^|\.){re.escape(self.name)}(?:\.|$)", path))
        if self.name in ("block", "blocks"):
            return number is not None and number in self.numbers
        found = re.search(rf"(?:^|\.){re.escape(self.name)}\.(\d+)(?:\.|$)", path)
        return bool(found) and int(found[1]) in self.numbers


def values_by_layer(
    text: str, layers: Sequence[str], *, values: Values[T], usual: T, blocks: Sequence[str] = ()
) -> dict[str, T]:
    """The value of each of `layers`, by path.

    Parts stand between commas or on lines of their own, and the first that names a layer holds for it. "blocks 10-19"
    names the model's blocks by their order, "double_blocks 3" those of a list of that name, another word all layers
    with it in their path, and "others" the rest.

    Args:
        text: As a person typed it; empty for the usual value everywhere.
        layers: Their paths.
        values: What a value is.
        usual: Of those that no part names.
        blocks: Paths of the model's blocks in their order.

    Raises:
        AdapterError: A part is none, or names no layer that no part before it names; names the part.
    """
    named, others = _parts(text, values)
    rest = others[0].value if others else usual
    found: dict[str, T] = {}
    used: set[int] = set()
    for path in layers:
        number = _number(path, blocks)
        at = next((at for at, one in enumerate(named) if one.names(path, number)), None)
        found[path] = rest if at is None else named[at].value
        used |= set() if at is None else {at}
    idle = next((one for at, one in enumerate(named) if at not in used), None)
    if idle is not None:
        raise AdapterError(
            f'{values.widget}: "{idle.text}" names no trained layer that no part before it names. This model has '
            f"{counted(len(blocks), '[block|blocks]')}, counted from 0, and layers such as {(*layers, 'none')[0]}."
        )
    return found


def check_parts(text: str, values: Values[T]) -> None:
    """Nothing if each part of the text is one, whatever layers there are.

    Raises:
        AdapterError: As `values_by_layer`.
    """
    _parts(text, values)


def _parts(text: str, values: Values[T]) -> tuple[list[_Part[T]], list[_Part[T]]]:
    """Those that name layers, and the one, if any, about all others."""
    parts = [_part(one, values) for one in re.split(r"[,;\n]", text) if one.strip()]
    named, others = [one for one in parts if one.name], [one for one in parts if not one.name]
    if len(others) > 1:
        raise AdapterError(f'{values.widget}: "{others[1].text}" is about the others a second time. Leave one.')
    return named, others


def _number(path: str, blocks: Sequence[str]) -> int | None:
    return next((at for at, block in enumerate(blocks) if path == block or path.startswith(f"{block}.")), None)


def _part(text: str, values: Values[T]) -> _Part[T]:
    text = text.strip()
    others, valued = _OTHERS.fullmatch(text), _VALUED.fullmatch(text)
    what = valued["what"] if valued else ""
    numbered = _NUMBERED.fullmatch(what)
    try:
        value = values.read((others or valued)["value"])  # type: ignore[index]
        plain = bool(others or numbered or re.fullmatch(r"[^\s:]+", what))
    except (TypeError, ValueError):
        plain = False
    if not plain:
        raise AdapterError(f'{values.widget}: "{text}" is no part such as {values.shown}. Correct it.')
    if not values.least <= value <= values.most:
        raise AdapterError(
            f'{values.widget}: "{text}" asks for {value:g}, expected {values.least:g} to {values.most:g}. {values.none}'
        )
    if others or not numbered:
        return _Part(text, value, "" if others else what)
    first, last = int(numbered["first"]), int(numbered["last"] or numbered["first"])
    if last < first:
        raise AdapterError(f'{values.widget}: "{text}" ends before it begins. Write the smaller number first.')
    return _Part(text, value, numbered["name"], range(first, last + 1))
