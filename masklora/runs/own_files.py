"""Which LoRA files are a run's own: known by their content, whatever has happened to the names since.

A file that was deleted, changed, emptied or replaced is written again, beside what is there now; one that is this
run's already is used as it is, also where a killed process could not note that it had written it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..documents import fits, parse_object, read_document
from ..errors import RunError
from ..files import cannot_write, hash_file, write_new_bytes, write_text_atomically
from .lora_file import candidates, lora_bytes, make_parents

NAME = "exported.json"
_MOST_HEADER = 100 * 2**20


@dataclass(frozen=True)
class FileMark:
    """A written file as it was then.

    Attributes:
        path: Of the file, absolute.
        sha256: Of its bytes.
        size: In bytes.
        mtime_ns: When it was changed last.
    """

    path: str
    sha256: str
    size: int
    mtime_ns: int

    def is_there(self) -> bool:
        """Whether the file is what it was; read only where size or time have changed."""
        try:
            now = Path(self.path).stat()
            if (now.st_size, now.st_mtime_ns) == (self.size, self.mtime_ns):
                return True
            return now.st_size == self.size and hash_file(Path(self.path)) == self.sha256
        except OSError:
            return False


@dataclass(frozen=True)
class Written:
    """A run's LoRA file: `new` if it was written now, else it was there; `taken`, the wanted name if another has it."""

    mark: FileMark
    new: bool
    taken: str | None

    @property
    def path(self) -> Path:
        """Of the file."""
        return Path(self.mark.path)


def write_once(
    folder: Path, path: Path, ready: Mapping[str, Tensor], *, metadata: Callable[[], Mapping[str, str]]
) -> Written:
    """The LoRA file of the run in `folder` under the wanted name, or the next that is free or its own already.

    Args:
        folder: Of the run, where a note of the file is kept.
        path: Wanted; with the suffix .safetensors.
        ready: From `export.cast_tensors`.
        metadata: Makes the file's metadata, where it must be written.

    Raises:
        RunError: The folder cannot be written, or the disk is full.
    """
    known = {mark.path: mark for mark in read_marks(folder)}
    taken = None
    for candidate in candidates(path):
        if not os.path.lexists(candidate):
            content = lora_bytes(ready, metadata())
            make_parents(candidate)
            # Somebody else may have taken it since: then it is looked at like any other.
            with contextlib.suppress(FileExistsError):
                write_new_bytes(candidate, content)
                mark = _mark(candidate, hashlib.sha256(content).hexdigest())
                _keep(folder, known, mark)
                return Written(mark, True, taken)
        digest = _own_digest(candidate, known.get(str(candidate)), ready)
        if digest is not None:
            mark = _mark(candidate, digest)
            _keep(folder, known, mark)
            return Written(mark, False, taken)
        taken = path.name
    raise AssertionError


def read_marks(folder: Path) -> list[FileMark]:
    """The files that are noted as those of the run in `folder`; of an earlier version's note, nothing."""
    document = read_document(folder / NAME, optional={"files": list}) or {}
    kinds = {"path": str, "sha256": str, "size": int, "mtime_ns": int}
    whole = [one for one in document.get("files") or [] if isinstance(one, dict)]
    whole = [one for one in whole if all(fits(one.get(key), kind) for key, kind in kinds.items())]
    return [FileMark(**{key: one[key] for key in kinds}) for one in whole]


def same_weights(path: Path, ready: Mapping[str, Tensor]) -> bool:
    """Whether a LoRA file holds these very tensors, whatever else its metadata tell."""
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if not 2 <= size <= _MOST_HEADER:
                return False
            header = parse_object(file.read(size))
            content = lora_bytes(ready, {})
            start = 8 + int.from_bytes(content[:8], "little")
            if _tensors(header) != _tensors(parse_object(content[8:start])):
                return False
            if path.stat().st_size - 8 - size != len(content) - start:
                return False
            digest, wanted = hashlib.sha256(), hashlib.sha256(memoryview(content)[start:])
            while block := file.read(1 << 20):
                digest.update(block)
            return digest.digest() == wanted.digest()
    except OSError:
        return False


def mark_of(path: Path) -> FileMark:
    """How a file that was written is now.

    Raises:
        RunError: It cannot be read.
    """
    try:
        return _mark(path, hash_file(path))
    except OSError as error:
        raise cannot_write(path, error) from error


def _tensors(header: dict[str, Any] | None) -> dict[str, Any] | None:
    return None if header is None else {key: value for key, value in header.items() if key != "__metadata__"}


def _own_digest(path: Path, known: FileMark | None, ready: Mapping[str, Tensor]) -> str | None:
    """The hash of a file that is this run's, None for any other."""
    with contextlib.suppress(OSError):
        if not path.is_file():
            return None
        if known is not None:
            return known.sha256 if hash_file(path) == known.sha256 else None
        return hash_file(path) if same_weights(path, ready) else None
    return None


def _mark(path: Path, digest: str) -> FileMark:
    try:
        state = path.stat()
        return FileMark(str(path), digest, state.st_size, state.st_mtime_ns)
    except OSError:
        # Removed this very moment: the next look finds nothing.
        return FileMark(str(path), digest, -1, 0)


def _keep(folder: Path, known: dict[str, FileMark], mark: FileMark) -> None:
    if known.get(mark.path) == mark:
        return
    files = [asdict(one) for one in (known | {mark.path: mark}).values()]
    # Without the note the file is known by its weights.
    with contextlib.suppress(RunError):
        write_text_atomically(folder / NAME, json.dumps({"files": files, "path": mark.path}))
