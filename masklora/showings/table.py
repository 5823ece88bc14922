"""The table of pictures: which ones the model predicts worse than others, to find bad masks and captions."""

from __future__ import annotations

import math
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .record import Shown

RECENT = 20
# Neighbours on each side at least, with which a showing is compared.
FEWEST = 8


@dataclass(frozen=True)
class PictureRow:
    """One picture.

    Attributes:
        name: Of the cache entry.
        showings: How often it was shown.
        loss: Mean loss inside its mask over its recent showings; None where nothing was inside.
        relative: The same, as a factor of what other pictures have at the same noise; see `picture_table`.
        coverage: Mean weight over its latent cells, 0 to 1, over its recent showings; None without one.
        leak: How far its own background comes back before another one, 0 not to 1 all; None where that was not
            measured.
    """

    name: str
    showings: int
    loss: float | None = None
    relative: float | None = None
    coverage: float | None = None
    leak: float | None = None


def picture_table(
    steps: Iterable[tuple[int, Sequence[Shown]]],
    *,
    names: Iterable[str] = (),
    leaks: Mapping[str, float] | None = None,
    recent: int = RECENT,
) -> list[PictureRow]:
    """A row for each picture that was shown, worst first, then those that cannot be compared.

    Losses of single showings cannot be compared: how large one is hangs on the noise level that was drawn more than on
    the picture. So each of a picture's last `recent` showings is divided by the mean loss of the showings of *other*
    pictures whose noise levels are nearest, about the square root of their number on each side, at least `FEWEST`;
    `relative` is the mean of these quotients. 1 is a picture like the others; 2 one that is predicted twice as badly.

    That is no verdict on its mask: a picture also stands out that has fine texture inside its mask, is unlike the
    others, or is shown seldom, so that its last showings are older, when losses were higher. Its chance error shrinks
    with the number of showings; after three it is large.

    Args:
        steps: From `record.read_showings`.
        names: Of pictures that get a row even if they were not shown.
        leaks: Of the pictures whose leak was measured, by name.
        recent: Showings of each picture that count.
    """
    count: Counter[str] = Counter(dict.fromkeys(names, 0))
    last: defaultdict[str, deque[Shown]] = defaultdict(lambda: deque(maxlen=recent))
    for _, shown in steps:
        for one in shown:
            count[one.name] += 1
            last[one.name].append(one)
    order = list(last)
    relative = dict(zip(order, _relative([last[name] for name in order]), strict=True))
    rows = [
        PictureRow(
            name,
            times,
            loss=_mean([one.inside for one in last[name] if one.inside is not None]) if times else None,
            relative=relative.get(name),
            coverage=_mean([one.coverage for one in last[name]]) if times else None,
            leak=(leaks or {}).get(name),
        )
        for name, times in count.items()
    ]
    return sorted(rows, key=lambda row: (row.relative is None, -(row.relative or 0.0)))


def _relative(pictures: Sequence[Sequence[Shown]]) -> list[float | None]:
    """For each picture's showings the mean of loss / loss of others at this noise level; None where there are none."""
    found = [(s.level, s.inside, i) for i, shown in enumerate(pictures) for s in shown if s.inside is not None]
    if not found:
        return [None] * len(pictures)
    _, loss, owner = (np.array(column) for column in zip(*sorted(found), strict=True))
    places, last = np.arange(len(found)), len(found) - 1
    # Towards the ends fewer, as many on each side, so that neighbours have the same noise on average.
    reach = np.clip(np.minimum(places, last - places), FEWEST, max(FEWEST, math.isqrt(len(found))))
    low, high = np.maximum(places - reach, 0), np.minimum(places + reach, last) + 1
    # Sums over all showings before each place.
    total = np.concatenate([[0.0], np.cumsum(loss)])
    own_places = np.split(np.argsort(owner, kind="stable"), np.cumsum(np.bincount(owner, minlength=len(pictures)))[:-1])
    return [_quotient(loss, own, low=low[own], high=high[own], total=total) for own in own_places]


def _quotient(
    loss: np.ndarray, own: np.ndarray, *, low: np.ndarray, high: np.ndarray, total: np.ndarray
) -> float | None:
    """The mean of one picture's losses, at the places `own`, over the means of others from `low` to before `high`."""
    near = (own[None] >= low[:, None]) & (own[None] < high[:, None])
    others = high - low - near.sum(axis=1)
    rest = total[high] - total[low] - near @ loss[own]
    usable = (others > 0) & (rest > 0)
    if not usable.any():
        return None
    return float(np.mean(loss[own][usable] * others[usable] / rest[usable]))


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
