"""Wishes for a run that another process trains, left in the run's folder and taken up there.

They are numbered, and numbers only grow: whoever trains takes those that came after its own beginning, each once, so
that none from before acts, and nothing needs to be removed.
"""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

from ...documents import fits, read_document
from ...files import write_text_atomically

NAME = "wishes.json"
# Looked for no more often; a person waits for a step in any case.
INTERVAL = 1.0
_MOST = 20
# Two requests of one server come at once, in threads of it.
_WRITING = threading.Lock()


def leave_wish(folder: Path, action: str) -> None:
    """Let the process that trains the run in `folder` find a wish.

    Raises:
        RunError: The folder cannot be written.
    """
    with _WRITING:
        before = _read(folder)
        last = before[-1][0] if before else 0
        kept = [*before, (max(last + 1, time.time_ns()), action)][-_MOST:]
        wishes = [{"number": number, "action": one} for number, one in kept]
        write_text_atomically(folder / NAME, json.dumps({"wishes": wishes}))


def waiting(folder: Path, after: int) -> list[str]:
    """The wishes that were left after the one of number `after`, in their order."""
    return [action for number, action in _read(folder) if number > after]


class Wishes:
    """Those that come in while this lives; for the process that trains.

    Attributes:
        taken: number of the last one that was taken, or was there before.
    """

    def __init__(self, folder: Path) -> None:
        """Whatever lies in `folder` now is of before."""
        self._folder = folder
        found = _read(folder)
        self.taken = found[-1][0] if found else 0
        self._stamp = self._look()
        self._looked = time.monotonic()

    def news(self) -> list[str]:
        """What was wished since the last call; costs a file's stamp a second and no more."""
        now = time.monotonic()
        if now - self._looked < INTERVAL:
            return []
        self._looked = now
        stamp = self._look()
        if stamp == self._stamp:
            return []
        self._stamp = stamp
        found = [(number, action) for number, action in _read(self._folder) if number > self.taken]
        self.taken = found[-1][0] if found else self.taken
        return [action for _, action in found]

    def _look(self) -> tuple[int, ...]:
        try:
            state = (self._folder / NAME).stat()
            # What was written within one tick of the disk's clock is another file all the same.
            return state.st_mtime_ns, state.st_size, state.st_ino
        except OSError:
            return ()


def _read(folder: Path) -> list[tuple[int, str]]:
    found = (read_document(folder / NAME, {"wishes": list}) or {"wishes": []})["wishes"]
    whole = [one for one in found if isinstance(one, dict)]
    whole = [one for one in whole if fits(one.get("number"), int) and fits(one.get("action"), str)]
    return sorted((one["number"], one["action"]) for one in whole)
