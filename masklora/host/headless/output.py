"""What a terminal shows of a graph that is executed, or, for machines, one line of JSON for every event."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from .bounds import FOLDER, LOG, TOLD, kept_small
from .problems import Problem

# State in which a command ends, and the process's exit code.
CODES = {"finished": 0, "failed": 1, "refused": 2, "stopped": 3}
_BAR = 24
_WIDTH = 110


@contextlib.contextmanager
def open_output(*, json_lines: bool, silent: bool = False) -> Iterator[Output]:
    """The standard output, written to as lines for people or of JSON.

    While lines of JSON are written, everything else that the process prints goes to the standard error instead. So it
    does where the output is `silent`, as that of all processes but the first.
    """
    if silent:
        with contextlib.redirect_stdout(sys.stderr):
            yield Silent(sys.stderr)
        return
    if not json_lines:
        yield Screen(sys.stdout)
        return
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with os.fdopen(os.dup(kept), "w", encoding="utf-8", newline="\n") as stream, contextlib.ExitStack() as ends:
            lines = JsonLines(stream)
            if folder := os.environ.get(FOLDER):
                files = [(stream.fileno(), Path(folder, TOLD)), (2, Path(folder, LOG))]
                ends.enter_context(kept_small(files, lines.lock))
            yield lines
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


class Output:
    """Events of one command, told to whoever started it.

    Attributes:
        lines: whether a line every few seconds shall tell how far a training is, because nothing else does.
    """

    lines = False

    def __init__(self, stream: TextIO) -> None:
        """Tell them on `stream`."""
        self._stream = stream
        self._began = time.monotonic()

    def seconds(self) -> float:
        """Seconds since the command began."""
        return time.monotonic() - self._began

    def told(self, node: str, title: str, text: str, *, level: str) -> None:
        """A sentence that a node says: `level` is note, warning or error."""
        raise NotImplementedError

    def progress(self, node: str, title: str, *, done: float, total: float, text: str) -> None:
        """How far a node is that trains nothing."""
        raise NotImplementedError

    def step(self, run: Mapping[str, Any], rows: Iterable[Mapping[str, Any]], line: str) -> None:
        """Numbers of steps: facts of the run, a row for each step, and the last step as a line."""
        raise NotImplementedError

    def refuse(self, problems: list[Problem]) -> int:
        """Why nothing is executed; the exit code."""
        raise NotImplementedError

    def end(self, state: str, words: str = "") -> int:
        """The state of `CODES` in which the command ends, with more words on it; the exit code."""
        raise NotImplementedError

    def make_room(self) -> None:
        """Somebody else is about to write to the terminal."""


class Silent(Output):
    """Errors only, for one of several processes: the first one tells the rest."""

    def told(self, node: str, title: str, text: str, *, level: str) -> None:
        """An error is a line."""
        if level == "error":
            self._say(f"{title}: {text}")

    def progress(self, node: str, title: str, *, done: float, total: float, text: str) -> None:
        """Nothing."""

    def step(self, run: Mapping[str, Any], rows: Iterable[Mapping[str, Any]], line: str) -> None:
        """Nothing."""

    def refuse(self, problems: list[Problem]) -> int:
        """A line for each problem."""
        for one in problems:
            self._say(one.text)
        return self.end("refused")

    def end(self, state: str, words: str = "") -> int:
        """The exit code."""
        return CODES[state]

    def _say(self, text: str) -> None:
        self._stream.write(f"process {os.environ.get('RANK', '?')}: {text}\n")
        self._stream.flush()


class JsonLines(Output):
    """One object a line, `event` first: told, progress, step, measured, refused, end.

    Attributes:
        lock: held while a line is written.
    """

    def __init__(self, stream: TextIO) -> None:
        """Tell them on `stream`."""
        super().__init__(stream)
        self.lock = threading.Lock()

    def told(self, node: str, title: str, text: str, *, level: str) -> None:
        """A line."""
        self._write("told", node=node, title=title, level=level, text=text)

    def progress(self, node: str, title: str, *, done: float, total: float, text: str) -> None:
        """A line."""
        self._write("progress", node=node, title=title, done=done, total=total, text=text)

    def step(self, run: Mapping[str, Any], rows: Iterable[Mapping[str, Any]], line: str) -> None:
        """A line for each row, with the seconds that are left after it; what was measured beside the steps has none."""
        rate, total = run["steps_per_second"], run["total"]
        for row in rows:
            if not {"loss", "loss_low"} & row.keys():
                self._write("measured", run=run["id"], node=run["node"], **row)
                continue
            left = max(0.0, (total - row["step"]) / rate) if rate else None
            self._write("step", run=run["id"], node=run["node"], total=total, **row, rate=rate, seconds_left=left)

    def refuse(self, problems: list[Problem]) -> int:
        """A line with all problems, and the last."""
        self._write("refused", problems=[asdict(one) for one in problems])
        return self.end("refused")

    def end(self, state: str, words: str = "") -> int:
        """The last line."""
        self._write("end", state=state, code=CODES[state], seconds=round(self.seconds(), 2), text=words)
        return CODES[state]

    def _write(self, event: str, **facts: Any) -> None:
        line = json.dumps({"event": event, **facts}, ensure_ascii=False) + "\n"
        with self.lock:
            self._stream.write(line)
            self._stream.flush()


class Screen(Output):
    """Lines below their node's title, and on a terminal a bar under them that is drawn anew."""

    def __init__(self, stream: TextIO) -> None:
        """Show on `stream`; a bar only where that is a terminal."""
        super().__init__(stream)
        if hasattr(stream, "reconfigure"):
            # A console of another code page shows a question mark rather than ending the training.
            stream.reconfigure(errors="replace")
        self._bars = stream.isatty()
        self.lines = not self._bars
        self._headed, self._drawn = "", 0
        # Warnings of ComfyUI come from the thread that works.
        self._lock = threading.RLock()

    def told(self, node: str, title: str, text: str, *, level: str) -> None:
        """Lines under the node's title."""
        with self._lock:
            self.make_room()
            if node != self._headed:
                self._headed = node
                self._print(f"{title}" if title else "")
            head = "" if level == "note" else f"{level}: "
            lines = (head + text).split("\n")
            self._print("\n".join(f"  {line}" for line in lines))

    def progress(self, node: str, title: str, *, done: float, total: float, text: str) -> None:
        """The bar."""
        self._draw(done / total if total else 0.0, " · ".join(filter(None, (title, text))))

    def step(self, run: Mapping[str, Any], rows: Iterable[Mapping[str, Any]], line: str) -> None:
        """The bar."""
        self._draw(run["step"] / run["total"] if run["total"] else 0.0, line)

    def refuse(self, problems: list[Problem]) -> int:
        """A line for each problem."""
        self.make_room()
        for one in problems:
            self._print(f"error: {one.text}")
        return self.end("refused", "nothing was executed")

    def end(self, state: str, words: str = "") -> int:
        """The last line."""
        self.make_room()
        minutes, seconds = divmod(round(self.seconds()), 60)
        self._print(f"{state.capitalize()} after {minutes}:{seconds:02d}{f': {words}' if words else ''}.")
        return CODES[state]

    def make_room(self) -> None:
        """Take the bar away, so that a line can stand in its place."""
        with self._lock:
            if self._drawn:
                self._stream.write("\r" + " " * self._drawn + "\r")
                self._stream.flush()
                self._drawn = 0

    def _print(self, text: str) -> None:
        self._stream.write(text + "\n")
        self._stream.flush()

    def _draw(self, share: float, text: str) -> None:
        if not self._bars:
            return
        with self._lock:
            full = round(_BAR * min(max(share, 0.0), 1.0))
            width = min(_columns(), _WIDTH) - 1
            line = f"[{'#' * full}{'-' * (_BAR - full)}] {share:4.0%} {text}"[:width]
            self._stream.write("\r" + line.ljust(self._drawn))
            self._stream.flush()
            self._drawn = len(line)


def _columns() -> int:
    try:
        return os.get_terminal_size(1).columns
    except OSError:
        return 80
