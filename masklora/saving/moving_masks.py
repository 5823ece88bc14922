"""Moving masks edited by hand: what there is to edit, where it is written, and saving it so that nothing is lost."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..cache.keys import file_digest
from ..clips.reading import CLIP_EXTENSIONS, frame_times, is_animated
from ..clips.sequences import sequence_pictures
from ..dataset.moving import examine_frames, times_of
from ..dataset.sample import Sample, fit_mask, source_path
from ..errors import ConfigError, DataError, MaskConflictError
from ..files import patiently
from ..findings import counted
from ..folder.mask_names import MASK_EXTENSION
from ..folder.tree import Allowed
from ..pictures.packed_mask import PackedFrames, PackedMask, pack_mask
from ..settings import MaskTransform
from .editing import (
    NO_FILE,
    SAVING,
    is_in_place,
    mark_edited,
    mask_of_file,
    mask_target,
    new_file,
    raw_mask,
    real_file,
    refuse_without_file,
    save_mask,
    shown_levels,
)
from .mask_clips import holds_masks, moving_facts, write_masks
from .targets import CLIP_MASKS, LAYOUTS
from .versions import Versions, removed

_CLIP = CLIP_MASKS["clip"]


@dataclass(frozen=True, eq=False)
class SavedMasks:
    """The masks of a clip's frames before their transforms, as they are saved.

    Attributes:
        frames: One for each frame at the clip's size, white where there is none; the same object again where a mask
            does not move.
        token: Changes whenever anybody changes what holds them.
        moving: Whether each frame has its own.
        path: The file, or folder of frames, that moving masks are written to.
    """

    frames: tuple[PackedMask, ...]
    token: str
    moving: bool
    path: Path


@dataclass(frozen=True)
class _Target:
    """Where moving masks go, and what of another format makes way for that."""

    path: Path
    replaces: Path | None = None

    @property
    def existing(self) -> Path | None:
        return next((path for path in (self.path, self.replaces) if path is not None and path.exists()), None)


def saved_masks(sample: Sample, *, allowed: Allowed, known: Sequence[PackedMask] | None = None) -> SavedMasks:
    """What there is to edit of a clip; packed frame by frame, so that one is unpacked at a time.

    Args:
        sample: Of a clip.
        allowed: As in `editing.mask_target`.
        known: The masks, where they were saved just now; then none is read.

    Raises:
        DataError: The clip cannot be read, it is a picture, or its mask has no file of its own and can have none.
        ConfigError: The data set was loaded so that a mask that moves would not be used.
        PathError: A file lies outside the allowed folders.
        MaskError: The mask cannot be read or has another number of frames.
    """
    target = _target(sample, allowed)
    if _is_still(sample, target):
        raw = raw_mask(sample, allowed=allowed)
        frames = (pack_mask(raw.weights),) * len(frame_times(source_path(sample))) if known is None else tuple(known)
        return SavedMasks(frames, raw.token, False, target.path)
    # The token first: masks that are newer than it can only be told too often to be in conflict.
    token = _token(target.existing)
    if known is not None:
        return SavedMasks(tuple(known), token, True, target.path)
    plain = _plain(sample, target)
    count = len(times_of(plain))
    white = pack_mask(np.ones(sample.size[::-1], np.float32))
    if target.existing is None and not sample.alpha:
        return SavedMasks((white,) * count, token, True, target.path)
    found = examine_frames(plain, range(count))
    frames = tuple(white if one.mask is None else pack_mask(fit_mask(one.mask, sample.size)) for one in found)
    return SavedMasks(frames, token, True, target.path)


def saved_token(sample: Sample, *, allowed: Allowed) -> str:
    """The token that `saved_masks` gives with the masks, none of which is read; raises as that."""
    target = _target(sample, allowed)
    if not _is_still(sample, target):
        return _token(target.existing)
    file = mask_target(sample, allowed=allowed).existing
    return NO_FILE if file is None else file_digest(file)


def former_masks(sample: Sample, *, allowed: Allowed, versions: Versions) -> tuple[PackedMask, ...] | None:
    """The masks of a clip's frames before the last save, one for each frame at the clip's size; None if none are kept.

    A still mask that a moving one has replaced is that of all frames, the same object again.

    Args:
        sample: Of a clip.
        allowed: As in `editing.mask_target`.
        versions: Where `save_moving` put them.

    Raises:
        DataError, ConfigError, PathError: As `saved_masks`.
        MaskError: They cannot be read, or are of another number of frames than the clip has by now.
    """
    target = _target(sample, allowed)
    kept = next(iter(versions.all(target.path)), None)
    if kept is None:
        return None
    if not (kept.is_dir() or kept.suffix.lower() in CLIP_EXTENSIONS or is_animated(kept)):
        mask = pack_mask(fit_mask(mask_of_file(sample, kept), sample.size))
        return (mask,) * len(frame_times(source_path(sample)))
    plain = replace(_plain(sample, target), mask_path=kept, mask_moving=True, alpha=False)
    found = examine_frames(plain, range(len(times_of(plain))))
    return tuple(pack_mask(fit_mask(one.mask, sample.size)) for one in found if one.mask is not None)


def save_moving(
    sample: Sample, frames: Sequence[PackedMask], token: str, *, allowed: Allowed, versions: Versions
) -> Sample:
    """The sample with its edited masks, which are in their file by then; its former content is kept.

    A mask that was still, and is the same in all frames, stays a still one. Any other becomes a clip of grey frames,
    or stays a folder of frames where it is one.

    Args:
        sample: Whose masks were edited.
        frames: One for each frame at the clip's size.
        token: Of the `SavedMasks` that were edited.
        allowed: As in `editing.mask_target`.
        versions: Where the former content goes.

    Raises:
        MaskConflictError: What holds the masks has changed since.
        DataError: It cannot be written, and everything is as it was; or the clip has another number of frames by now.
        ConfigError, PathError, MaskError: As `saved_masks`; or the masks would not load back as they are.
    """
    target = _target(sample, allowed)
    count = len(frame_times(source_path(sample)))
    if count != len(frames):
        raise DataError(
            f"{sample.name}: the clip has {counted(count, '[frame|frames]')}, but {len(frames)} when its masks were "
            "opened. Load the dataset again."
        )
    if _is_still(sample, target) and all(one == frames[0] for one in frames):
        return save_mask(sample, shown_levels(frames[0].unpack()), token, allowed=allowed, versions=versions)
    with SAVING:
        target = _target(sample, allowed)
        still = _is_still(sample, target)
        if (raw_mask(sample, allowed=allowed).token if still else _token(target.existing)) != token:
            raise MaskConflictError(
                f"{sample.name}: its masks were changed elsewhere since they were opened here. Discard this draft to "
                "edit those."
            )
        _refuse_in_the_way(sample, target)
        edited = replace(_plain(sample, target), mask=PackedFrames(tuple(frames)), alpha=False)
        if not (target.path.exists() and holds_masks(target.path, edited, lambda: None)):
            _write(edited, target, versions)
        mark_edited(target.path, versions)
    return replace(sample, mask_path=target.path, mask_moving=True, alpha=False)


def _target(sample: Sample, allowed: Allowed) -> _Target:
    if sample.moving is None:
        raise DataError(f"{sample.name} is one still picture, and its mask does not move. Paint it as one.")
    refuse_without_file(sample)
    _refuse_unused(sample)
    path = sample.mask_path
    if path is None:
        return _Target(new_file(replace(sample, mask=PackedFrames(())), allowed))
    real = real_file(sample, path, allowed)
    if sample.mask_moving and (real.suffix.lower() == _CLIP or real.is_dir()):
        return _Target(real)
    if not is_in_place(sample, real, allowed):
        raise DataError(
            f"{sample.name}: its mask {real} is found through a link, and edited masks that move become another file. "
            "Put the mask itself where the link is, and load the dataset again."
        )
    if path.suffix.lower() == MASK_EXTENSION:
        # Beside its clip, a clip of that name would be another one to learn.
        return _Target(real.with_name(f"{real.stem}{LAYOUTS[2]}").with_suffix(_CLIP), real)
    return _Target(real.with_suffix(_CLIP), real)


def _refuse_unused(sample: Sample) -> None:
    """Raises where a mask that moves would not be found, or not understood, when the data set is loaded again."""
    settings = sample.settings
    if settings.mask_source in ("none", "alpha"):
        raise ConfigError(
            f"{sample.name}: mask_source is {settings.mask_source}, so a file of masks would not be used. Set "
            "mask_source to auto where the dataset is loaded, then edit the masks."
        )
    if settings.mask_channel == "alpha":
        raise ConfigError(
            f"{sample.name}: mask_channel is alpha, but masks that move are saved in grey. Set mask_channel to "
            "luminance where the dataset is loaded, then edit the masks."
        )
    if sample.subject and not sample.mask_moving:
        raise DataError(
            f"{sample.name} is one of several subjects of its clip, whose masks are joined only while they are still. "
            "Paint it as one mask for all frames."
        )


def _is_still(sample: Sample, target: _Target) -> bool:
    """Whether one mask, or none, is that of all frames."""
    return not sample.moves and (sample.mask_path is not None or not target.path.exists())


def _plain(sample: Sample, target: _Target) -> Sample:
    """The sample without transforms, with the file that is there, which others may have written meanwhile."""
    there = target.existing
    found = sample.mask_path is None and there is not None
    path = there if found or there is None else sample.mask_path
    return replace(
        sample,
        mask_path=path,
        mask_moving=path is not None and (found or sample.mask_moving),
        alpha=sample.alpha and path is None,
        transform=MaskTransform(),
    )


def _token(path: Path | None) -> str:
    if path is None:
        return NO_FILE
    if not path.is_dir():
        return file_digest(path)
    hasher = hashlib.blake2b(digest_size=20)
    for file in sequence_pictures(path):
        hasher.update(f"{file.name}\0{file_digest(file)}\0".encode("utf-8", "surrogatepass"))
    return hasher.hexdigest()


def _refuse_in_the_way(sample: Sample, target: _Target) -> None:
    if target.replaces is not None and target.path.exists():
        raise DataError(
            f"{sample.name}: {target.path} would be replaced, but is not its mask. Move it away, or load the dataset "
            "again."
        )


def _write(sample: Sample, target: _Target, versions: Versions) -> None:
    """Writes the masks of the sample, which has them in memory; nothing changes where that fails."""
    there = target.existing
    names = None
    try:
        if there is not None:
            versions.keep(there, of=target.path)
        if target.path.is_dir():
            names = _names(target.path, len(times_of(sample)))
        bits = moving_facts(sample, lambda: None).bits
        write_masks(target.path, sample, bits, overwrite=True, check_cancel=lambda: None, names=names)
        if target.replaces is not None and target.replaces.exists():
            _make_way(target.replaces, target.path)
    except OSError as error:
        raise DataError(
            f"{sample.name}: {target.path} could not be written ({error}). The masks that were there are untouched. "
            "Make room or check the folder's rights, then save again."
        ) from error


def _names(folder: Path, count: int) -> list[str]:
    """Of the pictures that are there, whose numbers are those of the clip's."""
    names = [file.stem for file in sequence_pictures(folder)]
    return names if len(set(names)) == len(names) == count else [f"{number:06d}" for number in range(count)]


def _make_way(old: Path, new: Path) -> None:
    """Removes the mask of the former format; where that fails the new one goes, as two would fit one clip."""
    try:
        patiently(lambda: removed(old))
    except OSError:
        removed(new)
        raise
