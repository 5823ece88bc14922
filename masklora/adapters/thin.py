"""PEFT's LoRA layers with a forward that costs two small matrix products and nothing else.

PEFT's own forward casts the input to the adapter's dtype (a full-size fp32 copy on half-precision models) and
takes about twice the Python time. Everything else (initialisation, rsLoRA scaling, DoRA, names) stays PEFT's.

A and B stay in float32; what the model computes with is `cast` from them, once a step for all layers: layer by layer
it would be as many kernels as all of the adapters' products.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.lora.layer import Conv2d as PeftConv2d
from peft.tuners.lora.layer import Linear as PeftLinear
from torch import Tensor, nn

from ..autograd.frozen import FrozenLinear, frozen_linear
from ..autograd.traced import is_tracing
from .layers import is_linear
from .lora_keys import ADAPTER
from .opening import Opened, Opening
from .product import FirstProduct, NextProduct
from .shared_input import SharedInput


class _Casts(torch.autograd.Function):
    """Tensors in another dtype, and their gradients back, in a few kernels; keeps nothing, so backward may repeat."""

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, counts: Sequence[int], *tensors: Tensor) -> tuple[Tensor, ...]:
        """Tensors in `dtype`; `counts` tells how many that follow each other come one below the other in one."""
        ctx.set_materialize_grads(False)
        left, ctx.rows, ctx.dtype = iter(tensors), [], tensors[0].dtype
        copies: list[Tensor] = []
        places: list[Tensor] = []
        for count in counts:
            parts = list(itertools.islice(left, count))
            rows = [len(part) for part in parts]
            copies.append(parts[0].new_empty(sum(rows), *parts[0].shape[1:], dtype=dtype))
            places += copies[-1].split(rows)
            ctx.rows.append(rows)
        _copy(places, tensors)
        return tuple(copies)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        parts: list[Tensor | None] = []
        for grad, rows in zip(grads, ctx.rows, strict=True):
            parts += [None] * len(rows) if grad is None else grad.split(rows)
        there = [part for part in parts if part is not None]
        copies = [torch.empty_like(part, dtype=ctx.dtype) for part in there]
        _copy(copies, there)
        given = iter(copies)
        return None, None, *(None if part is None else next(given) for part in parts)


def _copy(places: Sequence[Tensor], tensors: Sequence[Tensor]) -> None:
    if tensors:
        torch._foreach_copy_(list(places), list(tensors))


@dataclass(frozen=True, eq=False)
class _Copies:
    """What layers compute with: each one's `cast` and `open`, and each group's `stack`."""

    casts: list[tuple[tuple[Tensor, Tensor] | None, int | None]]
    stacks: list[Tensor | None]


class Cast:
    """A and B of thin layers in the dtype in which a model computes, made anew whenever these have changed.

    Args:
        layers: The layers. Those with DoRA compute in PEFT's way, and are left out.
        groups: Those of them whose A are to lie in one tensor.
    """

    def __init__(self, layers: Iterable[nn.Module], groups: Iterable[SharedInput] = ()) -> None:
        self._layers = [x for x in layers if isinstance(x, _Thin) and ADAPTER not in x.lora_variant]
        self._groups = list(groups)
        self._made_from: tuple | None = None
        self._differentiable = False
        # With all ranks, and with those that are open; made when it is first asked for some.
        self._whole: _Copies | None = None
        self._opened: dict[tuple[Opening, bool], _Copies] = {}
        self._present: _Copies | None = None

    def make(self, dtype: torch.dtype) -> None:
        """Let the layers compute with copies in `dtype`, differentiable where gradients are enabled, all ranks open."""
        self._put(self._whole)
        flat = [t for layer in self._layers for t in layer.cast_from]
        state = dtype, *((t.untyped_storage()._cdata, t._version) for t in flat)
        stacks = [group.downs for group in self._groups]
        stacked = [down for stack in stacks for down in stack]
        known = {id(down) for down in stacked}
        alone = [t for t in flat if t.dtype != dtype and id(t) not in known]
        # A pass without gradients may come between a forward and its backward, which repeats blocks with the copies.
        serves = self._differentiable or not torch.is_grad_enabled()
        if state == self._made_from and serves:
            return
        if stacked or alone:
            copies = _Casts.apply(dtype, [*map(len, stacks), *[1] * len(alone)], *stacked, *alone)
            made = {id(t): copy for t, copy in zip(alone, copies[len(stacks) :], strict=True)}
            for group, downs, copy in zip(self._groups, stacks, copies, strict=False):
                group.stack = copy
                made |= {id(down): copy for down in downs}
            for layer in self._layers:
                down, up = layer.cast_from
                layer.cast = made.get(id(down), down), made.get(id(up), up)
        self._made_from, self._differentiable = state, torch.is_grad_enabled()
        self._whole = self._present = None

    def open(self, opening: Opening | None) -> None:
        """Let the layers compute with these ranks alone until `make` or another call; None for all of them.

        `make` comes first. What is kept for other openings is `keep`'s to let go of.
        """
        if self._whole is None:
            casts = [(layer.cast, layer.open) for layer in self._layers]
            self._whole = self._present = _Copies(casts, [group.stack for group in self._groups])
            self._opened.clear()
        if opening is None:
            self._put(self._whole)
            return
        # Copies without a graph are no use to who wants gradients.
        key = opening, torch.is_grad_enabled()
        if key not in self._opened:
            self._opened[key] = self._with_open(dict(opening), self._whole)
        self._put(self._opened[key])

    def keep(self, openings: Collection[Opening | None]) -> None:
        """Forget the copies for all openings but these."""
        self._opened = {key: copies for key, copies in self._opened.items() if key[0] in openings}

    def recall(self) -> Callable[[], None]:
        """What makes the layers compute again with the copies that they have now."""
        return functools.partial(self._put, self._present)

    def _with_open(self, counts: Mapping[int, int], whole: _Copies) -> _Copies:
        # Of a stack the rows of each of its layers, as it has no A of its own.
        closed: dict[int, tuple[Tensor, list[slice]]] = {}
        for group, stack in zip(self._groups, whole.stacks, strict=True):
            assert stack is not None
            ranks = [(rows, counts[rows.stop - rows.start]) for rows in group.rows]
            closed[id(stack)] = stack, [slice(rows.start + count, rows.stop) for rows, count in ranks]
        pairs = [cast or layer.cast_from for layer, (cast, _) in zip(self._layers, whole.casts, strict=True)]
        for layer, (down, _) in zip(self._layers, pairs, strict=True):
            closed.setdefault(id(down), (down, [slice(counts[layer.rank], layer.rank)]))
        copies = Opened.apply([rows for _, rows in closed.values()], *(down for down, _ in closed.values()))
        made = dict(zip(closed, copies, strict=True))
        casts: list[tuple[tuple[Tensor, Tensor] | None, int | None]] = [
            ((made[id(down)], up), counts[layer.rank]) for layer, (down, up) in zip(self._layers, pairs, strict=True)
        ]
        return _Copies(casts, [made[id(stack)] for stack in whole.stacks])

    def _put(self, copies: _Copies | None) -> None:
        if copies is None or copies is self._present:
            return
        for layer, (cast, count) in zip(self._layers, copies.casts, strict=True):
            layer.cast, layer.open = cast, count
        for group, stack in zip(self._groups, copies.stacks, strict=True):
            group.stack = stack
        self._present = copies

    def drop(self) -> None:
        """Forget the copies, and with them their graph."""
        self._whole = self._present = None
        self._opened.clear()
        for layer in self._layers:
            layer.cast = layer.open = None
        for group in self._groups:
            group.stack = None
        self._made_from = None


class _As(torch.autograd.Function):
    """A weight in the dtype of a layer that the model computes in another one; its gradient is that of the copy."""

    @staticmethod
    def forward(ctx: Any, copy: Tensor, weight: Tensor, dtype: torch.dtype, rows: int | None = None) -> Tensor:
        """Of `weight` with all its rows, or with all from `rows` on as 0."""
        ctx.dtype = copy.dtype
        out = weight.to(dtype, copy=True)
        if rows is not None:
            out[rows:] = 0
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[override]
        return grad.to(ctx.dtype), None, None, None


class _Thin:
    """What a layer with an adapter computes with.

    Attributes:
        cast: A and B in the dtype of the model while `Cast` has made them; A is that of all that `shared` has.
        open: How many of its ranks take part; None for all. A in `cast` is 0 in the others.
        shared: The layers that may be given one tensor with this one.
        number: Which of these it is.
    """

    cast: tuple[Tensor, Tensor] | None = None
    open: int | None = None
    shared: SharedInput | None = None
    number = 0
    lora_A: nn.ModuleDict
    lora_B: nn.ModuleDict
    lora_variant: dict[str, Any]

    @property
    def cast_from(self) -> tuple[Tensor, Tensor]:
        """A and B themselves."""
        return self.lora_A[ADAPTER].weight, self.lora_B[ADAPTER].weight  # type: ignore[return-value]

    @property
    def rank(self) -> int:
        """How many ranks it has."""
        return len(self.lora_A[ADAPTER].weight)

    def _factors(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """A and B in `dtype`."""
        down, up = self.cast_from
        if self.cast is None:
            return down.to(dtype), up.to(dtype)
        cast_down, cast_up = self.cast
        if self.shared is not None:
            cast_down = cast_down[self.shared.rows[self.number]]
        if cast_up.dtype == dtype:
            return cast_down, cast_up
        if is_tracing():
            return cast_down.to(dtype), cast_up.to(dtype)
        return _As.apply(cast_down, down, dtype, self.open), _As.apply(cast_up, up, dtype)

    def _move_adapter_to_device_of_base_layer(self, adapter_name: str, device: torch.device | None = None) -> None:
        """Nothing: PEFT would put adapters into the base's storage dtype, even float8."""


