"""From a micro-batch to its loss: noise, the base model where it is asked, prediction, masked objective."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..loss.losses import masked_objective, preservation_term
from ..loss.masks import cell_weights
from ..loss.noise import Schedule, add_noise, make_noise, sample_timesteps, target, timestep_weights
from ..loss.prior import Prior, prior_factors, prior_gate, prior_runs, prior_weights
from ..loss.tokens import TokenPlan
from ..settings import LossSettings
from ..viewing.training_sample import Seen
from .first_look import SAMPLES, FirstLook
from .job import Trainable
from .microbatch import Feed, MicroBatch
from .token_planner import TokenPlanner

# Makes one part of a micro-batch's loss, with its graph, and the numbers to report.
Term = Callable[[], tuple[Tensor, dict[str, Tensor]]]


@dataclass(frozen=True, eq=False)
class _Noised:
    """A micro-batch with everything that chance decides, the same for all its terms.

    Attributes:
        noisy: (B, C, [F,] h, w), what the network is shown.
        target: what it should predict, of the same shape but for the frames that it is given.
        u: noise levels (B,).
        w: effective weight (B, 1, [F,] h, w), likewise.
        omega: timestep weight (B,).
        tokens: which tokens skip blocks and which are seen; None for all pass and are seen.
    """

    noisy: Tensor
    target: Tensor
    u: Tensor
    w: Tensor
    omega: Tensor
    tokens: TokenPlan | None


class Objective:
    """The loss of a run's micro-batches."""

    def __init__(
        self,
        model: Trainable,
        *,
        seed: int,
        feed: Feed | None = None,
        tell: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Holds the model's schedule on its device.

        Args:
            model: what is trained.
            seed: of the run; decides which micro-batches have a rare term.
            feed: for planning the model's tokens, see `TokenPlanner`.
            tell: receives what the run should know.
        """
        self.model, self.seed = model, seed
        self.planner = TokenPlanner(model.tokens, feed=feed, tell=tell)
        self.seen: Seen | None = None
        self.first_look = FirstLook(tell)
        table = model.schedule.alphas_cumprod
        self.schedule: Schedule = dataclasses.replace(
            model.schedule, alphas_cumprod=None if table is None else table.to(model.device)
        )

    def terms(
        self,
        batch: MicroBatch,
        loss: LossSettings,
        generator: torch.Generator,
        *,
        number: int,
        progress: float,
    ) -> list[Term]:
        """The parts of the loss, to be made one after the other, so that only one graph is in memory at a time.

        The first is the masked loss with its prior; where the batch brings captions without the trigger word, the
        second holds these to the base model. All share noise and noise levels.

        Args:
            batch: from the feed.
            loss: the settings that count this time.
            generator: the run's own.
            number: of the micro-batch, from which chance that the host decides is drawn.
            progress: share of the run that is done, in [0, 1).
        """
        noised = self._noise(batch, loss, generator, progress=progress)
        self.seen = Seen(batch.names[0], _learned(batch.latents, batch)[0], noised.w[0, 0])
        parts: list[Term] = [
            functools.partial(self._masked, batch, noised, loss, number=number, progress=progress),
        ]
        if batch.plain is not None:
            parts.append(functools.partial(self._preservation, batch, noised, loss))
        return parts

    def _noise(self, batch: MicroBatch, loss: LossSettings, generator: torch.Generator, *, progress: float) -> _Noised:
        schedule, x = self.schedule, batch.latents
        noise = make_noise(x, generator=generator, offset=loss.noise_offset, multires=loss.multires_noise)
        masked = (_learned(batch.masks, batch) < 1).flatten(1).any(dim=1) if loss.masked_timestep_max < 1 else None
        u = sample_timesteps(
            x.shape[0],
            loss,
            schedule=schedule,
            generator=generator,
            device=self.model.device,
            masked=masked,
            cells=x.shape[-2] * x.shape[-1],
        )
        w = cell_weights(
            batch.masks,
            loss,
            generator=generator,
            thresholded=prior_gate(u, loss),
            u=u,
            strict=batch.replaced,
        )
        return _Noised(
            noisy=add_noise(x, noise, u, schedule=schedule),
            target=_learned(target(x, noise, u, schedule=schedule), batch),
            u=u,
            w=_learned(w, batch),
            omega=timestep_weights(u, loss, schedule=schedule),
            tokens=self.planner(batch, w, loss, progress=progress, generator=generator),
        )

    def _masked(
        self, batch: MicroBatch, noised: _Noised, loss: LossSettings, *, number: int, progress: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        prior = None
        # Only a ceiling gives an outside to a batch whose masks are white.
        outside = not batch.whole or loss.ceiling < 1
        if outside and prior_runs(loss, seed=self.seed, number=number):
            factor = prior_factors(noised.u, loss, progress=progress)
            bicubic = None if batch.bicubic is None else _learned(batch.bicubic, batch)
            v = prior_weights(_learned(batch.masks, batch), noised.w, loss, bicubic=bicubic)
            v = _learned(self.planner.passing(_filled_up(v, batch), noised.tokens), batch)
            prior = Prior(_learned(self._base(noised, batch.conditioning), batch), v, factor)
        prediction = _learned(self._predict(noised, batch.conditioning), batch)
        # Held-out batches are counted anew from 0, when the adapter may have learned already.
        if number < SAMPLES and noised.tokens is None and torch.is_grad_enabled():
            self.first_look.observe(prediction, noised.target)
        value, seen = masked_objective(
            prediction,
            noised.target,
            noised.w,
            loss,
            omega=noised.omega,
            multiplier=batch.multiplier,
            prior=prior,
            strict=batch.replaced,
        )
        return value, seen | {"level": noised.u}

    def _preservation(self, batch: MicroBatch, noised: _Noised, loss: LossSettings) -> tuple[Tensor, dict[str, Tensor]]:
        # The whole picture is held, so all its tokens pass and are seen.
        noised = dataclasses.replace(noised, tokens=noised.tokens and noised.tokens.whole())
        base = _learned(self._base(noised, batch.plain), batch)
        value = preservation_term(
            _learned(self._predict(noised, batch.plain), batch),
            base,
            batch.triggered * (loss.preservation_weight / loss.preservation_probability),
            loss,
            omega=noised.omega,
            multiplier=batch.multiplier,
        )
        return value, {"preservation": value.detach()}

    def _predict(self, noised: _Noised, conditioning: Any) -> Tensor:
        """What the model predicts; a model without tokens is not told of them."""
        planned = {} if noised.tokens is None else {"tokens": noised.tokens}
        return self.model.denoise(noised.noisy, noised.u, conditioning, **planned)

    def _base(self, noised: _Noised, conditioning: Any) -> Tensor:
        """The same model's prediction without the adapter, before the pass that needs memory for gradients."""
        with torch.no_grad(), self.model.without_adapter():
            return self._predict(noised, conditioning)


def _learned(cells: Tensor, batch: MicroBatch) -> Tensor:
    """Of cells (B, C, [F,] h, w) those that count: what the model is given is neither learned, held nor measured."""
    return cells[:, :, batch.given :] if batch.given else cells


def _filled_up(cells: Tensor, batch: MicroBatch) -> Tensor:
    """Weights (B, 1, [F,] h, w) of what counts with 0 for the frames that the model is given before them."""
    return F.pad(cells, (0, 0, 0, 0, batch.given, 0)) if batch.given else cells
