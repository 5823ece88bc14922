"""Files that a person sends into a folder of pictures: which are taken, under which names, and how much of them."""

from __future__ import annotations

import threading
from pathlib import Path

from ..clips.header import CLIP_EXTENSIONS
from ..clips.reading import read_clip_header
from ..dataset.sample import naming
from ..errors import DataError, MaskLoraError
from ..file_names import name_fault, safe_name
from ..files import clear_leftovers, free_bytes, name_new_file
from ..folder.caption_files import METADATA, MOST_METADATA
from ..folder.captions import LONGEST_CAPTION, TEXT_EXTENSIONS
from ..folder.folder_names import tidy
from ..folder.leftovers import is_system
from ..folder.mask_names import MASK_EXTENSION
from ..folder.tree import Allowed, is_picture, readable_extensions
from ..pictures.reading import read_header

MOST_FILES = 20_000
# What other programs, and ComfyUI's own outputs, need on the disk.
ROOM_LEFT = 1 << 30
DEEPEST = 8
# How many times the bytes of a picture a clip may have: 2 GB where ComfyUI takes 100 MB.
CLIP_TIMES = 20
_TEXT_BYTES = 4 * LONGEST_CAPTION + 4


class TooMuchError(MaskLoraError):
    """More than was announced or is taken; says how much is."""


class NoRoomError(MaskLoraError):
    """The disk has too little room; says how much there is."""


class NameTakenError(MaskLoraError):
    """A file or folder of that name is there, and stays as it is."""


def accepted_extensions() -> list[str]:
    """The endings of the files that are taken, each with its dot, sorted; `metadata.jsonl` is taken besides."""
    return sorted({*readable_extensions(), *CLIP_EXTENSIONS, *TEXT_EXTENSIONS, MASK_EXTENSION})


def most_bytes(name: str, most: int) -> int:
    """How large a file of that name may be, where a picture may have `most` bytes; 0 for one that is not taken at all.

    A clip may be larger, as many pictures as it holds.
    """
    extension = Path(name).suffix.lower()
    if name.lower() == METADATA:
        return min(most, MOST_METADATA)
    if extension in TEXT_EXTENSIONS:
        return min(most, _TEXT_BYTES)
    if extension in CLIP_EXTENSIONS:
        return CLIP_TIMES * most
    return most if extension == MASK_EXTENSION or is_picture(extension, readable_extensions()) else 0


def new_folder_name(text: str, *, root: Path) -> str:
    """The folder that a person named, below `root`, with `/` between folders.

    Raises:
        DataError: It is none, leads out, or not every system takes it; says what to do.
    """
    name = tidy(text).replace("\\", "/").strip("/") if not text.strip().startswith(("/", "\\")) else ""
    parts = name.split("/")
    if not name or any(part.strip() in ("", ".", "..") for part in parts) or len(parts) > DEEPEST:
        raise DataError(f"folder: expected a name for a folder in ComfyUI's input folder, got {text[:60]!r}.")
    hidden = next((part for part in parts if is_system(part)), None)
    if hidden is not None:
        raise DataError(f"folder: {hidden[:60]!r} is a name of hidden folders and of systems. Choose another.")
    fault = name_fault(name, folder=root, tail="")
    if fault:
        raise DataError(f"folder: {fault}")
    return name


