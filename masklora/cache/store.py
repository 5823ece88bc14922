"""Where cache entries live: a folder of safetensors files, or this process's memory.

An entry is a flat dict of tensors and a dict of JSON values under (kind, key). Both stores hand out ordinary
CPU tensors even inside `torch.inference_mode()`, because the trainer differentiates through what it is given.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import stat
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_bytes
from safetensors.torch import save as save_bytes

from ..documents import parse_object
from ..errors import CacheError
from ..files import clear_leftovers, temporary_beside
from .keys import Memo

KINDS = ("latent", "mask", "text", "reference")
FORMAT = "masked-lora cache 1"
GRACE_SECONDS = 3600.0
# For so long entries that another data set may need are safe from any size limit: a workflow of a stranger, or a
# small number in a widget, must not cost others the hours that encoding took.
KEPT_SECONDS = 7 * 24 * 3600.0
TOUCH_SECONDS = 600.0
_MAX_HEADER = 1 << 22
_FULL = tuple(getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EFBIG") if hasattr(errno, name))
logger = logging.getLogger(__name__)

Tensors = dict[str, torch.Tensor]
Values = dict[str, Any]


class Store(Protocol):
    """What the cache needs of a place for entries."""

    notes: list[str]

    def has(self, kind: str, key: str) -> bool:
        """Whether an undamaged entry is there; marks it as used."""
        ...

    def read(self, kind: str, key: str, *, leave: bool = False) -> tuple[Tensors, Values]:
        """The entry's tensors and values; with `leave` a damaged one stays for the read that needs it."""
        ...

    def write(self, kind: str, key: str, tensors: Tensors, values: Values | None = None) -> None:
        """Put an entry, replacing one of the same key."""
        ...

    def load_memo(self) -> Memo:
        """What is known of files and masks from earlier builds."""
        ...

    def save_memo(self, memo: Memo) -> None:
        """Keep the memo for later builds."""
        ...

    def is_whole(self, kind: str, key: str) -> bool:
        """Whether the entry is there and every byte of it is as it was written; a damaged one goes."""
        ...

    def clean_up(self, *, limit: float, keep: set[tuple[str, str]]) -> int:
        """Remove old entries until the store holds at most `limit` bytes; how many went."""
        ...


class MemoryStore:
    """Entries in this process, gone with the cache object."""

    def __init__(self) -> None:
        """An empty store."""
        self.notes: list[str] = []
        self._entries: dict[tuple[str, str], tuple[Tensors, Values]] = {}
        self._memo = Memo()

    def has(self, kind: str, key: str) -> bool:
        """Whether the entry is there."""
        return (kind, key) in self._entries

    def read(self, kind: str, key: str, *, leave: bool = False) -> tuple[Tensors, Values]:
        """The entry's tensors, copied, and values.

        Raises:
            CacheError: There is no such entry.
        """
        if (kind, key) not in self._entries:
            raise CacheError(f"The cache in memory has no {kind} {key}. Change a widget of Cache Dataset, queue again.")
        tensors, values = self._entries[kind, key]
        return _ordinary(tensors), dict(values)

    def write(self, kind: str, key: str, tensors: Tensors, values: Values | None = None) -> None:
        """Put an entry."""
        self._entries[kind, key] = _ordinary(tensors), dict(values or {})

    def load_memo(self) -> Memo:
        """This store's own memo."""
        return self._memo

    def save_memo(self, memo: Memo) -> None:
        """Keep the memo while the store lives."""
        self._memo = memo

    def is_whole(self, kind: str, key: str) -> bool:
        """Whether the entry is there."""
        return self.has(kind, key)

    def clean_up(self, *, limit: float, keep: set[tuple[str, str]]) -> int:
        """Nothing to remove: a store in memory holds one run's entries only."""
        return 0


