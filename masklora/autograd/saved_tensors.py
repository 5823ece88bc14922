"""Gradients that stay correct when a network writes in place to tensors that autograd has saved.

torch has `allow_mutation_on_saved_tensors` for this. It knows saved tensors by object id, address and version,
which are soon those of another tensor once the first is gone, and overlooks a write through another view: then
the gradient is silently wrong (tests/autograd/test_saved_tensors.py shows both). Here they are known by their storage,
and only while they hold it, so that no other can have its address.
"""

from __future__ import annotations

import contextlib
import functools
from collections import defaultdict
from collections.abc import Iterator
from typing import Any
from weakref import WeakSet

from torch import Tensor
from torch._ops import OpOverload
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode


class _Saved:
    """A tensor that autograd saved: the tensor itself, or a copy from before the first write to its storage."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


class _Originals:
    """The saved tensors that are not copies, by the address of their storage."""

    def __init__(self) -> None:
        self._by_storage: defaultdict[int, WeakSet[_Saved]] = defaultdict(WeakSet)
        self._open = True

    def pack(self, tensor: Tensor) -> _Saved:
        saved = _Saved(tensor)
        self._by_storage[_address(tensor)].add(saved)
        return saved

    def unpack(self, saved: _Saved) -> Tensor:
        if not self._open:
            raise RuntimeError("This graph was made in a saved_tensor_scope; run its backward before the scope ends.")
        return saved.tensor

    def before_write(self, tensor: Tensor) -> None:
        """Copy what was saved of the storage of `tensor`, each view once."""
        copies: dict[tuple, Tensor] = {}
        for saved in self._by_storage.pop(_address(tensor), ()):
            view = saved.tensor
            key = view.dtype, view.storage_offset(), view.shape, view.stride(), view.is_conj(), view.is_neg()
            if key not in copies:
                copies[key] = view.clone()
            saved.tensor = copies[key]

    def close(self) -> None:
        self._by_storage.clear()
        self._open = False


class _WatchWrites(TorchDispatchMode):
    """Tells of every tensor that an operation is about to write to."""

    def __init__(self, originals: _Originals) -> None:
        super().__init__()
        self._originals = originals

    def __torch_dispatch__(self, func: OpOverload, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        for position, name in _written(func):
            value = args[position] if position < len(args) else kwargs.get(name)
            for tensor in value if isinstance(value, (list, tuple)) else [value]:
                if isinstance(tensor, Tensor):
                    self._originals.before_write(tensor)
        return func(*args, **kwargs)


@functools.cache
def _written(func: OpOverload) -> tuple[tuple[int, str], ...]:
    """Position and name of the arguments to which `func` writes."""
    arguments = enumerate(func._schema.arguments)
    return tuple((i, a.name) for i, a in arguments if a.alias_info is not None and a.alias_info.is_write)


def _address(tensor: Tensor) -> int:
    # Of the storage itself: its memory has no address where there is none, as of counted tensors without data.
    return tensor.untyped_storage()._cdata


@contextlib.contextmanager
def saved_tensor_scope(*, mutates: bool) -> Iterator[None]:
    """The context in which one forward and its backward must both run.

    Args:
        mutates: Whether the forward may write in place to tensors that autograd saves. Each saved tensor whose
            storage is written to is copied before the first write; others cost no memory. Without, nothing is
            watched, and torch raises its own error at such a write.

    A graph that was made here raises RuntimeError if its backward runs after the context has ended.
    """
    if not mutates:
        yield
        return
    originals = _Originals()
    try:
        with saved_tensors_hooks(originals.pack, originals.unpack), _WatchWrites(originals):
            yield
    finally:
        originals.close()
