"""How often masks were edited in the page: nodes that read them run again although nothing in their graph changed."""

from __future__ import annotations

import itertools


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
