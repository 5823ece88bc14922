"""Files that are whole or absent, and nested state as tensors beside JSON (never pickle)."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .errors import RunError

TRIES, WAIT_SECONDS = 10, 0.1


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
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        patiently(lambda: temporary.replace(path))
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise cannot_write(path, error) from error


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
        free = f" {shutil.disk_usage(path.parent).free / 2**20:.0f} MiB are free there."
    return RunError(
        f"{path}: could not be written ({error}).{free} What was written before is "
        "untouched. Make room or choose another folder, then queue the same workflow again."
    )


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def random_state(generator: torch.Generator) -> Tensor:
    """A generator's state as a uint8 tensor on the CPU; `generator.set_state` takes it back."""
    return generator.get_state().to("cpu", copy=True)
