"""Which folders of pictures lie below a root, counted by names alone: no file is opened, and looking ends in time."""

from __future__ import annotations

import os
import time
from collections import Counter, deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ..clips.header import CLIP_EXTENSIONS
from ..errors import MaskError, PathError
from ..folder.leftovers import is_system
from ..folder.mask_names import MASK_EXTENSION, folder_base, is_mask_folder
from ..folder.roles import roles_of, zone_of
from ..folder.tree import FRAMES, Allowed, File, is_folder_of_frames, is_picture, join, nfc, readable_extensions

# No file is opened.
_UNREAD = Path()


class Bounds(NamedTuple):
    """Where looking ends: folders and files that are looked at, and seconds until no more are."""

    folders: int = 20_000
    files: int = 200_000
    seconds: float = 6.0


class PictureFolder(NamedTuple):
    """A folder to choose, by its name below the root (posix; empty for the root).

    `pictures` and `masks` count what loading it with its subfolders would find: pictures, clips among them, and those
    of them that have a mask by its name, which is None where time was too short or masks do not tell. `changed` is in
    seconds since 1970. `clips` counts those of the pictures that are clips by their names: whether a GIF moves does not
    show there.
    """

    relative: str
    pictures: int
    masks: int | None
    changed: float
    clips: int = 0


class Overview:
    """What was looked at so far, over one root or several; a folder that two of them hold is told once.

    `complete` is False once a bound was met.
    """

    def __init__(self, allowed: Allowed, *, bounds: Bounds, left_out: Collection[Path] = ()) -> None:
        """Nothing is looked at yet.

        Args:
            allowed: returns the real path of a folder that may be read, raises `PathError` for any other.
            bounds: time counts from now.
            left_out: real paths of folders that hold no data sets.
        """
        self._allowed, self._bounds = allowed, bounds
        self._seen = set(left_out)
        self._end = time.monotonic() + bounds.seconds
        self._folders = self._files = 0
        self._readable = readable_extensions()
        self._taken = {MASK_EXTENSION, *CLIP_EXTENSIONS}
        self.complete = True

    def below(self, root: Path, *, itself: bool = True) -> list[PictureFolder]:
        """The folders of pictures below `root`, and `root` where it counts `itself`, those nearer to it first.

        A folder without pictures of its own is one where several below it have some, or one beside a folder of masks.
        What cannot be read, is hidden, or belongs to a system is passed over, and so are links that lead out.
        """
        top = self._walk(root)
        choices = [] if top is None else _choices(top, itself)
        # Those inside first: most that hold them have nothing else to count.
        for folder in reversed(choices):
            folder.found = _sum(folder) or self._counted(folder)
        return [folder.found for folder in choices if folder.found is not None]

    def _walk(self, root: Path) -> _Folder | None:
        top = self._enter(root, "")
        pending = deque([] if top is None else [top])
        while pending:
            folder = pending.popleft()
            for name in self._scan(folder):
                below = self._enter(folder.path / name, join(folder.relative, name))
                if below is not None:
                    folder.below.append(below)
                    pending.append(below)
        return top

    def _enter(self, path: Path, relative: str) -> _Folder | None:
        """A folder that may be read and was not looked at before, while there is time and room."""
        try:
            real = path.resolve()
            # What leads nowhere else is allowed where the folder around it is.
            real = real if relative and real == path else Path(self._allowed(path))
        except (PathError, OSError, RuntimeError, ValueError):
            return None
        if real in self._seen:
            return None
        over = self._folders >= self._bounds.folders or self._files >= self._bounds.files
        if over or time.monotonic() > self._end:
            self.complete = False
            return None
        self._seen.add(real)
        self._folders += 1
        return _Folder(real, relative, nfc(relative))

    def _scan(self, folder: _Folder) -> list[str]:
        """Takes over the files of a folder; the names of those in it."""
        below = []
        try:
            folder.changed = folder.path.stat().st_mtime
            with os.scandir(folder.path) as entries:
                for entry in entries:
                    self._files += 1
                    late = self._files % 1000 == 0 and time.monotonic() > self._end
                    if late or self._files > self._bounds.files:
                        self.complete = False
                        break
                    if not is_system(entry.name) and self._take(entry, folder):
                        below.append(entry.name)
        except OSError:
            return []
        return sorted(below)

    def _take(self, entry: os.DirEntry[str], folder: _Folder) -> bool:
        """Whether an entry is a folder; a file that may be a picture or a mask is taken over."""
        try:
            if entry.is_dir():
                frames = is_folder_of_frames(entry.name)
                if frames:
                    stem = nfc(entry.name)[: -len(FRAMES)]
                    folder.files.append(File(_UNREAD, folder.relative, entry.name, stem, FRAMES, folder.place))
                return not frames
            if not entry.is_file():
                return False
        except OSError:
            # A link in a circle.
            return False
        stem, extension = os.path.splitext(nfc(entry.name))  # noqa: PTH122 (a hundred thousand of them)
        extension = extension.lower()
        if extension in self._taken or is_picture(extension, self._readable):
            folder.files.append(File(_UNREAD, folder.relative, entry.name, stem, extension, folder.place))
        return False

    def _counted(self, folder: _Folder) -> PictureFolder:
        files = list(_relative_to(folder))
        images = [file for file in files if file.extension != MASK_EXTENSION]
        changed = max(one.changed for one in _within(folder))
        if time.monotonic() > self._end:
            self.complete = False
            return _uncounted(folder, images, changed)
        others = [file for file in files if file.extension == MASK_EXTENSION]
        try:
            roles = roles_of(images, others, source="auto", captioned=tuple, by_colour=False, named=(), looks=False)
        except MaskError:
            return _uncounted(folder, images, changed)
        masked = {picture.relative for mask in (*roles.below, *roles.beside) for picture in mask.pictures}
        clips = sum(picture.closed for picture in roles.pictures)
        return PictureFolder(folder.relative, len(roles.pictures), len(masked), changed, clips)


