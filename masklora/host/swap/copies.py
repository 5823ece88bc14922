"""Copies between main memory and the device beside its work: which of both waits for the other, and where."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import comfy.model_management
import torch
from torch import Tensor

# Devices that copy on a stream of their own while they compute.
_WITH_STREAMS = ("cuda", "xpu")


class Copies(Protocol):
    """Two queues of a device: one computes what the program asks for, the other copies."""

    def host(self, size: int) -> Tensor | None:
        """Main memory (size,) uint8 that the device reads and writes by itself; None where it gives none."""

    def give_back(self, memory: Tensor) -> None:
        """End the use of memory that `host` gave."""

    def record(self) -> Any:
        """A mark behind all that was asked to be computed so far."""

    def copy(self, pairs: Sequence[tuple[Tensor, Tensor]], *, after: Any) -> Any:
        """Fill the first of each pair from the second, not before computing has come to `after`: a mark behind it."""

    def wait(self, mark: Any) -> None:
        """Nothing that is asked for from now on is computed before the copies have come to `mark`."""

    def settle(self) -> None:
        """Return once all copies are made and all is computed."""


class StreamCopies:
    """Those of a card."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._api = device, torch.get_device_module(device)
        self._stream = self._api.Stream(device)

    def host(self, size: int) -> Tensor | None:
        """Main memory (size,) uint8 that the system keeps in its place; None where it refuses."""
        memory = torch.empty(size, dtype=torch.uint8)
        return memory if comfy.model_management.pin_memory(memory) else None

    def give_back(self, memory: Tensor) -> None:
        """Let the system move it again."""
        comfy.model_management.unpin_memory(memory)

    def record(self) -> Any:
        """An event behind what computing was asked for so far."""
        event = self._api.Event()
        event.record(self._api.current_stream(self._device))
        return event

    def copy(self, pairs: Sequence[tuple[Tensor, Tensor]], *, after: Any) -> Any:
        """See `Copies`."""
        with self._api.stream(self._stream):
            self._stream.wait_event(after)
            for there, here in pairs:
                there.copy_(here, non_blocking=True)
            event = self._api.Event()
            event.record(self._stream)
        return event

    def wait(self, mark: Any) -> None:
        """See `Copies`."""
        self._api.current_stream(self._device).wait_event(mark)

    def settle(self) -> None:
        """See `Copies`."""
        self._api.synchronize(self._device)


def is_main_memory(device: torch.device) -> bool:
    """Whether what is on `device` is in main memory, so that moving it there and back wins nothing."""
    return device.type == "cpu"


def copies_aside(device: torch.device) -> bool:
    """Whether `device` copies while it computes; where its memory is main memory there is nothing to copy."""
    return device.type in _WITH_STREAMS


def copies_for(device: torch.device) -> Copies | None:
    """Copies to `device`; None where it does not copy while it computes."""
    return StreamCopies(device) if copies_aside(device) else None