class DiskStore:
    """Entries as files `folder/kind/ab/abcdef….safetensors`, written whole or not at all.

    Any number of processes may share the folder: keys are content hashes, so two that write the same
    entry write the same thing, and `os.replace` shows readers either nothing or all of it.
    """

    def __init__(self, folder: Path) -> None:
        """A store in `folder`, which is made if need be.

        Raises:
            CacheError: The folder cannot be made.
        """
        self.folder = Path(folder)
        self.notes: list[str] = []
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _disk_error(self.folder, error) from error

    def has(self, kind: str, key: str) -> bool:
        """Whether a whole file of this entry is there; marks it as used.

        A truncated file, or one that is not this entry, is removed with a note, so that it is built anew.
        Only the header is read; the tensors' checksum is verified by `read`.
        """
        path = self._path(kind, key)
        try:
            about = _read_header(path)
        except FileNotFoundError:
            return False
        except (OSError, ValueError) as error:
            self._discard(path, str(error))
            return False
        fault = _fault(about, kind, key)
        if fault:
            self._discard(path, fault)
            return False
        _touch(path)
        return True

    def read(self, kind: str, key: str, *, leave: bool = False) -> tuple[Tensors, Values]:
        """The entry's tensors and values, its checksum verified.

        Args:
            kind: Of the entry.
            key: Of the entry.
            leave: Whether a damaged one stays as it is.

        Raises:
            CacheError: The entry is gone or damaged; a damaged one is removed, so that the next build
                makes it anew.
        """
        path = self._path(kind, key)
        try:
            about = _read_header(path)
            fault = _fault(about, kind, key)
            if fault:
                raise ValueError(fault)
            with torch.inference_mode(False):
                tensors = load_bytes(path.read_bytes())
            if _checksum(tensors, about["values"]) != about["checksum"]:
                raise ValueError("its checksum does not match")
        except FileNotFoundError:
            raise CacheError(
                f"{path}: the cache entry is gone. Queue the graph again; what is missing is made anew."
            ) from None
        except (OSError, ValueError, SafetensorError) as error:
            if not leave:
                self._discard(path, str(error))
            raise CacheError(
                f"{path}: the cache entry is damaged ({error}) and was removed. Queue the graph again; it is made anew."
            ) from error
        _touch(path)
        return tensors, json.loads(about["values"])

    def is_whole(self, kind: str, key: str) -> bool:
        """Whether the entry is there and its checksum holds; a damaged one is removed, with a note."""
        try:
            self.read(kind, key)
        except CacheError:
            return False
        return True

    def write(self, kind: str, key: str, tensors: Tensors, values: Values | None = None) -> None:
        """Put an entry; what was there under its key is replaced in one step.

        Raises:
            CacheError: The disk is full or the folder cannot be written; no partial file is left.
        """
        text = json.dumps(values or {}, sort_keys=True)
        plain = _ordinary(tensors)
        about = {
            "format": FORMAT,
            "kind": kind,
            "key": key,
            "values": text,
            "checksum": _checksum(plain, text),
        }
        # One metadata field: safetensors writes several in random order, and equal entries are equal files.
        data = save_bytes(plain, metadata={"entry": json.dumps(about, sort_keys=True)})
        self._replace(self._path(kind, key), data, lambda: self.has(kind, key))

    def load_memo(self) -> Memo:
        """The memo in the folder; an empty one if there is none or it is damaged."""
        try:
            return Memo(json.loads((self.folder / "memo.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, RecursionError):
            return Memo()

    def save_memo(self, memo: Memo) -> None:
        """Merge what was learnt into the memo in the folder."""
        if memo.changed:
            merged = memo.merged_into(self.load_memo())
            self._replace(self.folder / "memo.json", json.dumps(merged).encode("utf-8"), lambda: True)

    def clean_up(self, *, limit: float, keep: set[tuple[str, str]]) -> int:
        """Remove the entries used longest ago until the folder holds at most `limit` bytes.

        Entries in `keep` stay, and those used within the last week, which another data set may need. Temporary
        files that a killed process left are removed too.

        Returns:
            How many entries were removed; if what must stay exceeds the limit, a note says so.
        """
        now, total, removed = time.time(), 0, 0
        old: list[tuple[float, int, Path]] = []
        unfinished = {self.folder}
        for kind in KINDS:
            for path in (self.folder / kind).glob("*/*"):
                try:
                    state = path.stat()
                    if path.suffix == ".tmp":
                        unfinished.add(path.parent)
                        if now - state.st_mtime > GRACE_SECONDS:
                            path.unlink()
                        continue
                except OSError:
                    continue
                total += state.st_size
                if (kind, path.stem) not in keep and now - state.st_mtime > KEPT_SECONDS:
                    old.append((state.st_mtime, state.st_size, path))
        for folder in unfinished:
            clear_leftovers(folder)
        for _, size, path in sorted(old):
            if total <= limit:
                break
            try:
                path.unlink()
            except OSError:
                continue
            total -= size
            removed += 1
        if total > limit:
            self._note(
                f"{self.folder} holds {total / 1e9:.2f} GB, more than the limit of {limit / 1e9:.2f} GB, "
                "because data sets of the last week need it. Raise max_gigabytes, or delete the folder while nothing "
                "trains: what is needed is made anew."
            )
        return removed

    def _path(self, kind: str, key: str) -> Path:
        return self.folder / kind / key[:2] / f"{key}.safetensors"

    def _note(self, text: str) -> None:
        self.notes.append(text)
        logger.warning(text)

    def _discard(self, path: Path, reason: str) -> None:
        self._note(f"{path}: {reason}. The entry is made anew.")
        try:
            path.unlink(missing_ok=True)
        except OSError:
            logger.warning("%s: could not be removed", path)

    def _replace(self, target: Path, data: bytes, is_there: Callable[[], bool]) -> None:
        temporary = temporary_beside(target)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(data)
            temporary.replace(target)
        except PermissionError as error:
            # Windows refuses to replace a file that another process has open; that one is as good as ours.
            if not is_there():
                raise _disk_error(target, error) from error
        except OSError as error:
            raise _disk_error(target, error, needed=len(data)) from error
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def _ordinary(tensors: Tensors) -> Tensors:
    with torch.inference_mode(False):
        return {name: value.detach().to("cpu", copy=True).contiguous() for name, value in tensors.items()}


def _checksum(tensors: Tensors, text: str) -> str:
    hasher = hashlib.blake2b(text.encode("utf-8"), digest_size=16)
    for name in sorted(tensors):
        value = tensors[name]
        hasher.update(f"{name}{value.dtype}{tuple(value.shape)}".encode())
        hasher.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return hasher.hexdigest()


def _read_header(path: Path) -> dict[str, Any]:
    """What an entry's file says of itself; raises `ValueError` if the file is not whole."""
    # By one look: another process may make it between two.
    if not stat.S_ISREG(path.stat().st_mode):
        # To open a pipe may wait for ever.
        raise ValueError("it is no regular file")
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= min(_MAX_HEADER, size - 8):
            raise ValueError("the file is truncated or no cache entry")
        header = parse_object(file.read(length))
    if header is None:
        raise ValueError("the file is no cache entry")
    try:
        metadata = header.pop("__metadata__", {})
        end = max((part["data_offsets"][1] for part in header.values()), default=0)
        about = parse_object(metadata.get("entry", "{}"))
    except (AttributeError, TypeError, KeyError, IndexError) as error:
        raise ValueError("the file is no cache entry") from error
    if 8 + length + end != size:
        raise ValueError("the file is truncated or has been changed")
    return about or {}


def _fault(about: dict[str, Any], kind: str, key: str) -> str:
    if about.get("format") != FORMAT:
        return "the file is no entry of this cache"
    if (about.get("kind"), about.get("key")) != (kind, key) or not {"values", "checksum"} <= set(about):
        return "the file is another entry"
    return ""


def _touch(path: Path) -> None:
    try:
        if time.time() - path.stat().st_mtime > TOUCH_SECONDS:
            os.utime(path)
    except OSError:
        logger.debug("%s: could not be marked as used", path)


def _disk_error(path: Path, error: OSError, *, needed: int = 0) -> CacheError:
    if error.errno in _FULL:
        return CacheError(
            f"{path}: the disk is full ({needed / 1e6:.1f} MB more were needed). What was written before "
            "is kept. Free some space, lower the cache's size limit, or keep the cache in memory, then run "
            "again."
        )
    return CacheError(
        f"{path}: the cache folder cannot be written ({error.strerror}). Check its rights or choose another."
    )
