"""What each picture file of a folder is: a picture to learn from, or a mask beside it or in a folder of masks.

Names decide, but no picture becomes a mask in silence: a file that has a caption of its own, or is in colours, is asked
about.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ..errors import MaskError
from ..findings import counted, worded
from ..pictures.colours import in_colours
from .leftovers import DOUBLE, LONE_MASK, MASK, ODD_MASK, Leftover, shown
from .look_alikes import look_alikes
from .mask_names import (
    MASK_EXTENSION,
    folder_base,
    has_mask_word,
    hinted_bases,
    is_bare_mask_name,
    is_mask_folder,
    mask_bases,
)
from .matching import MaskFile, PictureIndex, fit, with_sequences
from .tree import File, join

_MASK_LIKE = (
    "[file is named like a mask, but has a caption of its own or is in colours, and is taken as a picture|"
    "files are named like masks, but have a caption of their own or are in colours, and are taken as pictures]"
)
_GREY = (
    "[file is grey and is named after a picture in colours, and is taken as a picture|files are grey and are named "
    "after pictures in colours, and are taken as pictures]"
)
# The choices under which files beside the pictures are masks.
BESIDE = ("auto", "sidecar")


@dataclass
class Roles:
    """The files of a folder by what they are.

    Attributes:
        pictures: To learn from, in natural order.
        beside: Masks beside their pictures.
        below: Masks in folders that are named for masks.
        lone: Names of masks whose pictures are not here.
        left: Files that are neither learned from nor masks of anything.
        warnings: What a person should know of the choices that were made.
    """

    pictures: list[File] = field(default_factory=list)
    beside: list[MaskFile] = field(default_factory=list)
    below: list[MaskFile] = field(default_factory=list)
    lone: list[str] = field(default_factory=list)
    left: list[Leftover] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


class Zone(NamedTuple):
    """A folder that is named for masks: the folder it lies in, and its name."""

    parent: str
    name: str


def roles_of(
    images: Iterable[File],
    others: Iterable[File],
    *,
    source: str,
    captioned: Callable[[], Collection[tuple[str, str]]],
    by_colour: bool,
    named: Collection[str],
    looks: bool = True,
    folders: Mapping[str, Path] | None = None,
) -> Roles:
    """What each file of a folder is.

    Args:
        images: the pictures and clips, in natural order.
        others: the other files, among which those with the extension `.mask` are masks.
        source: the mask source that was chosen.
        captioned: gives folder and stem (case folded) of every file that has a caption of its own; asked if needed.
        by_colour: whether colours speak against a mask, which they do not where one channel of it was chosen.
        named: the subjects that a person has named.
        looks: whether pictures of like names are opened to see if one is a mask. Without it, and without `by_colour`,
            names alone decide.
        folders: where each folder lies, as `Tree.folders` gives them.

    Raises:
        MaskError: a file may be a mask as well as a picture, and the source does not say which; or a mask fits
            pictures in several folders.
    """
    images = list(images)
    masks = [file for file in others if file.extension == MASK_EXTENSION]
    zones: dict[str, Zone | None] = {}
    sorting = _Sorting(source, captioned, by_colour, looks)
    inside: dict[Zone, list[File]] = {}
    outside: list[File] = []
    for file in (*images, *masks):
        if file.place not in zones:
            zones[file.place] = zone_of(file.place)
        zone = zones[file.place]
        inside.setdefault(zone, []).append(file) if zone is not None else outside.append(file)
    sorting.sort_beside(outside)
    sorting.sort_zones(inside, PictureIndex(sorting.pictures.values()), named, folders or {})
    return sorting.result(images)


def zone_of(place: str) -> Zone | None:
    """The outermost folder named for masks that a folder is, or lies in."""
    parts = place.split("/")
    for number, part in enumerate(parts):
        if part and is_mask_folder(part):
            return Zone("/".join(parts[:number]), part)
    return None


class _Sorting:
    """The sorting of one folder's files."""

    def __init__(
        self, source: str, captioned: Callable[[], Collection[tuple[str, str]]], by_colour: bool, looks: bool
    ) -> None:
        self.source, self.captioned = source, functools.cache(captioned)
        self.by_colour, self.looks = by_colour, looks
        self.pictures: dict[str, File] = {}
        self.roles = Roles()
        self.asked: list[tuple[File, File]] = []
        self.kept: list[tuple[File, File]] = []

    def result(self, images: list[File]) -> Roles:
        if self.asked:
            raise MaskError(_question(self.asked))
        roles = self.roles
        if self.kept:
            told = [f"{file.label} (beside {picture.label})" for file, picture in self.kept]
            roles.warnings.append(
                f"{counted(len(told), _MASK_LIKE)}: {shown(told)}. Choose mask_source sidecar if "
                f"{worded(len(told), '[it is a mask|they are masks]')}."
            )
        if self.looks and self.source != "none":
            self._take_doubles()
        roles.pictures = [file for file in images if file.relative in self.pictures]
        return roles

    def _take_doubles(self) -> None:
        """Black-and-white doubles of pictures are left out; those in greys stay pictures, which is told."""
        masks, grey = look_alikes(self.pictures.values(), self._has_caption)
        for file in masks:
            del self.pictures[file.relative]
            self.roles.left.append(Leftover(DOUBLE, file.label))
        if grey:
            self.roles.warnings.append(
                f"{counted(len(grey), _GREY)}: {shown(file.label for file in grey)}. If "
                f"{worded(len(grey), '[it is a mask, call it|they are masks, call each]')} <picture>_mask.png, or name "
                "their folder as mask_folder."
            )

    def _has_caption(self, file: File) -> bool:
        return (file.place, file.stem.casefold()) in self.captioned()

    def sort_beside(self, files: list[File]) -> None:
        """Pictures and the masks beside them."""
        index = PictureIndex(file for file in files if file.extension != MASK_EXTENSION)
        masks: list[tuple[MaskFile, bool]] = []
        lone: list[File] = []
        odd: list[File] = []
        for file in files:
            found = _beside(file, index)
            if found is not None:
                masks.append(found)
            elif file.extension != MASK_EXTENSION and (is_bare_mask_name(file.stem) or _is_hinted(file, index)):
                odd.append(file)
            elif file.extension == MASK_EXTENSION or any(base.sure for base in mask_bases(file.stem)):
                lone.append(file)
            else:
                self.pictures[file.relative] = file
        self._take(masks, self.roles.beside)
        self._take_odd(odd)
        self._take_lone(lone)

    def sort_zones(
        self,
        zones: dict[Zone, list[File]],
        index: PictureIndex,
        named: Collection[str],
        folders: Mapping[str, Path],
    ) -> None:
        """The masks in folders that are named for them; a folder none of whose files fits may hold pictures."""
        places = _places_beside({file.place for file in self.pictures.values()})
        for zone, files in zones.items():
            files = with_sequences(files, folders, index, functools.partial(_levels_inside, zone, places=places))
            fitting: list[tuple[MaskFile, bool]] = []
            lone = []
            for file in files:
                mask = fit(file, _levels(zone, file.place, places), index, named)
                if mask is None:
                    lone.append(file)
                else:
                    fitting.append((mask, True))
            self._take(fitting, self.roles.below)
            if fitting:
                self.roles.lone += [file.label for file in lone]
            else:
                self._take_lone(lone, folder=join(zone.parent, zone.name))

    def _take(self, masks: list[tuple[MaskFile, bool]], into: list[MaskFile]) -> None:
        """Each mask into its list, to the pictures, or left out, as the source and the file itself say."""
        # A subject's mask may have the subject's caption beside it.
        captions = [not mask.subject for mask, _ in masks]
        judged = self._are_pictures([mask.file for mask, _ in masks], captions, asked=self.source != "sidecar")
        taken = []
        for (mask, sure), like_picture in zip(masks, judged, strict=True):
            if like_picture and sure and self.source == "auto":
                self.asked.append((mask.file, mask.pictures[0]))
            elif like_picture and (not sure or self.source not in BESIDE):
                self.pictures[mask.file.relative] = mask.file
                self.kept.append((mask.file, mask.pictures[0]))
            else:
                taken.append(mask)
        names = {mask.file.relative for mask in taken}
        for mask in taken:
            pictures = tuple(picture for picture in mask.pictures if picture.relative not in names)
            if self.source in BESIDE and pictures:
                into.append(mask._replace(pictures=pictures))
            else:
                self.roles.left.append(Leftover(MASK, mask.file.label))

    def _take_odd(self, files: list[File]) -> None:
        """What is perhaps a mask of a picture that is here is no picture, unless it has a caption or colours."""
        judged = self._are_pictures(files, [True] * len(files), asked=True)
        alone = not self.pictures
        for file, like_picture in zip(files, judged, strict=True):
            if like_picture or (alone and is_bare_mask_name(file.stem)):
                self.pictures[file.relative] = file
            else:
                self.roles.left.append(Leftover(ODD_MASK, file.label))

    def _take_lone(self, files: list[File], folder: str = "") -> None:
        """Masks without a picture are left out, where others are the pictures; what looks like a picture is one."""
        judged = self._are_pictures(files, [True] * len(files), asked=bool(self.pictures), cutouts=True)
        alone = not self.pictures
        taken = []
        for file, like_picture in zip(files, judged, strict=True):
            if file.extension != MASK_EXTENSION and (like_picture or alone):
                self.pictures[file.relative] = file
                taken.append(file)
            elif folder:
                self.roles.lone.append(file.label)
            else:
                self.roles.left.append(Leftover(LONE_MASK, file.label))
        if taken and folder:
            self.roles.warnings.append(
                f"the files in {folder} are taken as pictures. If they are masks, name {folder} as mask_folder."
            )
        # What has a caption of its own is meant as a picture, whatever its name.
        elif taken := [file for file in taken if not self._has_caption(file)]:
            first, base = taken[0].label, next(base.stem for base in mask_bases(taken[0].stem) if base.sure)
            more = f" So are {len(taken) - 1} more: {shown(file.label for file in taken[1:])}." if taken[1:] else ""
            self.roles.warnings.append(
                f"{first} is named like a mask, but there is no picture {base}.* beside it; it is taken as a picture."
                f"{more}"
            )

    def _are_pictures(
        self, files: list[File], captions: list[bool], *, asked: bool, cutouts: bool = False
    ) -> list[bool]:
        """For each file whether it has a caption of its own, where that counts, or colours; looked at only if asked."""
        judged = []
        silent = []
        for file, counts in zip(files, captions, strict=True):
            ask = asked and file.extension != MASK_EXTENSION
            judged.append(ask and counts and self._has_caption(file))
            # What clips show is not looked at: a thousand of them would have to be decoded.
            if ask and self.by_colour and not judged[-1] and not file.closed:
                silent.append(len(judged) - 1)
        for at, coloured in zip(silent, in_colours((files[at].path for at in silent), cutouts=cutouts), strict=True):
            judged[at] = coloured
        return judged


