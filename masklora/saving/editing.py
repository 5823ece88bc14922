"""Masks painted by hand: what there is to edit, where it is written, and saving it so that nothing is lost.

Edited masks stay in the data set's own layout, so that loading its folder again finds them.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from ..cache.keys import file_digest
from ..dataset.sample import Dataset, Sample, check_aspect, fit_mask, naming, source_path
from ..errors import ConfigError, DataError, MaskConflictError, MaskError
from ..files import patiently
from ..folder.listing import find_mask_folder
from ..folder.mask_names import MASK_EXTENSION
from ..folder.roles import zone_of
from ..folder.subjects import TOGETHER
from ..folder.tree import Allowed
from ..pictures.mask_files import encode_png, quantise_mask, widened, write_whole
from ..pictures.png_chunks import carry_over, replaced_by, signed
from ..pictures.reading import as_stored, read_bands, read_image, read_mask
from .targets import LAYOUTS, SaveSettings, plan_targets, sidecar_place
from .versions import Versions

NO_FILE = "none"
_BANDS = ("red", "green", "blue")
# Comparing and replacing are one step for everybody in this process.
SAVING = threading.Lock()


@dataclass(frozen=True, eq=False)
class RawMask:
    """A mask before its transforms: float32 (H, W) in 0..1 at the picture's size, white where there is none.

    `token` changes whenever anybody changes the file that holds it.
    """

    weights: np.ndarray
    token: str


@dataclass(frozen=True)
class MaskTarget:
    """The file that an edited mask is written to.

    Attributes:
        path: The file.
        in_picture: Whether it is the picture itself, whose alpha is the mask.
        replaces: The mask file of another format that makes way for it, None if there is none.
    """

    path: Path
    in_picture: bool = False
    replaces: Path | None = None

    @property
    def existing(self) -> Path | None:
        """The file that holds the mask now, None if there is none."""
        return next((path for path in (self.path, self.replaces) if path is not None and path.is_file()), None)


def mask_target(sample: Sample, *, allowed: Allowed) -> MaskTarget:
    """Where the edited mask of a sample is written, in the layout that its data set was loaded with.

    That of a clip is a still mask, which counts for each of its frames.

    A mask that has a file stays in it; one that is no PNG becomes a PNG of the same name. Otherwise it goes
    into the mask folder if one is named, into the picture's alpha where masks are looked for only there, or
    into a file beside the picture.

    Args:
        sample: Whose mask is edited.
        allowed: returns the real path of one that may be written, raises `PathError` for any other.

    Raises:
        DataError: The mask has no file of its own and can have none, or moves; says what to do.
        ConfigError: The data set was loaded without masks.
        PathError: The file lies outside the allowed folders.
    """
    refuse_without_file(sample)
    _refuse_moving_mask(sample)
    source = sample.settings.mask_source
    if sample.mask_path is not None:
        return _own_file(sample, sample.mask_path, allowed)
    if source == "none":
        raise ConfigError(
            f"{sample.name}: mask_source is none, so a mask would not be used. Set mask_source to auto where the "
            "dataset is loaded, then edit the mask."
        )
    if source == "alpha":
        return MaskTarget(_picture(sample, allowed), in_picture=True)
    return MaskTarget(new_file(sample, allowed))


def raw_mask(sample: Sample, *, allowed: Allowed) -> RawMask:
    """What there is to edit; a file that others have written meanwhile comes before what the sample knows.

    Raises:
        DataError, ConfigError, PathError: As `mask_target`, or the file cannot be read.
        MaskError: The mask is of another aspect than its picture.
    """
    target = mask_target(sample, allowed=allowed)
    file = target.existing
    # The token first: a mask that is newer than its token can only be told too often to be in conflict.
    token = NO_FILE if file is None else file_digest(file)
    if file is None or target.in_picture:
        weights = _alpha(sample) if sample.moving is None and (sample.alpha or target.in_picture) else None
    else:
        weights = mask_of_file(sample, file)
    if weights is None:
        weights = np.ones(sample.size[::-1], np.float32)
    return RawMask(fit_mask(weights, sample.size), token)


def previous_mask(sample: Sample, *, allowed: Allowed, versions: Versions) -> np.ndarray | None:
    """The mask before the last save: float32 (H, W) in 0..1 at the picture's size; None if none is kept.

    Raises:
        DataError, ConfigError, PathError, MaskError: As `raw_mask`.
    """
    target = mask_target(sample, allowed=allowed)
    kept = next(iter(versions.all(target.path)), None)
    if kept is None:
        return None
    if not target.in_picture:
        return fit_mask(mask_of_file(sample, kept), sample.size)
    with naming(kept, sample.name):
        alpha = read_image(kept).alpha
    return np.ones(sample.size[::-1], np.float32) if alpha is None else fit_mask(alpha, sample.size)


def shown_levels(weights: np.ndarray) -> np.ndarray:
    """The eight bits in which a mask is edited: uint8 (H, W), 255 = learn."""
    return np.rint(np.clip(weights, 0, 1) * np.float32(255)).astype(np.uint8)


def save_mask(sample: Sample, levels: np.ndarray, token: str, *, allowed: Allowed, versions: Versions) -> Sample:
    """The sample with its edited mask, which is in its file by then; the file's former content is kept.

    Where `levels` are what `shown_levels` gives of the mask that is there, its finer values stay exactly.

    Args:
        sample: Whose mask was edited.
        levels: uint8 (H, W) at the picture's size, 255 = learn.
        token: Of the `RawMask` that was edited.
        allowed: As in `mask_target`.
        versions: Where the former content goes.

    Raises:
        MaskConflictError: The file has changed since.
        DataError: It cannot be written; everything is as it was. Or as `mask_target`.
        ConfigError, PathError, MaskError: As `raw_mask`.
    """
    if levels.dtype != np.uint8 or levels.shape != sample.size[::-1]:
        width, height = sample.size
        raise MaskError(f"{sample.name}: expected a mask of {width}×{height} with 8 bits, got {levels.shape[::-1]}.")
    with SAVING:
        target, old = mask_target(sample, allowed=allowed), raw_mask(sample, allowed=allowed)
        if old.token != token:
            raise MaskConflictError(
                f"{sample.name}: its mask was changed elsewhere since it was opened here. Load that mask, or save "
                "yours over it."
            )
        same = levels == shown_levels(old.weights)
        if not (same.all() and target.path.is_file()):
            weights = np.where(same, old.weights, levels.astype(np.float32) / np.float32(255))
            steps = quantise_mask(weights)
            data = _picture_bytes(sample, target, steps) if target.in_picture else _mask_bytes(sample, target, steps)
            _replace_file(sample, target, data, versions)
        mark_edited(target.path, versions)
    if target.in_picture:
        return replace(sample, mask_path=None, alpha=True)
    return replace(sample, mask_path=target.path, alpha=False)


def affected(samples: Sequence[Sample], before: Sample, after: Sample) -> dict[int, Sample]:
    """By index the samples that an edit changes, in their new form: those that share the file that was written.

    Args:
        samples: Of the data set; `before` is one of them.
        before: The sample that was edited.
        after: What `save_mask` gave for it.
    """
    files = {path for path in (before.mask_path, after.mask_path) if path is not None}
    found = {}
    for index, sample in enumerate(samples):
        if sample is before:
            found[index] = after
        elif sample.mask is not None or sample.image is not None:
            continue
        elif any(part.path in files for part in sample.parts):
            parts = tuple(replace(p, path=after.mask_path) if p.path in files else p for p in sample.parts)
            found[index] = replace(sample, parts=parts)
        elif sample.mask_path in files or _is_twin(sample, before):
            moves = {"alpha": after.alpha, "mask_moving": after.mask_moving}
            found[index] = replace(sample, mask_path=after.mask_path, **moves)
    return found


def _is_twin(sample: Sample, before: Sample) -> bool:
    """Whether both show one picture of one folder, as merging a data set with itself gives."""
    known = ("image_path", "mask_path", "subject", "parts", "settings")
    return all(getattr(sample, name) == getattr(before, name) for name in known)


def refuse_without_file(sample: Sample) -> None:
    """Nothing if the sample has a file, and its mask one or none; else raises `DataError`, which says what to do."""
    if sample.image is not None or sample.image_path is None:
        raise DataError(
            f"{sample.name} comes from another node and has no file. Save pictures and masks with Save Masks "
            "(layout alpha png), load that folder, and edit the masks there."
        )
    if sample.mask is not None:
        raise DataError(
            f"{sample.name}: its mask was made in this graph and has no file. Save it with Save Masks, and connect "
            "the dataset that Save Masks gives to Inspect Dataset."
        )
    if sample.parts and not sample.subject:
        names = ", ".join(part.path.name for part in sample.parts)
        raise DataError(
            f"{sample.name} has several numbered masks, which count together: {names}. Join them to edit that."
        )
    if sample.subject == TOGETHER or sample.parts:
        raise DataError(
            f"{sample.name} shows all subjects of its picture at once; its mask is made from theirs. Edit the "
            "subjects one by one."
        )


def _refuse_moving_mask(sample: Sample) -> None:
    if sample.moving is None:
        return
    if sample.mask_moving and sample.mask_path is not None:
        raise DataError(
            f"{sample.name} is a clip, and its mask {sample.mask_path.name} is one too, with a mask for each frame. "
            "Only a still mask can be painted here. Change that file with a program for clips; or move it away and "
            "load the dataset again, to paint one mask for all frames."
        )
    only_alpha = sample.mask_path is None and sample.settings.mask_source == "alpha"
    if only_alpha or sample.alpha:
        raise DataError(
            f"{sample.name} is a clip, and its mask is its own transparency, frame by frame. Only a still mask can be "
            f"painted here. For one mask for all frames, put a picture {source_path(sample).stem}_mask.png beside the "
            "clip, set mask_source to auto, and load the dataset again."
        )


def real_file(sample: Sample, path: Path, allowed: Allowed) -> Path:
    """The real path of a mask's file or folder of frames, which is no link itself.

    Raises:
        DataError: It is a link.
        PathError: It lies outside the allowed folders.
    """
    real = Path(allowed(path.parent)) / path.name
    if real.is_symlink():
        raise DataError(f"{sample.name}: {real} is a link, which is not replaced. Put the mask itself there.")
    return real


def is_in_place(sample: Sample, real: Path, allowed: Allowed) -> bool:
    """Whether the loader looks for a mask of this picture in the folder of the file `real`, under other extensions."""
    return real.parent in _places(sample, allowed) or _is_below(sample, real.parent, allowed)


def _own_file(sample: Sample, path: Path, allowed: Allowed) -> MaskTarget:
    real = real_file(sample, path, allowed)
    # A file with the extension .mask may be of any format, and beside it the picture may be a PNG of that name.
    if path.suffix.lower() in (".png", MASK_EXTENSION):
        return MaskTarget(real)
    if not is_in_place(sample, real, allowed):
        raise DataError(
            f"{sample.name}: its mask {real} is found through a link and is no PNG. Save it as PNG, link to that, and "
            "load the dataset again."
        )
    return MaskTarget(real.with_suffix(".png"), replaces=real)


def _places(sample: Sample, allowed: Allowed) -> list[Path]:
    """The folders in which the loader looks for this picture's mask."""
    places = [sidecar_place(sample, allowed)]
    root = _mask_folder(sample, allowed)
    if root is not None:
        places.append(Path(allowed((root / sample.picture).parent)))
    return places


