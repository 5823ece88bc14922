"""What is noted on a run, kept in its folder: a name for the list, a star for runs that stay, a favoured checkpoint."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..documents import read_document
from ..files import write_text_atomically
from ..findings import printable

NAME = "marks.json"
MOST_LETTERS = 80
_FAVOURED = "favoured.json"


@dataclass(frozen=True)
class Marks:
    """What was noted.

    Attributes:
        label: Under which the list shows the run; empty for the name under which it was asked for.
        starred: Whether it comes first in the list and is spared by everything that makes room.
    """

    label: str = ""
    starred: bool = False


def read_marks(folder: Path) -> Marks:
    """What is noted on the run in `folder`; nothing where that is not kept, or damaged."""
    found = read_document(folder / NAME, optional={"label": str, "starred": bool}) or {}
    return Marks(_plain(found.get("label") or ""), bool(found.get("starred")))


def keep_marks(folder: Path, **changes: Any) -> Marks:
    """What is noted on the run in `folder` from now on: as before, with these fields of `Marks` changed.

    Raises:
        RunError: The folder cannot be written.
    """
    before = read_marks(folder)
    marks = replace(before, **changes)
    marks = replace(marks, label=_plain(marks.label))
    if marks != before:
        write_text_atomically(folder / NAME, json.dumps(asdict(marks)))
    return marks


def keep_favoured(folder: Path, step: int | None) -> None:
    """Note which checkpoint the measures of the run in `folder` favour, None for none.

    Raises:
        RunError: The folder cannot be written.
    """
    if step != read_favoured(folder):
        write_text_atomically(folder / _FAVOURED, json.dumps({"step": step}))


def read_favoured(folder: Path) -> int | None:
    """The step that `keep_favoured` noted, whether its checkpoint is kept or not."""
    return (read_document(folder / _FAVOURED, optional={"step": int}) or {}).get("step")


def _plain(label: str) -> str:
    """One line without what no screen shows, of at most `MOST_LETTERS` letters."""
    return " ".join(printable(label).split())[:MOST_LETTERS].strip()
