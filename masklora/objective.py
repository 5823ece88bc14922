"""From a micro-batch to its loss: noise, the base model where the prior needs it, prediction, masked objective."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .config import LossSettings
from .feed import Feed, MicroBatch
from .flow import Schedule, add_noise, make_noise, sample_timesteps, target, timestep_weights
from .job import TrainJob
from .losses import masked_objective
from .masks import effective_weights
from .prior import Prior, prior_factors, prior_gate, prior_runs, prior_weights
from .token_planner import TokenPlanner
from .tokens import TokenPlan


class Objective:
    """The loss of a job's micro-batches."""

    def __init__(
        self, job: TrainJob, *, feed: Feed | None = None, tell: Callable[[str], None] = lambda text: None
    ) -> None:
        """Holds the job's schedule on its device; `feed` and `tell` are for planning the job's tokens."""
        self.job = job
        self.planner = TokenPlanner(job.tokens, feed=feed, tell=tell)
        table = job.schedule.alphas_cumprod
        self.schedule: Schedule = dataclasses.replace(
            job.schedule, alphas_cumprod=None if table is None else table.to(job.device)
        )

    def __call__(
        self,
        batch: MicroBatch,
        loss: LossSettings,
        generator: torch.Generator,
        *,
        number: int,
        progress: float,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss with its graph, and `losses.masked_objective`'s numbers.

        Args:
            batch: from the feed.
            loss: the settings that count this time.
            generator: the run's own.
            number: of the micro-batch, from which chance that the host decides is drawn.
            progress: share of the run that is done, in [0, 1).
        """
        schedule, x = self.schedule, batch.latents
        noise = make_noise(x, generator=generator, offset=loss.noise_offset, multires=loss.multires_noise)
        u = sample_timesteps(x.shape[0], loss, schedule=schedule, generator=generator, device=self.job.device)
        gate = prior_gate(u, loss)
        w = effective_weights(batch.masks, loss, grid=batch.grid, generator=generator, thresholded=gate)
        noisy = add_noise(x, noise, u, schedule=schedule)
        tokens = self.planner(batch, w, loss, progress=progress, generator=generator)
        prior = None
        # Only a ceiling gives an outside to a batch whose masks are white.
        outside = not batch.whole or loss.ceiling < 1
        if outside and prior_runs(loss, seed=self.job.train.seed, number=number):
            factor = prior_factors(u, loss, progress=progress)
            v = self.planner.passing(prior_weights(batch.masks, w, loss, bicubic=batch.bicubic), tokens)
            prior = Prior(self._base(noisy, u, batch.conditioning, tokens), v, factor)
        prediction = self._predict(noisy, u, batch.conditioning, tokens)
        return masked_objective(
            prediction,
            target(x, noise, u, schedule=schedule),
            w,
            loss,
            omega=timestep_weights(u, loss, schedule=schedule),
            multiplier=batch.multiplier,
            prior=prior,
        )

    def _predict(self, noisy: Tensor, u: Tensor, conditioning: Any, tokens: TokenPlan | None) -> Tensor:
        """What the model predicts; a model without tokens is not told of them."""
        planned = {} if tokens is None else {"tokens": tokens}
        return self.job.denoise(noisy, u, conditioning, **planned)

    def _base(self, noisy: Tensor, u: Tensor, conditioning: Any, tokens: TokenPlan | None) -> Tensor:
        """The same model's prediction without the adapter, before the pass that needs memory for gradients."""
        with torch.no_grad(), self.job.without_adapter():
            return self._predict(noisy, u, conditioning, tokens)
