"""Noise, noise levels and targets of ε, v and flow models, in each model's own parameterisation.

A noise level is a fraction u: 0 is the clean picture, 1 is only noise. For flow models u is σ itself;
for ε and v models it is the position in the model's table of alphas_cumprod.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ConfigError
from .losses import flow_weights, snr_weights

if TYPE_CHECKING:
    from ..settings import TimestepSettings

# The alphas_cumprod that ComfyUI gives the last step of a zero-terminal-SNR model: a true 0 would make
# its sigma infinite.
ZERO_TERMINAL_ALPHA = 4.8973451890853435e-08
_EDGE = 1e-7


@dataclass(frozen=True)
class Schedule:
    """What a model predicts and which noise levels it knows.

    Attributes:
        prediction: `epsilon`, `v` or `flow`.
        alphas_cumprod: (T,) falling from nearly 1; None for flow models.
        shift: of a flow model's sampler, e.g. 3 for SD 3 and exp(1.15) for Flux; 1 is no shift.
    """

    prediction: str
    alphas_cumprod: Tensor | None = None
    shift: float = 1.0


def sample_timesteps(
    n: int,
    settings: TimestepSettings,
    *,
    schedule: Schedule,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
    masked: Tensor | None = None,
    cells: int = 0,
) -> Tensor:
    """Noise levels u (n,) in [timestep_min, timestep_max], float32 on `device`.

    `uniform`; `logit-normal` sigmoid(N(mean, std)); `sigmoid` the same with mean 0; `shifted` logit-normal,
    then shifted, and `shifted by resolution` likewise by `resolution_shift`. A timestep shift above 0 shifts any of
    them; `shifted` falls back to the model's own. `default` is `uniform` where no family has put its own in its place.
    The range cuts the distribution off, it does not squeeze it: drawn by inverse CDF, so one random
    number per sample whatever the settings.

    Args:
        n: number of samples.
        settings: which levels are drawn, and how often.
        schedule: of the model.
        generator: the run's own, on `device`.
        device: where to draw.
        masked: (n,) bool, samples that `masked_timestep_max` holds; None for none.
        cells: of a latent of the batch, frames not counted; for `shifted by resolution`.

    Raises:
        ConfigError: unknown sampling.
    """
    kind = "uniform" if settings.timestep_sampling == "default" else settings.timestep_sampling
    if kind not in ("uniform", "logit-normal", "sigmoid", "shifted", "shifted by resolution"):
        raise ConfigError(f"timestep sampling: unknown choice {kind!r}. Choose one that the widget lists.")
    own = {"shifted": schedule.shift, "shifted by resolution": resolution_shift(cells)}
    shift = settings.timestep_shift or own.get(kind, 1.0)
    normal = None
    if kind != "uniform":
        normal = NormalDist(0.0 if kind == "sigmoid" else settings.timestep_mean, settings.timestep_std)
    low = _quantile_of(settings.timestep_min, normal=normal, shift=shift)
    high = _quantile_of(settings.timestep_max, normal=normal, shift=shift)
    random = torch.rand(n, generator=generator, device=device, dtype=torch.float32)
    u = low + (high - low) * random
    most = settings.timestep_max
    if masked is not None and settings.masked_timestep_max < settings.timestep_max:
        capped = _quantile_of(settings.masked_timestep_max, normal=normal, shift=shift)
        u = torch.where(masked, low + (capped - low) * random, u)
        most = torch.where(masked, settings.masked_timestep_max, settings.timestep_max).to(u.dtype)
    if normal is not None:
        u = torch.sigmoid(normal.mean + normal.stdev * torch.special.ndtri(u.clamp(_EDGE, 1 - _EDGE)))
    return shift_timesteps(u, shift=shift).clamp(min=settings.timestep_min).clamp(max=most)


def resolution_shift(cells: int) -> float:
    """The shift s of Flux' own sampler for latents of so many cells: exp(mu), mu linear in the image tokens.

    Four cells are a token; mu is 0.5 at 256 tokens and 1.15 at 4096, so that a cell of 8 pixels gives 1.88 at 512²,
    2.33 at 768², 3.16 at 1024² and 7.5 at 1536².

    Source: Black Forest Labs' flux, sampling.py, `get_schedule`; diffusers, `calculate_shift`.
    """
    tokens = cells / 4
    return math.exp(0.5 + (1.15 - 0.5) * (tokens - 256) / (4096 - 256))


def shift_timesteps(u: Tensor, *, shift: float) -> Tensor:
    """Noise levels moved towards noise: s·u / (1 + (s−1)·u), same shape; 0, 1 and s = 1 stay.

    Source: arXiv 2403.03206, equation 23; Flux' exp(mu) is the same s.
    """
    if shift == 1.0:
        return u
    return shift * u / (1 + (shift - 1) * u)


def sigma_of(u: Tensor, *, schedule: Schedule) -> Tensor:
    """The sigma (B,) that ComfyUI's ModelSampling gives noise level u.

    √((1−ᾱ)/ᾱ) at the table's entry for ε and v models, u itself for flow models.
    """
    if schedule.prediction == "flow":
        return u
    ac = _alpha(u, schedule)
    return ((1 - ac) / ac).sqrt()


def snr_of(u: Tensor, *, schedule: Schedule) -> Tensor:
    """The signal-to-noise ratio (B,): ᾱ/(1−ᾱ), for flow models ((1−σ)/σ)²."""
    if schedule.prediction == "flow":
        return ((1 - u) / u).square()
    ac = _alpha(u, schedule)
    return ac / (1 - ac)


def timestep_weights(u: Tensor, settings: TimestepSettings, *, schedule: Schedule) -> Tensor:
    """The timestep weight ω (B,) at noise level u, of the kind that fits what the model predicts.

    Raises:
        ConfigError: the weight is made for another prediction type.
    """
    kind = settings.timestep_weight
    if schedule.prediction == "flow":
        return flow_weights(
            sigma_of(u, schedule=schedule),
            kind=kind,
            mean=settings.timestep_mean,
            std=settings.timestep_std,
        )
    snr = snr_of(u, schedule=schedule)
    return snr_weights(snr, kind=kind, gamma=settings.snr_gamma, prediction=schedule.prediction)


def add_noise(latent: Tensor, noise: Tensor, u: Tensor, *, schedule: Schedule) -> Tensor:
    """The noisy latent, same shape: √ᾱ·x + √(1−ᾱ)·n, for flow models (1−σ)·x + σ·n.

    Args:
        latent: (B, C, [F,] H, W).
        noise: same shape, unit variance.
        u: (B,) noise levels.
        schedule: of the model.
    """
    signal, amount = _mix(u, schedule, latent.ndim)
    return signal * latent + amount * noise


def target(latent: Tensor, noise: Tensor, u: Tensor, *, schedule: Schedule) -> Tensor:
    """What the model should predict, same shape: n (ε), √ᾱ·n − √(1−ᾱ)·x (v) or n − x (flow).

    Raises:
        ConfigError: unknown prediction type.
    """
    if schedule.prediction == "epsilon":
        return noise
    if schedule.prediction == "flow":
        return noise - latent
    if schedule.prediction == "v":
        signal, amount = _mix(u, schedule, latent.ndim)
        return signal * noise - amount * latent
    raise ConfigError(f"prediction: expected epsilon, v or flow, got {schedule.prediction!r}.")


def picture_change(change: Tensor, u: Tensor, *, schedule: Schedule) -> Tensor:
    """How the clean picture that a model has in mind changes where its prediction does, same shape.

    −σ·Δ for flow models, −√(1−ᾱ)·Δ for v, −√((1−ᾱ)/ᾱ)·Δ for ε, at the same noisy latent.

    Args:
        change: (B, C, [F,] H, W), one prediction less the other.
        u: (B,) noise levels.
        schedule: of the model.
    """
    signal, amount = _mix(u, schedule, change.ndim)
    return -(amount / signal if schedule.prediction == "epsilon" else amount) * change


def make_noise(
    like: Tensor, *, generator: torch.Generator | None = None, offset: float = 0.0, multires: float = 0.0
) -> Tensor:
    """Noise of the shape of `like`, float32 on its device.

    Args:
        like: (B, C, [F,] H, W); only shape and device count.
        generator: the run's own, on the device of `like`.
        offset: strength of a constant added per sample and channel, so that brightness can be learned;
            0 is off, 0.05–0.1 usual.
        multires: discount per halving of an added noise pyramid; 0 is off, 0.1–0.3 usual. The sum is
            brought back to unit variance per sample.

    Source: crosslabs.org "Diffusion with offset noise"; "Multi-resolution noise" report by J. Whitaker.
    """
    shape, device = like.shape, like.device
    noise = torch.randn(shape, generator=generator, device=device, dtype=torch.float32)
    if multires > 0:
        noise = _add_pyramid(noise, discount=multires, generator=generator)
    if offset > 0:
        level = torch.randn(
            (*shape[:2], *([1] * (like.ndim - 2))), generator=generator, device=device, dtype=torch.float32
        )
        noise = noise + offset * level
    return noise


def rescale_zero_terminal_snr(alphas_cumprod: Tensor) -> Tensor:
    """The schedule (T,) with the same first entry and no signal left in the last.

    Returns:
        Same shape and dtype; the last entry is 4.9e-8 instead of 0, as ComfyUI has it.

    Source: arXiv 2305.08891, algorithm 1.
    """
    root = alphas_cumprod.sqrt()
    first, last = root[0], root[-1]
    root = (root - last) * (first / (first - last))
    return torch.cat([root[:-1].square(), torch.full_like(root[-1:], ZERO_TERMINAL_ALPHA)])


def _alpha(u: Tensor, schedule: Schedule) -> Tensor:
    table = schedule.alphas_cumprod
    if table is None:
        raise ConfigError(f"A {schedule.prediction} model needs a table of alphas_cumprod; this has none.")
    # Whole table steps: ComfyUI hands ε and v models the nearest whole timestep.
    index = (u * len(table)).long().clamp(max=len(table) - 1)
    return table.to(u.device)[index]


def _mix(u: Tensor, schedule: Schedule, ndim: int) -> tuple[Tensor, Tensor]:
    shape = (-1, *([1] * (ndim - 1)))
    if schedule.prediction == "flow":
        return (1 - u).view(shape), u.view(shape)
    ac = _alpha(u, schedule)
    return ac.sqrt().view(shape), (1 - ac).sqrt().view(shape)


def _quantile_of(u: float, *, normal: NormalDist | None, shift: float) -> float:
    u = u / (shift - (shift - 1) * u)
    if normal is None:
        return u
    if u <= 0.0 or u >= 1.0:
        return float(u >= 1.0)
    return normal.cdf(float(torch.logit(torch.tensor(u, dtype=torch.float64))))


def _add_pyramid(noise: Tensor, *, discount: float, generator: torch.Generator | None) -> Tensor:
    height, width = noise.shape[-2:]
    flat = noise.reshape(-1, 1, height, width)
    total, weight, h, w = flat, discount, height, width
    while min(h, w) > 1:
        h, w = max(1, h // 2), max(1, w // 2)
        coarse = torch.randn((flat.shape[0], 1, h, w), generator=generator, device=noise.device, dtype=torch.float32)
        total = total + weight * F.interpolate(coarse, size=(height, width), mode="bilinear")
        weight *= discount
    total = total.reshape(noise.shape)
    return total / total.std(dim=tuple(range(1, total.ndim)), keepdim=True)
