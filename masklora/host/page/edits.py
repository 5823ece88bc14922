"""Masks and captions that were edited in the page: how often, and what they were before.

Nodes that read them run again after an edit, although nothing in their graph changed.
"""

from __future__ import annotations

import itertools

from ...saving.versions import Versions
from ..paths import own_folder


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


def caption_versions() -> Versions:
    """Former captions."""
    return Versions(own_folder() / "previous_captions")


def versions() -> Versions:
    """Former masks, and which masks are a person's own work."""
    return Versions(own_folder() / "previous_masks")
