"""Nests of every kind of container that a network may hand to its blocks, drawn at random or made by hand."""

from __future__ import annotations

import collections
import dataclasses
import functools
import random
import types
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from torch import Tensor


@dataclasses.dataclass
class Modulation:
    shift: Any
    scale: Any
    gate: Any = None


@dataclasses.dataclass(frozen=True)
class Frozen:
    first: Any
    second: Any

    def __post_init__(self) -> None:
        assert self.first is not None, "made by its own constructor once, and never again"


@dataclasses.dataclass(frozen=True)
class FrozenSlotted:
    __slots__ = ("first", "second")
    first: Any
    second: Any


class Slotted:
    __slots__ = ("__own", "data", "unset")

    def __init__(self, data: Any, own: Any) -> None:
        self.data, self.__own = data, own

    def own(self) -> Any:
        return self.__own


class SlottedBelow(Slotted):
    __slots__ = ("more",)


class Plain:
    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)


class Both(Slotted):
    """Slots of its base and attributes of its own."""


class Pair(NamedTuple):
    left: Any
    right: Any


class NamedList(list):
    name: Any = None


class Callable_(Plain):
    def __call__(self) -> None:
        raise AssertionError("nobody calls it")


def _slotted_below(a: Any, b: Any) -> SlottedBelow:
    made = SlottedBelow(a, "own")
    made.more = b
    return made


def _both(a: Any, b: Any) -> Both:
    made = Both("data", a)
    made.attribute = b
    return made


def _named_list(a: Any, b: Any) -> NamedList:
    made = NamedList([a, 7])
    made.name = b
    return made


# Each of two values; every kind of container that is looked into.
KINDS: dict[str, Callable[[Any, Any], Any]] = {
    "dict": lambda a, b: {"a": a, 3: b, ("x", 1): None},
    "ordered dict": lambda a, b: collections.OrderedDict(z=a, b=b),
    "default dict": lambda a, b: collections.defaultdict(list, a=a, b=b),
    "list": lambda a, b: [a, "text", b],
    "list subclass": _named_list,
    "tuple": lambda a, b: (a, 1.5, b),
    "named tuple": Pair,
    "deque": lambda a, b: collections.deque([a, b], maxlen=5),
    "dataclass": lambda a, b: Modulation(a, b),
    "frozen dataclass": lambda a, b: Frozen(a, b),
    "frozen slotted dataclass": lambda a, b: FrozenSlotted(a, b),
    "slots": lambda a, b: Slotted(a, b),
    "inherited slots": _slotted_below,
    "slots and attributes": _both,
    "attributes": lambda a, b: Plain(a=a, b=b),
    "namespace": lambda a, b: types.SimpleNamespace(a=a, b=b),
    "object that can be called": lambda a, b: Callable_(a=a, b=b),
    "user dict": lambda a, b: collections.UserDict(a=a, b=b),
}


def random_nest(draw: random.Random, leaf: Callable[[], Tensor], *, depth: int) -> Any:
    """A nest at most `depth` deep; its tensors are those of `leaf`, in the order in which `tensors_in` finds them."""
    if depth == 0 or draw.random() < 0.15:
        return leaf() if draw.random() < 0.8 else draw.choice([None, 3, "text", len, functools.partial(len, "abc")])
    kind = KINDS[draw.choice(list(KINDS))]
    first = random_nest(draw, leaf, depth=depth - 1)
    return kind(first if first is not None else 0, random_nest(draw, leaf, depth=depth - 1))


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors of a nest, found without any code of the pack."""
    if isinstance(value, Tensor):
        yield value
        return
    parts: list[Any] = []
    if isinstance(value, (dict, collections.UserDict)):
        parts += value.values()
    elif isinstance(value, (list, tuple, collections.deque)):
        parts += value
    elif isinstance(value, Slotted):
        parts += [value.data, value.own(), getattr(value, "more", None)]
    elif isinstance(value, FrozenSlotted):
        parts += [value.first, value.second]
    if hasattr(value, "__dict__") and not isinstance(value, (type, types.FunctionType, collections.UserDict)):
        parts += vars(value).values()
    for part in parts:
        yield from tensors_in(part)