def _beside(file: File, index: PictureIndex) -> tuple[MaskFile, bool] | None:
    """The picture that a file beside it is the mask of, and whether its name says so for sure."""
    if file.extension == MASK_EXTENSION:
        pictures = index.find(file.place, file.stem).pictures
        if pictures:
            return MaskFile(file, pictures), True
    if not has_mask_word(file.stem):
        return None
    for base in mask_bases(file.stem):
        pictures = tuple(p for p in index.find(file.place, base.stem).pictures if p.relative != file.relative)
        if pictures:
            return MaskFile(file, pictures, number=base.number), base.sure
    return None


def _is_hinted(file: File, index: PictureIndex) -> bool:
    """Whether a file is named after another one with a word for masks somewhere, or with a second extension."""
    return any(
        any(picture.relative != file.relative for picture in index.find(file.place, base).pictures)
        for base in hinted_bases(file.stem)
    )


def _places_beside(places: Iterable[str]) -> dict[tuple[str, str], set[str]]:
    """The folders of pictures by what they are to a folder of masks beside them: the common parent, and the rest."""
    found: dict[tuple[str, str], set[str]] = {}
    for place in places:
        parts = place.split("/") if place else []
        for at in range(len(parts)):
            key = "/".join(parts[:at]).casefold(), "/".join(parts[at + 1 :]).casefold()
            found.setdefault(key, set()).add(place)
    return found


