"""What counts as a layer that can be adapted."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


def is_linear(module: nn.Module) -> bool:
    """Whether it multiplies by one matrix: torch's own layer, or a host's for quantised weights, which is none.

    Such a one has torch's attributes: `in_features`, `out_features` and a `weight` that reads as a tensor (out, in).
    """
    if isinstance(module, nn.Linear):
        return True
    sizes: tuple[Any, Any] = getattr(module, "out_features", None), getattr(module, "in_features", None)
    weight = getattr(module, "weight", None)
    return isinstance(weight, Tensor) and tuple(weight.shape) == sizes
