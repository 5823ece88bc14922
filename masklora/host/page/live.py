"""The runs that are being trained in this process: wishes come in here, numbers go out.

The queue's thread trains, the server's event loop takes a person's wishes; between them stand only events of
`threading`. Other processes leave theirs in the run's folder. `LIVE` is the pack's one registry of state.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from server import PromptServer

from ...runs.history import run_id, thin, told_facts
from ...runs.marks import read_favoured
from ...runs.processes.presence import Presence
from ...runs.processes.wishes import Wishes
from ...runs.sample_pictures import SampleFolder
from ...runs.told import Told, reason_of
from ...training.job import TrainJob
from ...viewing.training_sample import Seen
from ..memory.cards import memory_use

EVENT = "masked_lora.progress"
# A browser need not hear more often.
INTERVAL = 0.1
MOST_ROWS = 200
ACTIONS = ("stop", "save", "sample", "pause", "resume")
MEMORY_INTERVAL = 1.0


class LiveRun:
    """One run while it is trained."""

    def __init__(
        self, folder: Path, job: TrainJob, *, node_id: str | None, step: int, total: int, told: Told | None = None
    ) -> None:
        """The run in `folder`, which trains `job` by node `node_id`, at `step` of `total`."""
        self.id, self.node_id, self._folder = run_id(folder), node_id, folder
        self.told = told or Told()
        self.preview, self.device = job.model.preview, job.model.device
        self.can_sample = job.sampler is not None
        self._samples = SampleFolder(folder)
        # For other processes, whose pages show this run as well.
        self._wishes, self._presence = Wishes(folder), Presence(folder)
        self.pictures_mark = self._samples.mark()
        self.message = ""
        self.seen: Seen | None = None
        self.names: tuple[str, ...] = ()
        self.favoured = read_favoured(folder)
        self._drawing: dict[str, int] | None = None
        self._memory: dict[str, Any] | None = None
        self._measured = float("-inf")
        self.step, self.total, self.rate = step, total, 0.0
        self._stop, self._save, self._sample, self._pause = (threading.Event() for _ in range(4))
        self._rows: list[dict[str, Any]] = []
        self._told: tuple[Any, ...] | None = None
        self._sent = float("-inf")
        self._end: str | None = None

    # -------------------------------------------------------------- wishes

    def wish(self, action: str) -> None:
        """Take one of `ACTIONS`; the training follows it after the step in progress."""
        if action == "stop":
            self._stop.set()
        elif action == "save":
            self._save.set()
        elif action == "sample":
            self._sample.set()
        elif action == "pause":
            self._pause.set()
        else:
            self._pause.clear()

    def hear(self) -> None:
        """Take what was wished in other processes."""
        for action in self._wishes.news():
            if action in ACTIONS and (action != "sample" or self.can_sample):
                self.wish(action)

    def should_stop(self) -> bool:
        """Whether to end here and keep what was learned."""
        self.hear()
        return self._stop.is_set()

    def should_pause(self) -> bool:
        """Whether to wait."""
        self.hear()
        return self._pause.is_set()

    def should_save(self) -> bool:
        """Whether to write a checkpoint; the wish is fulfilled with it."""
        self.hear()
        wished = self._save.is_set()
        self._save.clear()
        return wished

    def should_sample(self) -> bool:
        """Whether to draw sample pictures; the wish is fulfilled with them."""
        self.hear()
        wished = self._sample.is_set()
        self._sample.clear()
        return wished

    # -------------------------------------------------------------- numbers

    @property
    def state(self) -> str:
        """`running`, `paused` or `stopping`, then how it ended: `finished`, `stopped`, `failed` or `open`."""
        if self._end is not None:
            return self._end
        return "stopping" if self._stop.is_set() else "paused" if self._pause.is_set() else "running"

    def facts(self) -> dict[str, Any]:
        """What a page shows beside the chart."""
        return {
            "id": self.id,
            "node": self.node_id,
            "state": self.state,
            "step": self.step,
            "total": self.total,
            "steps_per_second": self.rate,
            "memory": self.memory(),
            "can_sample": self.can_sample,
            "pictures_mark": self.pictures_mark,
            "message": self.message,
            "drawing": self._drawing,
            "names": self.names,
            "favoured": self.favoured,
            **told_facts(self._folder, self.told),
        }

    def memory(self) -> dict[str, Any] | None:
        """Memory in use, measured at most once a second; nothing of a run that has ended."""
        now = time.monotonic()
        if self._end is None and now - self._measured >= MEMORY_INTERVAL:
            self._measured, self._memory = now, memory_use(self.device)
        return self._memory if self._end is None else None

    def draw(self, step: int, *, done: int, count: int) -> None:
        """Sample pictures of `step` are being drawn, or no more are coming."""
        self.pictures_mark = self._samples.mark()
        self._drawing = {"step": step, "done": done, "count": count} if done < count else None
        self.tell()

    def note(self, message: str) -> None:
        """Keep a sentence for the person until there is another."""
        self.message = message
        self.tell()

    def add(self, row: dict[str, Any], *, rate: float | None = None) -> None:
        """Keep a row for the next message, and send that if it is time."""
        self._rows.append(row)
        self.step = max(self.step, row["step"])
        self.rate = self.rate if rate is None else rate
        self.tell()

    def tell(self, *, last: bool = False) -> None:
        """Send what is new, at most ten times a second; the last message waits until it may go."""
        self.show()
        news = (self.state, self.step, self.pictures_mark, self._drawing is None, self.message)
        if not self._rows and news == self._told:
            return
        wait = self._sent + INTERVAL - time.monotonic()
        if wait > 0:
            if not last:
                return
            time.sleep(wait)
        after = self._rows[0]["step"] - 1 if self._rows else self.step
        rows, self._rows = thin(self._rows, most=MOST_ROWS), []
        self._told, self._sent = news, time.monotonic()
        client = PromptServer.instance.client_id
        # Without one, the message would go to every browser; those ask by themselves.
        if client is not None:
            PromptServer.instance.send_sync(EVENT, {"run": self.facts(), "after": after, "rows": rows}, client)

    def show(self) -> None:
        """Let other processes see how it is doing."""
        news = (self.state, self._drawing, self.message, self._wishes.taken)
        if self._end is None and self._presence.due(news):
            self._presence.show(self.facts(), news=news, taken=self._wishes.taken)

    def end(self, state: str, *, failed: str = "") -> None:
        """Tell how the run ended, and why where it `failed`."""
        self._end, self.names, self._drawing = state, (), None
        self._presence.withdraw()
        self.told = replace(self.told, failed=failed)
        self.tell(last=True)


LIVE: dict[str, LiveRun] = {}


@contextlib.contextmanager
def listed(run: LiveRun) -> Iterator[LiveRun]:
    """`run` takes wishes while the context lasts; at its end the page hears how the run ended."""
    LIVE[run.id] = run
    failed = ""
    try:
        yield run
    except Exception as error:
        failed = reason_of(error)
        raise
    finally:
        LIVE.pop(run.id, None)
        stopped = "stopped" if run.should_stop() else "open"
        ended = "finished" if run.step >= run.total else stopped
        run.end("failed" if failed else ended, failed=failed)
