"""A run's folder: settings, metrics, checkpoints, result. Whatever is in it was written completely.

    <root>/<name>-<fingerprint>/
        settings.json      what the run was asked to do
        metrics.jsonl      one line per optimizer step
        checkpoints/step-000250/{adapter.safetensors, state.safetensors, state.json}
        result.json        only when the run has ended by itself or was stopped

A finished run that makes room keeps rest.safetensors instead of state.safetensors: all but the optimizer's state.
A checkpoint is written into a temporary folder, flushed to the disk, and renamed: it exists whole or not
at all. Its state.json holds the hashes of the other files, so a damaged one is noticed and passed over.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import filelock
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..documents import metric_rows, parse_object, read_document
from ..errors import RunError
from ..files import (
    cannot_write,
    clear_leftovers,
    flush_folder,
    flush_to_disk,
    hash_file,
    on_disk,
    pack,
    patiently,
    unpack,
    write_text_atomically,
)
from .marks import read_favoured

FINGERPRINT_LETTERS = 10
# Of the earlier version's temporary files in a run's folder.
_SUFFIXES = (".json", ".jsonl", ".png")
_STEP = re.compile(r"step-([0-9]{6,12})")
_MOST_NAME_BYTES = 160
# Stands in no name that `safe_name` gives.
ANEW = "~"
LOCK = "run.lock"
STATE, REST = "state.safetensors", "rest.safetensors"
# What reading a checkpoint may run into.
_DAMAGE = (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError, RunError)


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
    short = re.sub(r"[^\w.-]+", "_", name).strip("._")[:80]
    return short.encode("utf-8")[:_MOST_NAME_BYTES].decode("utf-8", "ignore") or "run"


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
    identity: dict[str, Any] = field(default_factory=dict)
    _lock: filelock.BaseFileLock | None = None
    _metrics: TextIO | None = None

    @classmethod
    def open(cls, root: Path, name: str, fingerprint: str, *, settings: Mapping[str, Any], anew: bool = False) -> Run:
        """The run folder of these settings under whatever name it was made, or a new one, locked for this process.

        Args:
            root: folder that holds the runs.
            name: of a new run; characters that a file name cannot hold become `_`.
            fingerprint: from `fingerprint`; other settings give another folder.
            settings: JSON-able; kept in settings.json for people to read.
            anew: make another folder for the same settings; the one that is there stays as it is.

        Raises:
            RunError: another process trains in this folder, or it cannot be written.
        """
        folder = None if anew else find_folder(root, name, fingerprint)
        folder = folder or _new_folder(root, name, fingerprint, anew=anew)
        try:
            (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
            folder = _as_on_disk(folder)
        except OSError as error:
            raise cannot_write(folder, error) from error
        run = cls(folder=folder, fingerprint=fingerprint, identity=dict(settings))
        run._take_lock()
        try:
            run._clear_leftovers()
            if read_document(folder / "settings.json") is None:
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
        try:
            # What could not be written was told when it was tried; closing tries it once more.
            with contextlib.suppress(OSError):
                if self._metrics is not None:
                    self._metrics.close()
        finally:
            self._metrics = None
            lock, self._lock = self._lock, None
            if lock is not None:
                lock.release()

    def _take_lock(self) -> None:
        # The operating system drops this lock when its process dies, so a crash leaves nothing stale.
        lock = filelock.FileLock(str(self.folder / LOCK), timeout=0)
        try:
            lock.acquire()
        except filelock.Timeout as error:
            raise RunError(
                f"{self.folder}: this run is being trained by another ComfyUI or another job right now. "
                "Wait for it to end, or set if_a_run_exists to start anew, which trains beside it."
            ) from error
        except OSError as error:
            raise cannot_write(self.folder / LOCK, error) from error
        self._lock = lock

    def _clear_leftovers(self) -> None:
        for leftover in (self.folder / "checkpoints").glob(".tmp-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        for folder in (self.folder, self.folder / "checkpoints", self.folder / "samples"):
            clear_leftovers(folder, suffixes=_SUFFIXES)

    # -------------------------------------------------------------- checkpoints

    def save_checkpoint(
        self,
        step: int,
        *,
        adapter: Mapping[str, Tensor],
        state: Mapping[str, Any],
        keep_last: int = 3,
        keep_every: int = 0,
        best: bool = False,
    ) -> Path:
        """Write a checkpoint whole or not at all, then drop those that are no longer kept.

        Args:
            step: number of finished optimizer steps.
            adapter: float32 weights to use.
            state: nested tensors and scalars, see `pack`.
            keep_last: how many of the newest stay, at least 1; the best and the favoured one stay besides.
            keep_every: those of its multiples stay, too, later without the optimizer's state; 0 for none.
            best: this one has the lowest validation loss so far.

        Returns:
            The checkpoint's folder.

        Raises:
            RunError: the disk is full or the folder not writable; earlier checkpoints stay.
        """
        target = self.folder / "checkpoints" / f"step-{step:06d}"
        temporary = target.with_name(f".tmp-{target.name}-{uuid.uuid4().hex[:8]}")
        tensors, packed = pack(dict(state))
        try:
            temporary.mkdir()
            hashes = {}
            for name, content in (("adapter", adapter), ("state", tensors)):
                path = temporary / f"{name}.safetensors"
                _save_tensors(path, content, step=step)
                hashes[path.name] = hash_file(path)
            document = {"step": step, "fingerprint": self.fingerprint, "sha256": hashes, "state": packed}
            _seal(temporary, document)
            self._replace_folder(temporary, target)
        except (OSError, SafetensorError, RunError) as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise error if isinstance(error, RunError) else cannot_write(target, error) from error
        if best:
            write_text_atomically(self.folder / "checkpoints" / "best.json", json.dumps({"step": step}))
        self._drop_old(keep_last, keep_every)
        return target

    def take_over(self, other: Run) -> None:
        """Put the newest checkpoint of another folder of the same run here, if this one has none as new.

        Raises:
            OSError: the disk is full or the folder not writable; what was begun goes when the run is opened again.
        """
        step = max(other.checkpoints(), default=0)
        if step > max(self.checkpoints(), default=0):
            temporary = self.folder / "checkpoints" / f".tmp-{uuid.uuid4().hex[:8]}"
            shutil.copytree(other._checkpoint_folder(step), temporary)
            self._replace_folder(temporary, self._checkpoint_folder(step))

    def _replace_folder(self, temporary: Path, target: Path) -> None:
        if target.exists():
            old = target.with_name(f".tmp-old-{target.name}-{uuid.uuid4().hex[:8]}")
            patiently(lambda: target.rename(old))
            patiently(lambda: temporary.rename(target))
            shutil.rmtree(old, ignore_errors=True)
        else:
            patiently(lambda: temporary.rename(target))
        flush_folder(target.parent)

    def _drop_old(self, keep_last: int, keep_every: int) -> None:
        spared = self.best_step(), read_favoured(self.folder)
        for step in self.checkpoints()[: -max(1, keep_last)]:
            if step in spared:
                continue
            if keep_every <= 0 or step % keep_every:
                shutil.rmtree(self._checkpoint_folder(step), ignore_errors=True)
            elif has_optimizer(self.folder, step):
                # To be looked at and exported; what is damaged, or does not fit beside itself, stays as it is.
                with contextlib.suppress(RunError):
                    self.shed_optimizer(step)

    def _checkpoint_folder(self, step: int) -> Path:
        return self.folder / "checkpoints" / f"step-{step:06d}"

    def checkpoints(self) -> list[int]:
        """Steps of the checkpoints in the folder, oldest first."""
        return checkpoint_steps(self.folder)

    def best_step(self) -> int | None:
        """Step of the checkpoint with the lowest validation loss, None if there was no validation."""
        document = read_document(self.folder / "checkpoints" / "best.json", {"step": int})
        return document["step"] if document else None

    def files_of(self, checkpoint: Checkpoint) -> list[Path]:
        """Those of a checkpoint, and of the run's end if it has one."""
        return [*sorted(checkpoint.folder.iterdir()), *self.folder.glob("result.json")]

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
            except _DAMAGE as error:
                # While a run trains, old checkpoints make room for new ones.
                if not self._checkpoint_folder(candidate).is_dir():
                    if step is None:
                        continue
                    raise RunError(
                        f"The checkpoint of step {step} is not there any more: it made room for newer ones. "
                        "Choose another one."
                    ) from error
                text = f"{self._checkpoint_folder(candidate)}: this checkpoint is damaged ({error})."
                if step is not None:
                    raise RunError(text + " Choose another one.") from error
                self.messages.append(text + " The one before it is used instead.")
        return None

    def _read_checkpoint(self, step: int) -> Checkpoint:
        folder = self._checkpoint_folder(step)
        document = _sealed(folder)
        for name, expected in document["sha256"].items():
            if hash_file(folder / name) != expected:
                raise RunError(f"{name} is not what was written")
        tensors = load_file(folder / document.get("tensors", STATE))
        return Checkpoint(
            step=int(document["step"]),
            adapter=load_file(folder / "adapter.safetensors"),
            state=unpack(document["state"], tensors),
            folder=folder,
        )

    def shed_optimizer(self, step: int) -> int:
        """Bytes that were freed by leaving the checkpoint of `step` without the optimizer's state; 0 where it had none.

        The weights stay, with what else going on needs. It is whole at every moment.

        Raises:
            RunError: the checkpoint is damaged, or the folder cannot be written.
        """
        folder = self._checkpoint_folder(step)
        try:
            before = _sealed(folder)
            if before.get("tensors") == REST:
                return _drop_file(folder / STATE)
            checkpoint = self._read_checkpoint(step)
            tensors, packed = pack({**checkpoint.state, "optimizer": None, "live": None})
            _save_tensors(folder / REST, tensors, step=step)
            hashes = {name: hash_file(folder / name) for name in ("adapter.safetensors", REST)}
            _seal(folder, {**before, "sha256": hashes, "state": packed, "tensors": REST})
            return _drop_file(folder / STATE) - (folder / REST).stat().st_size
        except _DAMAGE as error:
            raise error if isinstance(error, RunError) else cannot_write(folder, error) from error

    # -------------------------------------------------------------- metrics and result

    def start_metrics(self, step: int) -> None:
        """Open metrics.jsonl to go on after `step`; lines of later steps are dropped."""
        path = self.folder / "metrics.jsonl"
        if self._metrics is not None:
            self._metrics.close()
        kept = [line for line in self.read_metrics() if line["step"] <= step]
        write_text_atomically(path, "".join(json.dumps(line) + "\n" for line in kept))
        try:
            self._metrics = path.open("a", encoding="utf-8", newline="\n")
        except OSError as error:
            raise cannot_write(path, error) from error

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
        """All whole lines of metrics.jsonl; a line that a crash cut short, or that is none of ours, is left out."""
        try:
            return list(metric_rows((self.folder / "metrics.jsonl").read_bytes().split(b"\n")))
        except OSError:
            return []

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Mark the run as ended; `result` needs at least `steps` and `completed`."""
        write_text_atomically(self.folder / "result.json", json.dumps(dict(result), indent=1))

    def clear_result(self) -> None:
        """Forget an earlier end, because the run goes on.

        Raises:
            RunError: the file cannot be removed.
        """
        path = self.folder / "result.json"
        try:
            patiently(lambda: path.unlink(missing_ok=True))
        except OSError as error:
            raise cannot_write(path, error) from error

    def finished_at(self, step: int) -> dict[str, Any] | None:
        """The result if the run was trained to its end, which was `step`; else None."""
        ended = self.read_result()
        return ended if ended and ended["completed"] and ended["steps"] == step else None

    def read_result(self) -> dict[str, Any] | None:
        """What `write_result` was given, None if the run has not ended."""
        return read_result(self.folder)


def read_result(folder: Path) -> dict[str, Any] | None:
    """How the run in `folder` ended, None if it has not, or its file is damaged."""
    return read_document(folder / "result.json", {"steps": int, "completed": bool}, optional={"summary": dict})


def checkpoint_steps(folder: Path) -> list[int]:
    """Steps of the checkpoints of the run in `folder`, oldest first."""
    try:
        found = (_STEP.fullmatch(one.name) for one in (folder / "checkpoints").iterdir())
        return sorted(int(match[1]) for match in found if match)
    except OSError:
        return []


def trained_elsewhere(folder: Path) -> bool:
    """Whether somebody, perhaps another process, trains in `folder` now."""
    # Looking must not make a lock where there is none.
    if not (folder / LOCK).exists():
        return False
    try:
        with filelock.FileLock(str(folder / LOCK), timeout=0):
            return False
    except filelock.Timeout:
        return True
    except OSError:
        return False


def has_optimizer(folder: Path, step: int) -> bool:
    """Whether training can go on without a seam from the checkpoint of `step` of the run in `folder`."""
    return (folder / "checkpoints" / f"step-{step:06d}" / STATE).is_file()


def find_folder(root: Path, name: str, fingerprint: str) -> Path | None:
    """The folder of the run with these settings, whatever it was called; None where there is none.

    Where an earlier version, or starting anew, left several, it is that of this name, the latest, the furthest.
    """
    tail = f"-{fingerprint[:FINGERPRINT_LETTERS]}"
    try:
        alike = [one for one in Path(root).iterdir() if one.name.casefold().endswith(tail) and one.is_dir()]
    except OSError:
        return None
    kept = ((one, read_document(one / "settings.json", {"fingerprint": str})) for one in alike)
    same = [one for one, document in kept if document is None or document["fingerprint"] == fingerprint]

    def worth(folder: Path) -> tuple[bool, int, int]:
        stem, _, number = folder.name[: -len(tail)].partition(ANEW)
        named = stem.casefold() == safe_name(name).casefold()
        return named, int(number) if number.isdecimal() else 1, max(checkpoint_steps(folder), default=0)

    return max(same, key=worth, default=None)


def _new_folder(root: Path, name: str, fingerprint: str, *, anew: bool) -> Path:
    tail, stem = f"-{fingerprint[:FINGERPRINT_LETTERS]}", safe_name(name)
    latest = find_folder(root, name, fingerprint) if anew else None
    if latest is None:
        return Path(root) / f"{stem}{tail}"
    number = latest.name[: -len(tail)].partition(ANEW)[2]
    number = int(number) + 1 if number.isdecimal() else 2
    while (folder := Path(root) / f"{stem}{ANEW}{number}{tail}").exists():
        number += 1
    return folder


def _save_tensors(path: Path, content: Mapping[str, Tensor], *, step: int) -> None:
    # safetensors makes files that only their owner may read; this one tells what the umask would give.
    path.touch()
    mode = path.stat().st_mode & 0o777
    save_file(on_disk(content), path, metadata={"step": str(step)})
    path.chmod(mode)
    flush_to_disk(path)


def _seal(folder: Path, document: dict[str, Any]) -> None:
    sealed = {**document, "seal": fingerprint(document)}
    write_text_atomically(folder / "state.json", json.dumps(sealed))


def _sealed(folder: Path) -> dict[str, Any]:
    """What a checkpoint's state.json says, if it is what was written."""
    document = parse_object((folder / "state.json").read_bytes())
    if document is None or document.pop("seal", None) != fingerprint(document):
        raise RunError("state.json is not what was written")
    return document


def _drop_file(path: Path) -> int:
    """The size of a file that is not there any more."""
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return 0
    patiently(lambda: path.unlink(missing_ok=True))
    return size


def _as_on_disk(folder: Path) -> Path:
    """The folder under its own spelling: to Windows and macOS "Anna" and "anna" are one."""
    alike = (p for p in folder.parent.iterdir() if p.name.casefold() == folder.name.casefold())
    return next((p for p in alike if p.samefile(folder)), folder)
