"""A run's folder: settings, metrics, checkpoints, result. Whatever is in it was written completely.

    <root>/<name>-<fingerprint>/
        settings.json      what the run was asked to do
        metrics.jsonl      one line per optimizer step
        checkpoints/step-000250/{adapter.safetensors, state.safetensors, state.json}
        result.json        only when the run has ended by itself or was stopped

A checkpoint is written into a temporary folder, flushed to the disk, and renamed: it exists whole or not
at all. Its state.json holds the hashes of the other files, so a damaged one is noticed and passed over.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import filelock
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from .errors import RunError
from .files import (
    cannot_write,
    flush_folder,
    flush_to_disk,
    hash_file,
    on_disk,
    pack,
    patiently,
    unpack,
    write_text_atomically,
)

FINGERPRINT_LETTERS = 10
_STEP = re.compile(r"step-(\d{6,})$")


def fingerprint(parts: Mapping[str, Any]) -> str:
    """Hash of everything that decides a run's outcome, as a hex string.

    Args:
        parts: JSON-able values: the settings, the cache's content keys, the model's identity.

    Returns:
        64 hex digits, the same for equal values in any order of keys.
    """
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def safe_name(name: str) -> str:
    """`name` as a run's folder carries it: other characters than letters, digits, `_`, `.` and `-` become `_`."""
    return re.sub(r"[^\w.-]+", "_", name).strip("._")[:80] or "run"


@dataclass(frozen=True)
class Checkpoint:
    """One saved moment: `adapter` is what a person would use, `state` is what resuming needs besides."""

    step: int
    adapter: dict[str, Tensor]
    state: dict[str, Any]
    folder: Path


