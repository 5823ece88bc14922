"""What is measured between steps: the loss on pictures that are held out, and how much of backgrounds was learned."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ..loss.leak import Leak, Pull, blurred_outside, gather, pull
from ..loss.noise import add_noise, picture_change, target
from ..settings import TimestepSettings
from .batches import EMPTY_CAPTION, Draw, EntryLike, shape_of
from .job import Trainable, TrainEntry
from .microbatch import Feed, MicroBatch
from .objective import Objective
from .seeds import mix

VALIDATION_DRAWS = 16
# Keeps the held-out noise apart from the training noise, whatever the seed.
VALIDATION_SALT = 0x5EED
LEAK_SALT = 0x1EAC
# Between these a picture in mind is neither settled by what is shown nor free of it; at more noise it moves anyway.
LEAK_LEVELS = (0.6, 0.8)
LEAK_PICTURES = 12
# Single showings tell little: of fewer pictures each is shown several times, in other noise.
LEAK_SHOWINGS = 12


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
    once = [Draw(index, 0, _caption(entries[index])) for index in held_out]
    yield from _alike(feed, once * rounds, size)


def leak_draws(entries: Sequence[TrainEntry], use: Sequence[int], *, seed: int) -> list[Draw]:
    """Which pictures `background_leak` is measured on: at most `LEAK_PICTURES` with a mask, the same each time.

    The choice hangs on seed and name alone; a picture more moves few of them.

    Args:
        entries: of the cache.
        use: indices of those that are trained on.
        seed: of the run.
    """
    able = [i for i in use if entries[i].has_mask and not entries[i].regularisation and entries[i].weight > 0]
    chosen = sorted(able, key=lambda i: hashlib.sha256(f"{seed}:{entries[i].name}".encode()).digest())[:LEAK_PICTURES]
    return [Draw(i, 0, _caption(entries[i])) for i in sorted(chosen)]


def background_leak(
    model: Trainable,
    feed: Feed,
    draws: Sequence[Draw],
    *,
    batch_size: int,
    seed: int,
    check_cancel: Callable[[], None] = lambda: None,
) -> Leak:
    """How far the LoRA pulls pictures whose background is blurred towards what it was; see `loss.leak`.

    In `LEAK_SHOWINGS` showings at each noise level or more the network is asked with the LoRA and without, and once of
    each picture with its caption without the trigger word, if it has one. Noise is the same each time. It changes
    nothing: no weight, no random number of the run.

    Args:
        model: with the weights to be measured. One that continues a picture is given it as it is, and its background
            with it; that frame does not count.
        feed: reads the entries, with the loss whose range of noise levels counts.
        draws: from `leak_draws`.
        batch_size: of a micro-batch.
        seed: of the run.
        check_cancel: called before each micro-batch; raises to stop.
    """
    names: list[str] = []
    pulls: list[Pull] = []
    changed = error = 0.0
    generator = torch.Generator(device=model.device).manual_seed(mix(seed + LEAK_SALT, 0))
    model.set_training(False)
    try:
        with torch.no_grad():
            for group in _alike(feed, draws, batch_size):
                batch = feed.make(group, plain=True)
                for level in leak_levels(feed.loss) * -(-LEAK_SHOWINGS // len(draws)):
                    check_cancel()
                    pulls.append(_pulls(model, batch, level, generator))
                    names += batch.names
                if batch.plain is not None:
                    squares = _plain_squares(model, batch, leak_levels(feed.loss)[0], generator)
                    changed, error = changed + squares[0], error + squares[1]
    finally:
        model.set_training(True)
    if not pulls:
        return Leak()
    joined = Pull(*(torch.cat(parts) for parts in zip(*pulls, strict=True)))
    return gather(names, joined, changed=changed, error=error)


def leak_levels(settings: TimestepSettings) -> list[float]:
    """The noise levels at which a model is measured: those of `LEAK_LEVELS` that it is trained at, else its middle."""
    low, high = settings.timestep_min, settings.timestep_max
    return [level for level in LEAK_LEVELS if low <= level <= high] or [(low + high) / 2]


def _pulls(model: Trainable, batch: MicroBatch, level: float, generator: torch.Generator) -> Pull:
    """The pulls of a micro-batch at a noise level."""
    outside = 1 - batch.masks.clamp(0, 1)
    shown = blurred_outside(batch.latents, outside)
    asked = _Asked(model, shown, level, generator)
    base, adapted = asked(batch.conditioning)
    moved = picture_change(adapted - base, asked.u, schedule=asked.schedule)
    return pull(*(_counted(one, batch) for one in (moved, batch.latents - shown, outside)))


def _plain_squares(
    model: Trainable, batch: MicroBatch, level: float, generator: torch.Generator
) -> tuple[float, float]:
    """Sums over the captions that lose a trigger word: squared changes of the prediction, the base's squared errors."""
    asked = _Asked(model, batch.latents, level, generator)
    base, adapted = asked(batch.plain)
    has = batch.triggered.view(-1, *([1] * (base.ndim - 1)))
    wanted = target(batch.latents, asked.noise, asked.u, schedule=asked.schedule)
    changes = (_counted((one - base).square() * has, batch).sum() for one in (adapted, wanted))
    changed, error = map(float, changes)
    return changed, error


class _Asked:
    """Latents in noise of a level, of which a model is asked without its LoRA and with it."""

    def __init__(self, model: Trainable, latents: Tensor, level: float, generator: torch.Generator) -> None:
        table = model.schedule.alphas_cumprod
        self.model = model
        self.schedule = dataclasses.replace(
            model.schedule, alphas_cumprod=None if table is None else table.to(model.device)
        )
        self.noise = torch.randn(latents.shape, generator=generator, device=latents.device)
        self.u = torch.full((len(latents),), level, device=latents.device)
        self._noisy = add_noise(latents, self.noise, self.u, schedule=self.schedule)

    def __call__(self, conditioning: Any) -> tuple[Tensor, Tensor]:
        """Both predictions, float32."""
        with self.model.without_adapter():
            base = self.model.denoise(self._noisy, self.u, conditioning).float()
        return base, self.model.denoise(self._noisy, self.u, conditioning).float()


def _counted(cells: Tensor, batch: MicroBatch) -> Tensor:
    """Without the frames that the model is given."""
    return cells[:, :, batch.given :]


def _caption(entry: EntryLike) -> int:
    return 0 if any(caption.key for caption in entry.captions) else EMPTY_CAPTION


def _alike(feed: Feed, draws: Sequence[Draw], size: int) -> Iterator[list[Draw]]:
    """Micro-batches of draws of one shape each, the last of a shape smaller."""
    by_shape: dict[tuple[int, ...], list[Draw]] = {}
    for draw in draws:
        by_shape.setdefault(shape_of(feed.cache.entries[draw.entry]), []).append(draw)
    for members in by_shape.values():
        for start in range(0, len(members), size):
            yield members[start : start + size]
