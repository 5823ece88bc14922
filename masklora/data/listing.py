"""What lies in a folder: pictures in natural order, each with mask file and caption; nothing is decoded.

Masks are matched by name only; alpha, which needs the picture itself, is decided in `dataset`.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from ..config import MASK_CHANNELS, MASK_SOURCES, MISSING_MASK, DatasetSettings, check_choice
from ..errors import ConfigError, DataError, MaskError
from .captions import caption_extension, check_captions, read_caption
from .report import MatchReport

IMAGE_EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif"})
# Suffix of the stem, and the extensions it is used with (all of them where empty).
SIDECAR_SUFFIXES = (("-masklabel", (".png",)), ("_wmask", (".png",)), ("_mask", ()), (".mask", ()))
MASK_FOLDER_NAMES = frozenset({"mask", "masks"})
SKIPPED_FOLDERS = frozenset({"__MACOSX", "$RECYCLE.BIN"})

Allowed = Callable[[Path], Path]


@dataclass(frozen=True)
class Item:
    """One picture found: its mask file and caption file where they exist, and the caption's text."""

    image: Path
    mask: Path | None
    caption: Path | None
    relative: str
    text: str | None


@dataclass(frozen=True)
class _File:
    """A picture file by its folder (relative, posix), name there, stem (NFC) and extension (lower case).

    `path` may lie elsewhere under another name where the file is a link.
    """

    path: Path
    folder: str
    name: str
    stem: str
    extension: str

    @property
    def relative(self) -> str:
        return _join(self.folder, self.name)

    @property
    def key(self) -> tuple[str, str]:
        return self.folder, self.stem


@dataclass(frozen=True)
class _Tree:
    """Everything one walk found: picture files in natural order, and other files by relative name."""

    images: tuple[_File, ...]
    others: dict[str, Path]


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
    mask_folder = _mask_folder(settings, folder, allowed)
    # Masks stay masks when the source is switched to alpha or none and the widget is left filled.
    unused = folder / settings.mask_folder.strip() if settings.mask_folder.strip() else None
    tree = _walk(folder, settings.subfolders, allowed, skip=mask_folder or unused)
    pictures, sidecars = _split_sidecars(tree.images)
    if not pictures:
        raise DataError(f"{folder}: {_no_pictures(tree, settings)}")
    chosen: dict[str, Path] = {}
    orphaned: list[str] = []
    if settings.mask_source in ("auto", "sidecar"):
        chosen.update(_assign(pictures, sidecars, "sidecar"))
    if mask_folder is not None and settings.mask_source in ("auto", "folder"):
        found, orphaned = _match_folder(pictures, mask_folder, folder, settings, allowed)
        chosen.update(found)
    items = _items(pictures, chosen, tree.others, settings)
    return items, _report(items, pictures, orphaned, settings)


def check_settings(settings: DatasetSettings) -> DatasetSettings:
    """`settings` if their choices are known and fit together; raises `ConfigError` naming the widget."""
    check_choice("mask_source", settings.mask_source, MASK_SOURCES)
    check_choice("mask_channel", settings.mask_channel, MASK_CHANNELS)
    check_choice("missing_mask", settings.missing_mask, MISSING_MASK)
    if settings.mask_source == "folder" and not settings.mask_folder.strip():
        raise ConfigError("mask_folder: mask_source is folder, but no mask folder is given. Name one.")
    check_captions(settings.caption)
    return settings


def natural_key(relative: str) -> tuple[object, ...]:
    """Sort key under which img2 precedes img10, folder by folder; the exact text breaks ties."""
    parts = []
    for part in PurePosixPath(relative).parts:
        pieces = re.split(r"([0-9]+)", part.casefold())
        parts.append(tuple((0, int(p), "") if i % 2 else (1, 0, p) for i, p in enumerate(pieces)))
    return (*parts, ((2, 0, relative),))


def _existing_folder(text: str, widget: str, allowed: Allowed) -> Path:
    if not text.strip():
        raise ConfigError(f"{widget}: expected a folder, got nothing. Choose the folder of the pictures.")
    folder = Path(allowed(Path(text)))
    if not folder.exists():
        raise DataError(f"{widget}: {folder} does not exist. Check the name, or create it and put pictures in it.")
    if not folder.is_dir():
        raise DataError(f"{widget}: {folder} is a file, expected a folder. Name the folder that holds it.")
    return folder


def _mask_folder(settings: DatasetSettings, folder: Path, allowed: Allowed) -> Path | None:
    """The mask folder, looked for inside the picture folder first when its name is relative."""
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


