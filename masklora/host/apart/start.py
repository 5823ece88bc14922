"""One training apart: its processes, and the folder by which a page, or a ComfyUI that was started anew, knows them.

    <user>/masked_lora/apart/<id>/
        graph.json    what is trained, as the page shows it too
        start.json    by which process
        told.jsonl    what that tells, see `telling`
        log.txt       everything else that it says; both without their middle where they are long
        cancel        as soon as somebody has asked it to end
        hidden        once a person has read how it ended
        launchers, processes    how several processes find each other

The processes are no children that end with ComfyUI. They are known by their command line, which names the graph in this
folder: a process that has only inherited the number does not.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from ...documents import read_document
from ...errors import RunError
from ...files import HOST, cannot_write, write_text_atomically
from ..headless.bounds import LOG, TOLD
from .flags import TRAIN, command, environment
from .telling import Telling

_GRAPH, _START, _CANCEL, _HIDDEN = "graph.json", "start.json", "cancel", "hidden"
# Of a folder's name; no other can be asked for.
_ID = re.compile(r"[0-9a-f]{20}")
_KEPT = 5
_KINDS = {"host": str, "pid": int, "count": int, "name": str, "node": str, "started": float}
_LOG_BYTES, _LOG_LINES, _LOG_LETTERS = 1 << 14, 4, 800


class Start:
    """A training apart, whether it goes on or has ended."""

    def __init__(self, folder: Path, facts: Mapping[str, Any]) -> None:
        """What is known of it by `facts`, see `_KINDS`."""
        self.folder, self.id = folder, folder.name
        self.pid, self.count, self.started = facts["pid"], facts["count"], facts["started"]
        self.name, self.node = facts["name"], facts["node"]
        self._telling = Telling(folder / TOLD)
        self._gone = False

    @property
    def cancelled(self) -> bool:
        """Whether somebody has asked it to end."""
        return (self.folder / _CANCEL).exists()

    @property
    def hidden(self) -> bool:
        """Whether a person has read how it ended."""
        return (self.folder / _HIDDEN).exists()

    def goes_on(self) -> bool:
        """Whether a process of it is left that has not told its end."""
        if self._gone:
            return False
        # First: what a process tells at its end is there once it is not.
        lives = self._is_ours(self.pid)
        self._telling.look()
        # Those of torchrun go on where it was killed.
        self._gone = self._telling.end is not None or not (lives or self.processes())
        return not self._gone

    def processes(self) -> list[psutil.Process]:
        """All processes that train its graph, and what has started these."""
        return [one for one in psutil.process_iter() if self._is_ours(one.pid)]

    def _is_ours(self, pid: int) -> bool:
        with contextlib.suppress(psutil.Error, OSError, ValueError):
            process = psutil.Process(pid)
            words = process.cmdline()
            named = any(self.id in word and word.endswith(_GRAPH) for word in words)
            # An editor that shows the graph is none.
            trains = any(word.endswith(TRAIN) for word in words)
            return named and trains and process.status() != psutil.STATUS_ZOMBIE
        return False

    def facts(self) -> dict[str, Any]:
        """What a page is told of it."""
        goes_on, told = self.goes_on(), self._telling
        state = "training" if told.step else "working" if told.anything else "starting"
        return {
            "id": self.id,
            "name": self.name,
            "node": self.node,
            "count": self.count,
            "started": self.started,
            "state": state if goes_on else "ended",
            "cancelled": self.cancelled,
            "hidden": self.hidden,
            "said": told.said,
            "progress": told.progress if goes_on else None,
            "run": told.run,
            "step": told.step,
            "end": None if goes_on else self._end(),
        }

    def _end(self) -> dict[str, Any]:
        """How it ended, and why where that was not wished."""
        told = self._telling
        if told.end is None:
            state = "stopped" if self.cancelled else "killed"
            return {"state": state, "reasons": [] if self.cancelled else self._last_words()}
        state = told.end["state"]
        errors = [one["text"] for one in told.said if one["level"] == "error"]
        reasons = {"failed": errors[-1:] or self._last_words(), "refused": told.problems or self._last_words()}
        return {"state": state, "reasons": reasons.get(state, [])}

    def _last_words(self) -> list[str]:
        """The end of the log, for where nothing else tells what happened."""
        try:
            with (self.folder / LOG).open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - _LOG_BYTES))
                lines = file.read().decode("utf-8", "replace").splitlines()
        except OSError:
            return []
        # What a process says of itself, rather than torchrun's table of how all of them ended.
        own = [line for line in lines if line.startswith("process ")]
        words = [line.strip() for line in own or lines if line.strip(" =-")]
        return ["\n".join(words[-_LOG_LINES:])[-_LOG_LETTERS:]] if words else []

    def cancel(self) -> None:
        """Ask it to end with a checkpoint, and the second time let it end at once.

        Raises:
            RunError: the folder cannot be written.
        """
        if not self.cancelled:
            write_text_atomically(self.folder / _CANCEL, "")
            return
        for one in self.processes():
            with contextlib.suppress(psutil.Error):
                one.kill()

    def hide(self) -> None:
        """A person has read how it ended.

        Raises:
            RunError: the folder cannot be written.
        """
        write_text_atomically(self.folder / _HIDDEN, "")


def begin(root: Path, saved: Mapping[str, Any], *, count: int, name: str, node: str, pack: Path) -> Start:
    """Start processes that train a graph, and drop the folders of old ones.

    Args:
        root: folder of all starts.
        saved: the graph as `prompt`, and as the page shows it as `workflow`, or None.
        count: of processes.
        name: of the LoRA.
        node: id of the node that trains.
        pack: folder of this pack.

    Raises:
        RunError: the folder cannot be written, or the system starts no process.
    """
    folder = root / secrets.token_hex(10)
    try:
        folder.mkdir(parents=True)
        (folder / _GRAPH).write_text(json.dumps(saved), encoding="utf-8")
        process = _spawn(folder, command(folder / _GRAPH, count=count, cancel=folder / _CANCEL, pack=pack), count)
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise cannot_write(folder, error) from error
    # So that its end is noticed, and it leaves nothing in the system's list.
    threading.Thread(target=process.wait, daemon=True, name="masked-lora-apart").start()
    facts = {"host": HOST, "pid": process.pid, "count": count, "name": name, "node": node, "started": time.time()}
    try:
        write_text_atomically(folder / _START, json.dumps(facts))
        # Another ComfyUI, which follows by the time of this folder, may have looked too early.
        os.utime(root)
    except (RunError, OSError):
        process.kill()
        raise
    _prune(root)
    return Start(folder, facts)


def _spawn(folder: Path, words: list[str], count: int) -> subprocess.Popen[bytes]:
    options: dict[str, Any] = {"start_new_session": True}
    if sys.platform == "win32":
        # With a console of its own it does not end with ComfyUI's.
        options = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
    with (folder / TOLD).open("wb") as told, (folder / LOG).open("wb") as log:
        return subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=told, stderr=log, env=environment(count, folder), **options
        )


def newest(root: Path) -> Start | None:
    """The start that was made last; None where there is none."""
    return next(iter(_starts(root)), None)


def _starts(root: Path) -> list[Start]:
    """All of this machine, the newest first."""
    try:
        folders = [one for one in root.iterdir() if one.is_dir() and not one.is_symlink()]
    except OSError:
        return []
    found = [(one, read_document(one / _START, _KINDS)) for one in folders if _ID.fullmatch(one.name)]
    # Whether a process of another machine lives cannot be told from here.
    starts = [Start(folder, facts) for folder, facts in found if facts is not None and facts["host"] == HOST]
    now = time.time()
    # One of a clock that has been set back since was there before those that it would outlast.
    return sorted(starts, key=lambda one: one.started if one.started <= now else 0, reverse=True)


def _prune(root: Path) -> None:
    for one in _starts(root)[_KEPT:]:
        if not one.goes_on():
            shutil.rmtree(one.folder, ignore_errors=True)
