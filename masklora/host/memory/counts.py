"""What a computation has in memory and how much it multiplies, counted while it is dispatched."""

from __future__ import annotations

import weakref
from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry


class Counts(TorchDispatchMode):
    """Counts what is dispatched on one device while it lasts; backward included.

    Attributes:
        live: Bytes of the storages that are in use, by what was `making` them.
        total: Their sum.
        peak: The sum at its most; `at_peak` tells of what.
        highest: The same since `begin`.
        flops: Of matrix products, convolutions and attention: a multiplication and an addition are two.
        making: Kind under which new storages are counted.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device
        self.live: Counter[str] = Counter()
        self.total, self.peak, self.highest, self.flops = 0, 0, 0, 0
        self.at_peak: dict[str, int] = {}
        self.making = ""
        self._known: dict[int, weakref.ref] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Torch would import its compiler, which takes a second, to keep it away from here.
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        out, flops = self._run(func, args, kwargs)
        here = [t for t in self._tensors(out) if t.device == self.device]
        # Without data a view may have a storage of its own.
        for tensor in () if func.is_view else here:
            self.hold(tensor)
        self.flops += flops if here else 0
        self._note(func, here, args, kwargs)
        return out

    def _run(self, func: Any, args: tuple, kwargs: dict) -> tuple[Any, int]:
        """What the operation gives, and its FLOPs."""
        out = func(*args, **kwargs)
        formula = flop_registry.get(func._overloadpacket)
        return out, 0 if formula is None else int(formula(*args, **kwargs, out_val=out))

    def _note(self, func: Any, here: list[Tensor], args: tuple, kwargs: dict) -> None:
        """One operation has been dispatched, whose results on the device are `here`."""

    def _tensors(self, out: Any) -> list[Tensor]:
        return [out] if isinstance(out, Tensor) else [t for t in tree_leaves(out) if isinstance(t, Tensor)]

    def hold(self, tensor: Tensor) -> None:
        """Count the storage of `tensor` until it is gone; once, however many tensors share it."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known and self._known[key]() is not None:
            return
        self._known[key] = weakref.ref(storage)
        size, kind = storage.nbytes(), self.making
        weakref.finalize(storage, self._release, key, size, kind).atexit = False
        self.live[kind] += size
        self.total += size
        self.highest = max(self.highest, self.total)
        if self.total > self.peak:
            self._note_peak()

    def begin(self) -> int:
        """What is in use now; `highest` is counted anew from here."""
        self.highest = self.total
        return self.total

    def add(self, name: str, flops: int, *, launches: int = 1) -> None:
        """Count work that is not dispatched as what it is on a real device: so many kernels of this name."""
        self.flops += flops

    def _note_peak(self) -> None:
        self.peak, self.at_peak = self.total, dict(self.live)

    def _release(self, key: int, size: int, kind: str) -> None:
        self.live[kind] -= size
        self.total -= size
        if key in self._known and self._known[key]() is None:
            del self._known[key]
