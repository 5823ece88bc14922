"""The masked loss: `masked_objective` is the whole of it, `masked_mean` its only reduction.

Polarity: weight 1 learns, weight 0 ignores, grey is weight. Everything is per micro-batch, in float32
(float64 stays float64), without a synchronising read from the device.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ConfigError

if TYPE_CHECKING:
    from ..settings import LossSettings
    from .prior import Prior

SIGMA_MIN = 1e-3
DEBIASED_SNR_MAX = 1000.0
USUAL_PARAM = {"huber (kohya)": 0.1, "smooth_l1 (kohya)": 0.1, "pseudo_huber (ai-toolkit)": 0.01}


def masked_objective(
    pred: Tensor,
    target: Tensor,
    w: Tensor,
    settings: LossSettings,
    *,
    omega: Tensor | None = None,
    multiplier: Tensor | None = None,
    prior: Prior | None = None,
    strict: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The scalar training loss of one micro-batch, and what it was inside and outside the mask.

    The single path from a prediction to a loss: elementwise loss, outside share, masked mean, and the inverted mask
    prior, which holds the outside to what the base model predicts.

    Args:
        pred: prediction in the model's own parameterisation, (B, C, [F,] H, W), any float dtype.
        target: same shape as `pred`.
        w: effective weight (B, 1, [F,] H, W) in [0, 1], as `masks.effective_weights` returns it.
        settings: the loss settings.
        omega: timestep weight per sample (B,), or None for ones.
        multiplier: loss multiplier per sample (B,), or None for ones.
        prior: what the base model predicts for the same input; None where the prior does not run.
        strict: (B,) bool, samples whose outside gets no share; None for none.

    Returns:
        The loss (0-d, with graph) and the detached tensors of `inside_outside`, which look at `w` before
        the outside share; where the prior ran also `prior`, its part of the loss, and `drift`, the mean of
        (pred − prior)² outside.
    """
    e = elementwise_loss(pred, target, kind=settings.elementwise, param=settings.elementwise_param)
    loss = masked_mean(
        e,
        outside_share(w, share=settings.outside_share, strict=strict),
        normalize=settings.normalize,
        omega=omega,
        multiplier=multiplier,
        area_min=settings.area_min,
        area_beta=settings.area_beta,
    )
    metrics = inside_outside(e, w)
    if prior is not None:
        term = prior_term(pred, prior, settings, omega=omega, multiplier=multiplier)
        loss = loss + term
        d = (_at_least_float32(pred) - _at_least_float32(prior.prediction)).detach().square()
        metrics["prior"], metrics["drift"] = term.detach(), inside_outside(d, w)["outside"]
    return loss, metrics


def prior_term(
    pred: Tensor,
    prior: Prior,
    settings: LossSettings,
    *,
    omega: Tensor | None = None,
    multiplier: Tensor | None = None,
) -> Tensor:
    """The prior's part of the loss: how far the prediction is from the base model's, where nothing is learned.

    Args:
        pred: prediction (B, C, [F,] H, W).
        prior: the base model's prediction with its weights.
        settings: elementwise loss; `prior_normalize`, for which `area_min` keeps a tiny outside from becoming a
            full-strength term (`area_beta` is for the mask alone); `prior_multiplier`, whether the data set's loss
            multiplier counts here too.
        omega: timestep weight per sample (B,); always counts.
        multiplier: loss multiplier per sample (B,).

    Returns:
        A 0-d tensor with a graph to `pred` only; exactly 0 where no sample has an outside.
    """
    e = elementwise_loss(pred, prior.prediction, kind=settings.elementwise, param=settings.elementwise_param)
    factor = prior.factor.to(e.dtype)
    # A sample whose prior is off this time must not thin out the others' in the modes that divide by the batch's.
    runs = (factor > 0).view(-1, *([1] * (e.ndim - 1)))
    return masked_mean(
        e,
        prior.v * runs,
        normalize=settings.prior_normalize,
        omega=factor if omega is None else omega * factor,
        multiplier=multiplier if settings.prior_multiplier else None,
        area_min=settings.area_min,
    )