def _is_below(sample: Sample, place: Path, allowed: Allowed) -> bool:
    """Whether a folder is one that is named for masks inside the folder of the pictures."""
    folder = sample.settings.folder.strip()
    root = Path(allowed(Path(folder))) if folder else None
    return root is not None and place.is_relative_to(root) and zone_of(place.relative_to(root).as_posix()) is not None


def _mask_folder(sample: Sample, allowed: Allowed) -> Path | None:
    folder = sample.settings.folder.strip()
    return find_mask_folder(sample.settings, Path(allowed(Path(folder))), allowed) if folder else None


def new_file(sample: Sample, allowed: Allowed) -> Path:
    """Where a mask goes that has no file yet, in the layout that its data set was loaded with.

    Raises:
        ConfigError, DataError, PathError: As `plan_targets`.
    """
    root = _mask_folder(sample, allowed)
    layout = LAYOUTS[0] if root is not None else LAYOUTS[2]
    settings = SaveSettings(layout, overwrite=True)
    (target,) = plan_targets(Dataset((sample,)), settings, destination=root, allowed=allowed, picture=0)
    return target.mask


def _picture(sample: Sample, allowed: Allowed) -> Path:
    path = source_path(sample)
    real = Path(allowed(path.parent)) / path.name
    if path.suffix.lower() != ".png":
        raise DataError(
            f"{sample.name}: mask_source is alpha, but only a PNG can take a mask into its alpha here. Set mask_source "
            "to auto, which keeps the edited mask in a file beside the picture, or save the picture as PNG."
        )
    if real.is_symlink():
        raise DataError(f"{sample.name}: {real} is a link, which is not replaced. Put the picture itself there.")
    return real


