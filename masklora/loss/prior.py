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

from ..errors import ConfigError

if TYPE_CHECKING:
    from ..settings import MaskSettings, PreservationSettings, PriorSettings


@dataclass(frozen=True, eq=False)
class Prior:
    """What the base model predicted in one micro-batch, and how much that counts.

    Attributes:
        prediction: (B, C, [F,] H, W), without a graph, in the model's own parameterisation.
        v: weight of each cell (B, 1, [F,] H, W), from `prior_weights`.
        factor: factor of each sample (B,), from `prior_factors`.
    """

    prediction: Tensor
    v: Tensor
    factor: Tensor


def prior_weights(m: Tensor, w: Tensor, settings: MaskSettings, *, bicubic: Tensor | None = None) -> Tensor:
    """The prior's weight of every latent cell: v = 1 − w per sample, (B, 1, [F,] h, w) in [0, 1].

    Where a weight threshold τ is set it is 1 on the cells whose mask lies below it and 0 elsewhere: a half-learned
    edge is then learned only. A sample to which the mask does not apply this time has no outside.

    Args:
        m: the mask on the latent grid, before the latent transforms, (B, 1, [F,] h, w).
        w: the effective weight, after gamma, floor and probability, before the outside share.
        settings: fields `weight_threshold` and `floor`.
        bicubic: the mask reduced with bicubic overshoot, (B, 1, [F,] h, w), where `prior_reduction` asks for it: its
            complement above the floor is the weight, unclamped; None for none. A threshold goes before it.
    """
    if settings.weight_threshold > 0:
        applies = _any_cell(w == 0)
        return ((m < settings.weight_threshold) & applies).to(w.dtype)
    if bicubic is not None:
        # Of a white mask rounding leaves an outside that must not be normalised into a term of full strength.
        return (1 - settings.floor) * (1 - bicubic) * _any_cell(w < 1)
    return 1 - w


def prior_gate(u: Tensor, settings: PriorSettings) -> Tensor | None:
    """Which samples have noise enough for the prior, (B,) bool; None where all have, or where there is no prior.

    Args:
        u: noise level (B,), 0 clean to 1 noise.
        settings: `prior_weight`, and `prior_timestep_min`, above which the prior runs.
    """
    if settings.prior_weight <= 0 or settings.prior_timestep_min <= 0:
        return None
    return u > settings.prior_timestep_min


def prior_factors(u: Tensor, settings: PriorSettings, *, progress: float) -> Tensor:
    """How much each sample's prior counts this time: λ / p by step and by noise level, (B,) float32 or wider.

    Dividing by the probability p with which the prior runs keeps its mean what it is at p = 1.

    Args:
        u: noise level (B,), 0 clean to 1 noise.
        settings: `prior_weight` λ, `prior_probability` p; `prior_warmup`, the share of the run over which the prior
            rises from none to full; `prior_schedule` by step: constant, or linear or cosine from full at the start to
            none at the end; `prior_timestep_schedule` by noise level: constant, or linear
            or cosine from none at 0 to full at `prior_pivot` and above; `prior_timestep_min`, at and below which
            there is no prior.
        progress: share of the run that is done, in [0, 1).

    Raises:
        ConfigError: a schedule is unknown.
    """
    scale = settings.prior_weight / settings.prior_probability
    scale *= float(_fade(torch.tensor(1.0 - progress, dtype=torch.float64), settings.prior_schedule, "prior_schedule"))
    if settings.prior_warmup > 0:
        scale *= min(1.0, progress / settings.prior_warmup)
    level = u if settings.prior_pivot <= 0 else (u / settings.prior_pivot).clamp(max=1.0)
    by_level = _fade(level, settings.prior_timestep_schedule, "prior_timestep_schedule")
    gate = prior_gate(u, settings)
    return scale * by_level if gate is None else scale * by_level * gate


def prior_runs(settings: PriorSettings, *, seed: int, number: int) -> bool:
    """Whether the prior runs in micro-batch `number`: with `prior_probability`, decided by seed and number alone.

    Asked before the step, so that no number has to be read back from the device, and so that a resumed run
    decides alike.
    """
    return settings.prior_weight > 0 and _drawn(settings.prior_probability, 0x9121, seed, number)


def preservation_runs(settings: PreservationSettings, *, seed: int, number: int) -> bool:
    """Whether micro-batch `number` also holds other prompts to the base model: likewise decided."""
    return settings.preservation_weight > 0 and _drawn(settings.preservation_probability, 0x9E5E, seed, number)


def _drawn(probability: float, salt: int, seed: int, number: int) -> bool:
    if probability >= 1:
        return True
    return bool(np.random.default_rng([seed & 0xFFFFFFFFFFFFFFFF, salt, number]).random() < probability)


def _any_cell(cells: Tensor) -> Tensor:
    """Per sample whether any cell is true, shaped to multiply with them."""
    return cells.flatten(1).any(dim=1).view(-1, *([1] * (cells.ndim - 1)))


def _fade(x: Tensor, kind: str, widget: str) -> Tensor:
    """X in [0, 1] to 0..1: all of it, in proportion, or along half a cosine."""
    if kind == "constant":
        return torch.ones_like(x)
    if kind == "linear":
        return x
    if kind == "cosine":
        return 0.5 - 0.5 * torch.cos(math.pi * x)
    raise ConfigError(f"{widget}: expected constant, linear or cosine, got {kind!r}.")