def preservation_term(
    pred: Tensor,
    base: Tensor,
    factor: Tensor,
    settings: LossSettings,
    *,
    omega: Tensor | None = None,
    multiplier: Tensor | None = None,
) -> Tensor:
    """How far the prediction for captions without the trigger word is from the base model's: a 0-d tensor.

    The whole picture counts, mask or not: another prompt shall be painted as before everywhere.

    Args:
        pred: prediction (B, C, [F,] H, W) for the captions without the trigger word.
        base: what the base model predicts for the same, without a graph.
        factor: factor of each sample (B,), 0 where its caption has no trigger word.
        settings: elementwise loss.
        omega: timestep weight per sample (B,).
        multiplier: loss multiplier per sample (B,).

    Returns:
        The mean over all samples, those of factor 0 included.
    """
    e = elementwise_loss(pred, base, kind=settings.elementwise, param=settings.elementwise_param)
    factor = factor.to(e.dtype)
    return masked_mean(
        e,
        torch.ones_like(e[:, :1]),
        normalize="none",
        omega=factor if omega is None else omega * factor,
        multiplier=multiplier,
    )


def elementwise_loss(pred: Tensor, target: Tensor, *, kind: str = "mse", param: float = 0.0) -> Tensor:
    """The loss of every element, same shape as `pred`, at least float32.

    Trainers use one word for different curves, so each curve has its own name here.

    Args:
        pred: (B, C, [F,] H, W), any float dtype.
        target: same shape as `pred`.
        kind: `mse`, `l1`, `smooth_l1`, `huber` (torch's four), `huber (kohya)` 2c(√(d²+c²)−c), `smooth_l1 (kohya)`
            2(√(d²+c²)−c), `pseudo_huber (ai-toolkit)` √(d²+c²)−c, or `log_cosh` log cosh d.
        param: β of smooth_l1, δ of huber, c of the trainers' curves; unused by the rest. 0: the usual one
            (torch 1, kohya 0.1, ai-toolkit 0.01).

    Raises:
        ConfigError: `kind` is unknown.
    """
    pred, target = _at_least_float32(pred), _at_least_float32(target)
    param = param or USUAL_PARAM.get(kind, 1.0)
    if kind == "mse":
        return F.mse_loss(pred, target, reduction="none")
    if kind == "l1":
        return F.l1_loss(pred, target, reduction="none")
    if kind == "smooth_l1":
        return F.smooth_l1_loss(pred, target, reduction="none", beta=param)
    if kind == "huber":
        return F.huber_loss(pred, target, reduction="none", delta=param)
    d = pred - target
    if kind == "huber (kohya)":
        return 2 * param * (torch.sqrt(d * d + param * param) - param)
    if kind == "smooth_l1 (kohya)":
        return 2 * (torch.sqrt(d * d + param * param) - param)
    if kind == "pseudo_huber (ai-toolkit)":
        return torch.sqrt(d * d + param * param) - param
    if kind == "log_cosh":
        return _log_cosh(d)
    raise ConfigError(f"elementwise: unknown loss {kind!r}. Choose one that the widget lists.")


