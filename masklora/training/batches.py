"""Which samples, variants and captions every micro-batch holds, as a pure function of seed and number.

Because nothing is carried from one batch to the next, a resumed run needs to know only its step.

The pictures of a bucket form one endless row, epoch after epoch in another order, which is cut into batches. What an
epoch leaves over begins a batch of the next one, so that every picture is shown as often as its repeats say, whatever
the batch size and however small its bucket is.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple, Protocol

import numpy as np

from ..cache.captions import Caption
from ..cache.plan import ORIGINAL, Variant
from ..errors import ConfigError

EMPTY_CAPTION = -1

_EPOCH, _PHASE, _START, _DRAW = range(4)
# Epochs whose orders are remembered: a lone picture of few repeats collects a batch over many.
_ORDERS = 64


class EntryLike(Protocol):
    """What the plan reads of a cache entry."""

    @property
    def name(self) -> str:
        """Unique name of the picture."""
        ...

    @property
    def picture(self) -> str:
        """Equal for entries that show the same picture; empty for one that has it alone."""
        ...

    @property
    def bucket(self) -> tuple[int, int]:
        """(width, height) of the training picture."""
        ...

    @property
    def latent_frames(self) -> int:
        """How many frames its latent has; 0 for a picture's."""
        ...

    @property
    def reference_sizes(self) -> Sequence[tuple[int, int]]:
        """(width, height) of each reference picture."""
        ...

    @property
    def empty_key(self) -> str:
        """Of the empty caption seen with its references; empty where that is the same for all."""
        ...

    @property
    def weight(self) -> float:
        """Appearances per epoch; fractions are met over several epochs."""
        ...

    @property
    def variants(self) -> Sequence[Variant]:
        """Crops, turns and flips, each with its replaced backgrounds; at least one."""
        ...

    @property
    def captions(self) -> Sequence[Caption]:
        """Texts to choose from; those without a key are not there for training."""
        ...

    @property
    def regularisation(self) -> bool:
        """Whether the entry is of a regularisation set."""
        ...

    @property
    def caption_dropout(self) -> float:
        """Probability of the empty caption."""
        ...


class Draw(NamedTuple):
    """One sample of a micro-batch.

    Attributes:
        entry: Index of the cache entry.
        variant: Index of the crop, turn or flip.
        caption: Index of the caption, or `EMPTY_CAPTION`.
        infill: Index of the replaced background, or `ORIGINAL`.
    """

    entry: int
    variant: int
    caption: int
    infill: int = ORIGINAL


def split_validation(names: Sequence[str], *, share: float, seed: int) -> tuple[list[int], list[int]]:
    """Indices to train on and indices held out, disjoint, both in the order of `names`.

    The choice hangs on seed and name alone, so adding a picture moves none of the others.

    Args:
        names: unique names of the pictures.
        share: part to hold out, in [0, 1).
        seed: of the run.

    Returns:
        (training, validation). With share above 0 and at least two pictures, both hold at least one.

    Raises:
        ConfigError: the share is outside [0, 1).
    """
    if not 0.0 <= share < 1.0:
        raise ConfigError(f"validation_share: expected at least 0 and less than 1, got {share:g}.")
    if share == 0.0 or len(names) < 2:
        return list(range(len(names))), []
    count = min(len(names) - 1, max(1, round(share * len(names))))
    ranks = [hashlib.sha256(f"{seed}:{name}".encode()).digest() for name in names]
    held = set(sorted(range(len(names)), key=ranks.__getitem__)[:count])
    return [i for i in range(len(names)) if i not in held], sorted(held)


def split_entries(entries: Sequence[EntryLike], *, share: float, seed: int) -> tuple[list[int], list[int]]:
    """`split_validation` over cache entries; regularisation pictures are never held out.

    Entries of one picture, such as its subjects, are held out together or not at all: a loss on what was
    trained under another mask says nothing.

    Args:
        entries: of the cache, with `name`, `picture` and `regularisation`.
        share: part of the pictures to hold out, in [0, 1).
        seed: of the run.
    """
    pictures: dict[str, list[int]] = {}
    for i, entry in enumerate(entries):
        if not entry.regularisation:
            pictures.setdefault(entry.picture or f"name {entry.name}", []).append(i)
    shown = list(pictures.values())
    _, held = split_validation([entries[same[0]].name for same in shown], share=share, seed=seed)
    out = {i for number in held for i in shown[number]}
    return [i for i in range(len(entries)) if i not in out], sorted(out)


