"""The inverted mask prior: outside of the mask the model shall paint what it would paint without the adapter.

A loss mask alone says nothing about the background, so that it drifts; here the base model's own prediction, of the
same noisy latent, noise level and conditioning, is the target there. Everything is pure; the trainer runs the base
model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .errors import ConfigError

if TYPE_CHECKING:
    from .config import LossSettings


@dataclass(frozen=True, eq=False)
class Prior:
    """What the base model predicted in one micro-batch, and how much that counts.

    Attributes:
        prediction: (B, C, [F,] H, W), without a graph, in the model's own parameterisation.
        v: weight of each cell (B, 1, [F,] H, W) in [0, 1], from `prior_weights`.
        factor: factor of each sample (B,), from `prior_factors`.
    """

    prediction: Tensor
    v: Tensor
    factor: Tensor


def prior_weights(m: Tensor, w: Tensor, settings: LossSettings) -> Tensor:
    """The prior's weight of every latent cell: v = 1 − w per sample, (B, 1, [F,] h, w) in [0, 1].

    Where a weight threshold τ is set it is 1 on the cells whose mask lies below it and 0 elsewhere: a half-learned
    edge is then learned only. A sample to which the mask does not apply this time has no outside.

    Args:
        m: the mask on the latent grid, before the latent transforms, (B, 1, [F,] h, w).
        w: the effective weight, after gamma, floor and probability, before the outside share.
        settings: field `weight_threshold`.
    """
    if settings.weight_threshold > 0:
        applies = (w == 0).flatten(1).any(dim=1).view(-1, *([1] * (w.ndim - 1)))
        return ((m < settings.weight_threshold) & applies).to(w.dtype)
    return 1 - w


def prior_factors(u: Tensor, settings: LossSettings, *, progress: float) -> Tensor:
    """How much each sample's prior counts this time: λ / p by step and by noise level, (B,) float32 or wider.

    Dividing by the probability p with which the prior runs keeps its mean what it is at p = 1.

    Args:
        u: noise level (B,), 0 clean to 1 noise.
        settings: `prior_weight` λ, `prior_probability` p; `prior_schedule` by step: constant, or linear or cosine
            from full at the start to none at the end; `prior_timestep_schedule` by noise level: constant, or linear
            or cosine from none at 0 to full at `prior_pivot` and above; `prior_timestep_min`, at and below which
            there is no prior.
        progress: share of the run that is done, in [0, 1).

    Raises:
        ConfigError: a schedule is unknown.
    """
    scale = settings.prior_weight / settings.prior_probability
    scale *= float(_fade(torch.tensor(1.0 - progress, dtype=torch.float64), settings.prior_schedule, "prior_schedule"))
    level = u if settings.prior_pivot <= 0 else (u / settings.prior_pivot).clamp(max=1.0)
    by_level = _fade(level, settings.prior_timestep_schedule, "prior_timestep_schedule")
    gate = u > settings.prior_timestep_min if settings.prior_timestep_min > 0 else torch.ones_like(u, dtype=torch.bool)
    return scale * by_level * gate


def prior_runs(settings: LossSettings, *, seed: int, number: int) -> bool:
    """Whether the prior runs in micro-batch `number`: with `prior_probability`, decided by seed and number alone.

    Asked before the step, so that no number has to be read back from the device, and so that a resumed run
    decides alike.
    """
    if settings.prior_weight <= 0:
        return False
    if settings.prior_probability >= 1:
        return True
    random = np.random.default_rng([seed & 0xFFFFFFFFFFFFFFFF, 0x9121, number])
    return bool(random.random() < settings.prior_probability)


def _fade(x: Tensor, kind: str, widget: str) -> Tensor:
    """X in [0, 1] to 0..1: all of it, in proportion, or along half a cosine."""
    if kind == "constant":
        return torch.ones_like(x)
    if kind == "linear":
        return x
    if kind == "cosine":
        return 0.5 - 0.5 * torch.cos(math.pi * x)
    raise ConfigError(f"{widget}: expected constant, linear or cosine, got {kind!r}.")
