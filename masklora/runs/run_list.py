"""The list of runs for many who ask often: what has not changed since the last look is not read again.

A look costs a few file stamps for each run, and one look serves all who asked before it began.
"""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from pathlib import Path
from typing import Any

from ..documents import strict_json
from .history import PastRun, folder_paths, read_run
from .processes.presence import is_shown

# All that a run's row is made of; a file that is written whole changes the time of its folder.
_STAMPED = ("", "/checkpoints", "/samples", "/metrics.jsonl", "/result.json")
# Two changes within a tick of the disk's clock look like one: what is as young as this is read again.
_YOUNG_NS = 2 * 10**9


@dataclasses.dataclass(frozen=True)
class Row:
    """One run, as an object and as JSON, and its files' stamps; `settled` if these were old enough to tell.

    `shown` tells whether a process has shown itself in its folder, which may have ended since.
    """

    run: PastRun
    folder: Path
    shown: bool
    text: str
    stamps: tuple[tuple[int, int], ...]
    settled: bool

    def holds(self, stamps: tuple[tuple[int, int], ...]) -> bool:
        """Whether the files are still those that were read."""
        return stamps == self.stamps and self.settled


class RunList:
    """The runs of a folder; threads may ask at once."""

    def __init__(self, defaults: dict[str, Any] | None = None) -> None:
        """Nothing is known yet; `defaults` are told with every run."""
        self._defaults = defaults or {}
        self._rows: dict[str, Row] = {}
        self._begun = self._done = 0
        self._news = threading.Condition()
        self._looking = False
        self._result: list[Row] = []
        self.reads = 0

    def rows(self, root: Path) -> list[Row]:
        """The runs in `root`, newest first, as they were after this call began; one that cannot be read is left out."""
        with self._news:
            # A look that is under way may have passed what changed just before this call.
            wanted = self._begun + 1
            while self._looking and self._done < wanted:
                self._news.wait()
            if self._done >= wanted:
                return self._result
            self._looking, self._begun = True, self._begun + 1
        try:
            found = self._look(root)
            with self._news:
                self._result = found
            return found
        finally:
            with self._news:
                self._looking, self._done = False, self._begun
                self._news.notify_all()

    def _look(self, root: Path) -> list[Row]:
        found: dict[str, Row] = {}
        for path in folder_paths(root):
            stamps = tuple([_stamp(path + name) for name in _STAMPED])
            row = self._rows.get(path)
            if row is None or not row.holds(stamps):
                row = self._read(Path(path), stamps)
            if row is not None:
                found[path] = row
        self._rows = found
        return sorted(found.values(), key=lambda row: row.run.started, reverse=True)

    def _read(self, folder: Path, stamps: tuple[tuple[int, int], ...]) -> Row | None:
        self.reads += 1
        settled = time.time_ns() - max(changed for changed, _ in stamps) > _YOUNG_NS
        try:
            run = read_run(folder)
            text = strict_json(self._defaults | dataclasses.asdict(run))
            return Row(run, folder, is_shown(folder), text, stamps, settled)
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            # One bad run hides no other.
            return None


def _stamp(path: str) -> tuple[int, int]:
    try:
        state = os.stat(path)  # noqa: PTH116 - a thousand a second: paths as objects cost more than the disk does
        return state.st_mtime_ns, state.st_size
    except OSError:
        return 0, -1
