"""Changes to many captions of an open data set: previewed, written while the page follows, and taken back."""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ....saving.caption_changes import Outcome, Plan, Planned, apply_changes, undo_changes
from ....saving.captions import Edit
from ...outputs import allow_writing
from ..edits import FILES, caption_versions, take_captions
from ..opened import MOST_OPENED
from ..requests import RefusedError

# Of problems that are told by name; the others are counted.
MOST_TOLD = 20
# What can be taken back of older changes; the latest always can.
MOST_EDITS = 50_000

logger = logging.getLogger(__name__)


class _Stopped(Exception):
    """Ends the work that a person has stopped."""


@dataclass
class _Job:
    """What is being written, or was last."""

    kind: str = ""
    running: bool = False
    done: int = 0
    total: int = 0
    stopped: bool = False
    outcome: Outcome = field(default_factory=Outcome)
    stop: threading.Event = field(default_factory=threading.Event)

    def progress(self, done: int, total: int) -> None:
        self.done, self.total = done, total

    def check_cancel(self) -> None:
        if self.stop.is_set():
            raise _Stopped


class CaptionWork:
    """Of one data set; its methods are called from the server's event loop."""

    def __init__(self) -> None:
        """Nothing was changed yet."""
        self._plan: tuple[str, Plan] | None = None
        self._job = _Job()
        self._undone: list[list[Edit]] = []

    def offer(self, plan: Plan) -> str:
        """Keep a plan that may be written, in place of the former; gives its id."""
        self._plan = (secrets.token_hex(10), plan)
        return self._plan[0]

    def apply(self, plan_id: str) -> None:
        """Begin to write the plan of an id.

        Raises:
            RefusedError: 409 for another plan than the last one, or while captions are being written.
        """
        if self._plan is None or self._plan[0] != plan_id:
            raise RefusedError(409, "This preview is out of date. Preview the change again.")
        changes = self._plan[1].changes
        self._begin("change", len(changes), lambda job: self._write(job, changes))
        self._plan = None

    def undo(self) -> None:
        """Begin to take back the last change.

        Raises:
            RefusedError: 409 where there is none, or while captions are being written.
        """
        if not self._undone:
            raise RefusedError(409, "There is no change of many captions to undo since ComfyUI was started.")
        edits = self._undone[-1]
        self._begin("undo", len(edits), lambda job: self._take_back(job, edits))
        self._undone.pop()

    def stop(self) -> None:
        """Stop what is being written, after the present file."""
        self._job.stop.set()

    def state(self) -> dict[str, Any]:
        """How far the work is; `undo` is the number of captions that the last change has written."""
        job = self._job
        return {
            "kind": job.kind,
            "running": job.running,
            "done": job.done,
            "total": job.total,
            "stopped": job.stopped,
            "changed": len(job.outcome.edits),
            "failed": len(job.outcome.problems),
            "problems": job.outcome.problems[:MOST_TOLD],
            "undo": len(self._undone[-1]) if self._undone else 0,
        }

    def _begin(self, kind: str, total: int, work: Callable[[_Job], None]) -> None:
        if any(one._job.running for one in WORKS.values()):
            raise RefusedError(409, "Captions are being written. Wait until that is done, or stop it.")
        self._job = job = _Job(kind, running=True, total=total)
        # The loop itself holds a task weakly only.
        self._task = asyncio.create_task(self._run(job, work))

    async def _run(self, job: _Job, work: Callable[[_Job], None]) -> None:
        try:
            try:
                await asyncio.to_thread(work, job)
                job.done = job.total
            except _Stopped:
                job.stopped = True
            # Also of what was stopped, or has failed on the way.
            finally:
                async with FILES:
                    await asyncio.to_thread(take_captions, job.outcome.edits)
        except Exception:
            logger.exception("masked lora: captions could not be written")
            job.outcome.problems.append("The work broke off; ComfyUI's log tells more. Each caption is whole.")
        finally:
            job.running = False

    def _write(self, job: _Job, changes: tuple[Planned, ...]) -> None:
        try:
            apply_changes(changes, job.outcome, **_means(job))
        finally:
            if job.outcome.edits:
                self._undone.append(list(job.outcome.edits))
            while len(self._undone) > 1 and sum(map(len, self._undone)) > MOST_EDITS:
                self._undone.pop(0)

    def _take_back(self, job: _Job, edits: list[Edit]) -> None:
        try:
            undo_changes(edits, job.outcome, **_means(job))
        finally:
            # What a stop has left can still be taken back.
            if left := edits[: len(edits) - len(job.outcome.edits) - len(job.outcome.problems)]:
                self._undone.append(left)


def _means(job: _Job) -> dict[str, Any]:
    return {
        "allowed": allow_writing,
        "versions": caption_versions(),
        "progress": job.progress,
        "check_cancel": job.check_cancel,
    }


WORKS: OrderedDict[str, CaptionWork] = OrderedDict()


def work_of(dataset_id: str) -> CaptionWork:
    """The work on a data set's captions, that of the least recently used forgotten with its undo."""
    work = WORKS.setdefault(dataset_id, CaptionWork())
    WORKS.move_to_end(dataset_id)
    idle = [key for key, one in WORKS.items() if one is not work and not one.state()["running"]]
    for key in idle[: max(0, len(WORKS) - MOST_OPENED)]:
        del WORKS[key]
    return work
