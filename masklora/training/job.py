"""What `trainer.train` is given and what it gives back."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..findings import Finding
from ..loss.check import check_loss, check_loss_for
from ..loss.noise import Schedule
from ..loss.tokens import TokenModel
from ..runs.sample_pictures import Sampler
from ..settings import LossSettings, OptimizerSettings, TrainSettings, check
from ..viewing.training_sample import Seen, false_colours
from .metrics import StepReport
from .microbatch import CacheLike

# Takes a keyword `tokens` too, where the job says what of the model's tokens can be planned.
Denoise = Callable[..., Tensor]


@dataclass
class TrainJob:
    """What to train, on what, and how.

    Attributes:
        denoise: (noisy latents, noise levels u (B,), conditioning) to the prediction in the model's own
            parameterisation, same shape as the latents.
        params: the trainable parameters by name, in float32.
        cache: latents, masks and captions.
        schedule: what the model predicts.
        collate: captions' conditioning and geometries of a micro-batch to what `denoise` takes.
        grid_of: bucket (width, height) to the latent grid (h, w).
        latent_in: from the VAE's space to the model's, for a batch on the device.
        loss: the masked objective.
        optim: the optimizer.
        train: length, batch and bookkeeping.
        device: where the model computes.
        default_steps: the family's, used where `train.steps` and `train.epochs` are 0.
        default_learning_rate: the family's, used where the optimizer's is 0.
        grad_scaling: the model computes in float16.
        autograd_scope: the context in which each forward runs together with its backward.
        immediate: whether the numbers of a step are read right after it, None for only on the CPU, where
            that costs nothing.
        set_training: called with False around validation, then with True; for dropout.
        without_adapter: the context in which `denoise` is the base model's.
        tokens: what planning with the model's tokens must know; None where no setting acts on tokens.
        sampler: draws sample pictures; None for none.
        preview: a latent (C, [F,] h, w) of the model's space to about its colours, (h, w, 3) in 0..1.
    """

    denoise: Denoise
    params: Mapping[str, nn.Parameter]
    cache: CacheLike
    schedule: Schedule
    collate: Callable[[list[dict[str, Any]], list[Any], tuple[int, ...]], Any]
    grid_of: Callable[[tuple[int, int]], tuple[int, int]]
    latent_in: Callable[[Tensor], Tensor] = lambda latents: latents
    loss: LossSettings = field(default_factory=LossSettings)
    optim: OptimizerSettings = field(default_factory=OptimizerSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    default_steps: int = 500
    default_learning_rate: float = 1e-4
    grad_scaling: bool = False
    autograd_scope: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext
    immediate: bool | None = None
    set_training: Callable[[bool], None] = lambda on: None
    without_adapter: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext
    tokens: TokenModel | None = None
    sampler: Sampler | None = None
    preview: Callable[[Tensor], Tensor] = false_colours


class Hooks:
    """What a host may do during training; every method does nothing until it is overridden.

    Anything that a hook raises, BaseExceptions included, ends the run, leaves a resumable checkpoint, and
    is raised again.
    """

    def check_cancel(self) -> None:
        """Raise to cancel. Called before every step and every validation batch."""

    def should_stop(self) -> bool:
        """Whether to stop here and finish normally with what was learned."""
        return False

    def should_pause(self) -> bool:
        """Whether to wait; asked again ten times a second."""
        return False

    def should_save(self) -> bool:
        """Whether to write a checkpoint now; True once for each wish. Asked between steps and while waiting."""
        return False

    def should_sample(self) -> bool:
        """Whether to draw sample pictures now; True once for each wish. Asked where `should_save` is."""
        return False

    def on_job(self, job: TrainJob) -> None:
        """What is about to be trained; called before anything else."""

    def on_run(self, folder: Path, *, step: int, total: int) -> None:
        """The run's folder is known: training goes on after `step`, or is over if that is `total`."""

    def after_step(self, step: int) -> None:
        """Called between steps, when the weights are whole."""

    def on_seen(self, seen: Seen) -> None:
        """What the loss saw of the first sample of the step in progress; its tensors are on the device."""

    def on_drawing(self, step: int, *, done: int, count: int) -> None:
        """Of the `count` sample pictures after `step`, `done` are there; where they are equal no more are coming."""

    def on_step(self, report: StepReport) -> None:
        """A step's numbers; on a GPU they arrive in groups, up to a quarter of a second late."""

    def on_validation(self, step: int, loss: float) -> None:
        """The held-out loss after `step`."""

    def on_checkpoint(self, step: int, folder: Path) -> None:
        """A checkpoint was written."""

    def on_message(self, told: str | Finding) -> None:
        """Something that a person should know."""


@dataclass(frozen=True)
class TrainResult:
    """What a run has left.

    Attributes:
        adapter: float32 CPU weights to use: the moving average where there is one.
        steps: finished optimizer steps.
        completed: whether all planned steps were taken; False after a stop.
        loaded: whether a finished run was found and nothing was trained.
        resumed_from: step of the checkpoint that was continued, 0 for a fresh start.
        losses: of every step.
        summary: see `metrics.summarise`, and `validation`, `validation_best`, `best_step`.
        folder: of the run.
    """

    adapter: dict[str, Tensor]
    steps: int
    completed: bool
    loaded: bool
    resumed_from: int
    losses: list[float]
    summary: dict[str, Any]
    folder: Path


def check_job(job: TrainJob) -> None:
    """Nothing if the job can be trained.

    Raises:
        ConfigError: a setting is out of range or made for another kind of model; names the widget.
    """
    check(job.train)
    check_loss(job.loss)
    check_loss_for(job.loss, schedule=job.schedule, tokens=job.tokens)
    for name, p in job.params.items():
        if p.dtype not in (torch.float32, torch.float64):
            raise ConfigError(f"adapter: {name} is {p.dtype}, expected float32.")
