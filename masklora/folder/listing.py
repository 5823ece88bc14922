"""What lies in a folder: pictures and clips in natural order, each with mask file and caption; nothing is decoded.

Masks are matched by name only; alpha, which needs the picture itself, is decided in `loading`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ..clips.header import CLIP_EXTENSIONS
from ..errors import ConfigError, DataError, PathError
from ..findings import Finding, of_kinds, printable, worded
from ..settings import DatasetSettings, check
from .caption_files import Captions, caption_names, check_found, find_captions, passed_over, read_lists
from .captions import caption_extension, check_captions
from .folder_names import is_folder, split_folders, tidied, turned
from .folder_repeats import FolderRule, repeat_findings, rule_of
from .leftovers import shown
from .mask_names import has_mask_word, is_mask_folder
from .mask_search import Masks, find_masks
from .matching import PictureIndex
from .references import FoundReference, References, find_references
from .report import MatchReport
from .roles import BESIDE, roles_of, zone_of
from .subjects import TOGETHER, Found, MaskPart, check_known, make_views, parse_subjects, subject_notes
from .tree import Allowed, File, Tree, join, readable_extensions, walk

Cancel = Callable[[], None]


@dataclass(frozen=True)
class Item:
    """One sample found: its mask file, the caption's text, and what the name of its folder says.

    A picture with masks of several subjects gives several: see `Sample` for `subject`, `parts` and `share`. `moving`
    and `mask_moving` say that the picture, and its mask, are clips: videos, animations, or folders of frames.
    `references` has one for each reference folder, None where that has none.
    """

    image: Path
    mask: Path | None
    relative: str
    text: str | None
    subject: str = ""
    parts: tuple[MaskPart, ...] = ()
    share: float = 1.0
    rule: FolderRule | None = None
    caption_file: Path | None = None
    moving: bool = False
    mask_moving: bool = False
    references: tuple[FoundReference | None, ...] = ()


def scan(settings: DatasetSettings, *, allowed: Allowed) -> list[Item]:
    """The pictures of a folder in natural order, with masks and captions matched by name.

    Args:
        settings: the folder, where masks are, how captions are named.
        allowed: returns a path that may be read and raises `PathError` for any other; asked for each folder
            and each linked file.

    Returns:
        At least one item. `mask` is None without a mask file, whatever the picture's own alpha holds.

    Raises:
        DataError: the folder is missing or holds no picture, or a caption is not UTF-8.
        MaskError: two mask files fit one picture, one fits two pictures, a mask folder or the masks beside the pictures
            fit none where they were asked for, or a file may be a picture as well as a mask.
        PathError: a folder or linked file lies outside the allowed roots.
        ConfigError: a setting is unknown or missing.
    """
    return match(settings, allowed=allowed)[0]


def match(
    settings: DatasetSettings, *, allowed: Allowed, check_cancel: Cancel | None = None
) -> tuple[list[Item], MatchReport]:
    """`scan`'s items with the report of what matched, is missing, belongs to no picture, or was passed over."""
    check_settings(settings)
    settings = tidied(settings)
    folder = _existing_folder(settings.folder, "folder", allowed)
    mask_folder = find_mask_folder(settings, folder, allowed)
    # Masks stay masks when the source is switched to alpha or none and the widget is left filled.
    unused = folder / settings.mask_folder if settings.mask_folder else None
    reference_folders = find_reference_folders(settings, folder, allowed)
    aside = mask_folder or unused
    skip = [*reference_folders, *([] if aside is None else [aside])]
    tree = walk(folder, settings.subfolders, allowed, skip=skip)
    lists = read_lists(tree.others, settings.caption, check_cancel=check_cancel)
    rules = parse_subjects(settings.subjects)
    roles = roles_of(
        tree.images,
        tree.others,
        source=settings.mask_source,
        captioned=lambda: caption_names(tree.others, lists),
        by_colour=settings.mask_channel in ("luminance", "rgb average"),
        named=rules,
        folders=tree.folders,
    )
    if not roles.pictures:
        raise DataError(f"{folder}: {_no_pictures(tree, settings)}")
    index = PictureIndex(roles.pictures)
    masks = find_masks(roles, index, settings, mask_folder, others=[folder, *reference_folders], allowed=allowed)
    references = find_references(
        reference_folders,
        roles.pictures,
        index,
        subfolders=settings.subfolders,
        others=[folder, *skip],
        allowed=allowed,
    )
    names = list(dict.fromkeys(name for subjects in masks.subjects.values() for name in subjects))
    if settings.mask_source in ("auto", "folder") or names:
        check_known(rules, names)
    near = [*masks.others, *(_captions_near(tree.others) if names else ())]
    captions = find_captions(tree.others, near, lists, index, settings.caption)
    items = _items(roles.pictures, masks, captions, references, settings, check_cancel)
    captions.leave_unasked()
    check_found(captions, roles.pictures[0].relative)
    left = [*tree.left, *roles.left, *masks.left, *captions.left, *references.left, *passed_over(tree)]
    told = [*_repeat_findings(items, roles.pictures, settings), *captions.findings()]
    report = _report(items, masks, settings)
    return items, replace(
        report,
        left=tuple(left),
        reference_extra=tuple(references.extra),
        notes=(*report.notes, *(one.text for one in told if one.level == "note")),
        warnings=(
            *roles.warnings,
            *masks.warnings,
            *(one.text for one in told if one.level == "warning"),
        ),
    )


