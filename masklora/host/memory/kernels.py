"""What the kernels of accelerators keep and do, where tensors without data, and CPUs, would take them apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ...autograd.forwards import Forward
from .counts import Counts


class FlashAttention(torch.autograd.Function):
    """Keeps its inputs, its output and a number for each row; values are not computed."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, counts: Counts) -> Tensor:
        """(…, L, D), (…, S, D) and (…, S, E) to (…, L, E)."""
        # Heads lie beside each other in each token, as networks give them and take them up again.
        out = q.new_empty(*q.shape[:-3], q.shape[-2], q.shape[-3], v.shape[-1]).transpose(-2, -3)
        ctx.save_for_backward(q, k, v, out, q.new_empty(q.shape[:-1], dtype=torch.float32))
        ctx.counts = counts
        counts.add("flash attention", _products(q, k, v, 1, 1))
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """Gradients of the three."""
        q, k, v, _, _ = ctx.saved_tensors
        # The scores once more; then of the values, the scores, the queries and the keys.
        ctx.counts.add("flash attention backward", _products(q, k, v, 3, 2), launches=3)
        return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v), None


def _products(q: Tensor, k: Tensor, v: Tensor, scores: int, values: int) -> int:
    """FLOPs of so many products of the size of the scores', and of that of the values'."""
    pairs = q.shape[:-1].numel() * k.shape[-2]
    return 2 * pairs * (scores * q.shape[-1] + values * v.shape[-1])


class OneKernel(torch.autograd.Function):
    """One kernel each way that keeps its input, and a number for each row; a weight in it is frozen."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, name: str, axes: int, counts: Counts) -> Tensor:
        """To the shape of x; a number is kept for each row of the last `axes`."""
        more = [x.new_empty(x.shape[:-axes], dtype=torch.float32)] if axes else []
        ctx.save_for_backward(x, *more)
        ctx.counts, ctx.name = counts, name
        counts.add(name, 0)
        return torch.empty_like(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """The gradient of x."""
        ctx.counts.add(f"{ctx.name} backward", 0)
        return torch.empty_like(ctx.saved_tensors[0]), None, None, None


def attention(
    counts: Counts, plain: Callable[..., Tensor], query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any
) -> Tensor:
    """`scaled_dot_product_attention` as a flash kernel; `plain` on other devices than the counted one."""
    if query.device != counts.device:
        return plain(query, key, value, *args, **kwargs)
    return FlashAttention.apply(query, key, value, counts)


def rms_norm(
    counts: Counts,
    plain: Callable[..., Tensor],
    x: Tensor,
    shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:
    """`rms_norm` as one kernel; `plain` where it is none on accelerators either."""
    trained = weight is not None and weight.requires_grad
    if x.device != counts.device or trained or (weight is not None and weight.dtype != x.dtype):
        return plain(x, shape, weight, eps)
    return OneKernel.apply(x, "fused norm", len(shape), counts)


class KernelsOfAccelerators(TorchFunctionMode):
    """While it lasts, attention and norms are those above.

    Torch leaves the mode while it runs backward, so what is repeated there enters it by itself, see `forward_of`.
    """

    def __init__(self, counts: Counts) -> None:
        super().__init__()
        self._counts, self._on = counts, False

    def forward_of(self, module: nn.Module, inner: Forward) -> Forward:
        """What `inner` does, in this mode."""

        def forward(*args: Any, **kwargs: Any) -> Any:
            if self._on:
                return inner(*args, **kwargs)
            self._on = True
            try:
                with self:
                    return inner(*args, **kwargs)
            finally:
                self._on = False

        return forward

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func is F.scaled_dot_product_attention:
            return attention(self._counts, func, *args, **(kwargs or {}))
        if func in (F.rms_norm, torch.rms_norm):
            return self._norm(func, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _norm(
        self,
        plain: Callable[..., Tensor],
        input: Tensor,
        normalized_shape: Sequence[int],
        weight: Tensor | None = None,
        eps: float | None = None,
    ) -> Tensor:
        return rms_norm(self._counts, plain, input, normalized_shape, weight, eps)
