"""Optimizers, learning-rate curves, moving averages: what turns a gradient into a step.

Every piece can be written down as tensors and JSON scalars and restored bit for bit, so that a resumed
run continues exactly where it stopped. Learning rates are a pure function of the step and need no state.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..errors import ConfigError, RunError
from ..settings import OptimizerSettings, check
from .library import BUILDERS, library

LION_BETAS = (0.9, 0.99)
_MODULES = {
    "adamw8bit": "bitsandbytes",
    "lion": "lion_pytorch",
    "prodigy": "prodigyopt",
    "schedule-free adamw": "schedulefree",
}


def learning_rate_factor(step: int, *, total: int, settings: OptimizerSettings) -> float:
    """The share of the peak learning rate that step `step` uses, in [0, 1].

    The curve is a function of the step alone, so resuming needs no scheduler state.

    Args:
        step: 0-based index of the optimizer step.
        total: number of optimizer steps of the run.
        settings: curve, warm-up, restarts, power and the floor `min_lr_ratio`.

    Returns:
        Linear from 1/warm-up to 1 during the warm-up; afterwards the curve, scaled so that it ends at
        `min_lr_ratio`. `restarts` counts the returns to the peak: 1 gives two half cosines.
        `constant` has no end to fall to and ignores the floor.
    """
    warmup = settings.warmup_steps
    if step < warmup:
        return (step + 1) / warmup
    if settings.schedule == "constant":
        return 1.0
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    shape = _curve(settings, progress)
    return settings.min_lr_ratio + (1.0 - settings.min_lr_ratio) * shape


def _curve(settings: OptimizerSettings, progress: float) -> float:
    if settings.schedule == "linear":
        return 1.0 - progress
    if settings.schedule == "polynomial":
        return (1.0 - progress) ** settings.power
    cycles = settings.restarts + 1 if settings.schedule == "cosine with restarts" else 1
    within = 1.0 if progress >= 1.0 else (progress * cycles) % 1.0
    return 0.5 * (1.0 + math.cos(math.pi * within))


def apply_learning_rate(optimizer: Optimizer, step: int, *, total: int, settings: OptimizerSettings) -> float:
    """The learning rate of the first group after setting every group to its rate at `step`."""
    factor = learning_rate_factor(step, total=total, settings=settings)
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor
    return float(optimizer.param_groups[0]["lr"])


@dataclass(frozen=True)
class Part:
    """Parameters that are trained apart from the others.

    Attributes:
        prefix: of their names.
        learning_rate: peak rate of theirs.
        stop: after so many steps they stay as they are; 0 for never.
        title: for people.
    """

    prefix: str
    learning_rate: float
    stop: int = 0
    title: str = ""

    def learns(self, step: int) -> bool:
        """Whether the step of this 0-based number changes them."""
        return not self.stop or step < self.stop


def parameter_groups(
    params: Mapping[str, nn.Parameter],
    settings: OptimizerSettings,
    *,
    learning_rate: float,
    parts: Sequence[Part] = (),
) -> list[dict[str, Any]]:
    """Optimizer groups of the named parameters, B matrices apart where LoRA+ asks for it.

    Args:
        params: trainable parameters by name; a B matrix has `lora_B` as a part of its dotted name.
        settings: `lora_plus_ratio` multiplies the learning rate of the B matrices.
        learning_rate: peak rate of all others.
        parts: those with a rate of their own.

    Returns:
        One group, or two when the ratio is not 1 and there are B matrices; then likewise those of each part. Order
        follows `params`.

    Raises:
        ConfigError: nothing to train, no learning rate, or a ratio that the optimizer cannot follow.
    Source: Hayou et al. 2024, LoRA+, arXiv 2402.12354.
    """
    if not params:
        raise ConfigError("adapter: it has no trainable parameters. Choose other targets.")
    if not math.isfinite(learning_rate) or learning_rate <= 0:
        raise ConfigError(f"learning_rate: expected a number above 0, got {learning_rate!r}.")
    left, groups = list(params), []
    for part in parts:
        own = [name for name in params if name.startswith(part.prefix)]
        left = [name for name in left if name not in set(own)]
        groups += _groups(params, own, settings, part.learning_rate)
    return [*_groups(params, left, settings, learning_rate), *groups]


def _groups(
    params: Mapping[str, nn.Parameter], names: list[str], settings: OptimizerSettings, rate: float
) -> list[dict[str, Any]]:
    ratio, b_names = settings.lora_plus_ratio, [name for name in names if "lora_B" in name.split(".")]
    if ratio == 1.0 or not b_names:
        return [_group(params, names, rate)] if names else []
    others = [name for name in names if name not in set(b_names)]
    groups = [_group(params, others, rate)] if others else []
    return [*groups, _group(params, b_names, rate * ratio)]


def _group(params: Mapping[str, nn.Parameter], names: list[str], rate: float) -> dict[str, Any]:
    return {"params": [params[name] for name in names], "lr": rate, "initial_lr": rate}


def make_optimizer(groups: Sequence[dict[str, Any]], settings: OptimizerSettings) -> Optimizer:
    """The chosen optimizer over `groups`, ready for its first step.

    Args:
        groups: from `parameter_groups`.
        settings: optimizer, betas, eps and weight decay.

    Returns:
        A torch optimizer. Adafactor's update is kept from shrinking with the weight's own size, which
        would freeze a LoRA's zero-initialised B matrix, so that the learning rate means what it means
        elsewhere. Lion keeps its paper's betas while `betas` is at its default.

    Raises:
        ConfigError: a missing package, or as `check_optimizer`.
    """
    check_optimizer(settings)
    return _BUILDERS[settings.optimizer](list(groups), settings)


def check_optimizer(settings: OptimizerSettings) -> None:
    """Nothing if every value is usable and the optimizer can follow it.

    Raises:
        ConfigError: one is not, or settings contradict the optimizer; names the widget.
    """
    check(settings)
    if settings.optimizer in _MODULES:
        _module_of(settings.optimizer)
    if settings.optimizer in BUILDERS:
        library(settings.optimizer)
    if settings.eps <= 0.0:
        raise ConfigError(f"eps: expected a value above 0, got {settings.eps:g}. 1e-8 is usual.")
    if settings.optimizer == "prodigy" and settings.lora_plus_ratio != 1.0:
        raise ConfigError(
            f"lora_plus_ratio: prodigy has one step size for all weights, expected 1, got {settings.lora_plus_ratio:g}."
        )
    if settings.optimizer != "schedule-free adamw":
        return
    if settings.schedule != "constant":
        raise ConfigError(
            "schedule: schedule-free adamw replaces the schedule, expected constant "
            f"(warm-up is fine), got {settings.schedule}."
        )
    if settings.ema_decay > 0:
        raise ConfigError("ema_decay: schedule-free adamw already averages the weights, expected 0.")
    if settings.betas[0] <= 0.0:
        raise ConfigError("beta1: schedule-free adamw needs a value above 0.")


def _adamw(groups: list[dict[str, Any]], settings: OptimizerSettings) -> Optimizer:
    options: dict[str, Any] = {
        "betas": settings.betas,
        "eps": settings.eps,
        "weight_decay": settings.weight_decay,
    }
    try:
        return torch.optim.AdamW(groups, fused=True, **options)
    except RuntimeError:
        return torch.optim.AdamW(groups, foreach=True, **options)


def _module_of(optimizer: str) -> Any:
    """The module that an optimizer comes from, imported where it is chosen.

    Raises:
        ConfigError: it is not installed.
    """
    module = _MODULES[optimizer]
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"optimizer: {optimizer} needs the package {module.replace('_', '-')}, which is not installed in ComfyUI's "
            f"Python ({error}). Install it there, or choose adamw."
        ) from error


def _adamw8bit(groups: list[dict[str, Any]], settings: OptimizerSettings) -> Optimizer:
    bitsandbytes = _module_of("adamw8bit")
    options: dict[str, Any] = {
        "betas": settings.betas,
        "eps": settings.eps,
        "weight_decay": settings.weight_decay,
    }
    return bitsandbytes.optim.AdamW8bit(groups, **options)


def _adafactor(groups: list[dict[str, Any]], settings: OptimizerSettings) -> Optimizer:
    return torch.optim.Adafactor(groups, eps=(None, 1.0), weight_decay=settings.weight_decay)


def _lion(groups: list[dict[str, Any]], settings: OptimizerSettings) -> Optimizer:
    lion = _module_of("lion")
    betas = LION_BETAS if settings.betas == OptimizerSettings().betas else settings.betas
    return lion.Lion(groups, betas=betas, weight_decay=settings.weight_decay)


def _prodigy(groups: list[dict[str, Any]], settings: OptimizerSettings) -> Optimizer:
    prodigyopt = _module_of("prodigy")
    # The constructor prints to the terminal when it is given a weight decay, so the groups get it after.
    optimizer = prodigyopt.Prodigy(
        groups,
        lr=groups[0]["lr"],
        betas=settings.betas,
        eps=settings.eps,
        use_bias_correction=True,
        safeguard_warmup=settings.warmup_steps > 0,
    )
    for group in optimizer.param_groups:
        group["weight_decay"] = settings.weight_decay
    return optimizer


def _schedule_free(groups: list[dict[str, Any]], settings: OptimizerSettings) -> Optimizer:
    schedulefree = _module_of("schedule-free adamw")
    optimizer = schedulefree.AdamWScheduleFree(
        groups, betas=settings.betas, eps=settings.eps, weight_decay=settings.weight_decay
    )
    optimizer.train()
    return optimizer


_BUILDERS: dict[str, Callable[[list[dict[str, Any]], OptimizerSettings], Optimizer]] = {
    "adamw": _adamw,
    "adamw8bit": _adamw8bit,
    "adafactor": _adafactor,
    "lion": _lion,
    "prodigy": _prodigy,
    "schedule-free adamw": _schedule_free,
    **BUILDERS,
}


class Ema:
    """Exponential moving average of the adapters in float32, with a warm-up so that short runs profit.

    The decay of update n is min(decay, (1 + n) / (10 + n)): the average forgets the initial weights.
    """

    def __init__(self, params: Mapping[str, nn.Parameter], decay: float) -> None:
        """Start the average at the present weights; `decay` in (0, 1)."""
        self.decay = decay
        self.shadow = {name: p.detach().to(torch.float32, copy=True) for name, p in params.items()}
        self._live = list(params.values())

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the average towards the present weights; `step` is the 0-based step just taken."""
        decay = min(self.decay, (1.0 + step) / (10.0 + step))
        live = [p.detach().to(torch.float32) for p in self._live]
        torch._foreach_lerp_(list(self.shadow.values()), live, 1.0 - decay)

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Replace the average by one from `shadow` of an earlier run.

        Raises:
            RunError: other names or shapes than the adapters'.
        """
        copy_named(self.shadow, state)


@torch.no_grad()
def result_weights(params: Mapping[str, nn.Parameter], optimizer: Optimizer, ema: Ema | None) -> dict[str, Tensor]:
    """Detached float32 copies of the weights that a person would use now.

    That is the moving average where there is one, the averaged point of schedule-free AdamW (whose live
    weights are the point where gradients are taken), else the weights themselves. Nothing is changed in
    place: moving back and forth would not be bit-exact.
    """
    if ema is not None:
        return {name: tensor.clone() for name, tensor in ema.shadow.items()}
    out = {name: p.detach().to(torch.float32, copy=True) for name, p in params.items()}
    anchors = _schedule_free_anchors(optimizer)
    for name, p in params.items():
        if id(p) in anchors:
            anchor, beta1 = anchors[id(p)]
            out[name].lerp_(anchor.to(torch.float32), 1.0 - 1.0 / beta1)
    return out


def live_weights(params: Mapping[str, nn.Parameter], result: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """The weights being trained, detached, or None where `result_weights` gave the very same values."""
    live = {name: p.detach() for name, p in params.items()}
    alike = all(t.dtype == result[name].dtype and torch.equal(t, result[name]) for name, t in live.items())
    return None if alike else live


def _schedule_free_anchors(optimizer: Optimizer) -> dict[int, tuple[Tensor, float]]:
    found: dict[int, tuple[Tensor, float]] = {}
    for group in optimizer.param_groups:
        if not group.get("train_mode", False):
            continue
        for p in group["params"]:
            anchor = optimizer.state[p].get("z") if p in optimizer.state else None
            if anchor is not None:
                found[id(p)] = (anchor, group["betas"][0])
    return found


@torch.no_grad()
def copy_named(into: Mapping[str, Tensor], source: Mapping[str, Tensor]) -> None:
    """Copy tensors of equal name and shape into existing ones.

    Raises:
        RunError: names or shapes differ; says which.
    """
    if set(into) != set(source):
        odd = sorted(set(into) ^ set(source))[:3]
        raise RunError(f"The checkpoint belongs to another adapter: it differs in {', '.join(odd)}.")
    for name, tensor in into.items():
        if tensor.shape != source[name].shape:
            raise RunError(
                f"The checkpoint belongs to another adapter: {name} is {tuple(source[name].shape)}, "
                f"expected {tuple(tensor.shape)}."
            )
        tensor.copy_(source[name])


class StepGate:
    """A flag on the device that, once raised, keeps every later step from touching the weights.

    Reading a loss on the host each step stalls a GPU, so NaN is noticed only when metrics are fetched.
    Until then this flag does the protecting: fused AdamW skips the step itself, for the others the
    gradients are zeroed. The flag never falls, and no checkpoint is written before it was read.
    """

    def __init__(self, device: torch.device) -> None:
        """Start with the flag down."""
        self.bad = torch.zeros((), dtype=torch.float32, device=device)

    @torch.no_grad()
    def observe(self, *values: Tensor) -> None:
        """Raise the flag if any of the scalars is NaN or infinite. Does not wait for the device."""
        for value in values:
            self.bad = torch.maximum(self.bad, (~torch.isfinite(value)).to(torch.float32))

    @torch.no_grad()
    def close(self, optimizer: Optimizer, *, scaled: bool = False) -> None:
        """Call before the optimizer's step: makes it harmless if the flag is up.

        Args:
            optimizer: any of `make_optimizer`.
            scaled: a gradient scaler runs the step and uses the optimizer's own skip input.
        """
        fused = all(group.get("fused") for group in optimizer.param_groups)
        if fused and not scaled:
            optimizer.found_inf = self.bad  # type: ignore[attr-defined]
            return
        raised = self.bad > 0
        for group in optimizer.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    # A text encoder may be trained elsewhere than the model.
                    p.grad = torch.where(raised.to(p.grad.device), torch.zeros_like(p.grad), p.grad)


def optimizer_state(optimizer: Optimizer) -> dict[str, Any]:
    """Everything the optimizer remembers, as nested dicts of tensors and scalars."""
    return optimizer.state_dict()


def restore_optimizer(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Put back what `optimizer_state` gave, scalars of the parameter groups included.

    Raises:
        RunError: the state belongs to other groups or another optimizer.
    """
    try:
        optimizer.load_state_dict(state)
    except (ValueError, KeyError) as error:
        raise RunError(f"The checkpoint's optimizer state does not fit this optimizer: {error}.") from error
