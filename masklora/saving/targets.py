"""Where masks and captions are written, and everything that forbids it, known before the first file."""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from ..dataset.corrections import check_caption_text
from ..dataset.sample import Dataset, Sample
from ..errors import ConfigError, DataError, PathError
from ..file_names import name_too_long
from ..folder.captions import caption_extension
from ..folder.leftovers import is_system
from ..folder.mask_names import mask_bases
from ..folder.subjects import TOGETHER
from ..folder.tree import FRAMES, Allowed, is_folder_of_frames, listed_extensions
from ..settings import check, chosen

LAYOUTS = ("mask folder", "alpha png", "-masklabel.png", "_mask.png")
FOLDER_LAYOUTS = LAYOUTS[:2]
WITHOUT_MASK = ("stay missing", "white")
# Whatever a workflow says, nothing that a program would run or read as its settings is written.
CAPTION_EXTENSIONS = (".txt", ".caption", ".captions", ".cap", ".tags")
PROBLEMS_SHOWN = 8
# A mask that moves is one file, or a folder of pictures, with these extensions.
CLIP_MASKS = {"clip": ".mkv", "folder of frames": FRAMES}


@dataclass(frozen=True)
class SaveSettings:
    """What is written back.

    Attributes:
        layout: One of `LAYOUTS`.
        overwrite: Whether files that are there may be replaced.
        save_captions: Whether captions are written too; the alpha layout always writes them.
        without_mask: What a picture without a mask gets: no file (in the alpha layout a copy without alpha),
            or a white mask.
        keep_edited: Whether masks that a person has edited by hand where they lie stay as they are.
        clip_masks: What a mask that moves becomes: one of `CLIP_MASKS`.
    """

    layout: str = chosen("mask folder", LAYOUTS)
    overwrite: bool = False
    save_captions: bool = False
    without_mask: str = chosen("stay missing", WITHOUT_MASK)
    keep_edited: bool = True
    clip_masks: str = chosen("clip", tuple(CLIP_MASKS))


@dataclass(frozen=True, eq=False)
class Target:
    """The files of one sample: `mask` the mask file or, in the alpha layout, the copy; `caption` where it has one.

    A mask that moves is written as a clip, or as a folder of frames. `former` are files of the mask's name with other
    extensions, as a still mask where one that moves is written: they make way for it.
    """

    index: int
    sample: Sample
    mask: Path
    caption: Path | None
    former: tuple[Path, ...] = ()


def plan_targets(
    dataset: Dataset,
    settings: SaveSettings,
    *,
    destination: Path | None,
    allowed: Allowed,
    picture: int | None = None,
    makes_way: bool = False,
) -> list[Target]:
    """The files that would be written, for every sample or for one; nothing is read or written.

    In a mask folder a union of subjects has no file: the loader makes it from theirs.

    Args:
        dataset: what is saved.
        settings: the layout.
        destination: folder of the layouts "mask folder" and "alpha png".
        allowed: returns the real path of one that may be written, raises `PathError` for any other.
        picture: position of the only sample to save.
        makes_way: whether what is overwritten may have another extension: it is told as `Target.former`.

    Raises:
        ConfigError: no destination, one that holds pictures of the data set, a layout that samples in memory,
            clips or masks of subjects cannot have, or an extension for captions that is not in `CAPTION_EXTENSIONS`.
        DataError: two pictures would write one file, or a file would be a picture, replace the mask of another
            picture, or not be the only one that the loader takes for this picture.
        PathError: a name or a link leads out of the destination or of the allowed folders.
    """
    check(settings)
    _refuse_clips_with_alpha(dataset, settings, picture)
    folders = _Folders(allowed)
    root = None
    if settings.layout in FOLDER_LAYOUTS:
        root = _destination(dataset, settings, destination, folders)
    chosen = _with_file(dataset, settings, range(len(dataset)) if picture is None else (picture,))
    targets = [_target(index, dataset.samples[index], settings, root, folders) for index in chosen]
    _refuse_shared(targets)
    refusals = _Refusals(dataset, targets, settings, folders)
    if makes_way and settings.overwrite:
        refusals.targets = targets = [replace(target, former=tuple(refusals.former(target))) for target in targets]
    raise_problems(refusals.problems())
    return targets


def _refuse_clips_with_alpha(dataset: Dataset, settings: SaveSettings, picture: int | None) -> None:
    chosen = dataset.samples if picture is None else (dataset.samples[picture],)
    clip = next((sample.name for sample in chosen if sample.moving is not None), None)
    if clip is not None and settings.layout == "alpha png":
        raise ConfigError(
            f"layout: alpha png writes copies of still pictures, and {clip} is a clip. Choose mask folder, or one of "
            "the layouts beside the pictures."
        )


