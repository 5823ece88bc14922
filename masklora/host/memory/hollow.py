"""A model whose tensors have shapes and no data for a while, so that its step can be run in no time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from comfy.quant_ops import QuantizedTensor
from torch import Tensor, nn

from ...autograd.places import Place, exchanged
from .counts import Counts

# No accelerator of anybody's, and torch runs next to nothing there.
NOWHERE = torch.device("meta")
_WIDE = (torch.float32, torch.bfloat16, torch.float16)
# What ComfyUI puts on layers that it brings to the device when they are computed.
_BROUGHT = {"_v": None, "weight_function": [], "bias_function": []}


class HollowCounts(Counts):
    """Counts of tensors without data; what an operation gives for some shapes is looked up from the second time on.

    Torch finds out about many of them in Python, which would take most of the time.
    """

    def __init__(self, *, begins: bool = False) -> None:
        """Of a step in which clips are given their first frame, if it `begins` so.

        LTX-2 asks then whether a frame is given in part alone, which numbers that are not there cannot tell: it is not.
        """
        super().__init__(NOWHERE)
        self._begins = begins

    def _run(self, func: Any, args: tuple, kwargs: dict) -> tuple[Any, int]:
        given: list[Tensor] = []
        if self._begins and func is torch.ops.aten._local_scalar_dense.default and args[0].dtype == torch.bool:
            return False, 0
        try:
            key = func, _key(args, given), _key(tuple(kwargs.items()), given) if kwargs else ()
            known = _RESULTS.get(key)
        except TypeError:
            return super()._run(func, args, kwargs)
        if known is not None:
            return known.made(args), known.flops
        out, flops = super()._run(func, args, kwargs)
        known = _Result.of(out, args, given, flops)
        if known is not None:
            if len(_RESULTS) >= _MOST_RESULTS:
                _RESULTS.clear()
            _RESULTS[key] = known
        return out, flops


@dataclass(frozen=True)
class _Result:
    """What an operation gives: new tensors, or its first argument, to which it wrote.

    Attributes:
        made_as: Shape, strides and dtype of each new tensor; None for a place where there is none.
        alone: Whether it gives one tensor and no tuple.
        first: Whether it gives its first argument.
        flops: Of it.
    """

    made_as: tuple[tuple[Any, ...] | None, ...] = ()
    alone: bool = True
    first: bool = False
    flops: int = 0

    @classmethod
    def of(cls, out: Any, args: tuple, given: list[Tensor], flops: int) -> _Result | None:
        """None where it is something else, such as a view, or where data are about."""
        parts = out if isinstance(out, tuple) else (out,)
        tensors = [t for t in parts if t is not None]
        if not tensors or not all(isinstance(t, Tensor) and t.device == NOWHERE for t in tensors):
            return None
        if args and out is args[0]:
            return cls(first=True, flops=flops)
        held = {t.untyped_storage()._cdata for t in given}
        if any(t.untyped_storage()._cdata in held or t.storage_offset() for t in tensors):
            return None
        made_as = tuple(None if t is None else (t.shape, t.stride(), t.dtype) for t in parts)
        return cls(made_as, isinstance(out, Tensor), flops=flops)

    def made(self, args: tuple) -> Any:
        """The same anew."""
        if self.first:
            return args[0]
        tensors = [None if like is None else _empty(*like) for like in self.made_as]
        return tensors[0] if self.alone else tuple(tensors)


def _empty(shape: torch.Size, strides: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return torch.empty_strided(shape, strides, dtype=dtype, device=NOWHERE)


_RESULTS: dict[Any, _Result] = {}
_MOST_RESULTS = 20_000


def _key(value: Any, given: list[Tensor]) -> Any:
    """Equal for arguments for which an operation gives the same; the tensors among them are added to `given`.

    Raises:
        TypeError: Nothing tells.
    """
    if isinstance(value, Tensor):
        if value.device != NOWHERE:
            raise TypeError
        given.append(value)
        return value.shape, value.stride(), value.dtype
    if isinstance(value, (tuple, list)):
        return tuple([_key(v, given) for v in value])
    return type(value), value


@contextlib.contextmanager
def without_data(
    owners: Sequence[nn.Module],
    counts: Counts,
    *,
    stored: torch.dtype | None,
    kinds: tuple[str, str],
) -> Iterator[None]:
    """The modules' tensors have no data while the context lasts; afterwards they are what they were.

    They keep the size of their elements, so that layers which are cast are cast again.

    Args:
        owners: All modules of a model, and of its adapters.
        counts: Told of the tensors.
        stored: What frozen layers store weights of 16 or 32 bits in; None for what they do.
        kinds: Under which frozen and trained tensors are counted.
    """
    modules = list(dict.fromkeys(m for owner in owners for m in owner.modules()))
    with exchanged(_hollowed(modules, counts, stored, kinds)), contextlib.ExitStack() as stack:
        for module in modules:
            stack.enter_context(_without_what_brings(vars(module)))
        yield


def _hollowed(
    modules: Sequence[nn.Module], counts: Counts, stored: torch.dtype | None, kinds: tuple[str, str]
) -> Iterator[tuple[Place, Tensor]]:
    """Where each tensor is held, and one like it without data: the same for the same tensor."""
    made: dict[int, Tensor] = {}
    for module in modules:
        for store in (module._parameters, module._buffers):
            for name, tensor in [(name, t) for name, t in store.items() if t is not None]:
                if id(tensor) not in made:
                    counts.making = kinds[tensor.requires_grad]
                    made[id(tensor)] = _hollow(tensor, module, stored)
                yield Place(store, name), made[id(tensor)]


@contextlib.contextmanager
def _without_what_brings(own: dict[str, Any]) -> Iterator[None]:
    """What a module has of these is not in its namespace while the context lasts, or empty."""
    before = {name: own[name] for name in _BROUGHT if name in own}
    try:
        for name in before:
            if _BROUGHT[name] is None:
                del own[name]
            else:
                own[name] = []
        yield
    finally:
        own.update(before)


def _hollow(tensor: Tensor, module: nn.Module, stored: torch.dtype | None) -> Tensor:
    kind = tensor.dtype
    if isinstance(tensor, QuantizedTensor) or isinstance(getattr(tensor, "data", None), QuantizedTensor):
        # Of another dtype than the computation's, as the quantised one is.
        kind = torch.float8_e4m3fn
    if stored is not None and kind in _WIDE and hasattr(module, "comfy_cast_weights"):
        kind = stored
    made = torch.empty(tensor.shape, dtype=kind, device=NOWHERE)
    return nn.Parameter(made, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else made
