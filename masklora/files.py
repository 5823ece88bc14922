"""Files that are whole or absent, and nested state as tensors beside JSON (never pickle)."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import filelock
import psutil
from torch import Tensor

from .errors import RunError

TRIES, WAIT_SECONDS = 10, 0.1
_AN_HOUR, _LONG_AGO = 3600.0, 86400.0
HOST = hashlib.sha256(platform.node().encode("utf-8", "replace")).hexdigest()[:6]
_OURS = re.compile(r"\.mlt-([0-9a-f]{6})-([0-9]{1,10})-[0-9a-f]{8}\.tmp")
_EARLIER = re.compile(r"\.(.+)\.[0-9]{1,10}\.tmp")


def pack(value: Any) -> tuple[dict[str, Tensor], Any]:
    """Nested state as flat tensors and a JSON value that points at them.

    Args:
        value: dicts with string or int keys, lists, tuples, tensors, numbers, strings, booleans, None.

    Returns:
        (tensors by number, JSON value). `unpack` gives back equal values of equal types; floats keep
        every bit, infinities included.

    Raises:
        RunError: a value of any other type.
    """
    tensors: dict[str, Tensor] = {}
    return tensors, _pack(value, tensors)


def _pack(value: Any, tensors: dict[str, Tensor]) -> Any:
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return {"float": value.hex()}
    if isinstance(value, Tensor):
        key = str(len(tensors))
        tensors[key] = value
        return {"tensor": key}
    if isinstance(value, Mapping):
        return {"dict": [[_pack(k, tensors), _pack(v, tensors)] for k, v in value.items()]}
    if isinstance(value, (list, tuple)):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [_pack(item, tensors) for item in value]}
    raise RunError(f"A checkpoint cannot hold a value of type {type(value).__name__}.")


def unpack(packed: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The value that `pack` took apart.

    Raises:
        RunError: the JSON value is not one of `pack`'s, or a tensor is missing.
    """
    if not isinstance(packed, dict):
        return packed
    ((kind, content),) = packed.items()
    if kind == "float":
        return float.fromhex(content)
    if kind == "tensor" and content in tensors:
        return tensors[content]
    if kind == "dict":
        return {unpack(k, tensors): unpack(v, tensors) for k, v in content}
    if kind in ("list", "tuple"):
        items = [unpack(item, tensors) for item in content]
        return tuple(items) if kind == "tuple" else items
    raise RunError(f"The checkpoint's state names an unknown entry {kind} {content!r}.")


