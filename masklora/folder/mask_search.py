"""The masks of a folder's pictures: in a mask folder, in folders that are named for masks, beside the pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import MaskError
from ..file_names import natural_key
from ..findings import counted, printable, worded
from ..settings import DatasetSettings
from .caption_files import passed_over
from .leftovers import MASK, Leftover, shown
from .mask_names import MASK_EXTENSION, is_mask_folder
from .matching import MaskFile, PictureIndex, assign, fit, split_replaced, with_sequences
from .roles import Roles
from .subjects import TOGETHER, MaskPart, is_doubtful, parse_subjects
from .tree import Allowed, File, walk


@dataclass
class Masks:
    """The masks that were found, by the pictures' relative names.

    `own` are masks of whole pictures, `subjects` those of subjects by name, `others` the caption files of a mask
    folder, and `orphaned` the masks that fit no picture.
    """

    own: dict[str, tuple[MaskPart, ...]] = field(default_factory=dict)
    subjects: dict[str, dict[str, MaskPart]] = field(default_factory=dict)
    others: tuple[File, ...] = ()
    orphaned: list[str] = field(default_factory=list)
    left: list[Leftover] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def find_masks(
    roles: Roles,
    index: PictureIndex,
    settings: DatasetSettings,
    mask_folder: Path | None,
    *,
    others: Collection[Path],
    allowed: Allowed,
) -> Masks:
    """Every picture's masks, from the first place that has any for it; masks in a later place are told as left.

    Args:
        roles: what the files in the folder of the pictures are.
        index: the pictures.
        settings: the mask source, and the subjects that are named.
        mask_folder: if one is used.
        others: the folders of pictures and references, whose files are no masks.
        allowed: as `walk` asks it.

    Raises:
        MaskError: masks fit several pictures, several masks one, or a place that was asked for has none.
    """
    masks = Masks()
    named = set(parse_subjects(settings.subjects))
    places: list[tuple[str, list[MaskFile]]] = [("mask-folder", roles.below), ("sidecar", roles.beside)]
    if mask_folder is not None:
        # A mask may be a folder of frames.
        always = lambda name: is_mask_folder(name) or _names_a_clip(name, index)  # noqa: E731
        tree = walk(
            mask_folder, settings.subfolders, allowed, skip=[one for one in others if one != mask_folder], always=always
        )
        masks.others = tree.others
        masks.left += [*tree.left, *passed_over(tree)]
        files = [*tree.images, *(file for file in tree.others if file.extension == MASK_EXTENSION)]
        files = with_sequences(files, tree.folders, index, lambda place: [(place,)])
        places.insert(0, ("mask-folder", _in_folder(files, index, named, masks)))
        if not places[0][1] and (settings.mask_source == "folder" or files):
            raise MaskError(_none_fits(mask_folder, roles, files))
    for kind, found in places:
        found = _without_replaced(found, masks)
        fresh = _for_pictures_without(_without_doubtful(found, named, masks), masks)
        own = assign((mask for mask in fresh if not mask.subject), kind)
        masks.subjects |= _assign_subjects([mask for mask in fresh if mask.subject], own)
        masks.own |= own
    masks.warnings += _several(masks.own)
    masks.orphaned += roles.lone
    if settings.mask_source == "sidecar" and not masks.own and not masks.subjects:
        raise MaskError(_none_beside(roles, settings.mask_folder))
    return masks


def _names_a_clip(name: str, index: PictureIndex) -> bool:
    found = fit(File(Path(), "", name, name, "", ""), [("",)], index, ())
    return found is not None and any(picture.moving for picture in found.pictures)


def _in_folder(files: list[File], index: PictureIndex, named: Collection[str], masks: Masks) -> list[MaskFile]:
    """Masks of a mask folder by relative path and stem: a whole picture's has its stem, a subject's `<stem>.<name>`."""
    found = []
    for file in files:
        mask = fit(file, [(file.place,)], index, named)
        if mask is None:
            masks.orphaned.append(file.label)
        else:
            found.append(mask)
    return found


def _for_pictures_without(found: list[MaskFile], masks: Masks) -> list[MaskFile]:
    """Masks for pictures that have none yet; the others are told as left."""
    before = {*masks.own, *masks.subjects}
    fresh = []
    for mask in found:
        pictures = tuple(picture for picture in mask.pictures if picture.relative not in before)
        if pictures:
            fresh.append(mask._replace(pictures=pictures))
        else:
            masks.left.append(Leftover(MASK, mask.file.label))
    return fresh


def _without_replaced(found: list[MaskFile], masks: Masks) -> list[MaskFile]:
    found, replaced = split_replaced(found)
    if replaced:
        told = [f"{old.label} (by {new.label})" for old, new in replaced]
        masks.warnings.append(
            f"{len(told)} masks were replaced when they were edited, and are not used: {shown(told)}. Remove these old "
            "files; to have one back instead, remove the PNG."
        )
    return found


def _without_doubtful(found: list[MaskFile], named: Collection[str], masks: Masks) -> list[MaskFile]:
    """`found` without what looks like a mask of another version of a picture, which is told and never applied."""
    counts = Counter(mask.subject for mask in found if mask.subject)
    doubtful = [m for m in found if m.subject not in ("", *named) and is_doubtful(m.subject, counts[m.subject])]
    if doubtful:
        told = [f"{mask.file.label} (for {mask.pictures[0].label})" for mask in doubtful]
        name = doubtful[0].subject
        masks.orphaned += [mask.file.label for mask in doubtful]
        names = {mask.file.relative for mask in doubtful}
        found = [mask for mask in found if mask.file.relative not in names]
        masks.warnings.append(
            f"{counted(len(told), '[mask looks like that|masks look like those] of other versions of a picture, and')} "
            f"{worded(len(told), '[is|are] not used')}: {shown(told)}. If "
            f"{name} is the name of a subject, write {name}: 1 into subjects."
        )
    single = [m for m in found if counts[m.subject] == 1 and not named]
    if single:
        told = [f"{mask.subject} ({mask.file.label})" for mask in single]
        masks.warnings.append(
            f"{counted(len(told), '[subject has|subjects have] one mask in the whole set')}: {shown(told)}. Each is "
            "taken for a subject of its picture; if it is the mask of a picture that is gone, remove it."
        )
    return found


def _several(own: dict[str, tuple[MaskPart, ...]]) -> list[str]:
    joined = [f"{printable(relative)} ({len(parts)})" for relative, parts in own.items() if len(parts) > 1]
    if not joined:
        return []
    return [
        f"several numbered masks count together as one: {shown(joined)}. To learn each for itself, put them into a "
        "mask folder as <picture>.<subject>.png."
    ]


def _none_fits(mask_folder: Path, roles: Roles, files: list[File]) -> str:
    first = files[0].label if files else "no picture file at all"
    return (
        f"{mask_folder}: no mask fits any picture. The first picture is {roles.pictures[0].label}, the mask "
        f"folder begins with {first}. A mask has the picture's name (any extension) in the same subfolder."
    )


def _none_beside(roles: Roles, mask_folder: str) -> str:
    picture = roles.pictures[0]
    left = [left.name for left in roles.left] + roles.lone
    rest = left or [file.label for file in roles.pictures[1:]]
    there = f"Another file there is {rest[0]}." if rest else "No other file lies there."
    there += f" To use the masks in {mask_folder}, choose folder." if mask_folder else ""
    return (
        f"mask_source is sidecar, but no mask lies beside any picture. The first picture is {picture.label}. {there} A "
        f"mask is named {printable(picture.stem)}_mask.png, or lies in a folder masks under the picture's own name."
    )


def _assign_subjects(found: list[MaskFile], own: dict[str, tuple[MaskPart, ...]]) -> dict[str, dict[str, MaskPart]]:
    """Masks by the picture's relative name and the subject's, subjects in natural order."""
    named: dict[str, list[MaskFile]] = {}
    for mask in found:
        named.setdefault(mask.subject, []).append(mask)
    subjects: dict[str, dict[str, MaskPart]] = {}
    for name in sorted(named, key=natural_key):
        for relative, (part, *_) in assign(named[name], name).items():
            if relative in own:
                raise MaskError(
                    f"{relative}: it has a mask of its own, {own[relative][0].path.name}, and one of the subject "
                    f"{name}, {part.path.name}. Keep either: a mask of the whole picture, or one of each subject; the "
                    "mask of all subjects together is made from theirs."
                )
            if name == TOGETHER:
                raise MaskError(
                    f"{relative}: a subject cannot be called {name} ({part.path.name}): so the sample is called that "
                    "shows all subjects, whose mask is made from theirs. Rename the subject, or take the file away."
                )
            subjects.setdefault(relative, {})[name] = part
    return subjects
