"""Everything in a folder of pictures, walked once: pictures and clips in natural order, other files, and the rest."""

from __future__ import annotations

import functools
import importlib
import os
import unicodedata
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from ..clips.header import ANIMATED_EXTENSIONS, CLIP_EXTENSIONS
from ..clips.reading import is_animated
from ..errors import DataError
from ..file_names import natural_key
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

# A folder whose name ends so is one clip, and the pictures in it are its frames.
FRAMES = ".frames"

Allowed = Callable[[Path], Path]


class File(NamedTuple):
    """A file by its folder (relative, posix), name there, stem (NFC) and extension (lower case).

    `path` may lie elsewhere under another name where the file is a link. `place` is the folder in one spelling (NFC).
    A folder of frames counts as a file, with the extension `FRAMES`.
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

    @property
    def closed(self) -> bool:
        """Whether it is a clip by its name, which no reader of pictures can open."""
        return self.extension in CLIP_EXTENSIONS or self.extension == FRAMES

    @property
    def moving(self) -> bool:
        """Whether it is a clip; a file that may be animated is looked into."""
        return self.closed or (self.extension in ANIMATED_EXTENSIONS and is_animated(self.path))


class Tree(NamedTuple):
    """Everything one walk found: pictures and clips in natural order, other files, and what is no data of this set.

    `folders` are the folders that were looked into, by their `place`.
    """

    images: tuple[File, ...]
    others: tuple[File, ...]
    left: tuple[Leftover, ...]
    folders: Mapping[str, Path]


def walk(
    root: Path,
    subfolders: bool,
    allowed: Allowed,
    *,
    skip: Collection[Path] = (),
    always: Callable[[str], bool] = is_mask_folder,
) -> Tree:
    """What lies in `root`, the folders in `skip` left out; a folder that is linked back to is walked once.

    Hidden files and those of systems are no data, and links that lead nowhere are none either: both are told. Without
    subfolders, those are still looked at whose name (NFC) `always` answers to: by default, those named for masks.

    Raises:
        DataError: A folder cannot be read.
        PathError: A folder or a linked file lies outside the allowed roots.
    """
    images: list[File] = []
    others: list[File] = []
    left: list[Leftover] = []
    seen = {root.resolve(), *(folder.resolve() for folder in skip)}
    folders: dict[str, Path] = {}
    pending = [(root, "", "")]
    readable = readable_extensions()
    while pending:
        folder, relative, place = pending.pop()
        folders[place] = folder
        for entry in _entries(folder):
            if is_system(entry.name):
                left.append(Leftover(SYSTEM, printable(join(relative, entry.name))))
                continue
            kind = _kind(entry)
            if kind == "folder" and is_folder_of_frames(entry.name):
                images.append(_folder_of_frames(entry, relative, place, allowed))
            elif kind == "folder":
                if not subfolders and not always(nfc(entry.name)):
                    left.append(Leftover(FOLDER, printable(entry.name)))
                    continue
                real = Path(entry.path).resolve() if subfolders or not relative else None
                if real is not None and real not in seen:
                    seen.add(real)
                    below = join(relative, entry.name), join(place, nfc(entry.name))
                    pending.append((Path(allowed(Path(entry.path))), *below))
            elif kind == "file":
                path = Path(allowed(Path(entry.path))) if entry.is_symlink() else Path(entry.path)
                stem, extension = os.path.splitext(nfc(entry.name))  # noqa: PTH122 (ten thousand of them)
                file = File(path, relative, entry.name, stem, extension.lower(), place)
                known = is_picture(file.extension, readable) or file.extension in CLIP_EXTENSIONS
                (images if known else others).append(file)
            else:
                left.append(Leftover(BROKEN, printable(join(relative, entry.name))))
    images.sort(key=lambda file: natural_key(file.relative))
    return Tree(tuple(images), tuple(others), tuple(sorted(left)), folders)


def is_folder_of_frames(name: str) -> bool:
    """Whether a folder of this name is one clip, such as `walk.frames`."""
    return name.lower().endswith(FRAMES) and len(name) > len(FRAMES)


def _folder_of_frames(entry: os.DirEntry[str], relative: str, place: str, allowed: Allowed) -> File:
    path = Path(allowed(Path(entry.path)))
    check_frames(path, allowed)
    return File(path, relative, entry.name, nfc(entry.name)[: -len(FRAMES)], FRAMES, place)


def check_frames(folder: Path, allowed: Allowed) -> None:
    """Nothing if every frame in a folder may be read: each may be a link.

    Raises:
        DataError: The folder cannot be read.
        PathError: A frame lies outside the allowed roots.
    """
    for entry in _entries(folder):
        if entry.is_symlink():
            allowed(Path(entry.path))


def readable_extensions() -> frozenset[str]:
    """Extensions (lower case) of the kinds of pictures that people have and that Pillow reads here."""
    return IMAGE_EXTENSIONS | (MORE_EXTENSIONS & Image.registered_extensions().keys())


def listed_extensions() -> frozenset[str]:
    """Those of pictures and clips, that of folders of frames among them."""
    return readable_extensions() | CLIP_EXTENSIONS | {FRAMES}


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


def join(folder: str, name: str) -> str:
    """A relative name in a folder that may be the root, the empty text."""
    return f"{folder}/{name}" if folder else name


def nfc(text: str) -> str:
    """One spelling of accents: macOS stores file names decomposed."""
    return unicodedata.normalize("NFC", text)
