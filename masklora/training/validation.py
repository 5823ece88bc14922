"""What is measured between steps: the loss on pictures that are held out, and how much of backgrounds was learned."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..loss.leak import Leak, Pull, blurred_outside, gather, pull
from ..loss.noise import add_noise, level_like, picture_change, target
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
# σ of a flow model at which a picture in mind is not yet settled by what is shown.
LEAK_LEVEL = 0.8
DRIFT_LEVEL = 0.6
LEAK_PICTURES = 12
# Single showings tell little: of fewer pictures each is shown more often, in other noise.
LEAK_SHOWINGS = 48


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
    """How far the LoRA pulls pictures whose background is blurred towards their backgrounds; see `loss.leak`.

    In `LEAK_SHOWINGS` showings or more the network is asked with the LoRA and without, and once of
    each picture with its caption without the trigger word, if it has one. Of pictures of one shape each is compared
    with all. Noise is the same each time. It changes nothing: no weight, no random number of the run.

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
    level = trained_level(level_like(LEAK_LEVEL, schedule=model.schedule), feed.loss)
    model.set_training(False)
    try:
        with torch.no_grad():
            for members in _by_shape(feed, draws):
                groups = list(_parts(members, batch_size))
                backgrounds = _Backgrounds.of(feed.make(group) for group in groups)
                for number, group in enumerate(groups):
                    batch = feed.make(group, plain=True)
                    own = range(number * batch_size, number * batch_size + len(group))
                    for _ in range(-(-LEAK_SHOWINGS // len(draws))):
                        check_cancel()
                        moved = _moved(model, batch, level, generator)
                        pulls.append(pull(moved, *backgrounds, own=own))
                        names += batch.names
                    if batch.plain is not None:
                        squares = _plain_squares(model, batch, trained_level(DRIFT_LEVEL, feed.loss), generator)
                        changed, error = changed + squares[0], error + squares[1]
    finally:
        model.set_training(True)
    if not pulls:
        return Leak()
    joined = Pull(*(torch.cat(parts) for parts in zip(*pulls, strict=True)))
    return gather(names, joined, changed=changed, error=error)


def trained_level(level: float, settings: TimestepSettings) -> float:
    """The noise level at which a model is measured: this one if it is trained at it, else the middle of its range."""
    low, high = settings.timestep_min, settings.timestep_max
    return level if low <= level <= high else (low + high) / 2


class _Backgrounds(NamedTuple):
    """What a blur takes from pictures of one shape, and where, on the CPU; see `pull`."""

    towards: Tensor
    outside: Tensor

    @classmethod
    def of(cls, batches: Iterable[MicroBatch]) -> _Backgrounds:
        """Those of the pictures of some micro-batches, in their order."""
        parts = []
        for batch in batches:
            shown, outside = _shown(batch)
            parts.append([_counted(one, batch).cpu() for one in (batch.latents - shown, outside)])
        return cls(*(torch.cat(each) for each in zip(*parts, strict=True)))


def _shown(batch: MicroBatch) -> tuple[Tensor, Tensor]:
    """A micro-batch's latents with their backgrounds blurred, and what lies outside of the masks."""
    outside = 1 - batch.masks.clamp(0, 1)
    return blurred_outside(batch.latents, outside), outside


def _moved(model: Trainable, batch: MicroBatch, level: float, generator: torch.Generator) -> Tensor:
    """How the LoRA changes what a model makes of a micro-batch that is shown with blurred backgrounds in noise."""
    asked = _Asked(model, _shown(batch)[0], level, generator)
    base, adapted = asked(batch.conditioning)
    return _counted(picture_change(adapted - base, asked.u, schedule=asked.schedule), batch)


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
    for members in _by_shape(feed, draws):
        yield from _parts(members, size)


def _by_shape(feed: Feed, draws: Sequence[Draw]) -> list[list[Draw]]:
    shapes: dict[tuple[int, ...], list[Draw]] = {}
    for draw in draws:
        shapes.setdefault(shape_of(feed.cache.entries[draw.entry]), []).append(draw)
    return list(shapes.values())


def _parts(members: list[Draw], size: int) -> Iterator[list[Draw]]:
    for start in range(0, len(members), size):
        yield members[start : start + size]
