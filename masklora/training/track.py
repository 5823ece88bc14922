"""One model's own way through a run, micro-batch by micro-batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from ..experts import parted, parted_state
from ..loss.prior import preservation_runs
from ..runs.run import Checkpoint
from .batches import BatchPlan
from .job import Course, TrainJob
from .metrics import micro_row, showing_row
from .microbatch import Feed
from .objective import Objective
from .seeds import chance_of, mix, seed_global_random
from .weights import Weights


class Track:
    """One model's own way through a run: its weights and chance, its batches, its noise levels.

    Of two models that take turns each has one, so that what it learns does not depend on the other.
    """

    def __init__(
        self, job: TrainJob, course: Course, plan: BatchPlan, *, total: int, tell: Callable[[str], None]
    ) -> None:
        """As a run begins.

        Args:
            job: the run's.
            course: what of it is this model's.
            plan: the run's batches.
            total: how many steps are this one's.
            tell: receives what the run should know.
        """
        settings = job.train
        self._job, self._plan = job, plan
        self._own_names: dict[int, tuple[str, ...]] = {}
        self.model, self.loss, self.expert, self.total = course.model, course.loss, course.expert, total
        self.weights = Weights(course.model, job.optim, micros=job.micros, processes=job.peers.count, parts=job.parts)
        self.feed = Feed(
            job.cache,
            course.loss,
            model=course.model,
            regularisation_weight=settings.regularisation_weight,
            first_frames=job.first_frames,
        )
        self.objective = Objective(course.model, seed=settings.seed, feed=self.feed, tell=tell)

    def restore(self, checkpoint: Checkpoint) -> bool:
        """Go on from a checkpoint of the run; False where the optimizer starts anew."""
        if self.expert:
            state = parted_state(checkpoint.state, self.expert)
            adapter = parted(checkpoint.adapter, self.expert)
            checkpoint = dataclasses.replace(checkpoint, step=state["step"], adapter=adapter, state=state)
        return self.weights.restore(checkpoint)

    @property
    def due(self) -> int:
        """Steps in which what is left of its micro-batches is learned, if as many as planned were to be learned."""
        weights = self.weights
        return weights.step + max(0, -((weights.taken - self.total * weights.micros) // weights.micros))

    @property
    def numbers(self) -> range:
        """Of the micro-batches of the step that begins, over all processes."""
        weights = self.weights
        return range(weights.taken, weights.taken + weights.micros)

    @property
    def own_numbers(self) -> range:
        """Those of them that are this process's."""
        peers = self._job.peers
        return self.numbers[peers.number :: peers.count]

    def names(self) -> tuple[str, ...]:
        """Of the pictures of the step whose own micro-batches were learned, over all processes."""
        own, self._own_names = self._own_names, {}
        return tuple(name for number in self.numbers for name in own.get(number) or self._others(number))

    def _others(self, number: int) -> list[str]:
        return [self._job.cache.entries[draw.entry].name for draw in self._plan.batch(number)]

    def learn(self, number: int) -> Tensor:
        """Add up the gradients of a micro-batch.

        Returns:
            `metrics.micro_row` of it and `metrics.showing_row` of its pictures, one after the other, (n,).
        """
        weights, seed, device = self.weights, self._job.train.seed, self.model.device
        seed_global_random(device, mix(seed, number))
        plain = preservation_runs(self.loss, seed=seed, number=number)
        batch = self.feed.make(self._plan.batch(number), plain=plain)
        self._own_names[number] = batch.names
        self._read_ahead(number + self._job.peers.count)
        chance, progress = chance_of(device, seed, number), weights.step / self.total
        values, part = [], {}
        for term in self.objective.terms(batch, self.loss, chance, number=number, progress=progress):
            with self.model.autograd_scope():
                value, seen = term()
                weights.backward(value / weights.micros)
            values.append(value.detach())
            part |= seen
        return torch.cat([micro_row(torch.stack(values).sum(), part), showing_row(part).flatten()])

    def _read_ahead(self, number: int) -> None:
        """Have the micro-batch of this number read, if there is such a step."""
        weights = self.weights
        if number < weights.taken + (self.total - weights.step) * weights.micros:
            plain = preservation_runs(self.loss, seed=self._job.train.seed, number=number)
            self.feed.read_ahead(self._plan.batch(number), plain=plain)