def is_left_out(sample: Sample, settings: SaveSettings) -> bool:
    """Whether a sample gets no file, because its mask is made from those of its subjects when it is loaded."""
    return sample.subject == TOGETHER and settings.layout == "mask folder"


def _with_file(dataset: Dataset, settings: SaveSettings, chosen: Sequence[int]) -> list[int]:
    """The samples that get a file; raises where the layout has none for what is asked."""
    named = [dataset.samples[i].name for i in chosen if dataset.samples[i].subject]
    if named and settings.layout not in FOLDER_LAYOUTS:
        raise ConfigError(
            f"layout: {named[0]} is one of several subjects of its picture, which are not looked for beside the "
            "pictures. Choose mask folder, or alpha png."
        )
    left = [i for i in chosen if not is_left_out(dataset.samples[i], settings)]
    if named and not left:
        raise ConfigError(
            f"layout: {named[0]} shows all subjects of its picture; its mask is made from theirs when it is loaded, "
            "and has no file in a mask folder. Save the subjects, or choose alpha png."
        )
    return left


def raise_problems(problems: Iterable[str], *, hint: str = "") -> None:
    """Nothing without problems; else one `DataError` with the first of them, which says that nothing was written."""
    found = list(problems)
    if found:
        more = [f"… and {len(found) - PROBLEMS_SHOWN} more."] if len(found) > PROBLEMS_SHOWN else []
        lines = ["Nothing was written:", *found[:PROBLEMS_SHOWN], *more, *([hint] if hint else [])]
        raise DataError("\n".join(lines))


def stem_of(sample: Sample) -> str:
    """The sample's name without extension, subfolders included; names of pictures in memory have none.

    A subject's follows it, as the loader looks for its mask: `<picture>.<name>`.
    """
    stem = os.path.splitext(sample.picture)[0] if sample.image_path is not None else sample.picture  # noqa: PTH122
    return f"{stem}{_subject_suffix(sample)}"


def sidecar_place(sample: Sample, allowed: Allowed) -> Path:
    """The real folder in which the loader looks for files beside the sample's picture."""
    return _Folders(allowed).beside(sample)[0]


def _subject_suffix(sample: Sample) -> str:
    return f".{sample.subject}" if sample.subject not in ("", TOGETHER) else ""


@dataclass
class _Listing:
    """Files of a folder as the loader matches them: pictures by stem, sidecars by the picture's stem, others."""

    pictures: dict[str, list[Path]] = field(default_factory=dict)
    sidecars: dict[str, list[Path]] = field(default_factory=dict)
    others: dict[str, list[Path]] = field(default_factory=dict)


class _Folders:
    """Real paths and contents of folders, asked for once each."""

    def __init__(self, allowed: Allowed) -> None:
        self._allowed = allowed
        self._real: dict[Path, Path] = {}
        self._listings: dict[Path, _Listing] = {}

    def real(self, folder: Path) -> Path:
        if folder not in self._real:
            self._real[folder] = Path(self._allowed(folder))
        return self._real[folder]

    def beside(self, sample: Sample) -> tuple[Path, str]:
        """Real folder and stem under which the loader sees a sample's file, which may be a link to elsewhere."""
        if sample.image_path is None:
            raise ConfigError(
                f"layout: {sample.name} is in memory, there is no file to write beside. Choose mask folder without "
                "save_captions, or alpha png."
            )
        name = PurePosixPath(sample.picture)
        if sample.settings.folder.strip():
            listed = self.real(self.real(Path(sample.settings.folder)) / name.parent) / name.name
            if listed.exists() and sample.image_path.exists() and listed.samefile(sample.image_path):
                return listed.parent, listed.stem
        return self.real(sample.image_path.parent), sample.image_path.stem

    def listing(self, folder: Path) -> _Listing:
        if folder not in self._listings:
            self._listings[folder] = _list(folder)
        return self._listings[folder]


def _list(folder: Path) -> _Listing:
    listing = _Listing()
    try:
        entries = list(os.scandir(folder))
        names = [entry.name for entry in entries if entry.is_file() or is_folder_of_frames(entry.name)]
    except FileNotFoundError:
        return listing
    except OSError as error:
        raise DataError(f"{folder}: the folder cannot be read ({error.strerror}). Check its permissions.") from error
    readable = listed_extensions()
    for name in names:
        stem, extension = os.path.splitext(_nfc(name))  # noqa: PTH122 (as the loader splits names)
        if name.startswith("."):
            continue
        if extension.lower() not in readable:
            listing.others.setdefault(f"{stem}{extension.lower()}", []).append(folder / name)
            continue
        listing.pictures.setdefault(stem, []).append(folder / name)
        for base in mask_bases(stem):
            listing.sidecars.setdefault(base.stem, []).append(folder / name)
    return listing


