"""Everything in a folder of pictures, walked once: picture files in natural order, and the others by name."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..errors import DataError

IMAGE_EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif"})
SKIPPED_FOLDERS = frozenset({"__MACOSX", "$RECYCLE.BIN"})

Allowed = Callable[[Path], Path]


@dataclass(frozen=True)
class File:
    """A picture file by its folder (relative, posix), name there, stem (NFC) and extension (lower case).

    `path` may lie elsewhere under another name where the file is a link.
    """

    path: Path
    folder: str
    name: str
    stem: str
    extension: str

    @property
    def relative(self) -> str:
        """Folder and name."""
        return join(self.folder, self.name)

    @property
    def key(self) -> tuple[str, str]:
        """Folder and stem, by which files belong together."""
        return self.folder, self.stem


@dataclass(frozen=True)
class Tree:
    """Everything one walk found: picture files in natural order, and other files by relative name."""

    images: tuple[File, ...]
    others: dict[str, Path]


def walk(root: Path, subfolders: bool, allowed: Allowed, *, skip: Path | None) -> Tree:
    """What lies in `root`, hidden files and `skip` left out; a folder that is linked back to is walked once.

    Raises:
        DataError: A folder cannot be read.
        PathError: A folder or a linked file lies outside the allowed roots.
    """
    images: list[File] = []
    others: dict[str, Path] = {}
    skipped = skip.resolve() if skip is not None else None
    seen = {root.resolve()}
    pending = [(root, "")]
    while pending:
        folder, relative = pending.pop()
        for entry in _entries(folder):
            if entry.name.startswith(".") or entry.name in SKIPPED_FOLDERS:
                continue
            if entry.is_dir():
                real = Path(entry.path).resolve() if subfolders else None
                if real is not None and real != skipped and real not in seen:
                    seen.add(real)
                    pending.append((Path(allowed(Path(entry.path))), join(relative, entry.name)))
            elif entry.is_file():
                path = Path(allowed(Path(entry.path))) if entry.is_symlink() else Path(entry.path)
                stem, extension = os.path.splitext(entry.name)  # noqa: PTH122 (ten thousand of them)
                if extension.lower() in IMAGE_EXTENSIONS:
                    images.append(File(path, relative, entry.name, nfc(stem), extension.lower()))
                else:
                    others[join(relative, f"{nfc(stem)}{extension.lower()}")] = path
    images.sort(key=lambda file: natural_key(file.relative))
    return Tree(tuple(images), others)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise DataError(f"{folder}: the folder cannot be read ({error.strerror}). Check its permissions.") from error


def natural_key(relative: str) -> tuple[object, ...]:
    """Sort key under which img2 precedes img10, folder by folder; the exact text breaks ties."""
    parts = []
    for part in PurePosixPath(relative).parts:
        pieces = re.split(r"([0-9]+)", part.casefold())
        parts.append(tuple((0, int(p), "") if i % 2 else (1, 0, p) for i, p in enumerate(pieces)))
    return (*parts, ((2, 0, relative),))


def join(folder: str, name: str) -> str:
    """A relative name in a folder that may be the root, the empty text."""
    return f"{folder}/{name}" if folder else name


def nfc(text: str) -> str:
    """One spelling of accents: macOS stores file names decomposed."""
    return unicodedata.normalize("NFC", text)
