"""What `trainer.train` is given and what it gives back."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..experts import EXPERTS, levels_of
from ..findings import Finding
from ..loss.check import check_loss, check_loss_for
from ..loss.leak import Leak
from ..loss.noise import Schedule
from ..loss.tokens import TokenModel, TokenPlan
from ..optimizers.optim import Part
from ..peers import Peers, here
from ..runs.sample_pictures import Sampler
from ..settings import LossSettings, OptimizerSettings, TrainSettings, check
from ..viewing.training_sample import Seen
from .batches import EntryLike
from .metrics import StepReport


class Trainable(Protocol):
    """A model with its adapters, as training sees it: latents and captions in, predictions out.

    B is a micro-batch, (C, [F,] h, w) one latent; F is there only where the model takes clips.
    """

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        ...

    @property
    def schedule(self) -> Schedule:
        """What the model predicts, and its noise levels."""
        ...

    @property
    def params(self) -> Mapping[str, nn.Parameter]:
        """The trainable parameters by name, in float32."""
        ...

    @property
    def tokens(self) -> TokenModel | None:
        """What planning with the model's tokens must know; None for a model that takes no plan."""
        ...

    @property
    def grad_scaling(self) -> bool:
        """Whether the model computes in float16, whose gradients need scaling."""
        ...

    def grid_of(self, bucket: tuple[int, int]) -> tuple[int, int]:
        """The latent grid (h, w) of a bucket (width, height)."""
        ...

    def latent_in(self, latent: Tensor) -> Tensor:
        """From the VAE's space to the model's, (B, C, [F,] h, w) on the device."""
        ...

    def collate(
        self, texts: Sequence[dict[str, Any]], geometries: Sequence[Any], shape: Sequence[int], *, keys: Sequence[str]
    ) -> Any:
        """What `denoise` takes of the captions' conditioning.

        Args:
            texts: conditioning, one a sample.
            geometries: one a sample.
            shape: of one latent, (C, [F,] h, w).
            keys: of the texts; equal ones are equal texts, all through the run.
        """
        ...

    def with_first_frames(self, conditioning: Any, starts: Tensor) -> Any:
        """The conditioning with the first frames of clips; asked only where a job has `first_frames`.

        Args:
            conditioning: from `collate`.
            starts: (B, C, F, h, w), in the VAE's space, from which they are taken.
        """
        ...

    def with_references(self, conditioning: Any, references: Sequence[Tensor]) -> Any:
        """The conditioning with the samples' reference pictures; asked only where a cache has them.

        Args:
            conditioning: from `collate`.
            references: of each reference of a sample the latents (B, C, h, w), in the VAE's space.
        """
        ...

    @property
    def inpaints(self) -> bool:
        """Whether the model is shown each picture without what its mask covers, and fills that in."""
        ...

    def with_cut_outs(self, conditioning: Any, cut_outs: Tensor, masks: Tensor) -> Any:
        """The conditioning with what each picture is filled in from; asked only of a model that `inpaints`.

        Args:
            conditioning: from `collate`.
            cut_outs: latents (B, C, h, w) in the VAE's space of the pictures whose masked part is grey.
            masks: (B, 1, H, W) in pixels, 1 where the picture is filled in.
        """
        ...

    def denoise(self, noisy: Tensor, u: Tensor, conditioning: Any, **planned: TokenPlan) -> Tensor:
        """The prediction in the model's own parameterisation, of the shape of the latents.

        Args:
            noisy: (B, C, [F,] h, w).
            u: noise levels (B,).
            conditioning: from `collate`.
            planned: `tokens`, what the tokens do; only for a model that says what of its tokens can be planned.
        """
        ...

    def preview(self, latent: Tensor) -> Tensor:
        """About the colours of a latent (C, [F,] h, w) of the model's space, (h, w, 3) in 0..1."""
        ...

    def autograd_scope(self) -> contextlib.AbstractContextManager:
        """The context in which each forward runs together with its backward."""
        ...

    def without_adapter(self) -> contextlib.AbstractContextManager:
        """The context in which `denoise` is the base model's."""
        ...

    def set_training(self, on: bool) -> None:
        """Switch dropout; False around validation and sample pictures."""
        ...


class TrainEntry(EntryLike, Protocol):
    """What training reads of a cache entry."""

    @property
    def multiplier(self) -> float:
        """Loss multiplier of the data set."""
        ...

    @property
    def has_mask(self) -> bool:
        """Whether the picture has a mask at all."""
        ...