@dataclass(eq=False)
class _Folder:
    """A folder as it was walked; `files` are pictures, masks among them."""

    path: Path
    relative: str
    place: str
    changed: float = 0.0
    files: list[File] = field(default_factory=list)
    below: list[_Folder] = field(default_factory=list)
    found: PictureFolder | None = None

    @property
    def name(self) -> str:
        return self.place.rpartition("/")[2]


def _choices(top: _Folder, itself: bool) -> list[_Folder]:
    """The folders that a person may choose, those nearer to `top` first."""
    found = []
    pending = deque([top])
    while pending:
        folder = pending.popleft()
        # What lies in a root that is no folder of somebody's belongs to no one folder there.
        counts = itself or folder is not top
        pending.extend(below for below in folder.below if not _is_of_others(below, folder, inside=counts))
        if counts and _is_choice(folder):
            found.append(folder)
    return found


def _sum(folder: _Folder) -> PictureFolder | None:
    """What the folders inside have together; None where one is of masks, or the folder has pictures of its own."""
    inner: list[PictureFolder] = []
    changed = folder.changed
    pending = [folder]
    while pending:
        one = pending.pop()
        if one.files and one.found is None:
            return None
        if one is not folder and is_mask_folder(one.name) and _has_pictures(one):
            return None
        if one.found is not None:
            inner.append(one.found)
        else:
            changed = max(changed, one.changed)
            pending += one.below
    masks = [one.masks for one in inner if one.masks is not None]
    return PictureFolder(
        folder.relative,
        sum(one.pictures for one in inner),
        sum(masks) if len(masks) == len(inner) else None,
        max([changed, *(one.changed for one in inner)]),
        sum(one.clips for one in inner),
    )


def _within(folder: _Folder) -> Iterator[_Folder]:
    # Folders may lie deeper than Python calls functions.
    pending = [folder]
    while pending:
        one = pending.pop()
        yield one
        pending += one.below


def _relative_to(top: _Folder) -> Iterator[File]:
    """The files at and below a folder, as if that were the root."""
    cut, cut_place = (f"{text}/" if text else "" for text in (top.relative, top.place))
    for folder in _within(top):
        below = folder is not top
        inner = (
            folder.relative.removeprefix(cut) if below else "",
            folder.place.removeprefix(cut_place) if below else "",
        )
        for file in folder.files:
            yield file._replace(folder=inner[0], place=inner[1]) if cut else file


def _uncounted(folder: _Folder, images: list[File], changed: float) -> PictureFolder:
    """A folder whose masks do not tell: the files in it that lie in no folder that is named for masks."""
    clips = _outside_of_masks([file for file in images if file.closed])
    return PictureFolder(folder.relative, _outside_of_masks(images), None, changed, clips)


def _outside_of_masks(images: list[File]) -> int:
    """How many files lie in no folder that is named for masks."""
    by_place = Counter(file.place for file in images)
    return sum(count for place, count in by_place.items() if zone_of(place) is None)


def _has_pictures(folder: _Folder) -> bool:
    return any(one.files for one in _within(folder))


def _is_choice(folder: _Folder) -> bool:
    if folder.files:
        return True
    inner = [below for below in folder.below if _has_pictures(below)]
    return len(inner) > 1


def _is_of_others(folder: _Folder, parent: _Folder, *, inside: bool) -> bool:
    """Whether a folder named for masks holds those of pictures beside it, or `inside` its parent, and is no choice."""
    # One that is called alpha as often holds cut-outs, which are pictures.
    if not is_mask_folder(folder.name) or "mask" not in folder.name.casefold():
        return False
    beside = [one for one in parent.below if one is not folder]
    base = folder_base(folder.name).casefold()
    if base:
        return any(one.name.casefold() == base for one in beside)
    return inside and (bool(parent.files) or any(_has_pictures(one) for one in beside))
