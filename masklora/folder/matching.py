"""Which picture a mask file or a caption file belongs to, by names: exact first, then whatever the case."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ..errors import MaskError
from ..findings import printable
from ..pictures.png_chunks import replaced_by
from .mask_names import MASK_EXTENSION, mask_bases
from .subjects import MaskPart, split_stem
from .tree import FRAMES, File, nfc


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
    """Pictures by folder and stem, and by folder and name, in the spelling of the file system or in any case.

    What is not asked for is not built: most names fit by their stem.
    """

    def __init__(self, pictures: Iterable[File]) -> None:
        self._pictures = list(pictures)

    def find(self, place: str, base: str) -> Match:
        """The pictures in `place` whose stem or name is `base`; none where several fit in another case only."""
        key = _key(place, base)
        for how, index in ((0, self._stems), (1, self._names)):
            if key in index:
                return Match(_several(index[key]), how)
        folded = key.casefold()
        for how, keys, index in ((2, self._folded_stems, self._stems), (3, self._folded_names, self._names)):
            found = keys.get(folded)
            if found is not None:
                return Match(_several(index[found]), how)
        return Match()

    @functools.cached_property
    def _stems(self) -> dict[str, File | list[File]]:
        return _indexed((_key(picture.place, picture.stem), picture) for picture in self._pictures)

    @functools.cached_property
    def _names(self) -> dict[str, File | list[File]]:
        return _indexed((_key(picture.place, nfc(picture.name)), picture) for picture in self._pictures)

    @functools.cached_property
    def _folded_stems(self) -> dict[str, str | None]:
        return _folded(self._stems)

    @functools.cached_property
    def _folded_names(self) -> dict[str, str | None]:
        return _folded(self._names)


def _key(place: str, base: str) -> str:
    # A text and no tuple: tens of thousands of tuples keep the garbage collector busy.
    return f"{place}\0{base}"


def _indexed(pairs: Iterable[tuple[str, File]]) -> dict[str, File | list[File]]:
    index: dict[str, File | list[File]] = {}
    for key, picture in pairs:
        before = index.get(key)
        if before is None:
            index[key] = picture
        else:
            index[key] = [*_several(before), picture]
    return index


def _several(found: File | list[File]) -> tuple[File, ...]:
    return (found,) if isinstance(found, File) else tuple(found)


def _folded(index: Iterable[str]) -> dict[str, str | None]:
    """Each key by itself in one case; None where several differ in their case only."""
    folded: dict[str, str | None] = {}
    for key in index:
        folded[key.casefold()] = None if key.casefold() in folded else key
    return folded


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


def with_sequences(
    files: Iterable[File],
    folders: Mapping[str, Path],
    index: PictureIndex,
    levels: Callable[[str], Sequence[Collection[str]] | None],
) -> list[File]:
    """`files` of a folder of masks, those of a folder in it that is the mask of a clip as that folder.

    Such a folder bears the name of a clip, as any mask does; its pictures are numbered, and none is the mask of a
    picture of its own: `masks/walk/0001.png` belongs to `walk/0001.jpg` where there is such a picture.

    Args:
        files: pictures and masks.
        folders: where each place lies.
        index: the pictures and clips.
        levels: gives what `fit` asks for by the place of a mask; None for a place outside of the folder of masks.
    """
    by_place: dict[str, list[File]] = {}
    for file in files:
        by_place.setdefault(file.place, []).append(file)
    found = []
    for place, here in by_place.items():
        above, _, name = place.rpartition("/")
        outer = levels(above) if place else None
        if outer is None or not all(_is_frame(file) for file in here):
            found += here
            continue
        folder, _, own = here[0].folder.rpartition("/")
        sequence = File(folders.get(place, Path()), folder, own, nfc(name), FRAMES, above)
        mask = fit(sequence, outer, index, ())
        inner = levels(place) or ()
        if mask is None or not any(p.moving for p in mask.pictures) or any(fit(f, inner, index, ()) for f in here):
            found += here
        else:
            found.append(sequence)
    return found


def _is_frame(file: File) -> bool:
    return file.stem[-1:].isdigit() and file.extension != MASK_EXTENSION and not file.closed


def _subject(file: File, levels: Sequence[Collection[str]], index: PictureIndex) -> MaskFile | None:
    split = split_stem(file.stem, lambda stem: bool(_at(file, stem, levels, index)))
    return None if split is None else MaskFile(file, _at(file, split[0], levels, index), subject=printable(split[1]))


def _at(file: File, base: str, levels: Sequence[Collection[str]], index: PictureIndex) -> tuple[File, ...]:
    for places in levels:
        hits = [picture for place in places for picture in index.find(place, base).pictures]
        if hits:
            return tuple(hits)
    return ()


def split_replaced(masks: Iterable[MaskFile]) -> tuple[list[MaskFile], list[tuple[File, File]]]:
    """The masks without those whose place an edited one has taken, and these, each with the one that is used.

    An edited mask of another format becomes a PNG, which says what it replaces. Where the old file is still there,
    because the edit was cut off or a backup was put back, the PNG is meant.
    """
    masks = list(masks)
    slots: dict[tuple[tuple[str, ...], str, str], list[File]] = {}
    for mask in masks:
        key = tuple(picture.relative for picture in mask.pictures), mask.subject, mask.number
        slots.setdefault(key, []).append(mask.file)
    replaced: dict[str, tuple[File, File]] = {}
    for files in slots.values():
        if len(files) == 2:
            pairs = [(old, new) for old, new in (files, files[::-1]) if _replaces(new, old)]
            replaced |= {old.relative: (old, new) for old, new in pairs} if len(pairs) == 1 else {}
    return [mask for mask in masks if mask.file.relative not in replaced], list(replaced.values())


def _replaces(new: File, old: File) -> bool:
    name = replaced_by(new.path) if new.extension == ".png" and new.place == old.place else ""
    return name != "" and nfc(name) == nfc(old.name.encode("utf-8", "replace").decode("utf-8"))


def _settled(masks: Iterable[MaskFile]) -> list[MaskFile]:
    """The masks; those that fit several pictures by their name with those alone that they can be meant for.

    A mask that moves is that of a clip, and a picture with a mask that fits nothing else needs no other.
    """
    found = []
    for mask in masks:
        several = len(mask.pictures) > 1 and mask.file.moving
        clips = tuple(picture for picture in mask.pictures if picture.moving) if several else ()
        found.append(mask._replace(pictures=clips or mask.pictures))
    own = {mask.pictures[0].relative for mask in found if len(mask.pictures) == 1}
    rest = [tuple(picture for picture in mask.pictures if picture.relative not in own) for mask in found]
    return [
        mask._replace(pictures=open_) if len(mask.pictures) > 1 and open_ else mask
        for mask, open_ in zip(found, rest, strict=True)
    ]


def assign(masks: Iterable[MaskFile], kind: str) -> dict[str, tuple[MaskPart, ...]]:
    """The mask of each picture by its relative name; several that are numbered are the parts of one.

    Raises:
        MaskError: two masks that are not numbered fit one picture, or one fits two pictures.
    """
    groups: dict[str, list[MaskFile]] = {}
    for mask in _settled(masks):
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
        chosen[relative] = tuple(MaskPart(m.number, m.file.path, moving=m.file.moving) for m in ordered)
    return chosen
