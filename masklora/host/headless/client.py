"""The terminal as a client of ComfyUI's: it is sent what a browser is sent, in the same order, without a socket."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...runs.history import find_run
from ..outputs import runs_folder
from ..page.live import EVENT
from ..page.train_hooks import PROGRESS, progress_line
from .event_files import EventFiles
from .graph import Graph, title
from .output import Output

CLIENT = "masked-lora-terminal"
TOLD = "masked_lora.told"
# Of a binary message: what it is, and how long the node's id is that comes before a text.
_NUMBER, _TEXT = 4, 3
_PREFIX = "masked lora: "


class Terminal:
    """Hears ComfyUI's messages and tells them to an output; stands in its list of clients as a web socket does.

    Attributes:
        started: whether the graph's execution has begun.
        step: last step that was trained; 0 for none.
    """

    def __init__(self, graph: Graph, output: Output, event_files: EventFiles | None) -> None:
        """Tell what the nodes of `graph` do to `output`, and the numbers of steps to `event_files` too."""
        self._graph, self._output, self._files = graph, output, event_files
        self._node = ""
        self._bars: dict[str, tuple[float, float]] = {}
        self._texts: dict[str, str] = {}
        self._training: set[str] = set()
        self._said: set[str] = set()
        self._folders: dict[str, Path | None] = {}
        self.started, self.step = False, 0

    async def send_json(self, message: Mapping[str, Any]) -> None:
        """A message of ComfyUI's."""
        kind, data = message["type"], message["data"]
        if kind == "execution_start":
            self.started = True
        elif kind == "executing":
            self._node = data["node"] or self._node
        elif kind == TOLD:
            self._hear(data)
        elif kind == EVENT:
            self._steps(data["run"], data["rows"])
        elif kind == "progress_state":
            for name, state in data["nodes"].items():
                if state["state"] == "running":
                    self._progress(name, (state["value"], state["max"]))

    async def send_bytes(self, message: bytes) -> None:
        """A text that a node shows, or a picture, for which a terminal has no place."""
        if int.from_bytes(message[:_NUMBER], "big") != _TEXT:
            return
        start = 2 * _NUMBER + int.from_bytes(message[_NUMBER : 2 * _NUMBER], "big")
        node = bytes(message[2 * _NUMBER : start]).decode("utf-8", "replace")
        self._texts[node] = bytes(message[start:]).decode("utf-8", "replace")
        if node in self._bars:
            self._tell_progress(node)

    def say(self, text: str) -> None:
        """Tell a sentence of the command's own, below the node that is at work."""
        self._output.told(self._node, self._title(self._node), text, level="note")

    def fail(self, error: Mapping[str, Any]) -> None:
        """Tell what ended the graph, as ComfyUI's history has it, and from where, unless the pack expected it."""
        node, text = str(error["node_id"]), str(error["exception_message"]).strip()
        if ".masklora.errors." not in f".{error['exception_type']}":
            text = "".join([*error.get("traceback", ()), f"{error['exception_type']}: {text}"])
        self._output.told(node, self._title(node), text, level="error")

    def _progress(self, node: str, state: tuple[float, float]) -> None:
        if self._bars.get(node) != state:
            self._bars[node] = state
            self._tell_progress(node)

    def _tell_progress(self, node: str) -> None:
        """Of a node that trains the steps tell it."""
        if node not in self._training:
            done, total = self._bars[node]
            text = self._texts.get(node, "").split("\n")[0]
            self._output.progress(node, self._title(node), done=done, total=total, text=text)

    def _title(self, node: str) -> str:
        # A node that another node made while it ran is not in the graph.
        return title(self._graph, node) if node in self._graph else node

    def _hear(self, data: Mapping[str, str]) -> None:
        # Warnings are repeated by every later node, and at the end of their own.
        if data["text"] not in self._said:
            self._said.add(data["text"])
            self._output.told(self._node, self._title(self._node), data["text"], level=data["level"])

    def _steps(self, run: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        self._training.add(str(run["node"]))
        trained = [row for row in rows if "loss" in row or "loss_low" in row]
        if rows:
            self.step = max(self.step, run["step"]) if trained else self.step
            self._output.step(run, rows, _line(run, trained[-1]) if trained else f"step {run['step']}/{run['total']}")
        folder = self._folder(run["id"])
        if self._files is not None and folder is not None:
            self._files.add(folder, rows)

    def _folder(self, run: str) -> Path | None:
        if run not in self._folders:
            self._folders[run] = find_run(runs_folder(), run)
        return self._folders[run]


def _line(run: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    ending = "_low" if "loss_low" in row else ""
    losses = [row.get(f"{name}{ending}") for name in ("loss", "inside", "outside")]
    whose = "low noise" if ending else ""
    return progress_line(run["step"], run["total"], losses=losses, rate=run["steps_per_second"], whose=whose)


class PackLog(logging.Handler):
    """Sends what the pack says in its log to the terminal, in order with everything else."""

    def __init__(self, server: Any, *, lines: bool) -> None:
        """Send by `server`; with `lines` also the line that tells every few seconds how far the training is."""
        super().__init__(logging.INFO)
        self._server, self._lines = server, lines

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record."""
        if getattr(record, PROGRESS, False) and not self._lines:
            return
        level = "error" if record.levelno >= logging.ERROR else "warning" if record.levelno > logging.INFO else "note"
        text = record.getMessage().removeprefix(_PREFIX)
        self._server.send_sync(TOLD, {"text": text, "level": level}, CLIENT)
