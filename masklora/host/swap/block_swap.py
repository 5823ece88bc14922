"""Weights of some blocks wait in main memory, and each is brought to the device one block ahead of its use."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.model_management
import torch
from torch import Tensor, nn

from ...autograd.places import Place, exchanged
from .copies import Copies
from .tensors import laid_out, parts_of, places_in, room_for, stored_bytes

# Neighbours among the swapped blocks lie in different ones.
_SLOTS = 2
# Below that a tensor that is on the device stays there.
_LITTLE = 64 * 1024


@dataclass(eq=False)
class _Slot:
    """Memory on the device for one block at a time.

    Attributes:
        memory: (n,) uint8, as large as the largest of its blocks.
        free: mark behind the last computation that reads what is in it.
        ready: mark behind the copy that fills it.
        holds: the block whose weights are in it, or on their way.
    """

    memory: Tensor
    free: Any
    ready: Any = None
    holds: _Swapped | None = None


@dataclass(eq=False)
class _Swapped:
    """A block: what is copied into which slot, and its tensors in that slot, by where the block holds them."""

    index: int
    slot: _Slot
    copied: list[tuple[Tensor, Tensor]]
    there: list[tuple[Place, Tensor]]


class BlockSwap:
    """Brings the weights of blocks to the device when they are needed; nothing is copied back, for they are frozen.

    Two slots hold the block that works and the next one. In a training step blocks are asked for in their order and
    then backwards, so that at both turns the first two are there already. In any other order all is as right, and
    slower.

    Args:
        blocks: In the order in which the network runs them, none inside another.
        device: Where they work.
        copies: To that device. None only without blocks: then nothing is swapped.
    """

    def __init__(
        self, blocks: Sequence[nn.Module] = (), *, device: torch.device | None = None, copies: Copies | None = None
    ) -> None:
        self.blocks, self._device = list(blocks), device
        self._copies: Copies = copies  # type: ignore[assignment]
        self._swapped: dict[int, _Swapped] = {}
        self._order: list[_Swapped] = []
        self._memory: dict[int, Tensor] = {}
        self.refused = 0

    @property
    def slot_bytes(self) -> int:
        """Bytes on the device that the slots take."""
        return slot_bytes([block_bytes(block) for block in self.blocks])

    @contextlib.contextmanager
    def opened(self, network: nn.Module) -> Iterator[None]:
        """While it lasts the blocks' weights are in main memory, and on the device while `holding` a block.

        What that frees on the device is given to other weights of `network` that ComfyUI found no room for. Afterwards
        a model of which a part was taken from the device is ComfyUI's to load again.
        """
        if not self.blocks:
            yield
            return
        with contextlib.ExitStack() as stack:
            places = [places_in(block.modules()) for block in self.blocks]
            taken = sum(self._taken(one) for one in places)
            if taken:
                # It believes them on the device, and loads the model whole again where it is needed next.
                stack.callback(unload_models)
            for index, one in enumerate(places):
                stack.enter_context(self._at_rest(index, one))
            stack.enter_context(_patched_on_the_device(self.blocks))
            stack.enter_context(self._brought(network, taken))
            stack.callback(self._close)
            self._make_slots(places)
            yield

    def release(self) -> None:
        """Give back the main memory."""
        for memory in self._memory.values():
            self._copies.give_back(memory)
        self._memory.clear()

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """The blocks hold their places on the device, whatever is in these: for who asks what kind they are of."""
        with exchanged(pair for one in self._order for pair in one.there):
            yield

    def holding(self, block: nn.Module, again: bool) -> contextlib.AbstractContextManager:
        """While it lasts `block` has its weights on the device, and the next block's are on their way.

        Args:
            block: Any block of the network; others than the swapped have theirs always.
            again: Whether it is repeated for backward, so that the one before it comes next.
        """
        swapped = self._swapped.get(id(block))
        return contextlib.nullcontext() if swapped is None else self._held(swapped, -1 if again else 1)

    @contextlib.contextmanager
    def _held(self, swapped: _Swapped, step: int) -> Iterator[None]:
        slot = swapped.slot
        self._bring(swapped)
        self._copies.wait(slot.ready)
        following = swapped.index + step
        if 0 <= following < len(self._order):
            self._bring(self._order[following])
        try:
            with exchanged(swapped.there):
                yield
        finally:
            slot.free = self._copies.record()

    def _bring(self, swapped: _Swapped) -> None:
        slot = swapped.slot
        if slot.holds is not swapped:
            slot.holds = swapped
            slot.ready = self._copies.copy(swapped.copied, after=slot.free)

    def _taken(self, places: list[Place]) -> int:
        """Bytes of these tensors that are on the device now and will not be."""
        here = [place.held for place in places if place.held.device == self._device and not self._stays(place)]
        return sum(map(stored_bytes, here))

    def _stays(self, place: Place) -> bool:
        return place.held.device == self._device and stored_bytes(place.held) < _LITTLE

    @contextlib.contextmanager
    def _at_rest(self, index: int, places: list[Place]) -> Iterator[None]:
        """The block's weights are in main memory; those that were there before are again what they were."""
        kept = [(place, place.held) for place in places if place.held.device != self._device]
        for place, tensor in zip(places, self._in_main_memory(index, [p.held for p in places]), strict=True):
            if not self._stays(place):
                place.store[place.name] = tensor
        try:
            yield
        finally:
            for place, tensor in kept:
                place.store[place.name] = tensor

    def _in_main_memory(self, index: int, tensors: list[Tensor]) -> list[Tensor]:
        # All of them, so that each has the same place whenever memory is used again in which some still are.
        size = room_for(tensors)
        if index not in self._memory and (memory := self._copies.host(size)) is not None:
            self._memory[index] = memory
        if index not in self._memory:
            self.refused += size
            return [t.to("cpu", copy=True) if t.device == self._device else t for t in tensors]
        found = laid_out(tensors, self._memory[index])
        for there, here in zip(found, tensors, strict=True):
            for into, part in _pairs(there, here):
                into.copy_(part)
        return found

    def _make_slots(self, places: list[list[Place]]) -> None:
        tensors = [[place.held for place in one] for one in places]
        sizes = [room_for(one) for one in tensors]
        slots = []
        for first in range(min(_SLOTS, len(sizes))):
            memory = torch.empty(max(sizes[first::_SLOTS]), dtype=torch.uint8, device=self._device)
            slots.append(_Slot(memory, free=self._copies.record()))
        for index, (one, held) in enumerate(zip(places, tensors, strict=True)):
            slot, memory = slots[index % _SLOTS], self._memory.get(index)
            there = laid_out(held, slot.memory[: sizes[index]])
            moved = [(place, t) for place, t in zip(one, there, strict=True) if not self._stays(place)]
            whole = [(slot.memory[: sizes[index]], memory)] if memory is not None else []
            copied = whole or [pair for place, t in moved for pair in _pairs(t, place.held)]
            swapped = _Swapped(index, slot, copied, moved)
            self._order.append(swapped)
            self._swapped[id(self.blocks[index])] = swapped

    def _close(self) -> None:
        # A copy may be on its way into memory that is given to others from here on.
        self._copies.settle()
        self._swapped.clear()
        self._order.clear()

    @contextlib.contextmanager
    def _brought(self, network: nn.Module, room: int) -> Iterator[None]:
        """Weights that lie in main memory are on the device while the context lasts, as far as `room` bytes reach."""
        own = {id(module) for block in self.blocks for module in block.modules()}
        found: list[tuple[Place, Tensor]] = []
        for module in network.modules():
            # Those that have `_v` ComfyUI brings when they are needed, and keeps while there is room.
            if id(module) in own or hasattr(module, "_v"):
                continue
            away = [place for place in places_in([module]) if place.held.device != self._device]
            room -= sum(stored_bytes(place.held) for place in away)
            if room < 0:
                break
            found += [(place, place.held.detach().to(self._device)) for place in away]
        with exchanged(found):
            yield


