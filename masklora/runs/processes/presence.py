"""How a training is doing, shown in the run's folder by the process that trains, for all that may look there.

The steps themselves are in metrics.jsonl. This is what only that process knows: whether it waits, how fast it is, what
it draws. A process that was killed leaves it behind; so it bears the process's number, and counts while that lives.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...documents import fits, read_document
from ...files import HOST, drop, lives, temporary_beside

NAME = "live.json"
# Written anew no more often while only numbers change.
INTERVAL = 2.0
_STATES = ("running", "paused", "stopping")
# What others are told, and of which kind; a folder may have been copied from anywhere.
_FACTS = {
    "step": int,
    "total": int,
    "steps_per_second": float,
    "can_sample": bool,
    "message": str,
    "memory": dict,
    "drawing": dict,
    "names": list,
}
_NUMBERS = {"memory": ("used", "total"), "drawing": ("step", "done", "count")}


class Presence:
    """Of one training in this process."""

    def __init__(self, folder: Path) -> None:
        """In the run's `folder`; nothing is shown yet."""
        self._folder, self._since = folder, time.time()
        self._shown: tuple[Any, ...] = ()
        self._when = float("-inf")

    def due(self, news: tuple[Any, ...]) -> bool:
        """Whether it is time to show: `news` are other than those shown last, or these are old."""
        return news != self._shown or time.monotonic() - self._when >= INTERVAL

    def show(self, facts: Mapping[str, Any], *, news: tuple[Any, ...], taken: int) -> None:
        """Show `facts` of which `state` is one; `taken` is the number of the last wish that was taken.

        Nobody's work hangs on it, so it is not flushed to the disk, and a failure is passed over.
        """
        self._shown, self._when = news, time.monotonic()
        told = {key: facts[key] for key in ("state", *_FACTS)}
        document = {"host": HOST, "pid": os.getpid(), "since": self._since, "folder": self._folder.name}
        document |= {"taken": taken, "facts": told}
        temporary = temporary_beside(self._folder / NAME)
        try:
            temporary.write_text(json.dumps(document), encoding="utf-8")
            temporary.replace(self._folder / NAME)
        except OSError:
            drop(temporary)

    def withdraw(self) -> None:
        """Nothing is trained here any more."""
        with contextlib.suppress(OSError):
            (self._folder / NAME).unlink(missing_ok=True)


def is_shown(folder: Path) -> bool:
    """Whether a process has shown itself in `folder`, whether it lives or not."""
    return (folder / NAME).exists()


def present(folder: Path) -> tuple[dict[str, Any], int] | None:
    """How the training in `folder` is doing, by another process of this machine, and the last wish that it took.

    Returns:
        None where none trains there, or none that shows itself.
    """
    kinds = {"host": str, "pid": int, "since": float, "folder": str, "taken": int, "facts": dict}
    found = read_document(folder / NAME, kinds)
    if found is None or found["host"] != HOST or found["pid"] == os.getpid():
        return None
    if found["folder"] != folder.name:
        # A copy that was made while it trained.
        return None
    facts = found["facts"]
    if facts.get("state") not in _STATES or not lives(found["pid"], since=found["since"]):
        return None
    told = {key: facts[key] for key, kind in _FACTS.items() if fits(facts.get(key), kind)}
    for key, names in _NUMBERS.items():
        if not all(fits((told.get(key) or {}).get(name), float) for name in names):
            told[key] = None
    told["names"] = [one for one in told.get("names", ()) if isinstance(one, str)]
    return {**told, "state": facts["state"]}, found["taken"]
