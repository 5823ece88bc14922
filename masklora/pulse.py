"""Whether the processes of one training are at work: each shows the others a number that grows with what it does.

One that died is noticed by its connection. One that hangs, on a card or a drive that answers no more, keeps that, but
does nothing any more. Whatever takes long by right, such as caching, sampling or measuring, asks again and again
whether a person has cancelled it, and shows itself with that.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import torch.distributed as dist

# Shown, and looked for, no more often.
LOOK_SECONDS = 30.0
# One that has done nothing for so many looks hangs: an hour. Nothing that we do takes that long in one piece, be it to
# load a model, to compile it or to save. Looks are counted rather than time, which passes while a machine sleeps.
MOST_LOOKS = 120
_UNWATCHED = 0


class Pulse:
    """This process's, and how those of the others look from here."""

    def __init__(self, store: dist.Store, number: int, count: int) -> None:
        """Of process `number` of `count`, which share the `store`; made before they join, so that it is there then."""
        self._store, self._number = store, number
        self._others = [one for one in range(count) if one != number]
        self._moves, self._watched, self._shown = 1, False, float("-inf")
        self._show(_UNWATCHED)

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """While this lasts, who waits for this process looks whether it does something."""
        self._watched = True
        self._show(self._moves)
        try:
            yield
        finally:
            self._watched = False
            self._show(_UNWATCHED)

    def move(self) -> None:
        """Something was done, or is waited for."""
        self._moves += 1
        if self._watched and time.monotonic() - self._shown >= LOOK_SECONDS:
            self._show(self._moves)

    def silent(self, seen: dict[int, tuple[int, int]]) -> int | None:
        """A process that does nothing while this one waits for it, None where all do something.

        Args:
            seen: what was seen of each while this wait lasts, empty at its beginning: its number, and for how many
                looks.
        """
        try:
            found = {one: int(self._store.get(str(one))) for one in self._others}
        except RuntimeError:
            # The store has gone with what has started the processes, which may go on without.
            return None
        for one, moves in found.items():
            before, looks = seen.get(one, (moves, -1))
            seen[one] = moves, looks + 1 if moves == before != _UNWATCHED else 0
        return next((one for one, (_, looks) in seen.items() if looks >= MOST_LOOKS), None)

    def _show(self, moves: int) -> None:
        self._shown = time.monotonic()
        with contextlib.suppress(RuntimeError):
            self._store.set(str(self._number), str(moves))
