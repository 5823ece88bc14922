"""Masks and captions that were edited in the page: how often, and what they were before.

Nodes that read them run again after an edit, although nothing in their graph changed.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable

from ...dataset.sample import Sample
from ...saving.captions import Edit, same_captions
from ...saving.editing import affected
from ...saving.versions import Versions
from ..paths import own_folder
from .opened import OPENED, OpenedDataset


class Edits:
    """A count that only rises."""

    def __init__(self) -> None:
        """Nothing was edited yet."""
        self._numbers = itertools.count(1)
        self.count = 0

    def add(self) -> None:
        """One more."""
        self.count = next(self._numbers)


EDITS = Edits()
# Of one request at a time that changes files, and of what is then taken over from them.
FILES = asyncio.Lock()


def caption_versions() -> Versions:
    """Former captions."""
    return Versions(own_folder() / "previous_captions")


def versions() -> Versions:
    """Former masks, and which masks are a person's own work."""
    return Versions(own_folder() / "previous_masks")


def take_masks(opened: OpenedDataset, before: Sample, after: Sample) -> list[int]:
    """Every open data set takes over a mask that was edited; gives the samples of `opened` that have changed."""
    EDITS.add()
    changed: dict[int, Sample] = {}
    for one in OPENED.all():
        found = affected([one.source(i) for i in range(len(one))], before, after)
        for i, sample in found.items():
            one.take_edit(i, sample)
        changed = found if one is opened else changed
    return sorted(changed)


def take_captions(edits: Iterable[Edit]) -> dict[str, list[int]]:
    """Every open data set takes over captions that were edited; gives by its id which samples have changed."""
    EDITS.add()
    edits, changed = list(edits), {}
    for one in OPENED.all():
        found = same_captions([one.source(i) for i in range(len(one))], edits)
        one.take_captions(found)
        changed[one.id] = sorted(found)
    return changed