def unload_models() -> None:
    """Take every model off its device. ComfyUI's own way fails where one of them is gone meanwhile."""
    comfy.model_management.cleanup_models()
    comfy.model_management.unload_all_models()


def block_bytes(block: nn.Module) -> int:
    """Bytes of the weights of a block."""
    return sum(stored_bytes(place.held) for place in places_in(block.modules()))


def slot_bytes(sizes: Sequence[int]) -> int:
    """Bytes of the slots for swapped blocks of these sizes, in their order."""
    return sum(max(sizes[first::_SLOTS]) for first in range(min(_SLOTS, len(sizes))))


@contextlib.contextmanager
def _patched_on_the_device(blocks: Sequence[nn.Module]) -> Iterator[None]:
    """With dynamic VRAM ComfyUI applies LoRAs on the MODEL where it brings weights; now where it casts them.

    Weights that are on the device already it does not bring.
    """
    changed: list[tuple[dict[str, Any], str, list[Callable] | None]] = []
    try:
        for module in (module for block in blocks for module in block.modules()):
            for kind in ("weight", "bias"):
                patch = getattr(module, f"{kind}_lowvram_function", None)
                if patch is not None:
                    name, space = f"{kind}_function", vars(module)
                    changed.append((space, name, space.get(name)))
                    space[name] = [patch, *getattr(module, name)]
        yield
    finally:
        for space, name, before in changed:
            del space[name]
            space |= {} if before is None else {name: before}


def _pairs(there: Tensor, here: Tensor) -> list[tuple[Tensor, Tensor]]:
    return list(zip(parts_of(there), parts_of(here), strict=True))