def _alpha(sample: Sample) -> np.ndarray | None:
    path = source_path(sample)
    with naming(path, sample.name):
        return read_image(path).alpha


def mask_of_file(sample: Sample, file: Path) -> np.ndarray:
    """What a still mask file holds for a sample, float32 (h, w) in 0..1.

    Raises:
        MaskError: It cannot be read, or is of another aspect than the picture.
    """
    label = f"{sample.name} (mask file {file.name})"
    with naming(file, label, MaskError):
        mask = read_mask(file, sample.settings.mask_channel)
    check_aspect(label, (mask.shape[1], mask.shape[0]), sample.size)
    return mask


def _mask_bytes(sample: Sample, target: MaskTarget, steps: np.ndarray) -> bytes:
    """A grey PNG, or one whose other bands stay as they are where the mask is one band of several."""
    channel, file = sample.settings.mask_channel, target.existing
    bands = read_bands(file) if file is not None and channel in (*_BANDS, "alpha") else None
    if channel == "alpha":
        white = np.full((*steps.shape, 3), 255, np.uint8)
        return encode_png(steps, rgb=white if bands is None else _in_colour(bands.colours, steps.shape))
    if bands is None or bands.colours.shape[2] == 1:
        return encode_png(steps)
    colours = _in_colour(bands.colours, steps.shape)
    wide = np.uint16 in (steps.dtype, colours.dtype)
    rgb = widened(colours, wide).copy()
    rgb[..., _BANDS.index(channel)] = widened(steps, wide)
    return encode_png(None if bands.alpha is None else _fitted(bands.alpha, steps.shape), rgb=rgb)


