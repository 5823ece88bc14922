"""A card's two queues in place of the card: copies come as late as they may, and what is not waited for is noticed."""

from __future__ import annotations

import random
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves


class Overwritten(AssertionError):
    """A copy may run while what it overwrites is still read, or what it reads is not made yet or gone already."""


class _Uses(TorchDispatchMode):
    """Counts operations, and knows which was the last to read and to make or write each storage."""

    def __init__(self) -> None:
        super().__init__()
        self.done, self.read, self.made = 0, dict[int, int](), dict[int, int]()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        self.done += 1
        found = func(*args, **(kwargs or {}))
        if not func.is_view:
            self._note(self.read, (args, kwargs))
            self._note(self.made, found)
        return found

    def _note(self, when: dict[int, int], tensors: Any) -> None:
        when.update({_key(tensor): self.done for tensor in tree_leaves(tensors) if isinstance(tensor, Tensor)})


@dataclass(frozen=True)
class _Place:
    """A tensor, without holding its memory."""

    storage: weakref.ref
    like: tuple[torch.dtype, int, torch.Size, tuple[int, ...]]

    @classmethod
    def of(cls, tensor: Tensor) -> _Place:
        like = tensor.dtype, tensor.storage_offset(), tensor.shape, tensor.stride()
        return cls(weakref.ref(tensor.untyped_storage()), like)

    def found(self) -> Tensor | None:
        """None once its memory is free."""
        storage, (dtype, *rest) = self.storage(), self.like
        return None if storage is None else torch.empty(0, dtype=dtype, device=storage.device).set_(storage, *rest)


class LateCopies:
    """Copies within one kind of memory, on a schedule of chance.

    A copy that was asked for is made when something waits for it, or a while before that. Until then its place holds
    no numbers: every byte is 255, which is NaN in all floating dtypes. On a card computing may lag behind the program
    by any time, so a copy whose `after` stands before the last use of its place, or before what it copies is made, is
    an error. So is one that is made when either is free already: others may have that memory.

    Use it as a context around what computes.

    Attributes:
        asked: how many copies were asked for.
        too_late: how many of them when they were needed, with nothing computed in between.
        given: how often `host` gave memory.
        memory: what of it was not given back.
    """

    def __init__(self, seed: int = 0, *, late: float = 0.7, pinned: bool = True) -> None:
        self._chance, self._late, self._pinned = random.Random(seed), late, pinned
        self._waiting: list[tuple[int, list[tuple[_Place, _Place]]]] = []
        self._uses, self._asked_at = _Uses(), dict[int, int]()
        self.asked, self.too_late, self.given, self.memory = 0, 0, 0, list[Tensor]()

    def __enter__(self) -> LateCopies:
        self._uses.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._uses.__exit__(*error)

    def host(self, size: int) -> Tensor | None:
        """Plain memory."""
        if not self._pinned:
            return None
        self.given += 1
        # Who counts what is on the device counts no main memory.
        with _disable_current_modes():
            self.memory.append(torch.empty(size, dtype=torch.uint8))
        return self.memory[-1]

    def give_back(self, memory: Tensor) -> None:
        """Forget it; a copy from it that is still to come would read what is there then."""
        if self._waiting:
            raise Overwritten("Main memory is given back while copies from it are on their way.")
        self.memory = [one for one in self.memory if one is not memory]

    def record(self) -> int:
        """The number of operations so far."""
        return self._uses.done

    def copy(self, pairs: Sequence[tuple[Tensor, Tensor]], *, after: int | None) -> int:
        """See `Copies`; of what was asked for before, some is made now."""
        uses, after = self._uses, -1 if after is None else after
        for there, here in pairs:
            if max(uses.read.get(_key(there), -1), uses.made.get(_key(there), -1)) > after:
                raise Overwritten("A copy does not wait for what still uses its place.")
            if uses.made.get(_key(here), -1) > after:
                raise Overwritten("A copy does not wait for what makes its source.")
            _spoil(there)
        self.asked += 1
        self._asked_at[self.asked] = uses.done
        self._waiting.append((self.asked, [(_Place.of(there), _Place.of(here)) for there, here in pairs]))
        while self._waiting and self._chance.random() > self._late:
            self._make_next()
        return self.asked

    def wait(self, mark: int) -> None:
        """Make the copies up to that one."""
        self.too_late += self._asked_at.pop(mark, -1) == self._uses.done
        while self._waiting and self._waiting[0][0] <= mark:
            self._make_next()

    def settle(self) -> None:
        """Make all."""
        while self._waiting:
            self._make_next()

    def _make_next(self) -> None:
        _, places = self._waiting.pop(0)
        with torch.no_grad(), _disable_current_modes():
            for there, here in ((there.found(), here.found()) for there, here in places):
                if there is None or here is None:
                    raise Overwritten("A copy is made when its place or its source is free already.")
                there.copy_(here)


def _key(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _spoil(tensor: Tensor) -> None:
    with torch.no_grad(), _disable_current_modes():
        flat = tensor.as_strided((tensor.numel(),), (1,)) if tensor.dim() else tensor.reshape(1)
        flat.view(torch.uint8).fill_(255)
