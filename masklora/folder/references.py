"""The references of a folder's pictures: of each reference folder the file that has the picture's name."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ..errors import DataError
from ..findings import printable
from .caption_files import passed_over
from .leftovers import Leftover
from .matching import PictureIndex
from .tree import Allowed, File, walk


class FoundReference(NamedTuple):
    """A reference's file, its name with that of its folder, and whether it is a clip."""

    path: Path
    label: str
    moving: bool


@dataclass
class References:
    """What was found in the reference folders.

    Attributes:
        folders: Their names, in order.
        found: By the picture's relative name one for each folder, None where the folder has none.
        extra: Labels of those that fit no picture.
        left: Files that are no pictures.
    """

    folders: tuple[str, ...] = ()
    found: dict[str, tuple[FoundReference | None, ...]] = field(default_factory=dict)
    extra: list[str] = field(default_factory=list)
    left: list[Leftover] = field(default_factory=list)

    def of(self, relative: str) -> tuple[FoundReference | None, ...]:
        """Those of a picture, one for each folder."""
        return self.found.get(relative, (None,) * len(self.folders))


def find_references(
    folders: Sequence[Path],
    pictures: Sequence[File],
    index: PictureIndex,
    *,
    subfolders: bool,
    others: Collection[Path],
    allowed: Allowed,
) -> References:
    """The references of all pictures, matched by relative path and stem as masks are, whatever their extension.

    Args:
        folders: The reference folders, in order.
        pictures: Those of the set.
        index: The same pictures.
        subfolders: Whether subfolders are looked into.
        others: The folders of pictures and masks, in which no reference is looked for where they lie inside of one.
        allowed: As `walk` asks it.

    Raises:
        DataError: A folder has no reference for any picture, two for one, or one for two.
        PathError: A folder or linked file lies outside the allowed roots.
    """
    result = References(tuple(folder.name for folder in folders))
    for number, folder in enumerate(folders):
        skip = [other for other in (*others, *folders) if other != folder]
        tree = walk(folder, subfolders, allowed, skip=skip, always=lambda name: False)
        result.left += [*tree.left, *passed_over(tree)]
        taken: dict[str, str] = {}
        for file in tree.images:
            label = f"{printable(folder.name)}/{file.label}"
            fitting = index.find(file.place, file.stem).pictures
            if not fitting:
                result.extra.append(label)
                continue
            first = _only(label, fitting)
            if first in taken:
                raise DataError(
                    f"{printable(first)}: expected one reference in {folder}, got two: {taken[first]} and {label}. "
                    "Keep one; several references of a picture lie in a reference folder each."
                )
            taken[first] = label
            each = list(result.of(first))
            each[number] = FoundReference(file.path, label, file.moving)
            result.found[first] = tuple(each)
        if not taken:
            begins = tree.images[0].label if tree.images else "no picture file at all"
            raise DataError(
                f"reference_folders: no file in {folder} has the name of a picture. The first picture is "
                f"{pictures[0].label}, the folder begins with {begins}. A reference has its picture's name (any "
                "extension) in the same subfolder."
            )
    return result


def _only(label: str, fitting: Sequence[File]) -> str:
    first, *more = fitting
    if more:
        raise DataError(
            f"{label}: this reference fits both {first.label} and {more[0].label}. Give the pictures different names."
        )
    return first.relative
