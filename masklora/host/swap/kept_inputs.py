"""Inputs that blocks keep for backward wait in main memory, and each block's come back one block ahead of their use."""

from __future__ import annotations

import contextlib
import heapq
import weakref
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from .copies import Copies, copies_for
from .tensors import laid_out, room_for

# What takes less stays on the device.
_LITTLE = 2**20
_NOT_PINNED = (
    "checkpointing: the system has not enough main memory that it can keep in place, so inputs of blocks are moved "
    "while nothing is computed, which is slower. Close other programs."
)
_WRITTEN = (
    "An input that a block keeps for backward has been written to in place since, so that its gradient would be wrong."
)
_ENDED = "This graph was made in a session of its model; run its backward before the session ends."


class _Call:
    """A call of a block, there as long as autograd may ask for its inputs."""

    def __init__(self, number: int) -> None:
        self.number = number


@dataclass(eq=False)
class _Kept:
    """Whole storages of a call's inputs, by their keys, each as one flat tensor.

    Attributes:
        there: on the device; empty while they are in main memory only.
        versions: how often they had been written to, of those that are the inputs themselves.
        here: in main memory.
        slot: number of that memory.
        mark: behind the last copy from or to `there`.
    """

    there: dict[int, Tensor]
    versions: dict[int, int] = field(default_factory=dict)
    here: dict[int, Tensor] = field(default_factory=dict)
    slot: int = 0
    mark: Any = None

    def check(self) -> None:
        """Nothing if the inputs are what they were; else an error as autograd has it."""
        if any(self.there[key]._version != version for key, version in self.versions.items()):
            raise RuntimeError(_WRITTEN)


@dataclass(frozen=True, eq=False)
class _Staying:
    """A saved tensor that is not moved. Torch does not watch what goes through hooks."""

    tensor: Tensor
    version: int

    def restored(self) -> Tensor:
        if self.tensor._version != self.version:
            raise RuntimeError(_WRITTEN)
        return self.tensor


@dataclass(frozen=True, eq=False)
class _Moved:
    """A saved tensor by its place in a storage that is moved."""

    owner: KeptInputs
    call: _Call
    key: int
    shape: torch.Size
    strides: tuple[int, ...]
    offset: int

    def restored(self) -> Tensor:
        flat = self.owner.brought(self.call.number)[self.key]
        return flat.as_strided(self.shape, self.strides, self.offset)


