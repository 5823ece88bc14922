"""What lies in a folder: pictures in natural order, each with mask file and caption; nothing is decoded.

Masks are matched by name only; alpha, which needs the picture itself, is decided in `dataset`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from ..config import MASK_CHANNELS, MASK_SOURCES, MISSING_MASK, DatasetSettings, check_choice, check_range
from ..errors import ConfigError, DataError, MaskError
from .captions import caption_extension, check_captions, read_caption
from .report import MatchReport
from .subjects import TOGETHER, Found, MaskPart, check_known, make_views, parse_subjects, split_stem, subject_notes
from .tree import IMAGE_EXTENSIONS, Allowed, File, Tree, join, natural_key, walk

# Suffix of the stem, and the extensions it is used with (all of them where empty).
SIDECAR_SUFFIXES = (("-masklabel", (".png",)), ("_wmask", (".png",)), ("_mask", ()), (".mask", ()))
MASK_FOLDER_NAMES = frozenset({"mask", "masks"})


@dataclass(frozen=True)
class Item:
    """One sample found: its mask file and caption file where they exist, and the caption's text.

    A picture with masks of several subjects gives several: see `Sample` for `subject`, `parts` and `share`.
    """

    image: Path
    mask: Path | None
    caption: Path | None
    relative: str
    text: str | None
    subject: str = ""
    parts: tuple[MaskPart, ...] = ()
    share: float = 1.0


@dataclass(frozen=True)
class _FolderMasks:
    """What a mask folder holds for the pictures, by their relative names.

    `own` are masks of whole pictures, `subjects` those of subjects by name, `others` its caption files, and
    `orphaned` the masks that fit no picture.
    """

    own: dict[str, Path]
    subjects: dict[str, dict[str, Path]]
    others: dict[str, Path]
    orphaned: tuple[str, ...]


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
        MaskError: two mask files fit one picture, one fits two pictures, or a mask folder fits none.
        PathError: a folder or linked file lies outside the allowed roots.
        ConfigError: a setting is unknown or missing.
    """
    return match(settings, allowed=allowed)[0]


def match(settings: DatasetSettings, *, allowed: Allowed) -> tuple[list[Item], MatchReport]:
    """`scan`'s items with the report of which masks matched, are missing, or belong to no picture."""
    check_settings(settings)
    folder = _existing_folder(settings.folder, "folder", allowed)
    mask_folder = find_mask_folder(settings, folder, allowed)
    # Masks stay masks when the source is switched to alpha or none and the widget is left filled.
    unused = folder / settings.mask_folder.strip() if settings.mask_folder.strip() else None
    tree = walk(folder, settings.subfolders, allowed, skip=mask_folder or unused)
    pictures, sidecars = _split_sidecars(tree.images)
    if not pictures:
        raise DataError(f"{folder}: {_no_pictures(tree, settings)}")
    chosen: dict[str, Path] = {}
    found = _FolderMasks({}, {}, {}, ())
    if settings.mask_source in ("auto", "sidecar"):
        chosen.update(_assign(pictures, sidecars, "sidecar"))
    if mask_folder is not None and settings.mask_source in ("auto", "folder"):
        found = _match_folder(pictures, mask_folder, folder, settings, allowed)
        chosen.update(found.own)
    names = list(dict.fromkeys(name for subjects in found.subjects.values() for name in subjects))
    if settings.mask_source in ("auto", "folder"):
        check_known(parse_subjects(settings.subjects), names)
    items = _items(pictures, chosen, tree.others, found, settings)
    return items, _report(items, pictures, found, settings)


def check_settings(settings: DatasetSettings) -> DatasetSettings:
    """`settings` if their choices are known and fit together; raises `ConfigError` naming the widget."""
    check_choice("mask_source", settings.mask_source, MASK_SOURCES)
    check_choice("mask_channel", settings.mask_channel, MASK_CHANNELS)
    check_choice("missing_mask", settings.missing_mask, MISSING_MASK)
    if settings.mask_source == "folder" and not settings.mask_folder.strip():
        raise ConfigError("mask_folder: mask_source is folder, but no mask folder is given. Name one.")
    check_range("together", settings.together, 0.0, 1.0)
    parse_subjects(settings.subjects)
    check_captions(settings.caption)
    return settings


def _existing_folder(text: str, widget: str, allowed: Allowed) -> Path:
    if not text.strip():
        raise ConfigError(f"{widget}: expected a folder, got nothing. Choose the folder of the pictures.")
    folder = Path(allowed(Path(text)))
    if not folder.exists():
        raise DataError(f"{widget}: {folder} does not exist. Check the name, or create it and put pictures in it.")
    if not folder.is_dir():
        raise DataError(f"{widget}: {folder} is a file, expected a folder. Name the folder that holds it.")
    return folder


