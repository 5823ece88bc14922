"""Which picture a mask file or a caption file belongs to, by names: exact first, then whatever the case."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from ..errors import MaskError
from ..findings import printable
from .mask_names import mask_bases
from .subjects import MaskPart, split_stem
from .tree import File, nfc

Key = tuple[str, str]


class Match(NamedTuple):
    """The pictures that a name fits, and how: 0 by their stem, 1 by their whole name, 2 and 3 in another case."""

    pictures: tuple[File, ...] = ()
    how: int = 0


class MaskFile(NamedTuple):
    """A mask file and the pictures that it fits: of the whole, of one `subject`, or of several by `number`."""

    file: File
    pictures: tuple[File, ...]
    subject: str = ""
    number: str = ""


class PictureIndex:
    """Pictures by folder and stem, and by folder and name, in the spelling of the file system or in any case."""

    def __init__(self, pictures: Iterable[File]) -> None:
        self._exact: tuple[dict[Key, list[File]], dict[Key, list[File]]] = ({}, {})
        self._folded: tuple[dict[Key, set[Key]], dict[Key, set[Key]]] = ({}, {})
        for picture in pictures:
            for kind, key in enumerate((picture.key, (picture.place, nfc(picture.name)))):
                self._exact[kind].setdefault(key, []).append(picture)
                self._folded[kind].setdefault(_folded(key), set()).add(key)

    def find(self, place: str, base: str) -> Match:
        """The pictures in `place` whose stem or name is `base`; none where several fit in another case only."""
        key = (place, base)
        for kind in (0, 1):
            if key in self._exact[kind]:
                return Match(tuple(self._exact[kind][key]), kind)
        folded = _folded(key)
        for kind in (0, 1):
            keys = self._folded[kind].get(folded, ())
            if len(keys) == 1:
                return Match(tuple(self._exact[kind][next(iter(keys))]), kind + 2)
        return Match()


def fit(file: File, levels: Sequence[Collection[str]], index: PictureIndex, named: Collection[str]) -> MaskFile | None:
    """Which pictures a mask file in a folder of masks belongs to; None where there is none.

    A mask has the name of its picture, or one that says mask besides, or `<picture>.<subject>`.

    Args:
        file: the mask.
        levels: the folders in which its picture may lie, those that come first before the others.
        index: the pictures.
        named: the subjects that a person has named, which no word for masks overrules.
    """
    split = _subject(file, levels, index)
    if split is not None and split.subject in named:
        return split
    for base, number in [(file.stem, ""), *((base.stem, base.number) for base in mask_bases(file.stem))]:
        pictures = _at(file, base, levels, index)
        if pictures:
            return MaskFile(file, pictures, number=number)
    return split


def _subject(file: File, levels: Sequence[Collection[str]], index: PictureIndex) -> MaskFile | None:
    split = split_stem(file.stem, lambda stem: bool(_at(file, stem, levels, index)))
    return None if split is None else MaskFile(file, _at(file, split[0], levels, index), subject=printable(split[1]))


def _at(file: File, base: str, levels: Sequence[Collection[str]], index: PictureIndex) -> tuple[File, ...]:
    for places in levels:
        hits = [picture for place in places for picture in index.find(place, base).pictures]
        if hits:
            return tuple(hits)
    return ()


def assign(masks: Iterable[MaskFile], kind: str) -> dict[str, tuple[MaskPart, ...]]:
    """The mask of each picture by its relative name; several that are numbered are the parts of one.

    Raises:
        MaskError: two masks that are not numbered fit one picture, or one fits two pictures.
    """
    groups: dict[str, list[MaskFile]] = {}
    for mask in masks:
        first, *more = mask.pictures
        if more:
            raise MaskError(
                f"{mask.file.label}: this mask fits both {first.label} and {more[0].label}. Give the pictures "
                "different names, or the masks of each folder a folder inside it."
            )
        groups.setdefault(first.relative, []).append(mask)
    chosen = {}
    for relative, found in groups.items():
        numbers = {mask.number for mask in found}
        if len(found) > 1 and (len(numbers) < len(found) or "" in numbers):
            names = ", ".join(mask.file.label for mask in found)
            raise MaskError(f"{relative}: expected one {kind} mask, got {len(found)}: {names}. Keep one.")
        ordered = sorted(found, key=lambda mask: int(mask.number or 0))
        chosen[relative] = tuple(MaskPart(mask.number, Path(mask.file.path)) for mask in ordered)
    return chosen


def _folded(key: Key) -> Key:
    return key[0].casefold(), key[1].casefold()