def check_settings(settings: DatasetSettings) -> DatasetSettings:
    """`settings` if each value is usable and they fit together; raises `ConfigError` naming the widget."""
    check(settings)
    if settings.mask_source == "folder" and not settings.mask_folder.strip():
        raise ConfigError("mask_folder: mask_source is folder, but no mask folder is given. Name one.")
    parse_subjects(settings.subjects)
    check_captions(settings.caption)
    return settings


def _existing_folder(text: str, widget: str, allowed: Allowed) -> Path:
    if not text.strip():
        raise ConfigError(f"{widget}: expected a folder, got nothing. Choose the folder of the pictures.")

    def exists(text: str) -> bool:
        try:
            return Path(allowed(Path(text))).exists()
        except (PathError, OSError):
            return False

    folder = Path(allowed(Path(turned(text, exists))))
    try:
        there = folder.exists()
    except OSError as error:
        raise DataError(f"{widget}: {text[:40]}… cannot be looked at ({error.strerror}). Check the name.") from error
    if not there:
        raise DataError(f"{widget}: {folder} does not exist. Check the name, or create it and put pictures in it.")
    if not folder.is_dir():
        raise DataError(f"{widget}: {folder} is a file, expected a folder. Name the folder that holds it.")
    return folder


def find_mask_folder(settings: DatasetSettings, folder: Path, allowed: Allowed) -> Path | None:
    """The mask folder, looked for inside the picture folder first when its name is relative; None if none is used.

    Raises:
        ConfigError, DataError, PathError: It is missing, not allowed, or the picture folder itself.
    """
    text = tidied(settings).mask_folder
    if not text or settings.mask_source not in ("auto", "folder"):
        return None
    inside = folder / turned(text, lambda text: is_folder(folder / text))
    mask_folder = _existing_folder(str(inside if is_folder(inside) else text), "mask_folder", allowed)
    if mask_folder.resolve() == folder.resolve():
        raise ConfigError(
            f"mask_folder: {mask_folder} is the picture folder itself. Put the masks into a folder of their "
            f"own, or name them <picture>_mask.png and choose sidecar."
        )
    return mask_folder


def find_reference_folders(settings: DatasetSettings, folder: Path, allowed: Allowed) -> list[Path]:
    """The reference folders in order, each looked for inside the picture folder first when its name is relative.

    Raises:
        ConfigError, DataError, PathError: One is missing, not allowed, named twice, or the picture folder itself.
    """
    found: list[Path] = []
    for text in split_folders(settings.reference_folders):
        inside = folder / turned(text, lambda text: is_folder(folder / text))
        one = _existing_folder(str(inside if is_folder(inside) else text), "reference_folders", allowed)
        if one.resolve() == folder.resolve():
            raise ConfigError(
                f"reference_folders: {one} is the picture folder itself. Put the references into a folder of their "
                "own, each under its picture's name."
            )
        if one.resolve() in [other.resolve() for other in found]:
            raise ConfigError(
                f"reference_folders: {one} is named twice. Name each folder once; the order is that of the references."
            )
        found.append(one)
    return found


def _captions_near(others: Iterable[File]) -> Iterator[File]:
    """Files in folders named for masks, as if they lay in the folder that holds these."""
    for file in others:
        zone = zone_of(file.place) if has_mask_word(file.place) else None
        if zone is not None:
            inner = file.place.removeprefix(join(zone.parent, zone.name)).removeprefix("/")
            yield file._replace(place=join(zone.parent, inner) if inner else zone.parent)


