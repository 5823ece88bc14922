"""A frozen layer and its adapter as one step of autograd: out = x·Wᵀ + b + s·(x·Aᵀ)·Bᵀ.

Beside what the layers' own steps would take, the two gradients of x are summed in the product that makes the second,
and nothing but x and x·Aᵀ is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..autograd.frozen import FrozenLinear


class FirstProduct(torch.autograd.Function):
    """Of a layer, and x·Aᵀ for all that are given x after it.

    Their gradients come back through the rows of x that it gives back: each adds its own to what it got from the next.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, downs: Tensor, up: Tensor, layer: FrozenLinear, scale: float, rows: Sequence, number: int
    ) -> tuple[Tensor, ...]:
        """The result (n, out) of x (n, in); where there are others, x for the next and x·Aᵀ (n, rank) of each.

        Args:
            ctx: Of autograd.
            x: The rows that all are given.
            downs: (all rows, in), A of all.
            up: (out, rank), B of this one.
            layer: What is frozen.
            scale: Factor of the adapter.
            rows: Those of each A in `downs`.
            number: Which of these is this layer's own.
        """
        ctx.set_materialize_grads(False)
        hidden = x.mm(downs.t())
        ctx.save_for_backward(x, downs, up, hidden)
        ctx.layer, ctx.scale, ctx.rows, ctx.number = layer, scale, rows, number
        out = _together(x, hidden[:, rows[number]], up, layer, scale)
        if len(rows) == 1:
            return (out,)
        return out, x, *(hidden[:, part] for i, part in enumerate(rows) if i != number)

    @staticmethod
    @once_differentiable
    def backward(  # type: ignore[override]  # noqa: D102
        ctx: Any, grad: Tensor | None, passed: Tensor | None = None, *others: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        x, downs, up, hidden = ctx.saved_tensors
        of_hidden, of_up, of_x = list(others), None, passed
        if grad is not None:
            of_up = _scaled(grad.t(), hidden[:, ctx.rows[ctx.number]], ctx.scale)
            of_hidden.insert(ctx.number, _scaled(grad, up, ctx.scale))
            of_x = ctx.layer.gradient(grad, passed) if ctx.needs_input_grad[0] else None
        else:
            of_hidden.insert(ctx.number, None)
        parts = [
            x.new_zeros(len(x), part.stop - part.start) if found is None else found
            for found, part in zip(of_hidden, ctx.rows, strict=True)
        ]
        together = torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]
        if of_x is not None:
            # Its own, where its layer has made one; another's else.
            of_x = torch.addmm(of_x, together, downs) if grad is None else of_x.addmm_(together, downs)
        elif ctx.needs_input_grad[0]:
            of_x = together.mm(downs)
        return of_x, together.t().mm(x), of_up, None, None, None, None


class NextProduct(torch.autograd.Function):
    """Of a layer whose x·Aᵀ another has made."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, hidden: Tensor, up: Tensor, layer: FrozenLinear, scale: float
    ) -> tuple[Tensor, Tensor]:
        """The result (n, out), and the rows of x for the next."""
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(hidden, up)
        ctx.layer, ctx.scale = layer, scale
        return _together(x, hidden, up, layer, scale), x

    @staticmethod
    @once_differentiable
    def backward(  # type: ignore[override]  # noqa: D102
        ctx: Any, grad: Tensor | None, passed: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        if grad is None:
            return passed, None, None, None, None
        hidden, up = ctx.saved_tensors
        of_x = ctx.layer.gradient(grad, passed) if ctx.needs_input_grad[0] else None
        return of_x, _scaled(grad, up, ctx.scale), _scaled(grad.t(), hidden, ctx.scale), None, None


def _together(x: Tensor, hidden: Tensor, up: Tensor, layer: FrozenLinear, scale: float) -> Tensor:
    out = layer.product(x)
    return out if layer.hollow else out.addmm_(hidden, up.t(), alpha=scale)


def _scaled(a: Tensor, b: Tensor, scale: float) -> Tensor:
    """scale·a·b in one kernel."""
    return a.mm(b) if scale == 1 else torch.addmm(a.new_empty(1), a, b, beta=0, alpha=scale)
