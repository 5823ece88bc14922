"""A LoRA of another rank, and of other strength in some layers, with what that changes of what it does."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import AdapterError
from .by_layer import Values
from .changes import Change
from .lora_keys import Factors, Learned

STRENGTHS: Values[float] = Values(
    "block_strengths",
    float,
    -10.0,
    10.0,
    '"blocks 0-9: 0.5", "double_blocks 3: 1.2", "attn: 0" or "others 1"',
    "Write a strength in that range.",
)


@dataclass(frozen=True)
class Error:
    """How far a layer's change is from what it was, and how long that was; norms of the weights' change."""

    lost: float
    whole: float

    @property
    def share(self) -> float:
        """Relative: 0 for nothing lost, 1 for all."""
        return self.lost / self.whole if self.whole else 0.0


def together(errors: Mapping[str, Error]) -> Error:
    """Of all layers as one."""
    return Error(math.hypot(*(e.lost for e in errors.values())), math.hypot(*(e.whole for e in errors.values())))


def strengthened(factors: Learned, strength: float, *, name: str) -> Learned | None:
    """The same change times `strength`, exactly; None where nothing is left of it.

    Raises:
        AdapterError: It is a DoRA's, whose change is no multiple of another, and the strength is neither 0 nor 1.
    """
    if strength == 1:
        return factors
    if strength == 0:
        return None
    if isinstance(factors, Change):
        return dataclasses.replace(factors, scale=factors.scale * strength)
    if factors.dora_scale is not None:
        raise AdapterError(
            f"block_strengths: {name} is a DoRA's, which no file holds at a strength of {strength:g}: only 0 and 1 are "
            "exact. Choose one of these, or set the strength where the file is loaded."
        )
    return dataclasses.replace(factors, alpha=factors.alpha * strength)


def resized(factors: Learned, *, rank: int, energy: float, name: str) -> tuple[Factors, Error]:
    """The nearest change of a lower rank, by singular values, and what is lost of the old one.

    Args:
        factors: Of one layer.
        rank: The largest it may have; 0 for any.
        energy: The share of the change's squared length that is kept at least, in (0, 1); 0 or 1 for all.
        name: Of the layer, for messages.

    Returns:
        Factors of the smallest rank that keeps `energy`, at most `rank`, or those that were given where their rank is
        no larger.

    Raises:
        AdapterError: It is a DoRA's, whose magnitudes hold for its own change only, or of a kind that is no product of
            two factors.
    """
    if isinstance(factors, Change):
        raise AdapterError(
            f"new_rank, keep_energy: what {name} learned is of the kind {factors.kind}, whose rank cannot be "
            "lowered. Set both to 0."
        )
    if factors.dora_scale is not None:
        raise AdapterError(
            f"new_rank, keep_energy: {name} is a DoRA's, whose magnitudes hold for its own change only. Set both to 0."
        )
    down, up = factors.down.flatten(1).double(), factors.up.flatten(1).double()
    own = down.shape[0]
    # The change is left · core · rightᵀ with orthonormal outer factors, so its singular values are those of the core.
    left, of_left = torch.linalg.qr(up)
    right, of_right = torch.linalg.qr(down.T)
    u, values, vh = torch.linalg.svd(of_left @ of_right.T * (factors.alpha / own), full_matrices=False)
    kept = min(_kept(values, energy), rank or own, own)
    error = Error(float(values[kept:].norm()), float(values.norm()))
    if kept >= own:
        return factors, Error(0.0, error.whole)
    root = values[:kept].sqrt()
    new_up = (left @ u[:, :kept] * root).float().reshape(len(up), kept, *factors.up.shape[2:])
    new_down = (root[:, None] * vh[:kept] @ right.T).float().reshape(kept, *factors.down.shape[1:])
    return Factors(new_down, new_up, float(kept)), error


def _kept(values: Tensor, energy: float) -> int:
    """How many of these singular values, the largest first, have this share of all their squares; at least one."""
    squares = values.square()
    total = float(squares.sum())
    if not 0 < energy < 1 or not total:
        return len(values) if total else 1
    enough = squares.cumsum(0) >= energy * total
    return int(enough.nonzero()[0]) + 1