def masked_mean(
    e: Tensor,
    w: Tensor,
    *,
    normalize: str = "area",
    omega: Tensor | None = None,
    multiplier: Tensor | None = None,
    area_min: float = 0.05,
    area_beta: float = 1.0,
) -> Tensor:
    """The masked mean of `e`: a scalar. No other reduction of a masked loss exists.

    With ā the mean of `w` over a sample and s = mean over a sample of e·w, times ω and c:
    `area` mean_b s / max(ā, area_min)^area_beta; `none` mean_b s; `batch` mean_b s / (mean_b ā)^area_beta;
    `batch_mean` mean_b s / mean_b ā. A micro-batch has one grid, so `batch` with area_beta 1 is the sum over
    everything divided by the weight of everything.

    A weight of ones gives F.mse_loss(reduction="none") averaged per sample and then over the batch, bit
    for bit, loss and gradient, in every mode.

    Args:
        e: elementwise loss (B, C, [F,] H, W).
        w: weight (B, 1, [F,] H, W) in [0, 1].
        normalize: `area`, `none`, `batch` or `batch_mean`.
        omega: timestep weight (B,); multiplies after the spatial mean, in every mode.
        multiplier: loss multiplier (B,), likewise.
        area_min: smallest coverage that `area` divides by; 0.05 caps the boost of small masks at 20.
        area_beta: exponent of the coverage in `area` and `batch`; 1 gives every sample (every batch) an
            equal say, 0 is `none`.

    Returns:
        A 0-d tensor. A sample or a batch whose weight is zero everywhere contributes exactly 0, with a
        zero, finite gradient.

    Raises:
        ConfigError: `normalize` is unknown.
    """
    over = tuple(range(1, e.ndim))
    per_sample = (e * w).mean(dim=over)
    for factor in (omega, multiplier):
        if factor is not None:
            per_sample = per_sample * factor
    coverage = _coverage(w)
    if normalize == "area":
        return (per_sample / _one_where_zero(coverage.clamp(min=area_min)).pow(area_beta)).mean()
    if normalize == "none":
        return per_sample.mean()
    if normalize in ("batch", "batch_mean"):
        beta = area_beta if normalize == "batch" else 1.0
        return per_sample.mean() / _one_where_zero(coverage.sum() / coverage.numel()).pow(beta)
    raise ConfigError(f"normalize: expected area, none, batch or batch_mean, got {normalize!r}.")


def outside_share(w: Tensor, *, share: float, strict: Tensor | None = None) -> Tensor:
    """The weight with `share` of its total given to the outside, same shape as `w`.

    w' = w + (1−w)·min(1, ρā/((1−ρ)(1−ā))): a little of the background is kept in view, in proportion to
    the mask. The share reached is min(ρ, 1−ā).

    Args:
        w: weight (B, 1, [F,] H, W) in [0, 1].
        share: ρ in [0, 1]; 0 returns `w` itself, 1 gives the outside as much as the inside.
        strict: (B,) bool, samples whose outside gets nothing; None for none.

    Returns:
        The new weight; a sample that is zero or one everywhere is unchanged.
    """
    if share <= 0:
        return w
    inside = _coverage(w)
    room = (1 - share) * (1 - inside)
    factor = (share * inside / _one_where_zero(room)).clamp(max=1.0)
    factor = torch.where((room <= 0) & (inside > 0), torch.ones_like(factor), factor)
    if strict is not None:
        factor = torch.where(strict, torch.zeros_like(factor), factor)
    return w + (1 - w) * factor.view(-1, *([1] * (w.ndim - 1)))


def inside_outside(e: Tensor, w: Tensor) -> dict[str, Tensor]:
    """How large the loss is inside and outside the mask, as detached tensors on the device.

    The proof that a mask works; neither timestep weight nor loss multiplier nor normalisation is in it.

    Args:
        e: elementwise loss (B, C, [F,] H, W).
        w: weight (B, 1, [F,] H, W) in [0, 1].

    Returns:
        `inside` and `outside` (0-d means of `e` weighted by w and by 1−w; NaN where there is no such
        cell), `each` (B,), the inside of each sample, NaN for one without weight, `coverage` (B,) and `zero` (0-d
        count of samples without any weight).
    """
    e, w = e.detach(), w.detach()
    per_cell = e.mean(dim=1, keepdim=True)
    v, weighted = 1 - w, per_cell * w
    coverage = _coverage(w)
    over = tuple(range(1, w.ndim))
    return {
        "inside": weighted.sum() / w.sum(),
        "each": weighted.sum(dim=over) / w.sum(dim=over),
        "outside": (per_cell * v).sum() / v.sum(),
        "coverage": coverage,
        "zero": (coverage == 0).sum(),
    }