def _destination(dataset: Dataset, settings: SaveSettings, destination: Path | None, folders: _Folders) -> Path:
    if destination is None:
        raise ConfigError(f"destination: the layout {settings.layout} needs a folder to write to. Name one.")
    root = folders.real(destination)
    try:
        is_file = root.exists() and not root.is_dir()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"destination: {str(root)[:80]}… can be no folder ({reason}). Name another.") from error
    if is_file:
        raise ConfigError(f"destination: {root} is a file, expected a folder. Name another.")
    for sample in dataset.samples:
        if sample.image_path is None:
            continue
        if sample.image_path.resolve().is_relative_to(root):
            raise ConfigError(
                f"destination: {root} holds pictures of the dataset, such as {sample.name}. Name a folder of its own; "
                "or if these are masks, name it as mask_folder where the dataset is loaded."
            )
        if settings.layout == "alpha png" and _is_loaded_with(root, sample, folders):
            raise ConfigError(
                f"destination: {root} lies inside the picture folder {sample.settings.folder}, which would then be "
                "loaded with the copies in it. Name a folder outside."
            )
    return root


def _is_loaded_with(root: Path, sample: Sample, folders: _Folders) -> bool:
    """Whether loading the sample's folder would find what lies in `root`."""
    folder = sample.settings.folder.strip()
    return bool(folder) and sample.settings.subfolders and root.is_relative_to(folders.real(Path(folder)))


def _target(index: int, sample: Sample, settings: SaveSettings, root: Path | None, folders: _Folders) -> Target:
    if root is None:
        place, stem = folders.beside(sample)
        mask = place / f"{stem}{settings.layout}"
    else:
        mask = _inside(root, sample, folders)
    if sample.moves:
        mask = mask.with_suffix(CLIP_MASKS[settings.clip_masks])
    caption = None
    if sample.caption is not None and (settings.save_captions or settings.layout == "alpha png"):
        check_caption_text(sample, sample.caption)
        place, stem = folders.beside(sample) if settings.layout != "alpha png" else (mask.parent, mask.stem)
        stem += _subject_suffix(sample) if settings.layout != "alpha png" else ""
        caption = place / f"{stem}{_writable_extension(sample)}"
    return Target(index, sample, mask, caption)


def _inside(root: Path, sample: Sample, folders: _Folders) -> Path:
    """The PNG below `root` that bears the sample's name; names are decided as text, before any path is asked."""
    stem = stem_of(sample)
    parts = stem.split("/")
    odd = set("\0") if os.name != "nt" else set('\0\\:*?"<>|')
    if odd & set(stem) or any(not part or is_system(part) for part in parts):
        raise PathError(f"{sample.name}: this name cannot be a file inside {root}. Rename the picture.")
    folder = folders.real(root.joinpath(*parts[:-1]))
    if not folder.is_relative_to(root):
        raise PathError(f"{sample.name}: {root.joinpath(*parts[:-1])} leads out of {root}. Name another destination.")
    return folder / f"{parts[-1]}.png"


def _writable_extension(sample: Sample) -> str:
    extension = caption_extension(sample.settings.caption)
    if extension.lower() not in CAPTION_EXTENSIONS:
        raise ConfigError(
            f"caption_extension: captions are written as {', '.join(CAPTION_EXTENSIONS)}, got {extension} "
            f"({sample.name}). Change it where the dataset is loaded."
        )
    return extension


def _refuse_shared(targets: list[Target]) -> None:
    """Raises if two samples would write one file."""
    owner: dict[str, Target] = {}
    for target in targets:
        for path in filter(None, (target.mask, target.caption)):
            first = owner.setdefault(_identity(path), target)
            if first is not target:
                raise DataError(
                    f"Nothing was written: {first.sample.name} and {target.sample.name} would both be written to "
                    f"{path}. Give the pictures different names, or save the datasets before they are merged, "
                    "each to a folder of its own."
                )


