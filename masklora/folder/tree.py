"""Everything in a folder of pictures, walked once: picture files in natural order, other files, and what is no data."""

from __future__ import annotations

import functools
import importlib
import os
import re
import unicodedata
from collections.abc import Callable, Collection
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from PIL import Image

from ..errors import DataError
from ..findings import printable
from .leftovers import BROKEN, FOLDER, SYSTEM, Leftover, is_system
from .mask_names import is_mask_folder

IMAGE_EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif"})
# Read as well where Pillow, or a plugin of it that is installed, knows them.
MORE_EXTENSIONS = {".heic", ".heif", ".hif", ".jxl", ".jp2", ".j2k", ".jpx", ".jpf", ".jpc", ".j2c", ".jpe", ".tga"}
MORE_EXTENSIONS |= {".icb", ".vda", ".vst", ".apng", ".avifs", ".dib", ".ppm", ".pgm", ".pbm", ".pnm", ".qoi", ".mpo"}
# The plugins by the extensions that they read, and the function that makes them known to Pillow.
_PLUGINS = {
    ".heic": ("pillow_heif", "register_heif_opener"),
    ".heif": ("pillow_heif", "register_heif_opener"),
    ".hif": ("pillow_heif", "register_heif_opener"),
    ".jxl": ("pillow_jxl", ""),
}

Allowed = Callable[[Path], Path]


class File(NamedTuple):
    """A file by its folder (relative, posix), name there, stem (NFC) and extension (lower case).

    `path` may lie elsewhere under another name where the file is a link. `place` is the folder in one spelling (NFC).
    """

    path: Path
    folder: str
    name: str
    stem: str
    extension: str
    place: str

    @property
    def relative(self) -> str:
        """Folder and name, as the file system has them."""
        return join(self.folder, self.name)

    @property
    def label(self) -> str:
        """Folder and name, as they can be printed anywhere."""
        return printable(self.relative)

    @property
    def key(self) -> tuple[str, str]:
        """Folder and stem, by which files belong together."""
        return self.place, self.stem


class Tree(NamedTuple):
    """Everything one walk found: picture files in natural order, other files, and what is no data of this set."""

    images: tuple[File, ...]
    others: tuple[File, ...]
    left: tuple[Leftover, ...]


def walk(root: Path, subfolders: bool, allowed: Allowed, *, skip: Path | None) -> Tree:
    """What lies in `root`, `skip` left out; a folder that is linked back to is walked once.

    Hidden files and those of systems are no data, and links that lead nowhere are none either: both are told. Without
    subfolders, those that are named for masks are still looked at.

    Raises:
        DataError: A folder cannot be read.
        PathError: A folder or a linked file lies outside the allowed roots.
    """
    images: list[File] = []
    others: list[File] = []
    left: list[Leftover] = []
    skipped = skip.resolve() if skip is not None else None
    seen = {root.resolve()}
    pending = [(root, "", "")]
    readable = readable_extensions()
    while pending:
        folder, relative, place = pending.pop()
        for entry in _entries(folder):
            if is_system(entry.name):
                left.append(Leftover(SYSTEM, printable(join(relative, entry.name))))
                continue
            kind = _kind(entry)
            if kind == "folder":
                if not subfolders and not is_mask_folder(nfc(entry.name)):
                    left.append(Leftover(FOLDER, printable(entry.name)))
                    continue
                real = Path(entry.path).resolve() if subfolders or not relative else None
                if real is not None and real != skipped and real not in seen:
                    seen.add(real)
                    below = join(relative, entry.name), join(place, nfc(entry.name))
                    pending.append((Path(allowed(Path(entry.path))), *below))
            elif kind == "file":
                path = Path(allowed(Path(entry.path))) if entry.is_symlink() else Path(entry.path)
                stem, extension = os.path.splitext(nfc(entry.name))  # noqa: PTH122 (ten thousand of them)
                file = File(path, relative, entry.name, stem, extension.lower(), place)
                (images if is_picture(file.extension, readable) else others).append(file)
            else:
                left.append(Leftover(BROKEN, printable(join(relative, entry.name))))
    images.sort(key=lambda file: natural_key(file.relative))
    return Tree(tuple(images), tuple(others), tuple(sorted(left)))


def readable_extensions() -> frozenset[str]:
    """Extensions (lower case) of the kinds of pictures that people have and that Pillow reads here."""
    return IMAGE_EXTENSIONS | (MORE_EXTENSIONS & Image.registered_extensions().keys())


def is_picture(extension: str, readable: Collection[str]) -> bool:
    """Whether files of this extension (lower case) are pictures, by `readable_extensions` or by a plugin for them."""
    return extension in readable or _with_plugin(extension)


@functools.cache
def _with_plugin(extension: str) -> bool:
    """Whether a plugin that is installed, and was not known to Pillow yet, reads files of this extension."""
    if extension not in _PLUGINS:
        return False
    module, opener = _PLUGINS[extension]
    try:
        plugin = importlib.import_module(module)
        if opener:
            getattr(plugin, opener)()
    except (ImportError, AttributeError, OSError):
        return False
    return extension in Image.registered_extensions()


def _kind(entry: os.DirEntry[str]) -> str:
    """`folder`, `file`, or nothing for a link that leads nowhere or in a circle, and for pipes and the like."""
    try:
        return "folder" if entry.is_dir() else "file" if entry.is_file() else ""
    except OSError:
        return ""


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
