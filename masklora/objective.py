"""From a micro-batch to its loss: noise, the base model where the prior needs it, prediction, masked objective."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from .config import LossSettings
from .feed import MicroBatch
from .flow import Schedule, add_noise, make_noise, sample_timesteps, target, timestep_weights
from .job import TrainJob
from .losses import masked_objective
from .masks import cell_weights
from .prior import Prior, prior_factors, prior_gate, prior_runs, prior_weights


class Objective:
    """The loss of a job's micro-batches."""

    def __init__(self, job: TrainJob) -> None:
        """Holds the job's schedule on its device."""
        self.job = job
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
        w = cell_weights(batch.masks, loss, generator=generator, thresholded=gate)
        noisy = add_noise(x, noise, u, schedule=schedule)
        prior = None
        # Only a ceiling gives an outside to a batch whose masks are white.
        outside = not batch.whole or loss.ceiling < 1
        if outside and prior_runs(loss, seed=self.job.train.seed, number=number):
            factor = prior_factors(u, loss, progress=progress)
            v = prior_weights(batch.masks, w, loss, bicubic=batch.bicubic)
            prior = Prior(self._base(noisy, u, batch.conditioning), v, factor)
        prediction = self.job.denoise(noisy, u, batch.conditioning)
        return masked_objective(
            prediction,
            target(x, noise, u, schedule=schedule),
            w,
            loss,
            omega=timestep_weights(u, loss, schedule=schedule),
            multiplier=batch.multiplier,
            prior=prior,
        )

    def _base(self, noisy: Tensor, u: Tensor, conditioning: Any) -> Tensor:
        """The same model's prediction without the adapter, before the pass that needs memory for gradients."""
        with torch.no_grad(), self.job.without_adapter():
            return self.job.denoise(noisy, u, conditioning)