class ThinLinear(_Thin, PeftLinear):
    """base(x) + scaling · B(A(x)), with A and B cast to the dtype of x."""

    @property
    def _drops(self) -> bool:
        return self.training and not isinstance(self.lora_dropout[ADAPTER], nn.Identity)

    def _get_in_out_features(self, module: Any) -> tuple[int, int]:
        """Asked of the layer, which need not be one of torch's."""
        return module.in_features, module.out_features

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """(…, in) to (…, out) in the dtype of x; without the adapter while it is disabled."""
        if self.disable_adapters:
            return self.base_layer(x)
        if ADAPTER in self.lora_variant:
            return super().forward(x, *args, **kwargs)
        frozen = frozen_linear(self.base_layer)
        if frozen is None or self._drops or is_tracing():
            return self._in_steps(x)
        rows = self._in_one(x, frozen, self.scaling[ADAPTER])
        # Not a view that is made inside a Function: blocks write to the result in place.
        return rows.view(*x.shape[:-1], frozen.features)

    def _in_one(self, x: Tensor, frozen: FrozenLinear, scale: float) -> Tensor:
        rows, shared, number = x.reshape(-1, x.shape[-1]), self.shared, self.number
        if shared is None or not shared.shares(x):
            down, up = self._factors(x.dtype)
            return FirstProduct.apply(rows, down, up, frozen, scale, [slice(0, len(down))], 0)[0]
        assert self.cast is not None
        down, up = self.cast
        taken = shared.take(number, x)
        if taken is None:
            out, again, *hidden = FirstProduct.apply(rows, down, up, frozen, scale, shared.rows, number)
            shared.give(x, again if rows.requires_grad else rows, hidden, number=number)
            return out
        out, again = NextProduct.apply(*taken, up, frozen, scale)
        shared.pass_on(again if rows.requires_grad else rows)
        return out

    def _in_steps(self, x: Tensor) -> Tensor:
        """Around a layer that does more than multiply, with dropout before A, or as operations of a graph."""
        out = self.base_layer(x)
        down, up = self._factors(x.dtype)
        hidden = F.linear(self.lora_dropout[ADAPTER](x), down)
        flat = torch.addmm(
            out.reshape(-1, out.shape[-1]),
            hidden.reshape(-1, hidden.shape[-1]),
            up.t(),
            alpha=self.scaling[ADAPTER],
        )
        return flat.view(out.shape)


class ThinConv2d(_Thin, PeftConv2d):
    """base(x) + scaling · B(A(x)) for convolutions, in the dtype of x."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """(B, in, H, W) to (B, out, H', W') in the dtype of x; without the adapter while it is disabled."""
        if self.disable_adapters:
            return self.base_layer(x)
        if ADAPTER in self.lora_variant:
            return super().forward(x, *args, **kwargs)
        a, b = self.lora_A[ADAPTER], self.lora_B[ADAPTER]
        down, up = self._factors(x.dtype)
        hidden = F.conv2d(self.lora_dropout[ADAPTER](x), down, None, a.stride, a.padding, a.dilation, a.groups)
        scaled = up * self.scaling[ADAPTER]
        return self.base_layer(x) + F.conv2d(hidden, scaled, None, b.stride, b.padding, b.dilation, b.groups)


def thin_layers(layers: Iterable[nn.Module]) -> dict[type[nn.Module], type[nn.Module]]:
    """What PEFT is to put around each class of these layers."""
    return {type(layer): ThinLinear if is_linear(layer) else ThinConv2d for layer in layers}
