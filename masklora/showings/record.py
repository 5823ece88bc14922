"""Which pictures each step has shown, and how well each was predicted: showings.jsonl in a run's folder.

    {"step": 12, "shown": [["cat 1.png", 0.4312, 0.12345, 0.25], …]}

One line for each optimizer step, with the fields of `Shown` of all its pictures.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

from ..documents import fits, parse_object
from ..errors import RunError
from ..files import cannot_write, write_bytes_atomically

NAME = "showings.jsonl"
# Enough for comparing, and short on the disk.
_DIGITS = 5


class Shown(NamedTuple):
    """One picture in one step.

    Attributes:
        name: Of the cache entry.
        level: Noise level, 0 (clean) to 1 (only noise).
        inside: Mean elementwise loss inside the mask, unweighted; None where nothing was inside.
        coverage: Mean weight over its latent cells, 0 to 1.
    """

    name: str
    level: float
    inside: float | None
    coverage: float


class Showings:
    """Writes the showings of the run in a folder."""

    def __init__(self, folder: Path) -> None:
        """Nothing is open before `start`."""
        self._path, self._file = folder / NAME, None
        self._file: TextIO | None

    def start(self, step: int) -> None:
        """Go on after `step`; lines of later steps, which will be taken again, are dropped.

        Raises:
            RunError: The folder cannot be written.
        """
        self.close()
        copy_showings(self._path.parent, self._path.parent, until=step)
        try:
            self._file = self._path.open("a", encoding="utf-8", newline="\n")
        except OSError as error:
            raise cannot_write(self._path, error) from error

    def append(self, steps: Iterable[tuple[int, Sequence[Shown]]]) -> None:
        """Add a line for each step.

        Raises:
            RunError: The disk is full.
        """
        if self._file is None:
            raise RunError(f"{self._path}: showings were not started.")
        try:
            self._file.writelines(_line(step, shown) for step, shown in steps)
            self._file.flush()
        except OSError as error:
            raise cannot_write(self._path, error) from error

    def close(self) -> None:
        """Let go of the file. Closing twice is fine."""
        file, self._file = self._file, None
        if file is not None:
            file.close()


def copy_showings(source: Path, target: Path, *, until: int) -> None:
    """Make the showings of the run in `source`, up to the step `until`, those of the run in `target`.

    Raises:
        RunError: The folder `target` cannot be written.
    """
    kept = [_line(step, shown) for step, shown in read_showings(source) if step <= until]
    write_bytes_atomically(target / NAME, "".join(kept).encode("utf-8"))


def read_showings(folder: Path) -> Iterator[tuple[int, list[Shown]]]:
    """The steps of the run in `folder`, oldest first; a line that was cut short, or is none of ours, is left out."""
    try:
        with (folder / NAME).open("rb") as file:
            for line in file:
                row = parse_object(line)
                if row is not None and fits(row.get("step"), int) and isinstance(row.get("shown"), list):
                    yield row["step"], [Shown(*one) for one in row["shown"] if _is_shown(one)]
    except OSError:
        return


def _line(step: int, shown: Sequence[Shown]) -> str:
    rounded = [[one.name, *map(_short, one[1:])] for one in shown]
    return json.dumps({"step": step, "shown": rounded}, separators=(",", ":")) + "\n"


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{_DIGITS}g}")


def _is_shown(one: object) -> bool:
    if not isinstance(one, list) or len(one) != len(Shown._fields):
        return False
    name, level, inside, coverage = one
    return fits(name, str) and fits(level, float) and fits(coverage, float) and (inside is None or fits(inside, float))