def find_mask_folder(settings: DatasetSettings, folder: Path, allowed: Allowed) -> Path | None:
    """The mask folder, looked for inside the picture folder first when its name is relative; None if none is used.

    Raises:
        ConfigError, DataError, PathError: It is missing, not allowed, or the picture folder itself.
    """
    text = settings.mask_folder.strip()
    if not text or settings.mask_source not in ("auto", "folder"):
        return None
    inside = folder / text
    mask_folder = _existing_folder(str(inside if inside.is_dir() else text), "mask_folder", allowed)
    if mask_folder.resolve() == folder.resolve():
        raise ConfigError(
            f"mask_folder: {mask_folder} is the picture folder itself. Put the masks into a folder of their "
            f"own, or name them <picture>_mask.png and choose sidecar."
        )
    return mask_folder


def _split_sidecars(images: tuple[File, ...]) -> tuple[list[File], dict[tuple[str, str], list[File]]]:
    """Pictures, and mask files by the (folder, stem) of the picture that they lie beside."""
    known = {file.key for file in images}
    pictures: list[File] = []
    sidecars: dict[tuple[str, str], list[File]] = {}
    for file in images:
        base = _sidecar_base(file)
        if base is not None and (file.folder, base) in known:
            sidecars.setdefault((file.folder, base), []).append(file)
        else:
            pictures.append(file)
    return pictures, sidecars


def sidecar_base(stem: str, extension: str) -> str | None:
    """The picture's stem if a file of this stem and extension (lower case) is named like a sidecar, else None."""
    for suffix, extensions in SIDECAR_SUFFIXES:
        if stem.lower().endswith(suffix) and (not extensions or extension in extensions):
            return stem[: -len(suffix)] or None
    return None


def _sidecar_base(file: File) -> str | None:
    return sidecar_base(file.stem, file.extension)


def _assign(pictures: list[File], masks: dict[tuple[str, str], list[File]], kind: str) -> dict[str, Path]:
    """Mask path by the picture's relative name; anything but one to one is an error."""
    chosen: dict[str, Path] = {}
    owner: dict[tuple[str, str], File] = {}
    for picture in pictures:
        found = masks.get(picture.key)
        if not found:
            continue
        if len(found) > 1:
            names = ", ".join(file.relative for file in found)
            raise MaskError(f"{picture.relative}: expected one {kind} mask, got {len(found)}: {names}. Keep one.")
        if picture.key in owner:
            raise MaskError(
                f"{found[0].relative}: this mask fits both {owner[picture.key].relative} and "
                f"{picture.relative}. Give the pictures different names."
            )
        owner[picture.key] = picture
        chosen[picture.relative] = found[0].path
    return chosen


def _match_folder(
    pictures: list[File], mask_folder: Path, folder: Path, settings: DatasetSettings, allowed: Allowed
) -> _FolderMasks:
    """Masks of a mask folder by relative path and stem: a whole picture's has its stem, a subject's `<stem>.<name>`."""
    tree = walk(mask_folder, settings.subfolders, allowed, skip=folder)
    own: dict[tuple[str, str], list[File]] = {}
    named: dict[str, dict[tuple[str, str], list[File]]] = {}
    known = {picture.key for picture in pictures}
    orphaned = []
    for file in tree.images:
        split = split_stem(file.stem, lambda stem, folder=file.folder: (folder, stem) in known)
        if file.key in known:
            own.setdefault(file.key, []).append(file)
        elif split is not None:
            named.setdefault(split[1], {}).setdefault((file.folder, split[0]), []).append(file)
        else:
            orphaned.append(file.relative)
    chosen = _assign(pictures, own, "mask-folder")
    subjects = _assign_subjects(pictures, named, chosen)
    if not chosen and not subjects and (settings.mask_source == "folder" or tree.images):
        first = tree.images[0].relative if tree.images else "no picture file at all"
        raise MaskError(
            f"{mask_folder}: no mask fits any picture. The first picture is {pictures[0].relative}, the mask "
            f"folder "
            f"begins with {first}. A mask has the picture's name (any extension) in the same subfolder."
        )
    return _FolderMasks(chosen, subjects, tree.others, tuple(orphaned))