class KeptInputs:
    """Moves what each block keeps for backward, as far as no other keeps it: large tensors that it is called with.

    What several blocks are given, as texts, rotary tables and masks are, moves with the first of them at most.
    A block's tensors leave the device while the next one works. In backward those of two blocks are there: of the
    one that works, and of the one before it, on their way. Main memory is used again from step to step.

    Args:
        device: Where blocks work.
        copies: To and from it; None for the device's own, made when they are first needed.

    Attributes:
        tell: Receives a sentence for people.
    """

    def __init__(self, device: torch.device, copies: Copies | None = None) -> None:
        self.tell: Callable[[str], None] = lambda told: None
        self._device = device
        self._copies: Copies = copies  # type: ignore[assignment]
        self._is_open, self._told = False, False
        self._count = 0
        self._kept: dict[int, _Kept] = {}
        self._seen: weakref.WeakSet[Any] = weakref.WeakSet()
        self._memory: dict[int, Tensor] = {}
        self._pinned: set[int] = set()
        self._free: list[int] = []

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """While it lasts `keeping` moves something, where the device copies while it computes."""
        self._copies = self._copies or copies_for(self._device)  # type: ignore[assignment]
        self._is_open = self._copies is not None
        try:
            yield
        finally:
            self._close()

    def release(self) -> None:
        """Give back the main memory."""
        for slot in list(self._memory):
            self._give_back(slot)
        self._free.clear()

    @contextlib.contextmanager
    def keeping(self, inputs: Sequence[Tensor]) -> Iterator[None]:
        """What is saved for backward while it lasts is moved afterwards, as far as it is one of the large `inputs`."""
        if not self._is_open:
            yield
            return
        self._count += 1
        call, kept, saved = _Call(self._count), _Kept(self._large(inputs)), set[int]()

        def pack(tensor: Tensor) -> _Staying | _Moved:
            key = _key(tensor)
            if key not in kept.there:
                return _Staying(tensor, tensor._version)
            saved.add(key)
            return _Moved(self, call, key, tensor.shape, tensor.stride(), tensor.storage_offset())

        with saved_tensors_hooks(pack, lambda one: one.restored()):
            yield
        if saved:
            kept.there = {key: flat for key, flat in kept.there.items() if key in saved}
            self._send(kept, call)

    def brought(self, number: int) -> dict[int, Tensor]:
        """The storages of a call on the device, and those of the call before it on their way there.

        Raises:
            RuntimeError: The session has ended, or an input is not what it was.
        """
        if number not in self._kept:
            raise RuntimeError(_ENDED)
        kept = self._kept[number]
        before = max((n for n in self._kept if n < number), default=number)
        self._let_go(but=(number, before))
        for one in (kept, self._kept[before]):
            self._bring(one)
        self._copies.wait(kept.mark)
        return kept.there

    def _large(self, inputs: Sequence[Tensor]) -> dict[int, Tensor]:
        """The storages of which these are most, and that no call before was given, as flat tensors by their keys."""
        by_storage: dict[int, list[Tensor]] = {}
        for tensor in inputs:
            if self._may_move(tensor):
                by_storage.setdefault(_key(tensor), []).append(tensor)
        found = {}
        for key, views in by_storage.items():
            storage, kinds = views[0].untyped_storage(), {view.dtype for view in views}
            size, whole = storage.nbytes(), views[0].itemsize
            is_new = storage not in self._seen
            self._seen.add(storage)
            if is_new and len(kinds) == 1 and size % whole == 0 and 2 * sum(v.nbytes for v in views) > size:
                found[key] = views[0].detach().as_strided((size // whole,), (1,), 0)
        return found

    def _may_move(self, tensor: Tensor) -> bool:
        if isinstance(tensor, nn.Parameter) or tensor.layout != torch.strided or tensor.device != self._device:
            return False
        return tensor.untyped_storage().nbytes() >= _LITTLE

    def _send(self, kept: _Kept, call: _Call) -> None:
        """Begin to copy the storages to main memory; those of calls before have left the device by now."""
        flats = list(kept.there.values())
        kept.slot = self._take(room_for(flats))
        kept.here = dict(zip(kept.there, laid_out(flats, self._memory[kept.slot]), strict=True))
        kept.versions = {key: flat._version for key, flat in kept.there.items()}
        pairs = [(kept.here[key], flat) for key, flat in kept.there.items()]
        kept.mark = self._copies.copy(pairs, after=self._copies.record())
        self._kept[call.number] = kept
        weakref.finalize(call, self._end, call.number).atexit = False
        self._let_go(but=(call.number,))

    def _bring(self, kept: _Kept) -> None:
        if kept.there:
            kept.check()
            return
        kept.there = {key: torch.empty_like(flat, device=self._device) for key, flat in kept.here.items()}
        pairs = [(flat, kept.here[key]) for key, flat in kept.there.items()]
        kept.mark = self._copies.copy(pairs, after=self._copies.record())

    def _let_go(self, *, but: Collection[int]) -> None:
        """Give the device's memory of other calls than these to others, who compute after the copies are made."""
        for number, kept in self._kept.items():
            if number not in but and kept.there:
                self._copies.wait(kept.mark)
                kept.check()
                kept.there, kept.versions = {}, {}

    def _end(self, number: int) -> None:
        """Autograd asks for nothing more of this call."""
        kept = self._kept.get(number)
        if kept is not None:
            # A copy may be on its way to memory that is given to others with the last that holds it.
            self._copies.wait(kept.mark)
            del self._kept[number]
            heapq.heappush(self._free, kept.slot)

    def _close(self) -> None:
        self._is_open = False
        if self._kept:
            self._copies.settle()
            for kept in self._kept.values():
                kept.there = {}
                heapq.heappush(self._free, kept.slot)
            self._kept.clear()

    def _take(self, size: int) -> int:
        """The first main memory that is free, of `size` bytes or more: in each step the same for the same block."""
        slot = heapq.heappop(self._free) if self._free else len(self._memory)
        if slot in self._memory and self._memory[slot].numel() < size:
            self._give_back(slot)
        if slot not in self._memory:
            self._memory[slot] = self._main_memory(slot, size)
        return slot

    def _main_memory(self, slot: int, size: int) -> Tensor:
        memory = self._copies.host(size)
        if memory is not None:
            self._pinned.add(slot)
            return memory
        if not self._told:
            self._told = True
            self.tell(_NOT_PINNED)
        return torch.empty(size, dtype=torch.uint8)

    def _give_back(self, slot: int) -> None:
        memory = self._memory.pop(slot)
        if slot in self._pinned:
            self._pinned.remove(slot)
            # What comes from there may still be on its way.
            self._copies.settle()
            self._copies.give_back(memory)


def _key(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
