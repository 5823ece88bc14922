"""Layers whose weight is not trained: what they compute and the gradient of their input, for those who add to both."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .forwards import own_forward


class FrozenLinear:
    """The `forward` of a layer x·Wᵀ + b that keeps no tensor for backward.

    Attributes:
        features: how many the result has.
        hollow: whether nothing reads the result, so that its values may be any.
    """

    hollow = False

    def __init__(self, features: int) -> None:
        self.features = features

    def product(self, x: Tensor) -> Tensor:
        """x·Wᵀ + b of rows (n, in), which nobody else holds; called without a graph."""
        raise NotImplementedError

    def gradient(self, grad: Tensor, added: Tensor | None = None) -> Tensor:
        """The gradient of x (n, in) by that of the result (n, out), plus `added`; nobody else holds it."""
        raise NotImplementedError

    def __call__(self, x: Tensor) -> Tensor:
        """(…, in) to (…, out)."""
        rows = _Frozen.apply(x.reshape(-1, x.shape[-1]), self)
        # Blocks write to the result in place, which autograd forbids on a view made inside a Function.
        return rows.reshape(*x.shape[:-1], self.features)


class _Frozen(torch.autograd.Function):
    """Of a layer alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: FrozenLinear) -> Tensor:
        ctx.layer = layer
        return layer.product(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return ctx.layer.gradient(grad), None


def frozen_linear(layer: nn.Module) -> FrozenLinear | None:
    """What `layer` computes, if that is all that happens when it is called."""
    forward = own_forward(layer)
    return forward if isinstance(forward, FrozenLinear) else None