def _assign_subjects(
    pictures: list[File], named: dict[str, dict[tuple[str, str], list[File]]], own: dict[str, Path]
) -> dict[str, dict[str, Path]]:
    """Mask paths by the picture's relative name and the subject's, subjects in natural order."""
    owners: dict[tuple[str, str], list[File]] = {}
    for picture in pictures:
        owners.setdefault(picture.key, []).append(picture)
    subjects: dict[str, dict[str, Path]] = {}
    for name in sorted(named, key=natural_key):
        fitting = [picture for key in named[name] for picture in owners[key]]
        for relative, path in _assign(fitting, named[name], name).items():
            if relative in own:
                raise MaskError(
                    f"{relative}: it has a mask of its own, {own[relative].name}, and one of the subject {name}, "
                    f"{path.name}. Keep either: a mask of the whole picture, or one of each subject; the mask of all "
                    "subjects together is made from theirs."
                )
            if name == TOGETHER:
                raise MaskError(
                    f"{relative}: a subject cannot be called {name} ({path.name}): so the sample is called that shows "
                    "all subjects, whose mask is made from theirs. Rename the subject, or take the file away."
                )
            subjects.setdefault(relative, {})[name] = path
    return subjects


def _items(
    pictures: list[File],
    masks: dict[str, Path],
    others: dict[str, Path],
    found: _FolderMasks,
    settings: DatasetSettings,
) -> list[Item]:
    extension = caption_extension(settings.caption).lower()
    rules = parse_subjects(settings.subjects)
    items = []
    for picture in pictures:
        caption = others.get(join(picture.folder, f"{picture.stem}{extension}"))
        text = read_caption(caption) if caption is not None else None
        subjects = []
        for name, mask in found.subjects.get(picture.relative, {}).items():
            beside = join(picture.folder, f"{picture.stem}.{name}{extension}")
            own = found.others.get(beside, others.get(beside))
            subjects.append(Found(name, mask, None if own is None else read_caption(own)))
        if not subjects:
            items.append(Item(picture.path, masks.get(picture.relative), caption, picture.relative, text))
            continue
        for view in make_views(subjects, rules, together=settings.together, caption=text):
            union = view.subject == TOGETHER
            items.append(
                Item(
                    picture.path,
                    None if union else view.parts[0].path,
                    caption,
                    f"{picture.relative} [{view.subject}]",
                    view.caption,
                    subject=view.subject,
                    parts=view.parts if union else (),
                    share=view.share,
                )
            )
    return items


def _report(
    items: list[Item], pictures: list[File], found: _FolderMasks, settings: DatasetSettings
) -> MatchReport:
    bare = tuple(item.relative for item in items if item.text is None)
    if bare and settings.caption.missing == "error":
        raise DataError(
            f"{bare[0]}: expected a caption {caption_extension(settings.caption)} beside it, found none "
            f"({len(bare)} of {len(items)} pictures lack one). Write it, or change what missing captions do."
        )
    report = MatchReport(
        matched=tuple(item.relative for item in items if item.mask is not None or item.parts),
        missing=tuple(item.relative for item in items if item.mask is None and not item.parts),
        orphaned=found.orphaned,
        no_caption=bare,
    )
    seen = {relative: list(subjects) for relative, subjects in found.subjects.items()}
    return replace(report, notes=(*_notes(pictures), *subject_notes(seen), *_unused_subjects(settings)))


def _unused_subjects(settings: DatasetSettings) -> list[str]:
    if not settings.subjects.strip() or settings.mask_source in ("auto", "folder"):
        return []
    return [
        f"subjects is not used: mask_source is {settings.mask_source}, and only a mask folder has masks of subjects."
    ]


def _notes(pictures: list[File]) -> list[str]:
    """What looks like a mask but is taken as a picture."""
    notes = [
        f"{file.relative} is named like a mask, but there is no picture {_sidecar_base(file)}.* beside it; "
        "it is taken as a picture."
        for file in pictures
        if _sidecar_base(file) is not None
    ]
    folders = dict.fromkeys(file.folder for file in pictures)
    notes += [
        f"the files in {folder} are taken as pictures. If they are masks, name {folder} as mask_folder."
        for folder in folders
        if PurePosixPath(folder).name.lower() in MASK_FOLDER_NAMES
    ]
    return notes


def _no_pictures(tree: Tree, settings: DatasetSettings) -> str:
    kinds = ", ".join(sorted(extension[1:] for extension in IMAGE_EXTENSIONS))
    if tree.images:
        return "only mask files lie here, no picture. Put the pictures beside them."
    where = "" if settings.subfolders else " itself (subfolders are off)"
    return f"no picture in this folder{where}; expected {kinds} files. Put pictures in it."