def _picture_bytes(sample: Sample, target: MaskTarget, steps: np.ndarray) -> bytes:
    """The picture with the mask as its alpha; colours and everything else that the file says are kept."""
    if (steps == np.iinfo(steps.dtype).max).all() and sample.settings.missing_mask != "train whole image":
        raise DataError(
            f"{sample.name}: a picture that is opaque everywhere counts as one without a mask, and missing_mask is "
            f"{sample.settings.missing_mask}. Set missing_mask to train whole image, or leave some pixels out."
        )
    with naming(target.path, sample.name):
        bands = read_bands(target.path)
    if bands.values.shape[:2] != steps.shape:
        raise DataError(f"{sample.name}: the picture has another size than when it was loaded. Load the dataset again.")
    rgb = as_stored(_in_colour(bands.colours, steps.shape), bands.orientation)
    png = encode_png(as_stored(steps, bands.orientation), rgb=rgb)
    try:
        return carry_over(png, target.path.read_bytes())
    except DataError as error:
        raise DataError(f"{sample.name}: {error}") from error


def _in_colour(colours: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    colours = _fitted(colours, size)
    return np.repeat(colours, 3, axis=2) if colours.shape[2] == 1 else colours


def _fitted(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if values.shape[:2] == size:
        return values
    return cv2.resize(values, size[::-1], interpolation=cv2.INTER_LINEAR).reshape(*size, *values.shape[2:])


def _replace_file(sample: Sample, target: MaskTarget, data: bytes, versions: Versions) -> None:
    file = target.existing
    try:
        if file is not None:
            versions.keep(file, of=target.path)
        # What the file replaced may lie beside it still.
        replaces = replaced_by(target.path) if target.replaces is None else target.replaces.name
        write_whole(target.path, data if target.in_picture else signed(data, replaces=replaces), overwrite=True)
        if target.replaces is not None and target.replaces.is_file():
            _make_way(target.replaces, target.path)
    except OSError as error:
        raise DataError(
            f"{sample.name}: {target.path} could not be written ({error}). The mask that was there is untouched. Make "
            "room or check the folder's rights, then save again."
        ) from error


def mark_edited(path: Path, versions: Versions) -> None:
    """Notes that a person has edited the mask in this file, where that can be noted."""
    # The mask itself is safe by now; without the mark only Save Masks may replace it later.
    with contextlib.suppress(OSError, DataError):
        versions.mark_edited(path)


def _make_way(old: Path, new: Path) -> None:
    """Removes the mask of the former format; where that fails the new one goes, as two would fit one picture."""
    try:
        patiently(old.unlink)
    except OSError:
        new.unlink(missing_ok=True)
        raise
