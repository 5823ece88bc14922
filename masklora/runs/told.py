"""What people were told of a run, kept in its folder for the list: warnings at its start, how it failed, its file."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..documents import fits, read_document
from ..errors import RunError
from ..files import write_text_atomically
from ..findings import Finding, printable

NAME = "told.json"
MOST_NOTES = 100
MOST_LETTERS = 4000


@dataclass(frozen=True)
class Told:
    """What was told.

    Attributes:
        notes: At the start of the training.
        failed: Why the run ended with an error; empty where it did not.
        written: The LoRA file of this run, as people are told of it; empty where none was written.
        written_low: Of two models that one's for low noise, `written` being the other's; else empty.
        taken: The wanted name where that was another file's, else None.
        names: Under which the run was asked for, the last one last.
        origin: From which other run it went on, and what that means for it.
    """

    notes: tuple[Finding, ...] = ()
    failed: str = ""
    written: str = ""
    taken: str | None = None
    names: tuple[str, ...] = ()
    origin: tuple[Finding, ...] = ()
    written_low: str = ""


def read_told(folder: Path) -> Told:
    """What was told of the run in `folder`; what is not kept, or damaged, is empty."""
    kinds = {
        "notes": list,
        "failed": str,
        "written": str,
        "written_low": str,
        "taken": str,
        "names": list,
        "origin": list,
    }
    found = read_document(folder / NAME, optional=kinds) or {}
    return Told(
        notes=tuple(_findings(found.get("notes") or [])),
        failed=found.get("failed") or "",
        written=found.get("written") or "",
        written_low=found.get("written_low") or "",
        taken=found.get("taken"),
        origin=tuple(_findings(found.get("origin") or [])),
        names=tuple(name for name in found.get("names") or [] if isinstance(name, str)),
    )


def keep_told(folder: Path, **changes: Any) -> Told:
    """What is kept of the run in `folder` from now on: as before, with these fields of `Told` changed.

    Raises:
        RunError: The folder cannot be written.
    """
    before = read_told(folder)
    told = replace(before, **changes)
    if told != before:
        short = replace(told, notes=told.notes[:MOST_NOTES], failed=told.failed[:MOST_LETTERS])
        write_text_atomically(folder / NAME, json.dumps(asdict(short)))
    return told


@contextlib.contextmanager
def failure_told(folder: Path) -> Iterator[None]:
    """An error that ends the work in this context is kept as the run's reason; a cancel is no error."""
    try:
        yield
    except Exception as error:
        # The disk may be what failed.
        with contextlib.suppress(RunError):
            keep_told(folder, failed=reason_of(error))
        raise


def reason_of(error: BaseException) -> str:
    """An error as one is told of it."""
    text = printable(str(error)).strip()
    return text[:MOST_LETTERS] if text else type(error).__name__


def _findings(items: Iterable[Any]) -> Iterator[Finding]:
    for item in items:
        if isinstance(item, dict) and fits(item.get("text"), str) and item.get("level") in ("note", "warning"):
            yield Finding(item["text"], item["level"])
