"""What a computation consists of: launches, floating-point operations, and bytes in use at their most."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from masklora.host.memory.counts import Counts

# They allocate, rename or ask; no kernel runs.
_NOTHING = {
    "aten::_unsafe_view",
    "aten::alias",
    "aten::detach",
    "aten::empty",
    "aten::empty_like",
    "aten::empty_strided",
    "aten::lift_fresh",
    "aten::new_empty",
    "aten::new_empty_strided",
    "aten::resize_",
    "aten::set_",
    "prim::device",
}


_COPIES = {"aten::_to_copy", "aten::copy_"}


class Counted(Counts):
    """Counts what is dispatched while it lasts, on one device, and its kernels; backward included.

    Attributes:
        launches: operations that run a kernel, by name.
        at_peak: bytes at their most by kind: what backward made is gradients and work.
        reads: copies of what is on the device to elsewhere, for which the host waits.
        gradients: parameters of whose gradients it is told at the peak.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self.launches: Counter[str] = Counter()
        self.gradients: list[nn.Parameter] = []
        self.reads: list[str] = []

    def _note(self, func: Any, here: list[Tensor], args: tuple, kwargs: dict) -> None:
        waits = func._schema.name in _COPIES and not (kwargs.get("non_blocking") or args[2:3] == (True,))
        if not here and waits and self._is_here(here, args, kwargs):
            self.reads.append(f"{func._schema.name} of {tuple(args[0].shape)} while making {self.making}")
        if func._schema.name not in _NOTHING and not func.is_view and self._is_here(here, args, kwargs):
            self.launches[func._schema.name] += 1

    def add(self, name: str, flops: int, *, launches: int = 1) -> None:
        """Count work that is not dispatched as what it is on a real device."""
        super().add(name, flops, launches=launches)
        self.launches[name] += launches

    def restart(self) -> None:
        """Count from here on; what is in use stays in use."""
        self.launches.clear()
        self.flops = 0
        self.reads.clear()
        self._note_peak()

    def _note_peak(self) -> None:
        gradients = sum(p.grad.nbytes for p in self.gradients if p.grad is not None)
        self.peak = self.total
        kept = {kind: size for kind, size in self.live.items() if kind != "backward"}
        self.at_peak = {**kept, "gradients": gradients, "work": self.live["backward"] - gradients}

    def _is_here(self, here: list[Tensor], args: tuple, kwargs: dict) -> bool:
        """Whether an operation ran on the device: what writes in place only may return nothing."""
        return bool(here) or any(isinstance(t, Tensor) and t.device == self.device for t in tree_leaves((args, kwargs)))