def _walk(root: Path, subfolders: bool, allowed: Allowed, *, skip: Path | None) -> _Tree:
    images: list[_File] = []
    others: dict[str, Path] = {}
    skipped = skip.resolve() if skip is not None else None
    seen = {root.resolve()}
    pending = [(root, "")]
    while pending:
        folder, relative = pending.pop()
        for entry in _entries(folder):
            if entry.name.startswith(".") or entry.name in SKIPPED_FOLDERS:
                continue
            if entry.is_dir():
                real = Path(entry.path).resolve() if subfolders else None
                if real is not None and real != skipped and real not in seen:
                    seen.add(real)
                    pending.append((Path(allowed(Path(entry.path))), _join(relative, entry.name)))
            elif entry.is_file():
                path = Path(allowed(Path(entry.path))) if entry.is_symlink() else Path(entry.path)
                stem, extension = os.path.splitext(entry.name)  # noqa: PTH122 (ten thousand of them)
                if extension.lower() in IMAGE_EXTENSIONS:
                    images.append(_File(path, relative, entry.name, _nfc(stem), extension.lower()))
                else:
                    others[_join(relative, f"{_nfc(stem)}{extension.lower()}")] = path
    images.sort(key=lambda file: natural_key(file.relative))
    return _Tree(tuple(images), others)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise DataError(f"{folder}: the folder cannot be read ({error.strerror}). Check its permissions.") from error


def _split_sidecars(images: tuple[_File, ...]) -> tuple[list[_File], dict[tuple[str, str], list[_File]]]:
    """Pictures, and mask files by the (folder, stem) of the picture that they lie beside."""
    known = {file.key for file in images}
    pictures: list[_File] = []
    sidecars: dict[tuple[str, str], list[_File]] = {}
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


def _sidecar_base(file: _File) -> str | None:
    return sidecar_base(file.stem, file.extension)


def _assign(pictures: list[_File], masks: dict[tuple[str, str], list[_File]], kind: str) -> dict[str, Path]:
    """Mask path by the picture's relative name; anything but one to one is an error."""
    chosen: dict[str, Path] = {}
    owner: dict[tuple[str, str], _File] = {}
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
    pictures: list[_File], mask_folder: Path, folder: Path, settings: DatasetSettings, allowed: Allowed
) -> tuple[dict[str, Path], list[str]]:
    """Masks of a mask folder by relative path and stem, and the relative names of those that fit nothing."""
    tree = _walk(mask_folder, settings.subfolders, allowed, skip=folder)
    by_key: dict[tuple[str, str], list[_File]] = {}
    for file in tree.images:
        by_key.setdefault(file.key, []).append(file)
    chosen = _assign(pictures, by_key, "mask-folder")
    known = {picture.key for picture in pictures}
    orphaned = [file.relative for file in tree.images if file.key not in known]
    if not chosen and (settings.mask_source == "folder" or tree.images):
        first = tree.images[0].relative if tree.images else "no picture file at all"
        raise MaskError(
            f"{mask_folder}: no mask fits any picture. The first picture is {pictures[0].relative}, the mask "
            f"folder "
            f"begins with {first}. A mask has the picture's name (any extension) in the same subfolder."
        )
    return chosen, orphaned


def _items(
    pictures: list[_File], masks: dict[str, Path], others: dict[str, Path], settings: DatasetSettings
) -> list[Item]:
    extension = caption_extension(settings.caption).lower()
    items = []
    for picture in pictures:
        caption = others.get(_join(picture.folder, f"{picture.stem}{extension}"))
        text = read_caption(caption) if caption is not None else None
        items.append(Item(picture.path, masks.get(picture.relative), caption, picture.relative, text))
    return items


def _report(items: list[Item], pictures: list[_File], orphaned: list[str], settings: DatasetSettings) -> MatchReport:
    bare = tuple(item.relative for item in items if item.text is None)
    if bare and settings.caption.missing == "error":
        raise DataError(
            f"{bare[0]}: expected a caption {caption_extension(settings.caption)} beside it, found none "
            f"({len(bare)} of {len(items)} pictures lack one). Write it, or change what missing captions do."
        )
    report = MatchReport(
        matched=tuple(item.relative for item in items if item.mask is not None),
        missing=tuple(item.relative for item in items if item.mask is None),
        orphaned=tuple(orphaned),
        no_caption=bare,
    )
    return replace(report, notes=tuple(_notes(pictures)))


def _notes(pictures: list[_File]) -> list[str]:
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


def _no_pictures(tree: _Tree, settings: DatasetSettings) -> str:
    kinds = ", ".join(sorted(extension[1:] for extension in IMAGE_EXTENSIONS))
    if tree.images:
        return "only mask files lie here, no picture. Put the pictures beside them."
    where = "" if settings.subfolders else " itself (subfolders are off)"
    return f"no picture in this folder{where}; expected {kinds} files. Put pictures in it."


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _nfc(text: str) -> str:
    """One spelling of accents: macOS stores file names decomposed."""
    return unicodedata.normalize("NFC", text)
