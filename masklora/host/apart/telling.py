"""What a training apart has told on its standard output, as lines of JSON in a file that grows.

Where that has become too long the training leaves out its middle, see `headless.bounds`; then it is read anew.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...documents import fits, parse_object

_MOST_TOLD = 40
_LEVELS = ("note", "warning", "error")


class Telling:
    """Read as far as it has come; each look reads only what is new.

    Attributes:
        said: sentences of nodes, the last ones: `title`, `level`, `text`.
        progress: how far a node is that trains nothing: `title`, `done`, `total`, `text`; None where none is at work.
        run: the id of the run, once it has taken a step; else empty.
        step: the last one that was told; 0 for none.
        problems: why the graph was refused.
        end: the last line: `state`, `code`, `seconds`, `text`; None while there is none.
        anything: whether there was a line at all.
    """

    def __init__(self, path: Path) -> None:
        """Nothing is read of `path` yet."""
        self._path = path
        self._begin()

    def _begin(self) -> None:
        self._read, self._last = 0, b""
        self.said: list[dict[str, str]] = []
        self.progress: dict[str, Any] | None = None
        self.run, self.step = "", 0
        self.problems: list[str] = []
        self.end: dict[str, Any] | None = None
        self.anything = False

    def look(self) -> None:
        """Read what is new."""
        try:
            with self._path.open("rb") as file:
                # With the line before: where another one stands there, the file is not what it was.
                file.seek(self._read - len(self._last))
                content = file.read()
                if not content.startswith(self._last):
                    self._begin()
                    file.seek(0)
                    content = file.read()
        except OSError:
            return
        content = content[len(self._last) :]
        # A line that is still being written comes with the next look.
        whole = content[: content.rfind(b"\n") + 1]
        self._read += len(whole)
        lines = whole.splitlines(keepends=True)
        self._last = lines[-1] if lines else self._last
        for line in lines:
            if (event := parse_object(line)) is not None:
                self.anything = True
                self._hear(event)

    def _hear(self, event: dict[str, Any]) -> None:
        kind = event.get("event")
        if kind == "told" and event.get("level") in _LEVELS:
            self.said = [*self.said, {key: str(event.get(key, "")) for key in ("title", "level", "text")}][-_MOST_TOLD:]
        elif kind == "progress":
            numbers = all(fits(event.get(key), float) for key in ("done", "total"))
            told = {key: event.get(key) for key in ("title", "done", "total", "text")}
            self.progress = told if numbers else None
        elif kind == "step" and fits(event.get("step"), int):
            self.run, self.step, self.progress = str(event.get("run", "")), event["step"], None
        elif kind == "refused" and fits(found := event.get("problems"), list):
            self.problems = [str(one["text"]) for one in found if isinstance(one, dict) and "text" in one]
        elif kind == "end":
            self.end = {"state": str(event.get("state", "")), "text": str(event.get("text", ""))}
