"""Which picture lends its background to which: evenly over the set, by the seed, and moved little by a new picture."""

from __future__ import annotations

import bisect
import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from ..dataset.sample import Sample
from ..folder.subjects import TOGETHER
from .keys import digest

# Seeds that follow one another call up other pictures in turn.
_GOLDEN = (math.sqrt(5) - 1) / 2
# Pictures on call beyond those that are needed: with some to spare, a new picture moves few others.
_SPARE = 1.08
_PLACES = 16**13
# So many places are tried by chance before what is free is looked through.
_PROBES = 48


class Donors:
    """The samples of a data set as lenders of their backgrounds."""

    def __init__(
        self, keys: Sequence[str], *, pictures: Sequence[Any] | None = None, silent: Collection[int] = ()
    ) -> None:
        """Samples by their unique keys, in the data set's order.

        Args:
            keys: Of the samples.
            pictures: What is equal for samples that show the same picture; each is one of its own by default.
            silent: Samples that lend nothing.
        """
        self._keys = keys
        self._lenders = [i for i in range(len(keys)) if i not in silent]
        self._pictures = range(len(keys)) if pictures is None else pictures
        self._shown: dict[Any, set[int]] = {}
        for index, picture in enumerate(self._pictures):
            self._shown.setdefault(picture, set()).add(index)
        self._ring = sorted((chance("donor", keys[i]), i) for i in self._lenders)

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> Donors:
        """Those of a data set; a picture of several subjects lends its background without any of them.

        Where there is no sample of all its subjects, nothing tells them all from the background, and it lends nothing.
        """
        pictures = [id(sample.image) if sample.image_path is None else sample.image_path for sample in samples]
        subjects: dict[Any, set[str]] = {}
        for picture, sample in zip(pictures, samples, strict=True):
            subjects.setdefault(picture, set()).add(sample.subject)
        silent = {
            i
            for i, (picture, sample) in enumerate(zip(pictures, samples, strict=True))
            if sample.subject not in ("", TOGETHER) and len(subjects[picture] - {""}) > 1
        }
        return cls([sample.key for sample in samples], pictures=pictures, silent=silent)

    def lend(self, wanted: Sequence[int], *, seed: int) -> list[list[int]]:
        """For each sample its lenders, as many as it wants and there are: other pictures, each once.

        In each round every lender that is on call lends once: all where all are needed, else a share of them that
        moves on with the seed. A borrower asks at places of its own on a ring of the lenders until one is free, so
        that a picture more changes the lenders of few.

        Args:
            wanted: By sample.
            seed: Of the cache.
        """
        found: list[list[int]] = [[] for _ in wanted]
        taken = [set(self._shown[picture]) for picture in self._pictures]
        for number in range(max(wanted, default=0)):
            borrowers = [i for i, count in enumerate(wanted) if count > number]
            for index, lender in self._round(borrowers, taken, number=number, seed=seed):
                found[index].append(lender)
                taken[index] |= self._shown[self._pictures[lender]]
        return found

    def _round(self, borrowers: list[int], taken: list[set[int]], *, number: int, seed: int) -> list[tuple[int, int]]:
        if not self._lenders:
            return []
        share = len(borrowers) / len(self._lenders)
        called = [i for i in self._lenders if share >= 1 or self._is_called(i, number, seed=seed, share=share)]
        ring = sorted((chance("lends", seed, number, self._keys[i]), i) for i in called or self._lenders)
        left = {i: max(1, math.ceil(share)) for _, i in ring}
        lent = []
        for turn, index in sorted((chance("borrows", seed, number, self._keys[i]), i) for i in borrowers):
            found = _probe(ring, left, taken[index], seed=turn)
            if found is None:
                # All that are free are its own or have lent to it: one lends twice.
                at = _first(self._ring, turn, taken[index])
                found = None if at is None else self._ring[at][1]
            if found is not None:
                left[found] = left.get(found, 0) - 1
                lent.append((index, found))
        return lent

    def _is_called(self, index: int, number: int, *, seed: int, share: float) -> bool:
        turn = chance("turn", self._keys[index]) / _PLACES + (seed + number) * _GOLDEN
        return turn % 1 < share * _SPARE

    def lend_as_before(self, wanted: Sequence[int], places: Sequence[Sequence[int]]) -> list[list[int]]:
        """The lenders that earlier versions of the pack chose, unevenly: caches that hold them stay as they are.

        Args:
            wanted: By sample.
            places: By sample where on the ring of all lenders the search for each begins.
        """
        found: list[list[int]] = []
        for index, count in enumerate(wanted):
            taken, lenders = set(self._shown[self._pictures[index]]), []
            for place in places[index][:count]:
                at = _first(self._ring, place, taken)
                if at is not None:
                    lenders.append(self._ring[at][1])
                    taken |= self._shown[self._pictures[lenders[-1]]]
            found.append(lenders)
        return found


def _probe(ring: Sequence[tuple[int, int]], left: dict[int, int], taken: Collection[int], *, seed: int) -> int | None:
    """A sample of the ring that still has something `left` and is not taken: the first at one place after another.

    The places hang on the seed alone, so that a sample more on the ring, or one that is taken, changes little else.
    """
    random = np.random.default_rng(seed)
    for place in random.integers(_PLACES, size=_PROBES):
        found = ring[bisect.bisect_left(ring, (int(place), -1)) % len(ring)][1]
        if left[found] > 0 and found not in taken:
            return found
    free = [(place, i) for place, i in ring if left[i] > 0]
    at = _first(free, int(random.integers(_PLACES)), taken)
    return None if at is None else free[at][1]


def _first(ring: Sequence[tuple[int, int]], place: int, taken: Collection[int]) -> int | None:
    """Where on a ring the first sample stands, at or after a place, that is not taken; None if all are."""
    start = bisect.bisect_left(ring, (place, -1))
    for step in range(len(ring)):
        at = (start + step) % len(ring)
        if ring[at][1] not in taken:
            return at
    return None


def chance(*parts: Any) -> int:
    """A whole number below 16¹³ that hangs on `parts` alone."""
    return int(digest(*parts)[:13], 16)