@dataclass
class Run:
    """An open run folder, owned by this process until `close`. Use as a context manager."""

    folder: Path
    fingerprint: str
    messages: list[str] = field(default_factory=list)
    _lock: filelock.BaseFileLock | None = None
    _metrics: TextIO | None = None

    @classmethod
    def open(cls, root: Path, name: str, fingerprint: str, *, settings: Mapping[str, Any]) -> Run:
        """The run folder of these settings, made if it is new, locked for this process.

        Args:
            root: folder that holds the runs.
            name: the run's name; characters that a file name cannot hold become `_`.
            fingerprint: from `fingerprint`; other settings give another folder.
            settings: JSON-able; kept in settings.json for people to read.

        Raises:
            RunError: another process trains in this folder, or it cannot be written.
        """
        folder = Path(root) / f"{safe_name(name)}-{fingerprint[:FINGERPRINT_LETTERS]}"
        try:
            (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
            folder = _as_on_disk(folder)
        except OSError as error:
            raise cannot_write(folder, error) from error
        run = cls(folder=folder, fingerprint=fingerprint)
        run._take_lock()
        try:
            run._clear_leftovers()
            if not (folder / "settings.json").exists():
                text = json.dumps({"fingerprint": fingerprint, **settings}, indent=1, sort_keys=True)
                write_text_atomically(folder / "settings.json", text)
        except BaseException:
            run.close()
            raise
        return run

    def __enter__(self) -> Run:
        """The run itself."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close the run."""
        self.close()

    def close(self) -> None:
        """Let other processes have the folder. Closing twice is fine."""
        if self._metrics is not None:
            self._metrics.close()
            self._metrics = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _take_lock(self) -> None:
        # The operating system drops this lock when its process dies, so a crash leaves nothing stale.
        lock = filelock.FileLock(str(self.folder / "run.lock"), timeout=0)
        try:
            lock.acquire()
        except filelock.Timeout as error:
            raise RunError(
                f"{self.folder}: this run is being trained by another ComfyUI or another job right now. "
                "Wait for it to end, or give this run another name."
            ) from error
        except OSError as error:
            raise cannot_write(self.folder / "run.lock", error) from error
        self._lock = lock

    def _clear_leftovers(self) -> None:
        for leftover in (self.folder / "checkpoints").glob(".tmp-*"):
            shutil.rmtree(leftover, ignore_errors=True)

    # -------------------------------------------------------------- checkpoints

    def save_checkpoint(
        self,
        step: int,
        *,
        adapter: Mapping[str, Tensor],
        state: Mapping[str, Any],
        keep_last: int = 3,
        best: bool = False,
    ) -> Path:
        """Write a checkpoint whole or not at all, then drop those that are no longer kept.

        Args:
            step: number of finished optimizer steps.
            adapter: float32 weights to use.
            state: nested tensors and scalars, see `pack`.
            keep_last: how many of the newest stay, at least 1; the best one stays besides.
            best: this one has the lowest validation loss so far.

        Returns:
            The checkpoint's folder.

        Raises:
            RunError: the disk is full or the folder not writable; earlier checkpoints stay.
        """
        target = self.folder / "checkpoints" / f"step-{step:06d}"
        temporary = target.with_name(f".tmp-{target.name}-{os.getpid()}")
        tensors, packed = pack(dict(state))
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
            hashes = {}
            for name, content in (("adapter", adapter), ("state", tensors)):
                path = temporary / f"{name}.safetensors"
                save_file(on_disk(content), path, metadata={"step": str(step)})
                flush_to_disk(path)
                hashes[path.name] = hash_file(path)
            document = {"step": step, "fingerprint": self.fingerprint, "sha256": hashes, "state": packed}
            document["seal"] = fingerprint(document)
            write_text_atomically(temporary / "state.json", json.dumps(document))
            self._replace_folder(temporary, target)
        except (OSError, SafetensorError, RunError) as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise error if isinstance(error, RunError) else cannot_write(target, error) from error
        if best:
            write_text_atomically(self.folder / "checkpoints" / "best.json", json.dumps({"step": step}))
        self._drop_old(keep_last)
        return target

    def _replace_folder(self, temporary: Path, target: Path) -> None:
        if target.exists():
            old = target.with_name(f".tmp-old-{target.name}-{os.getpid()}")
            patiently(lambda: target.rename(old))
            patiently(lambda: temporary.rename(target))
            shutil.rmtree(old, ignore_errors=True)
        else:
            patiently(lambda: temporary.rename(target))
        flush_folder(target.parent)

    def _drop_old(self, keep_last: int) -> None:
        keep = set(self.checkpoints()[-max(1, keep_last) :])
        best = self.best_step()
        for step in self.checkpoints():
            if step not in keep and step != best:
                shutil.rmtree(self._checkpoint_folder(step), ignore_errors=True)

    def _checkpoint_folder(self, step: int) -> Path:
        return self.folder / "checkpoints" / f"step-{step:06d}"

    def checkpoints(self) -> list[int]:
        """Steps of the checkpoints in the folder, oldest first."""
        found = (_STEP.search(p.name) for p in (self.folder / "checkpoints").glob("step-*"))
        return sorted(int(match.group(1)) for match in found if match)

    def best_step(self) -> int | None:
        """Step of the checkpoint with the lowest validation loss, None if there was no validation."""
        document = _read_json(self.folder / "checkpoints" / "best.json")
        return document.get("step") if document else None

    def load_checkpoint(self, step: int | None = None) -> Checkpoint | None:
        """The checkpoint of `step`, or the newest whole one.

        Returns:
            None when there is none. A damaged checkpoint is passed over for the one before it, and
            `messages` says so.

        Raises:
            RunError: `step` was asked for by number and is missing or damaged.
        """
        for candidate in [step] if step is not None else reversed(self.checkpoints()):
            try:
                return self._read_checkpoint(candidate)
            except (OSError, SafetensorError, ValueError, KeyError, TypeError, RunError) as error:
                text = f"{self._checkpoint_folder(candidate)}: this checkpoint is damaged ({error})."
                if step is not None:
                    raise RunError(text + " Choose another one.") from error
                self.messages.append(text + " The one before it is used instead.")
        return None

    def _read_checkpoint(self, step: int) -> Checkpoint:
        folder = self._checkpoint_folder(step)
        document = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        if document.pop("seal") != fingerprint(document):
            raise RunError("state.json is not what was written")
        for name, expected in document["sha256"].items():
            if hash_file(folder / name) != expected:
                raise RunError(f"{name} is not what was written")
        tensors = load_file(folder / "state.safetensors")
        return Checkpoint(
            step=int(document["step"]),
            adapter=load_file(folder / "adapter.safetensors"),
            state=unpack(document["state"], tensors),
            folder=folder,
        )

    # -------------------------------------------------------------- metrics and result

    def start_metrics(self, step: int) -> None:
        """Open metrics.jsonl to go on after `step`; lines of later steps are dropped."""
        path = self.folder / "metrics.jsonl"
        if self._metrics is not None:
            self._metrics.close()
        kept = [line for line in self.read_metrics() if line.get("step", 0) <= step]
        write_text_atomically(path, "".join(json.dumps(line) + "\n" for line in kept))
        self._metrics = path.open("a", encoding="utf-8", newline="\n")

    def append_metrics(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Add one line per record to metrics.jsonl.

        Raises:
            RunError: the disk is full.
        """
        if self._metrics is None:
            raise RunError(f"{self.folder}: metrics were not started.")
        try:
            self._metrics.writelines(json.dumps(record) + "\n" for record in records)
            self._metrics.flush()
        except OSError as error:
            raise cannot_write(self.folder / "metrics.jsonl", error) from error

    def read_metrics(self) -> list[dict[str, Any]]:
        """All whole lines of metrics.jsonl; a line that a crash cut short is left out."""
        path = self.folder / "metrics.jsonl"
        if not path.exists():
            return []
        out = []
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                out.append(json.loads(line))
            except ValueError:
                continue
        return out

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Mark the run as ended; `result` needs at least `steps` and `completed`."""
        write_text_atomically(self.folder / "result.json", json.dumps(dict(result), indent=1))

    def clear_result(self) -> None:
        """Forget an earlier end, because the run goes on."""
        patiently(lambda: (self.folder / "result.json").unlink(missing_ok=True))

    def finished_at(self, step: int) -> dict[str, Any] | None:
        """The result if the run was trained to its end, which was `step`; else None."""
        ended = self.read_result()
        return ended if ended and ended.get("completed") and ended.get("steps") == step else None

    def read_result(self) -> dict[str, Any] | None:
        """What `write_result` was given, None if the run has not ended."""
        return _read_json(self.folder / "result.json")


def _as_on_disk(folder: Path) -> Path:
    """The folder under its own spelling: to Windows and macOS "Anna" and "anna" are one."""
    alike = (p for p in folder.parent.iterdir() if p.name.casefold() == folder.name.casefold())
    return next((p for p in alike if p.samefile(folder)), folder)


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None