def shape_of(entry: EntryLike) -> tuple[int, ...]:
    """What is equal for entries that can share a micro-batch.

    Returns:
        (width, height), of a clip with its latent frames, and then those of each reference picture.
    """
    frames = (entry.latent_frames,) if entry.latent_frames else ()
    return (*entry.bucket, *frames, *itertools.chain.from_iterable(entry.reference_sizes))


class BatchPlan:
    """The micro-batches of a run: every one full and from one bucket, true to the repeats in the long run.

    Batch `n` depends on the entries, the batch size, the seed and n, on nothing else.
    """

    def __init__(
        self,
        entries: Sequence[EntryLike],
        batch_size: int,
        seed: int,
        *,
        use: Sequence[int] | None = None,
        infill_probability: float = 0.0,
    ) -> None:
        """Plan over cache entries.

        Args:
            entries: of the cache.
            batch_size: pictures per micro-batch.
            seed: of the run.
            use: indices of the entries to train on; all by default.
            infill_probability: how likely a sample shows one of its replaced backgrounds, where it has any.

        Raises:
            ConfigError: no entry has a positive weight, or the batch size is below 1.
        """
        if batch_size < 1:
            raise ConfigError(f"batch_size: expected at least 1, got {batch_size}.")
        self.entries, self.batch_size, self.seed = entries, batch_size, seed
        self.infill_probability = infill_probability
        chosen = list(range(len(entries))) if use is None else list(use)
        self._use = np.array([i for i in chosen if entries[i].weight > 0], dtype=np.int64)
        if not len(self._use):
            raise ConfigError("dataset: there is nothing to train on. Every picture has 0 repeats.")
        self._weights = np.array([float(entries[i].weight) for i in self._use])
        self._phase = np.array([self._generator(_PHASE, int(i)).random() for i in self._use])
        self._bucket_of = [shape_of(entries[i]) for i in self._use]
        self._buckets = sorted(set(self._bucket_of))
        self._members = [
            np.array([k for k, b in enumerate(self._bucket_of) if b == bucket]) for bucket in self._buckets
        ]
        self._until = lru_cache(maxsize=_ORDERS)(self._count_until)
        self._before = [self._waiting(number, members) for number, members in enumerate(self._members)]
        self._starts = [0]
        self._orders = lru_cache(maxsize=_ORDERS)(self._make_orders)
        self._batches = lru_cache(maxsize=2)(self._make_epoch)

    def batch(self, number: int) -> list[Draw]:
        """The samples of micro-batch `number`: exactly `batch_size` draws from one bucket."""
        epoch, start = self._locate(number)
        members = self._batches(epoch)[number - start]
        random = self._generator(_DRAW, number)
        return [self._draw(int(self._use[k]), random) for k in members]

    def epoch_of(self, number: int) -> int:
        """The 0-based epoch that micro-batch `number` belongs to."""
        return self._locate(number)[0]

    def epoch_length(self, epoch: int) -> int:
        """Number of micro-batches that are full in an epoch, which may be none; it differs by what was left over."""
        return sum(len(self._numbers(bucket, epoch)) for bucket in range(len(self._members)))

    def steps_for(self, epochs: int, *, accumulation: int = 1) -> int:
        """Optimizer steps in which as many samples are shown as in so many epochs; the last may reach beyond."""
        shown = sum(self._shown(members, epochs) for members in self._members)
        return max(1, math.ceil(shown / (self.batch_size * accumulation)))

    def _draw(self, entry: int, random: np.random.Generator) -> Draw:
        one = self.entries[entry]
        variants, captions = len(one.variants), sum(bool(caption.key) for caption in one.captions)
        variant = int(random.integers(variants)) if variants > 1 else 0
        caption = int(random.integers(captions)) if captions > 1 else 0
        if captions == 0 or (one.caption_dropout > 0 and random.random() < one.caption_dropout):
            caption = EMPTY_CAPTION
        infill, infills = ORIGINAL, len(one.variants[variant].infills)
        if self.infill_probability > 0 and infills:
            replaced = random.random() < self.infill_probability
            infill = int(random.integers(infills)) if replaced else ORIGINAL
        return Draw(entry, variant, caption, infill)

    def _locate(self, number: int) -> tuple[int, int]:
        while self._starts[-1] <= number:
            self._starts.append(self._starts[-1] + self.epoch_length(len(self._starts) - 1))
        epoch = int(np.searchsorted(self._starts, number, side="right")) - 1
        return epoch, self._starts[epoch]

    def _counts(self, epoch: int) -> np.ndarray:
        """How often an epoch shows each entry.

        A fraction f shows up in floor((e+1)f + phase) - floor(ef + phase) of the epochs: the right share in the long
        run, spread evenly, without remembering what came before.
        """
        return self._until(epoch + 1) - self._until(epoch)

    def _count_until(self, epoch: int) -> np.ndarray:
        """How often each entry is shown before an epoch, counted from the first."""
        whole = np.floor(self._weights)
        part = self._weights - whole
        return (epoch * whole + np.floor(epoch * part + self._phase)).astype(np.int64)

    def _shown(self, members: np.ndarray, epoch: int) -> int:
        """Length of a bucket's row before an epoch; negative before the first."""
        return int(self._until(epoch)[members].sum())

    def _waiting(self, number: int, members: np.ndarray) -> int:
        """How many pictures of a bucket wait for a batch before the first epoch.

        By chance where epochs do not end with a batch: small buckets would else all come up in the same epochs.
        """
        whole = bool((self._weights[members] % 1 == 0).all())
        if whole and self._shown(members, 1) % self.batch_size == 0:
            return 0
        return int(self._generator(_START, number).integers(self.batch_size))

    def _numbers(self, bucket: int, epoch: int) -> range:
        """Which batches of a bucket, counted through, become full in an epoch."""
        members, before = self._members[bucket], self._before[bucket]
        ends = (self._shown(members, one) + before for one in (epoch, epoch + 1))
        return range(*(end // self.batch_size for end in ends))

    def _make_orders(self, epoch: int) -> tuple[list[list[int]], np.ndarray]:
        """The epoch's part of each bucket's row, and the order in which the epoch's batches come."""
        counts = self._counts(epoch)
        # Before the first epoch there are others, of which only what waits is taken.
        random = self._generator(_EPOCH, epoch % 2**63)
        orders = [random.permutation(np.repeat(members, counts[members])).tolist() for members in self._members]
        return orders, random.permutation(self.epoch_length(epoch))

    def _make_epoch(self, epoch: int) -> list[list[int]]:
        batches: list[list[int]] = []
        for bucket in range(len(self._members)):
            numbers = self._numbers(bucket, epoch)
            if numbers:
                first = numbers.start * self.batch_size - self._before[bucket]
                row = self._row(bucket, epoch, first, len(numbers) * self.batch_size)
                batches += [row[i : i + self.batch_size] for i in range(0, len(row), self.batch_size)]
        return [batches[i] for i in self._orders(epoch)[1]]

    def _row(self, bucket: int, epoch: int, first: int, count: int) -> list[int]:
        """`count` entries of a bucket's row from place `first` on, which end in `epoch`."""
        members, start = self._members[bucket], epoch
        while self._shown(members, start) > first:
            start -= 1
        parts = (self._orders(one)[0][bucket] for one in range(start, epoch + 1))
        skip = first - self._shown(members, start)
        return list(itertools.islice(itertools.chain.from_iterable(parts), skip, skip + count))

    def _generator(self, purpose: int, *numbers: int) -> np.random.Generator:
        return np.random.default_rng([self.seed & 0xFFFFFFFFFFFFFFFF, purpose, *numbers])