def on_disk(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Detached, contiguous CPU copies that share no memory: what safetensors can write."""
    return {name: t.detach().to("cpu", copy=True).contiguous() for name, t in tensors.items()}


def patiently(act: Callable[[], Any]) -> None:
    """Do `act`, again for up to a second where a file is in use.

    Windows refuses to replace, rename or delete what somebody reads, such as the page's own requests or a scanner.

    Raises:
        OSError: as `act` does; `PermissionError` only if it lasts.
    """
    for _ in range(TRIES - 1):
        try:
            act()
            return
        except PermissionError:
            time.sleep(WAIT_SECONDS)
    act()


def write_text_atomically(path: Path, text: str) -> None:
    """Replace a file's text as one step: readers see the old text or the new one.

    Raises:
        RunError: the folder cannot be written, or the disk is full.
    """
    write_bytes_atomically(path, text.encode("utf-8"))


def write_bytes_atomically(path: Path, content: bytes) -> None:
    """Replace a file's content, as `write_text_atomically`.

    Raises:
        RunError: the folder cannot be written, or the disk is full.
    """
    temporary = temporary_beside(path)
    try:
        _write(temporary, content)
        patiently(lambda: temporary.replace(path))
    except OSError as error:
        drop(temporary)
        raise cannot_write(path, error) from error


def write_new_bytes(path: Path, content: bytes) -> None:
    """Make a file that was not there: it appears whole under its name, and never takes the place of another.

    Raises:
        FileExistsError: the name is taken, perhaps since a moment ago.
        RunError: the folder cannot be written, or the disk is full.
    """
    temporary = temporary_beside(path)
    try:
        _write(temporary, content)
    except OSError as error:
        drop(temporary)
        raise cannot_write(path, error) from error
    name_new_file(temporary, path)


def name_new_file(temporary: Path, path: Path) -> None:
    """Give a file that was written whole under a name of `temporary_beside` its own; `temporary` is gone afterwards.

    Raises:
        FileExistsError: the name is taken, perhaps since a moment ago.
        RunError: the folder cannot be written.
    """
    try:
        _name_exclusively(temporary, path)
    except FileExistsError:
        raise
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        drop(temporary)


def _write(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _name_exclusively(temporary: Path, path: Path) -> None:
    if os.name == "nt":
        # There a rename refuses a name that is taken.
        patiently(lambda: temporary.rename(path))
        return
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:
        # FAT, and some network drives, know no second name of a file.
        _rename_alone(temporary, path)
    flush_folder(path.parent)


def _rename_alone(temporary: Path, path: Path) -> None:
    mark = hashlib.sha256(str(path.parent).encode("utf-8", "surrogatepass")).hexdigest()[:16]
    with filelock.FileLock(Path(tempfile.gettempdir()) / f"masked-lora-{mark}.lock", timeout=60):
        if os.path.lexists(path):
            raise FileExistsError(path)
        temporary.rename(path)


def temporary_beside(path: Path) -> Path:
    """A name in the folder of `path` that nothing else has: hidden, short whatever the name, and known as ours."""
    return path.with_name(f".mlt-{HOST}-{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp")


def drop(path: Path) -> None:
    """Remove a file of ours if that can be done; an error on the way here counts more than one in tidying up."""
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def clear_leftovers(folder: Path, *, suffixes: tuple[str, ...] = (".safetensors",)) -> list[str]:
    """Names of the temporary files that were removed: those of writers that were killed, and only ours.

    Args:
        folder: where whole files are written; may be missing.
        suffixes: of the files that an earlier version wrote there, whose temporary names held theirs.
    """
    removed = []
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(".tmp") and _is_left(entry, suffixes):
                drop(Path(entry.path))
                removed.append(entry.name)
    return removed


def _is_left(entry: os.DirEntry[str], suffixes: tuple[str, ...]) -> bool:
    ours, earlier = _OURS.fullmatch(entry.name), _EARLIER.fullmatch(entry.name)
    if not ours and not (earlier and earlier[1].endswith(suffixes)):
        return False
    try:
        if not entry.is_file(follow_symlinks=False):
            return False
        changed = entry.stat(follow_symlinks=False).st_mtime
    except OSError:
        return False
    age = time.time() - changed
    if ours and ours[1] == HOST:
        return age > _LONG_AGO or not lives(int(ours[2]), since=changed)
    # Another machine's process may share the folder, and its number says nothing here.
    return age > (_LONG_AGO if ours else _AN_HOUR)


def lives(pid: int, *, since: float) -> bool:
    """Whether the process `pid` of then still runs; one that was started later has only inherited its number.

    Args:
        pid: of this machine; a number that no process can have is none's.
        since: a time at which it ran, in seconds since 1970.
    """
    try:
        return psutil.Process(pid).create_time() <= since + 1.0
    except psutil.AccessDenied:
        return True
    except (psutil.Error, ValueError):
        return False


def flush_to_disk(path: Path) -> None:
    """Ask the system to put a written file on the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def flush_folder(folder: Path) -> None:
    """Ask the system to put a folder's names on the disk, where folders can be flushed."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def cannot_write(path: Path, error: BaseException) -> RunError:
    """The error to raise when `path` cannot be written: what failed, room left, what to do."""
    free = ""
    with contextlib.suppress(OSError):
        free = f" {free_bytes(path) / 2**20:.0f} MiB are free there."
    return RunError(
        f"{path}: could not be written ({error}).{free} What was written before is "
        "untouched. Make room or choose another folder, then queue the same workflow again."
    )


def free_bytes(path: Path) -> int:
    """Room on the disk that holds `path`, which need not exist yet.

    Raises:
        OSError: the disk does not tell.
    """
    return shutil.disk_usage(existing_parent(path)).free


def existing_parent(path: Path) -> Path:
    """The nearest folder above `path`, or file in its way, that exists."""
    return next((one for one in path.parents if os.path.lexists(one)), path.parent)


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