class _Refusals:
    """What stands against a target besides a file of its own name."""

    def __init__(self, dataset: Dataset, targets: list[Target], settings: SaveSettings, folders: _Folders) -> None:
        self.targets, self.layout, self.folders = targets, settings.layout, folders
        files = list(enumerate(dataset.samples))
        self.pictures = {_identity(s.image_path.resolve()): s.name for _, s in files if s.image_path is not None}
        beside = [(one.path, one.name) for _, s in files for one in s.references if one.path is not None]
        self.pictures |= {_identity(path.resolve()): name for path, name in beside}
        self.sources = {_identity(s.mask_path.resolve()): i for i, s in files if s.mask_path is not None}
        self.names = {(t.mask.parent, _nfc(t.mask.stem)): t.sample.name for t in targets}
        self.samples = dataset.samples

    def problems(self) -> Iterable[str]:
        for target in self.targets:
            for path in filter(None, (target.mask, target.caption)):
                yield from self._taken(target, path)
            yield from self._ambiguous(target)

    def former(self, target: Target) -> list[Path]:
        """Files that may be the mask so far, under the new one's name and with another extension."""
        if self.layout == "alpha png" or target.sample.image_path is None:
            return []
        there = self.folders.listing(target.mask.parent).pictures.get(_nfc(target.mask.stem))
        return [
            path
            for path in self._others(there, target.mask)
            if path.is_file()
            and not path.is_symlink()
            and _identity(path) not in self.pictures
            and self.sources.get(_identity(path), target.index) == target.index
        ]

    def _taken(self, target: Target, path: Path) -> Iterable[str]:
        name, key = target.sample.name, _identity(path)
        owner = self.sources.get(key, target.index)
        too_long = name_too_long(path)
        # Whether a folder of frames is in the way is seen when all masks are compared.
        frames = not too_long and path.is_dir() and path.suffix == FRAMES
        if too_long:
            yield f"{name}: {path.name[:40]}… cannot be written: {too_long}. Give the picture a shorter name."
            return
        if key in self.pictures:
            yield f"{name}: {path} is the picture {self.pictures[key]}, and pictures are never replaced."
        elif owner != target.index:
            yield f"{name}: {path} is the mask of {self.samples[owner].name}, which would be lost."
        elif path.is_symlink() or (path.is_dir() and not frames):
            kind = "link" if path.is_symlink() else "folder"
            yield f"{name}: {path} is a {kind}, which is not replaced. Move it away."
        elif path.exists() and not path.is_file() and not frames:
            yield f"{name}: {path} is no regular file, and is not replaced. Move it away."

    def _ambiguous(self, target: Target) -> Iterable[str]:
        name, stem = target.sample.name, _nfc(target.mask.stem)
        if self.layout in FOLDER_LAYOUTS:
            there = self.folders.listing(target.mask.parent).pictures
            rivals = self._others(there.get(stem), target.mask)
            if self.layout == "mask folder" and _subject_suffix(target.sample):
                rivals += there.get(stem.removesuffix(_nfc(_subject_suffix(target.sample))), [])
        else:
            place, own = self.folders.beside(target.sample)
            rivals = self._others(self.folders.listing(place).sidecars.get(_nfc(own)), target.mask)
        for rival in rivals:
            if rival in target.former:
                continue
            yield f"{name}: {rival} would be taken for its mask or picture beside {target.mask.name}. Move it away."
        if self.layout == "alpha png":
            known = self.folders.listing(target.mask.parent).pictures
            for base in (base.stem for base in mask_bases(stem)):
                if (target.mask.parent, base) in self.names or base in known:
                    yield f"{name}: {target.mask} would be taken for a mask of {base}. Rename the picture."
        elif target.sample.image_path is not None:
            yield from self._namesakes(target)
        if target.caption is not None:
            caption = target.caption
            same = f"{_nfc(caption.stem)}{caption.suffix.lower()}"
            for rival in self._others(self.folders.listing(caption.parent).others.get(same), caption):
                yield f"{name}: {rival} would be taken for its caption beside {caption.name}. Move it away."

    def _namesakes(self, target: Target) -> Iterable[str]:
        """Other pictures beside the sample's own that the loader would give the same mask."""
        place, stem = self.folders.beside(target.sample)
        for other in self._others(self.folders.listing(place).pictures.get(_nfc(stem)), target.sample.image_path):
            yield f"{target.sample.name}: {other} has the same name, so the mask would fit both. Rename one."

    def _others(self, found: list[Path] | None, own: Path | None) -> list[Path]:
        if own is None:
            return list(found or ())
        return [p for p in found or () if p != own and not (own.exists() and p.exists() and p.samefile(own))]


def _identity(path: Path) -> str:
    """One text for all spellings that the file system takes for the same file."""
    text = _nfc(str(path))
    return text.casefold() if sys.platform in ("win32", "darwin") else text


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)
