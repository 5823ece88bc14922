"""Tensors out of any nest of containers and back into a copy of it, in no way that others could notice.

torch's own flattening sees lists, tuples and dicts; whatever else holds a tensor it takes for a leaf, and a gradient
that should flow through it is lost without a word. Classes can be registered there, but for the whole process.
"""

from __future__ import annotations

import copy
import dataclasses
import enum
import functools
import gc
import numbers
import sys
import types
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_ATOMS = (
    *(type(None), str, bytes, bytearray, numbers.Number, range, slice, type, types.ModuleType),
    *(type(...), type(NotImplemented), np.generic, torch.dtype, torch.device, torch.layout, torch.memory_format),
    *(torch.Generator, torch.Stream),
)
_VALUES = (type(None), str, bytes, numbers.Number, range, torch.Size, torch.dtype, torch.device)
_FUNCTIONS = (types.FunctionType, types.MethodType, types.BuiltinFunctionType, functools.partial)
_POINTER = tuple.__itemsize__
# Of `type.__flags__`: made at run time, as all but Python's own and torch's old ones are; known to the collector.
_ON_HEAP, _COLLECTED = 1 << 9, 1 << 14
# Behind a function; whoever holds on to more is refused, since its tensors would be overlooked.
_MOST_REACHED = 20_000


class UnseenError(Exception):
    """A value may hold tensors that cannot be seen; `where` leads to it."""

    def __init__(self, value: Any) -> None:
        super().__init__()
        self.what, self.where = _description(value), ""


@functools.lru_cache(maxsize=4096)
def _kind(cls: type) -> str:
    """How values of `cls` are looked into."""
    if issubclass(cls, Tensor):
        return "tensor"
    if issubclass(cls, (*_ATOMS, enum.Enum, torch.Size)):
        return "atom"
    for kind, bases in (("tuple", tuple), ("dict", dict), ("list", (list, deque)), ("set", (set, frozenset))):
        if issubclass(cls, bases):
            return kind
    if hasattr(cls, "__next__"):
        return "once"
    if issubclass(cls, nn.Module):
        return "module"
    if issubclass(cls, (*_FUNCTIONS, np.ndarray, weakref.ref)):
        return "closed"
    return "object" if _is_open(cls) else "closed"


@functools.lru_cache(maxsize=4096)
def _slots(cls: type) -> tuple[types.MemberDescriptorType, ...]:
    found = (d for c in cls.__mro__ for d in vars(c).values() if isinstance(d, types.MemberDescriptorType))
    return tuple(d for d in found if d.__name__ != "__dict__")


def _is_open(cls: type) -> bool:
    """Whether attributes and slots are all that an instance has: its size leaves no room for state of C."""
    extras = (cls.__dictoffset__ > 0) + (cls.__weakrefoffset__ > 0) + len(_slots(cls))
    return cls.__itemsize__ == 0 and cls.__basicsize__ <= object.__basicsize__ + extras * _POINTER


def _attributes(value: Any) -> dict[str, Any]:
    return getattr(value, "__dict__", None) or {}


def _slotted(value: Any) -> Iterator[tuple[types.MemberDescriptorType, Any]]:
    for slot in _slots(type(value)):
        try:
            yield slot, slot.__get__(value)
        except AttributeError:
            continue


def _children(value: Any, kind: str) -> Iterable[Any]:
    """What a container holds."""
    own = _attributes(value).values()
    if kind == "dict":
        return (*value.keys(), *value.values(), *own)
    if kind in ("list", "tuple", "set"):
        return (*value, *own)
    return (*own, *(v for _, v in _slotted(value))) if kind == "object" else ()