class Arrival:
    """What one person sends into one folder: a number of files and bytes that was announced, and no more.

    Attributes:
        name: The folder below the root, as `new_folder_name` gives it.
    """

    def __init__(self, root: Path, name: str, *, files: int, size: int, allowed: Allowed, add: bool = False) -> None:
        """Nothing is written yet; the folder is made with its first file.

        Args:
            root: The folder in which people's folders lie.
            name: From `new_folder_name`.
            files: How many will come, 1 to `MOST_FILES`.
            size: How many bytes they have together.
            allowed: Returns the real path of a folder that may be written to, raises `PathError` for any other.
            add: Whether they may come to files that are in the folder already.

        Raises:
            TooMuchError, NoRoomError: They are too many, or too large for the disk.
            NameTakenError: The folder holds files, and `add` is not set; or there is a file of its name.
            PathError: It is a link that leads out.
        """
        self.name, self._allowed = name, allowed
        self._folder = Path(allowed(root / name))
        self._files, self._bytes = files, size
        # Several files come at a time.
        self._lock = threading.Lock()
        if not 1 <= files <= MOST_FILES:
            raise TooMuchError(f"Expected 1 to {MOST_FILES} files at a time, got {files}. Send them in parts.")
        self._check_room(size)
        if self._folder.exists() and not self._folder.is_dir():
            raise NameTakenError(f"folder: {name} is a file in ComfyUI's input folder. Choose another name.")
        clear_leftovers(self._folder, suffixes=())
        if not add and self._folder.is_dir() and any(self._folder.iterdir()):
            raise NameTakenError(
                f"folder: {name} is there already, with files in it. Add to it, or choose another name."
            )

    def place(self, relative: str, size: int) -> Path:
        """Where a file goes, its name made safe; its folder is there by then, and its bytes are counted.

        Args:
            relative: Its name below the folder, with `/` between folders.
            size: Its bytes.

        Raises:
            DataError: A name that leads out, that is too long, or of a kind that is not taken.
            NameTakenError: There is a file of its name.
            TooMuchError: More files or bytes than were announced.
            NoRoomError: The disk has become too full.
            PathError: A folder on the way is a link that leads out.
        """
        parts = _safe_parts(relative, self._folder)
        # A folder on the way may be a link, also by now.
        folder = Path(self._allowed(self._folder.joinpath(*parts[:-1])))
        target = folder / parts[-1]
        self._refuse_taken(target, relative)
        self._check_room(size)
        with self._lock:
            if not self._files or size > self._bytes:
                raise TooMuchError(f"{relative}: more files or bytes come than were announced. Begin anew.")
            self._files, self._bytes = self._files - 1, self._bytes - size
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(
                f"{relative}: its folder cannot be made ({error.strerror}). Choose another name."
            ) from error
        return Path(self._allowed(folder)) / parts[-1]

    def give_back(self, size: int) -> None:
        """Count a file of `size` bytes as not come, which may be tried again."""
        with self._lock:
            self._files, self._bytes = self._files + 1, self._bytes + size

    def keep(self, temporary: Path, target: Path, relative: str) -> str:
        """Give a file that has come whole its name; what it is called below the folder now.

        Raises:
            DataError: It is named like a picture or a clip and is none; `temporary` is gone.
            NameTakenError: There is a file of its name by now; `temporary` is gone.
            RunError: The folder cannot be written.
        """
        if target.suffix.lower() not in TEXT_EXTENSIONS and target.name.lower() != METADATA:
            with naming(temporary, relative):
                (read_clip_header if target.suffix.lower() in CLIP_EXTENSIONS else read_header)(temporary)
        try:
            name_new_file(temporary, target)
        except FileExistsError as error:
            raise _taken(relative) from error
        return target.relative_to(self._folder).as_posix()

    def _refuse_taken(self, target: Path, relative: str) -> None:
        if target.is_symlink() or target.exists():
            raise _taken(relative)

    def _check_room(self, size: int) -> None:
        room = room_in(self._folder)
        if size > room:
            raise NoRoomError(
                f"The disk of ComfyUI's input folder has room for {room / 1e6:.0f} MB, {size / 1e6:.0f} MB come. Make "
                "room there."
            )


def room_in(folder: Path) -> int:
    """How many bytes may come into a folder, which need not exist yet."""
    try:
        return max(0, free_bytes(folder) - ROOM_LEFT)
    except OSError:
        # Writing tells what is the matter.
        return 1 << 50


def _taken(relative: str) -> NameTakenError:
    return NameTakenError(f"{relative}: a file of this name is there already, and stays as it is.")


def _leads_away(relative: str) -> bool:
    return "\\" in relative or "\0" in relative or relative[1:2] == ":"


def _safe_parts(relative: str, folder: Path) -> list[str]:
    """The parts of a file's name below its folder, each as every system takes it."""
    given = relative.split("/")
    if any(part.strip() in ("", ".", "..") for part in given) or _leads_away(relative):
        raise DataError(f"{relative[:60]!r} is no name of a file below a folder. Rename it.")
    if len(given) > DEEPEST or len(relative) > 2000:
        raise DataError(f"{relative[:60]}… lies too deep: expected at most {DEEPEST} folders. Move it up.")
    if not most_bytes(given[-1], 1):
        kinds = ", ".join(extension[1:] for extension in accepted_extensions())
        raise DataError(f"{relative}: expected a picture, a clip, a mask or a caption: {kinds} or {METADATA}.")
    stem, dot, extension = given[-1].rpartition(".")
    parts = [safe_name(part) for part in (*given[:-1], stem)]
    if not all(parts) or any(is_system(part) for part in parts):
        raise DataError(f"{relative}: hidden files, and those of systems, are not taken. Rename it.")
    parts[-1] += dot + extension
    fault = name_fault("/".join(parts), folder=folder, tail="")
    if fault:
        raise DataError(f"{relative}: {fault}")
    return parts