class CacheLike(Protocol):
    """What training asks of a cache."""

    @property
    def entries(self) -> Sequence[TrainEntry]:
        """All entries; their order is the meaning of an entry's index."""
        ...

    def latent(self, entry: Any, variant: int, infill: int) -> Tensor:
        """(C, [F,] h, w) float32 in the VAE's own space; an infill of `ORIGINAL` is the picture as it is."""
        ...

    def start(self, entry: Any, variant: int, infill: int) -> Tensor:
        """As `latent`, what the model is given of a clip that it continues, or of a picture that it fills in."""
        ...

    def references(self, entry: Any, variant: int, infill: int) -> list[Tensor]:
        """Latents (C, h, w) of its references, in order, as `latent`; asked only where an entry has them."""
        ...

    def mask(self, entry: Any, variant: int) -> Tensor:
        """(1, [F,] H, W) float32 in [0, 1] at the training geometry."""
        ...

    def text(self, key: Any) -> dict[str, Any]:
        """One caption's conditioning."""
        ...

    def empty_text(self) -> dict[str, Any]:
        """The conditioning of the empty caption."""
        ...

    def untouched(self) -> CacheLike:
        """The same cache, for reading in another thread what may not be needed: no read changes anything."""
        ...


@dataclass(frozen=True)
class Pair:
    """A second model that takes turns with the job's own, each at its own noise levels; see `experts`.

    Attributes:
        low: the one for low noise; the job's model is the one for high noise.
        switch: the noise level from which on it is that one's.
        every: steps until the other one's turn.
        show: called with the number of the one that is used from here on, 0 or 1; the first is at hand as a run begins.
    """

    low: Trainable
    switch: float
    every: int
    show: Callable[[int], None] = lambda number: None


@dataclass(frozen=True)
class Course:
    """What a model is trained on in a run: by itself, or as one of two, whose name is `expert`, else empty."""

    model: Trainable
    loss: LossSettings
    expert: str = ""


@dataclass
class TrainJob:
    """What to train, on what, and how.

    Attributes:
        model: what is trained.
        cache: latents, masks and captions.
        loss: the masked objective.
        optim: the optimizer; its learning rate is above 0.
        train: length, batch and bookkeeping; of steps and epochs one is above 0.
        sampler: draws sample pictures; None for none.
        first_frames: where a clip's first frame, which the model is given then, is read: "clip" in its latent, "cache"
            in a latent of its own; "" where none is given.
        immediate: whether the numbers of a step are read right after it, None for only on the CPU, where
            that costs nothing.
        pair: what is trained beside the model, by turns; None where it is trained alone.
        parts: of the model's parameters those with a learning rate of their own.
        peers: the processes that train it together.
    """

    model: Trainable
    cache: CacheLike
    loss: LossSettings = field(default_factory=LossSettings)
    optim: OptimizerSettings = field(default_factory=OptimizerSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    sampler: Sampler | None = None
    immediate: bool | None = None
    first_frames: str = ""
    pair: Pair | None = None
    parts: Sequence[Part] = ()
    peers: Peers = field(default_factory=here)

    @property
    def micros(self) -> int:
        """Micro-batches of a step, over all processes."""
        return self.train.gradient_accumulation * self.peers.count

    def courses(self) -> list[Course]:
        """What is trained: one model, or two in the order of their turns.

        Raises:
            ConfigError: the noise levels leave one of them nothing.
        """
        if self.pair is None:
            return [Course(self.model, self.loss)]
        models = zip(EXPERTS, (self.model, self.pair.low), strict=True)
        return [Course(model, levels_of(expert, self.loss, self.pair.switch), expert) for expert, model in models]


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

    def on_measuring(self, step: int) -> None:
        """What was learned of backgrounds up to `step` is about to be measured, which takes as long as some steps."""

    def on_leak(self, step: int, leak: Leak, favoured: int | None) -> None:
        """What was measured of backgrounds after `step`, and the step of the checkpoint that speaks best for itself."""

    def on_likeness(self, step: int, figures: Mapping[str, float]) -> None:
        """What was measured of the sample pictures after `step`, by the names of their curves."""

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
    for course in job.courses():
        check_loss_for(course.loss, schedule=course.model.schedule, tokens=course.model.tokens)
        for name, p in course.model.params.items():
            if p.dtype not in (torch.float32, torch.float64):
                raise ConfigError(f"adapter: {name} is {p.dtype}, expected float32.")