def _behind(value: Any) -> Iterable[Any]:
    """What a value that is no container holds, as far as anything tells."""
    if isinstance(value, types.FunctionType):
        cells = [c.cell_contents for c in value.__closure__ or () if c != types.CellType()]
        return (*cells, *(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values(), *value.__dict__.values())
    if isinstance(value, weakref.ref):
        return (value(),)
    if isinstance(value, types.BuiltinFunctionType):
        return (value.__self__,)
    if isinstance(value, np.ndarray):
        return value.ravel().tolist() if value.dtype.hasobject else ()
    return gc.get_referents(value)


def _is_machinery(value: Any) -> bool:
    return any(isinstance(v, nn.Module) for v in _attributes(value).values())


def _reached(value: Any, *, through: bool) -> Iterator[Tensor]:
    """The tensors in a nest; with `through` those behind functions and the like too, but never those of networks.

    Raises:
        UnseenError: Behind functions lies more than can be looked through in every step.
    """
    seen, waiting = {id(value)}, deque([value])
    while waiting:
        if through and len(seen) > _MOST_REACHED:
            raise UnseenError(value)
        each = waiting.popleft()
        kind = _kind(type(each))
        if kind == "tensor":
            yield each
            continue
        if kind in ("atom", "module"):
            continue
        held = _children(each, kind)
        if kind in ("closed", "once"):
            held = _behind(each) if through else ()
        elif kind == "object" and each is not value and _is_machinery(each):
            held = [v for v in held if isinstance(v, Tensor)]
        for v in held:
            if id(v) not in seen and _kind(type(v)) != "atom":
                seen.add(id(v))
                waiting.append(v)


def _differentiable(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


class _Node:
    """A part of a nest that is made anew each time."""

    def build(self, filling: _Filling) -> Any:
        raise NotImplementedError


class _Slot(_Node):
    def __init__(self, index: int) -> None:
        self.index = index

    def build(self, filling: _Filling) -> Any:
        return filling.tensors[self.index]


class _Filling:
    """The tensors that go into one copy, and its containers so far: what was shared stays shared."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.tensors, self.made = tensors, {}

    def of(self, part: Any) -> Any:
        return part.build(self) if isinstance(part, _Node) else part


class _Container(_Node):
    """A container by what it starts as, and what is then put into it."""

    def __init__(self) -> None:
        self.start: Callable[[_Filling], Any] = lambda filling: None
        self.items: list[tuple[Any, Any]] = []
        self.attributes: dict[str, Any] = {}
        self.slots: list[tuple[types.MemberDescriptorType, Any]] = []
        self.kind: type = object
        # All that is in it, of one that remembers nothing else.
        self.held: list[tuple[Any, Any]] | None = None
        self.under_way = False

    def build(self, filling: _Filling) -> Any:
        if self in filling.made:
            return filling.made[self]
        made = filling.made[self] = self.start(filling)
        for key, part in self.items:
            made[key] = filling.of(part)
        for slot, part in self.slots:
            slot.__set__(made, filling.of(part))
        if self.attributes:
            vars(made).update({name: filling.of(part) for name, part in self.attributes.items()})
        return made


class Form:
    """A nest without its tensors."""

    def __init__(self, part: Any, kept: set[int]) -> None:
        self._part, self.kept = part, kept

    def filled(self, tensors: Sequence[Tensor]) -> Any:
        """A copy of the nest with these tensors in it, in the order in which they were taken out."""
        return _Filling(tensors).of(self._part)

    def key(self) -> Any:
        """Equal for nests that differ in their tensors only, while both forms are held.

        Raises:
            UnseenError: A container of a class of its own is in it, which may remember more than what it holds.
        """
        return _key_of(self._part, {})


def _key_of(part: Any, met: dict[_Container, int]) -> Any:
    if isinstance(part, _Slot):
        return "tensor", part.index
    if not isinstance(part, _Container):
        # What is kept is the same object; what cannot change may be another one of the same value.
        if type(part) is tuple:
            return tuple, tuple(_key_of(value, met) for value in part)
        return (type(part), part) if isinstance(part, _VALUES) else ("object", id(part))
    if part in met:
        return "again", met[part]
    if part.held is None:
        raise UnseenError(part.kind)
    met[part] = len(met)
    return part.kind, tuple((_key_of(key, met), _key_of(value, met)) for key, value in part.held)


class _Opening:
    """Takes one nest apart."""

    def __init__(self, matters: Callable[[Tensor], bool], known: set[int], shared: bool) -> None:
        self.matters, self.known, self.shared = matters, known, shared
        self.tensors: list[Tensor] = []
        self.kept: set[int] = set()
        self.met: dict[int, Any] = {}

    def part(self, value: Any, key: Any = None, mark: str = "") -> Any:
        """The value itself if it stays what it is, else what makes a copy of it."""
        kind = _kind(type(value))
        if kind == "atom" or id(value) in self.known:
            return value
        met = self.met.get(id(value))
        if met is not None:
            if isinstance(met, _Container) and met.under_way:
                raise UnseenError(value)
            return met
        try:
            return self._opened(value, kind)
        except UnseenError as error:
            error.where = (f".{key}" if mark == "." else f"[{key!r}]" if mark else "") + error.where
            raise

    def _opened(self, value: Any, kind: str) -> Any:
        if kind == "tensor":
            if value.is_inference():
                # It has no gradient, cannot be written to here, and autograd refuses to keep it.
                return value
            slot = _Slot(len(self.tensors))
            self.tensors.append(value)
            if self.shared:
                self.met[id(value)] = slot
            return slot
        if kind == "module":
            own = (v for v in vars(value).values() if isinstance(v, Tensor))
            hidden = any(self.matters(t) for t in (*value.parameters(), *value.buffers(), *own))
        elif kind in ("once", "closed"):
            hidden = kind == "once" or _is_mute(type(value)) or self._hides(value)
        elif kind == "object":
            if self._is_rebuilt(value):
                return self._record(value)
            hidden = self._hides(value)
        else:
            return getattr(self, f"_{kind}")(value)
        if hidden:
            raise UnseenError(value)
        return self._keep(value)

    def _hides(self, value: Any) -> bool:
        return any(self.matters(t) for t in _reached(value, through=True))

    def _is_rebuilt(self, value: Any) -> bool:
        if _is_machinery(value) and not dataclasses.is_dataclass(value):
            return False
        # What is called belongs to somebody, and may remember things between calls.
        counts = self.matters if callable(value) else _differentiable
        return any(counts(t) for t in _reached(value, through=False))

    def _keep(self, value: Any) -> Any:
        self.kept.add(id(value))
        return value

    def _begun(self, value: Any) -> _Container:
        made = self.met[id(value)] = _Container()
        made.kind = type(value)
        return made

    def _with_attributes(self, made: _Container, value: Any) -> _Container:
        made.attributes = {name: self.part(v, name, ".") for name, v in _attributes(value).items()}
        return made

    def _dict(self, value: dict) -> _Container:
        made = self._begun(value)
        for key in value:
            if type(key) is not str and self._hides(key):
                raise UnseenError(key)
        made.items = [(key, self.part(v, key, "[")) for key, v in value.items()]
        if type(value) is dict:
            made.start, made.held = lambda filling: {}, made.items
            return made
        return self._copied(made, value)

    def _list(self, value: list | deque) -> _Container:
        made = self._begun(value)
        made.items = [(i, self.part(v, i, "[")) for i, v in enumerate(value)]
        if type(value) is list:
            empty = [None] * len(value)
            made.start, made.held = lambda filling: list(empty), made.items
            return made
        return self._copied(made, value)

    def _copied(self, made: _Container, value: Any) -> _Container:
        """Of a class of its own: begins as a copy, so that it keeps what the class remembers."""
        try:
            hull = copy.copy(value)
        except Exception as error:
            raise UnseenError(value) from error
        for key, part in made.items:
            if isinstance(part, _Node):
                hull[key] = None
        self._with_attributes(made, value)
        for name, part in made.attributes.items():
            if isinstance(part, _Node):
                vars(hull)[name] = None
        made.items = [(key, part) for key, part in made.items if isinstance(part, _Node)]
        made.start = lambda filling: copy.copy(hull)
        return made

    def _tuple(self, value: tuple) -> Any:
        made = self._begun(value)
        made.under_way = True
        parts = [self.part(v, i, "[") for i, v in enumerate(value)]
        made.under_way = False
        self._with_attributes(made, value)
        if not any(isinstance(p, _Node) for p in (*parts, *made.attributes.values())):
            self.met[id(value)] = value
            return value
        cls = type(value)
        # torch's named results refuse tuple's own constructor.
        new = cls if hasattr(cls, "n_sequence_fields") else functools.partial(tuple.__new__, cls)
        made.start = lambda filling: new([filling.of(p) for p in parts])
        made.held = None if made.attributes else list(enumerate(parts))
        return made

    def _set(self, value: set | frozenset) -> Any:
        parts = [self.part(v) for v in value]
        if type(value) is frozenset and not any(isinstance(p, _Node) for p in parts):
            return value
        made, cls = self._begun(value), type(value)
        made.start = lambda filling: cls(filling.of(p) for p in parts)
        return made

    def _record(self, value: Any) -> _Container:
        made, cls = self._begun(value), type(value)
        made.slots = [(slot, self.part(v, slot.__name__, ".")) for slot, v in _slotted(value)]
        made.start = lambda filling: _blank(cls)
        self._with_attributes(made, value)
        made.held = [*((slot.__name__, part) for slot, part in made.slots), *made.attributes.items()]
        return made


def _blank(cls: type) -> Any:
    try:
        return object.__new__(cls)
    except TypeError:
        return cls.__new__(cls)


@functools.lru_cache(maxsize=4096)
def _is_mute(cls: type) -> bool:
    """Whether an extension's class tells nobody what its instances hold."""
    return any(
        c.__flags__ & _ON_HEAP and not c.__flags__ & _COLLECTED and not _is_open(c)
        for c in cls.__mro__
        if c.__module__.partition(".")[0] not in sys.stdlib_module_names
    )


def _description(value: Any) -> str:
    cls = type(value)
    name = cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
    own = getattr(value, "__qualname__", None)
    return f"{name} {own!r}" if isinstance(own, str) and own != cls.__qualname__ else name


def take_apart(
    value: Any,
    *,
    matters: Callable[[Tensor], bool] = _differentiable,
    known: set[int] | None = None,
    shared: bool = True,
) -> tuple[list[Tensor], Form]:
    """The tensors of a nest, and its form, which takes others in their place; `value` itself is left as it is.

    Seen are tensors in dicts, lists, tuples, sets and deques and classes made from them, in dataclasses, and in the
    attributes and slots of other objects, at any depth. Dicts, lists and sets are always made anew, so that what is
    written to a copy stays there. Objects are made anew if a floating tensor is in them, those that can be called
    only if one that matters is; all else stays the same object.

    Args:
        value: The nest.
        matters: Whether a tensor may not be overlooked.
        known: Ids of objects that are taken for harmless, those in `Form.kept` of an earlier nest.
        shared: Whether a tensor that lies in several places is taken out once.

    Raises:
        UnseenError: Something holds a tensor that matters where none can be exchanged (a function's closure, a
            network), can be run through only once (generators, iterators), is in itself (tuples), or does not tell.
    """
    opening = _Opening(matters, known or set(), shared)
    part = opening.part(value)
    return opening.tensors, Form(part, opening.kept)