def snr_weights(snr: Tensor, *, kind: str, gamma: float = 5.0, prediction: str = "epsilon") -> Tensor:
    """The timestep weight (B,) of an ε or v model from its signal-to-noise ratio.

    Args:
        snr: (B,), 0 (only noise) to infinity (clean).
        kind: `none`; `min-snr` min(snr, γ)/snr, for v min(snr, γ)/(snr+1); `min-snr (ai-toolkit)`
            min(γ/snr, 1) for both; `debiased` 1/√s with s = min(snr, 1000), for v 1/(s+1);
            `debiased (OneTrainer)` the same, for v 1/√(s+1).
        gamma: γ of min-SNR; 5 is the paper's.
        prediction: `epsilon` or `v`.

    Returns:
        (B,) at least float32. At snr 0 min-SNR is its limit, 1 for ε and 0 for v.

    Raises:
        ConfigError: `kind` does not belong to ε and v models.

    Source: arXiv 2303.09556 (min-SNR), arXiv 2310.08442 (debiased estimation).
    """
    snr = _at_least_float32(snr)
    v = prediction == "v"
    if kind == "none":
        return torch.ones_like(snr)
    if kind == "min-snr" and v:
        return snr.clamp(max=gamma) / (snr + 1)
    if kind in ("min-snr", "min-snr (ai-toolkit)"):
        return (gamma / snr).clamp(max=1.0)
    if kind in ("debiased", "debiased (OneTrainer)"):
        snr = snr.clamp(max=DEBIASED_SNR_MAX)
        if not v:
            return torch.rsqrt(snr)
        return 1 / (snr + 1) if kind == "debiased" else torch.rsqrt(snr + 1)
    raise ConfigError(
        f"timestep weight: {kind!r} is made for flow models, and this model predicts {prediction}. "
        "Choose none, a min-snr or a debiased weight."
    )


def flow_weights(sigma: Tensor, *, kind: str, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """The timestep weight (B,) of a flow model from its noise level.

    Args:
        sigma: (B,) in [0, 1], 1 = only noise; the weights that grow without bound hold it to
            [0.001, 0.999].
        kind: `none`; `sigma-sqrt` σ⁻²; `cosmap` 2/(π(1−2σ+2σ²)); `logit-normal` the density of
            sigmoid(N(mean, std)); `sigma-linear (OneTrainer)` σ.
        mean: of the logit-normal.
        std: of the logit-normal.

    Raises:
        ConfigError: `kind` does not belong to flow models.

    Source: arXiv 2403.03206, section 3.1 (CosMap, logit-normal).
    """
    sigma = _at_least_float32(sigma)
    if kind == "none":
        return torch.ones_like(sigma)
    if kind == "sigma-sqrt":
        return sigma.clamp(min=SIGMA_MIN).pow(-2)
    if kind == "cosmap":
        return 2 / (math.pi * (1 - 2 * sigma + 2 * sigma * sigma))
    if kind == "logit-normal":
        s = sigma.clamp(SIGMA_MIN, 1 - SIGMA_MIN)
        z = (torch.logit(s) - mean) / std
        return torch.exp(-0.5 * z * z) / (std * math.sqrt(2 * math.pi) * s * (1 - s))
    if kind == "sigma-linear (OneTrainer)":
        return sigma
    raise ConfigError(
        f"timestep weight: {kind!r} is made for epsilon and v models, and this is a flow model. "
        "Choose none, sigma-sqrt, cosmap, logit-normal or sigma-linear (OneTrainer)."
    )


def _at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _coverage(w: Tensor) -> Tensor:
    # sum / count, not mean(): CUDA's mean multiplies by a rounded 1/N, and a mask of ones must give 1.
    total = w.sum(dim=tuple(range(1, w.ndim)))
    return total / (w.numel() // w.shape[0])


def _one_where_zero(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, torch.ones_like(x))


def _log_cosh(d: Tensor) -> Tensor:
    # Two branches: the first keeps its digits near 0, the second does not overflow.
    near = d.clamp(-1, 1)
    a = d.abs()
    return torch.where(
        a < 1, torch.log1p(2 * torch.sinh(near / 2) ** 2), a + torch.log1p(torch.exp(-2 * a)) - math.log(2)
    )