def _levels_inside(zone: Zone, place: str, *, places: dict[tuple[str, str], set[str]]) -> list[list[str]] | None:
    root = join(zone.parent, zone.name)
    return _levels(zone, place, places) if f"{place}/".startswith(f"{root}/") else None


def _levels(zone: Zone, place: str, places: dict[tuple[str, str], set[str]]) -> list[list[str]]:
    """Where the pictures of masks in `place` may lie: in the folder that holds the folder of masks, else beside it."""
    inner = place.removeprefix(join(zone.parent, zone.name)).removeprefix("/")
    beside = sorted(places.get((zone.parent.casefold(), inner.casefold()), ()))
    base = folder_base(zone.name)
    if base:
        own = "/".join(part for part in (zone.parent, base, inner) if part).casefold()
        return [[place for place in beside if place.casefold() == own]]
    return [[join(zone.parent, inner) if inner else zone.parent], beside]


def _question(asked: list[tuple[File, File]]) -> str:
    file, picture = asked[0]
    more = f" The same holds for {len(asked) - 1} more: {shown(f.label for f, _ in asked[1:])}." if asked[1:] else ""
    return (
        f"{file.label} is named like the mask of {picture.label}, but has a caption of its own or is in colours like a "
        "picture. Choose mask_source sidecar if it is a mask. If it is a picture, rename it, or choose mask_source "
        f"none.{more}"
    )
