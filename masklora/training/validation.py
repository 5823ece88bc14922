"""The held-out loss: what the model makes of pictures that it is not trained on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import torch

from .batches import EMPTY_CAPTION, Draw
from .microbatch import Feed
from .objective import Objective
from .seeds import mix

VALIDATION_DRAWS = 16
# Keeps the held-out noise apart from the training noise, whatever the seed.
VALIDATION_SALT = 0x5EED


def held_out_loss(
    objective: Objective,
    feed: Feed,
    held_out: Sequence[int],
    *,
    batch_size: int,
    check_cancel: Callable[[], None] = lambda: None,
) -> float:
    """The masked loss of the held-out entries with the weights that the model has, without what is drawn or added.

    Noise and noise levels are the same each time, whatever the training has drawn.

    Args:
        objective: of the run.
        feed: reads the entries.
        held_out: indices of entries, at least one.
        batch_size: of a micro-batch.
        check_cancel: called before each micro-batch; raises to stop.
    """
    model = objective.model
    loss = dataclasses.replace(feed.loss, mask_probability=1.0, edge_jitter=0.0, prior_weight=0.0, routes="")
    generator = torch.Generator(device=model.device).manual_seed(mix(objective.seed + VALIDATION_SALT, 0))
    total, count = 0.0, 0
    model.set_training(False)
    try:
        with torch.no_grad():
            for group in _batches(feed, held_out, batch_size):
                check_cancel()
                batch = feed.make(group)
                value, _ = objective.terms(batch, loss, generator, number=0, progress=0.0)[0]()
                total += value.item() * len(group)
                count += len(group)
    finally:
        model.set_training(True)
    return total / count


def _batches(feed: Feed, held_out: Sequence[int], size: int) -> Iterator[list[Draw]]:
    entries = feed.cache.entries
    rounds = -(-VALIDATION_DRAWS // len(held_out))
    by_bucket: dict[tuple[int, int], list[int]] = {}
    for index in held_out:
        by_bucket.setdefault(entries[index].bucket, []).append(index)
    for members in by_bucket.values():
        captions = {index: 0 if any(c.key for c in entries[index].captions) else EMPTY_CAPTION for index in members}
        draws = [Draw(index, 0, captions[index]) for index in members * rounds]
        for start in range(0, len(draws), size):
            yield draws[start : start + size]