def _items(
    pictures: list[File],
    masks: Masks,
    captions: Captions,
    references: References,
    settings: DatasetSettings,
    check_cancel: Cancel | None,
) -> list[Item]:
    rules = parse_subjects(settings.subjects)
    root = Path(settings.folder).name
    by_place: dict[str, FolderRule | None] = {}
    items = []
    for picture in pictures:
        if check_cancel is not None:
            check_cancel()
        relative, moving = picture.relative, picture.moving
        if picture.place not in by_place:
            by_place[picture.place] = rule_of(picture.place, root) if settings.folder_repeats else None
        rule = by_place[picture.place]
        text = captions.of_picture(relative)
        if text is None and rule is not None and rule.words:
            text = rule.words
        subjects = [
            Found(name, part.path, captions.of_subject(relative, name), part.moving)
            for name, part in masks.subjects.get(relative, {}).items()
        ]
        if not subjects:
            parts = masks.own.get(relative, ())
            mask = parts[0] if len(parts) == 1 else None
            items.append(
                Item(
                    picture.path,
                    None if mask is None else mask.path,
                    relative,
                    text,
                    parts=parts if len(parts) > 1 else (),
                    rule=rule,
                    caption_file=captions.file(relative),
                    moving=moving,
                    mask_moving=mask is not None and mask.moving,
                    references=references.of(relative),
                )
            )
            continue
        for view in make_views(subjects, rules, together=settings.together, caption=text):
            union = view.subject == TOGETHER
            items.append(
                Item(
                    picture.path,
                    None if union else view.parts[0].path,
                    f"{relative} [{view.subject}]",
                    view.caption,
                    subject=view.subject,
                    parts=view.parts if union else (),
                    share=view.share,
                    rule=rule,
                    caption_file=captions.file(relative, "" if union else view.subject),
                    moving=moving,
                    mask_moving=not union and view.parts[0].moving,
                    references=references.of(relative),
                )
            )
    return items


def _report(items: list[Item], masks: Masks, settings: DatasetSettings) -> MatchReport:
    bare = tuple(printable(item.relative) for item in items if item.text is None)
    if bare and settings.caption.missing == "error":
        raise DataError(
            f"{bare[0]}: expected a caption {caption_extension(settings.caption)} beside it, found none "
            f"({len(bare)} of {of_kinds(len(items), sum(item.moving for item in items))} "
            f"{worded(len(bare), '[lacks|lack]')} one). Write it, or change what missing captions do."
        )
    report = MatchReport(
        matched=tuple(printable(item.relative) for item in items if item.mask is not None or item.parts),
        missing=tuple(printable(item.relative) for item in items if item.mask is None and not item.parts),
        orphaned=tuple(masks.orphaned),
        no_caption=bare,
        clips=tuple(printable(item.relative) for item in items if item.moving),
    )
    seen = {printable(relative): list(subjects) for relative, subjects in masks.subjects.items()}
    return replace(report, notes=(*subject_notes(seen), *_unused_widgets(settings)))


def _repeat_findings(items: list[Item], pictures: list[File], settings: DatasetSettings) -> list[Finding]:
    if not settings.folder_repeats:
        return []
    first = {item.image: item.rule for item in items}
    return repeat_findings(first.values(), (file.place for file in pictures))


def _unused_widgets(settings: DatasetSettings) -> list[str]:
    notes = []
    if settings.subjects.strip() and settings.mask_source in ("sidecar", "alpha", "none"):
        notes.append(
            f"subjects is not used: mask_source is {settings.mask_source}, and only a mask folder has masks of "
            "subjects."
        )
    if settings.mask_folder and settings.mask_source not in ("auto", "folder"):
        notes.append(f"mask_folder is not used: mask_source is {settings.mask_source}.")
    return notes


def masks_beside_the_folder(settings: DatasetSettings, allowed: Allowed) -> list[str]:
    """What lies beside the folder of the pictures and may be their masks; to be asked where they have none."""
    if settings.mask_source not in BESIDE:
        return []
    try:
        folder = _existing_folder(tidied(settings).folder, "folder", allowed)
        parent = Path(allowed(folder.parent))
        beside = [path.name for path in parent.iterdir() if is_mask_folder(path.name) and path.is_dir()]
    except (PathError, OSError):
        return []
    beside = [name for name in sorted(beside) if parent / name != folder]
    if not beside:
        return []
    return [f"{beside[0]} lies beside the folder {folder.name}. If it holds the masks, name it as mask_folder."]


def _no_pictures(tree: Tree, settings: DatasetSettings) -> str:
    kinds = ", ".join(sorted(extension[1:] for extension in readable_extensions() | CLIP_EXTENSIONS))
    if tree.images:
        return "only mask files lie here, no picture. Put the pictures beside them."
    where = "" if settings.subfolders else " itself (subfolders are off)"
    there = [left.name for left in passed_over(tree)]
    other = f" There are {shown(there)}." if there else ""
    return f"no picture in this folder{where}; expected {kinds} files.{other} Put pictures in it."
