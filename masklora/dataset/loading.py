"""Data sets made: from a folder, reading headers only, or from pictures in memory."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..clips.header import ClipHeader
from ..clips.reading import frame_times, read_clip_header, read_frames
from ..errors import ConfigError, DataError, MaskError
from ..findings import counted, of_kinds, printable, worded
from ..folder.captions import text_fault, with_caption_policy
from ..folder.folder_names import tidied
from ..folder.folder_repeats import FolderRule
from ..folder.leftovers import MASK, NAMES_SHOWN, shown
from ..folder.listing import Item, check_settings, masks_beside_the_folder, match
from ..folder.report import MatchReport
from ..folder.tree import Allowed
from ..pictures.reading import MAX_PIXELS, read_bands, read_header
from ..settings import DatasetSettings
from .moving import left_out_hint
from .references import Pairing
from .sample import Dataset, Reference, Sample, aspect_fault, check_aspect, naming

Progress = Callable[[int, int, str], None]
# Frames of a clip that are decoded to see whether its alpha is opaque everywhere.
MOST_FRAMES = 256
# Core's LoadImage gives this shape, all zero, for a picture without alpha.
CORE_EMPTY_MASK = (64, 64)


def load_dataset(
    settings: DatasetSettings,
    *,
    allowed: Allowed,
    progress: Progress | None = None,
    check_cancel: Callable[[], None] | None = None,
) -> Dataset:
    """The data set of a folder; only headers are read, so ten thousand pictures take seconds.

    Clips count as pictures that move. Pictures with an alpha band are decoded where that may be their mask, because an
    opaque alpha is none; what is found is remembered for as long as the file stays the same. Of clips with an alpha
    band frames are decoded up to the first that is not opaque.

    Args:
        settings: the folder and how its samples count.
        allowed: returns a path that may be read, raises `PathError` for any other.
        progress: called with (done, total, name).
        check_cancel: called between pictures; raises to stop.

    Raises:
        DataError: folder or picture unusable, no picture at all, or a caption that is missing or not UTF-8.
        MaskError: masks ambiguous, of another aspect than their picture, missing where that is an error, or none at
            all from the source that was asked for; a mask that moves for a picture that does not, or with another
            number of frames than its clip.
        ConfigError: a setting is unknown or out of range.
    """
    check_settings(settings)
    settings = with_caption_policy(tidied(settings))
    items, report = match(settings, allowed=allowed, check_cancel=check_cancel)
    by_rule: dict[FolderRule | None, DatasetSettings] = {}
    samples: list[Sample] = []
    skipped: list[str] = []
    with_mask: list[str] = []
    faults, pairing = _Faults(), Pairing(settings)
    for done, item in enumerate(items):
        if check_cancel is not None:
            check_cancel()
        if item.rule not in by_rule:
            times = 1 if item.rule is None else item.rule.repeats
            by_rule[item.rule] = replace(settings, repeats=settings.repeats * times)
        sample = _sample(item, by_rule[item.rule], faults)
        references = pairing.references_of(item, sample.size)
        if references is None:
            continue
        sample = replace(sample, references=references)
        if sample.mask_path is not None or sample.parts or sample.alpha:
            with_mask.append(sample.name)
        elif _is_left_out(sample, settings):
            skipped.append(sample.name)
            continue
        samples.append(sample)
        if progress is not None:
            progress(done + 1, len(items), sample.name)
    faults.check()
    pairing.check()
    if settings.mask_source == "alpha" and not with_mask:
        raise MaskError(
            f"mask_source is alpha, but no picture has transparent parts; the first is {printable(items[0].relative)}. "
            f"{_other_masks(report)}"
        )
    if not with_mask:
        report = replace(report, warnings=(*report.warnings, *masks_beside_the_folder(settings, allowed)))
    return Dataset(tuple(samples), _final_report(pairing.reported(report), samples, with_mask, skipped))


def from_images(
    images: Sequence[np.ndarray],
    masks: Sequence[np.ndarray | None] = (),
    captions: Sequence[str] = (),
    settings: DatasetSettings | None = None,
    *,
    name: str = "picture",
    invert_masks: bool = False,
    references: Sequence[np.ndarray] = (),
) -> Dataset:
    """A data set of pictures in memory, as other nodes hand them over; the arrays are not copied.

    Args:
        images: float32 (H, W, 3) in 0..1, or (H, W, 4) whose alpha is the mask where none is given.
        masks: none, one for all, or one per picture: float32 (H, W) in 0..1, 1 = learn. An entry of None is
            no mask, and so is the empty 64×64 mask that core gives for an opaque picture of another size.
        captions: none, one for all, or one per picture.
        settings: how the samples count; folder and mask source have no meaning here.
        name: begins the samples' names.
        invert_masks: for masks in core's polarity, where 1 is transparent.
        references: what the model is given beside the captions: none, one for all, or one per picture, shaped as
            `images`.

    Raises:
        DataError: no picture, wrong counts or shapes, or values that are not finite.
        MaskError: a mask of another aspect than its picture, or missing where that is an error.
    """
    settings = with_caption_policy(settings or DatasetSettings())
    check_settings(replace(settings, mask_source="auto"))
    if len(images) == 0:
        raise DataError("images: expected at least one picture, got none. Connect a list of images.")
    _check_texts(name, captions)
    all_masks = _spread(masks, len(images), "masks")
    all_captions = _spread(captions, len(images), "captions")
    beside = _spread(references, len(images), "references")
    samples: list[Sample] = []
    skipped: list[str] = []
    for i, (image, mask, caption) in enumerate(zip(images, all_masks, all_captions, strict=True)):
        label = f"{name}-{i + 1:04d}"
        sample = _memory_sample(label, image, mask, caption, settings, invert_masks)
        if beside[i] is not None:
            sample = replace(sample, references=(_memory_reference(label, beside[i]),))
        if sample.mask is None and _is_left_out(sample, settings):
            skipped.append(label)
        else:
            samples.append(sample)
    bare = tuple(s.name for s in samples if s.caption is None)
    if bare and settings.caption.missing == "error":
        raise DataError(f"captions: {bare[0]} has none. Connect captions, or change what missing captions do.")
    with_mask = [s.name for s in samples if s.mask is not None]
    report = MatchReport(no_caption=bare, paired=tuple(s.name for s in samples if s.references))
    return Dataset(tuple(samples), _final_report(report, samples, with_mask, skipped))


def _check_texts(name: str, captions: Sequence[str]) -> None:
    """Nothing if other nodes' texts can be trained on and told; else a `ConfigError` that names the input."""
    for widget, text in (("name", name.replace("\0", "")), *(("captions", caption or "") for caption in captions)):
        fault = text_fault(text)
        if fault:
            raise ConfigError(f"{widget}: {fault}")


class _Faults:
    """What is wrong with masks, by their files: all are told at once."""

    def __init__(self) -> None:
        self.aspects: dict[Path, str] = {}
        self.frames: dict[Path, str] = {}
        self.files: list[Path] = []

    def check(self) -> None:
        """Nothing without faults; else one `MaskError` of a kind."""
        if self.aspects:
            raise MaskError(_other_aspects(list(self.aspects.values())))
        if self.frames:
            fault = (
                f"{_listed(list(self.frames.values()))}. The frames of clip and mask are matched by number: save each "
                "mask with one frame for each of its clip's, or give it one still picture for all of them."
            )
            raise MaskError(" ".join([fault, *left_out_hint(self.files)]))


def _listed(faults: list[str]) -> str:
    more = f"; and {len(faults) - NAMES_SHOWN} more" if len(faults) > NAMES_SHOWN else ""
    return f"{'; '.join(faults[:NAMES_SHOWN])}{more}"


def _other_aspects(faults: list[str]) -> str:
    if len(faults) == 1:
        return f"{faults[0]}. Save the mask at the image's size."
    return (
        f"{len(faults)} masks have another aspect than their images. {_listed(faults)}. Save each mask at its image's "
        "size."
    )


def _sample(item: Item, settings: DatasetSettings, faults: _Faults) -> Sample:
    """The sample of an item; masks of another aspect, or with other frames, go into `faults`."""
    name = printable(item.relative)
    with naming(item.image, name):
        moving = read_clip_header(item.image) if item.moving else None
        header = moving or read_header(item.image)
        bare = item.mask is None and not item.parts and settings.mask_source in ("auto", "alpha")
        alpha = bare and header.alpha and _is_transparent(item.image, moving=item.moving)
    _refuse_moving(item, name)
    for path in [item.mask, *(part.path for part in item.parts)]:
        if path is None:
            continue
        label = f"{name} (mask file {path.name})"
        with naming(path, label, MaskError):
            mask = read_clip_header(path) if item.mask_moving else read_header(path)
        fault = aspect_fault(label, mask.size, header.size)
        if fault:
            faults.aspects.setdefault(path, fault)
        elif moving is not None and isinstance(mask, ClipHeader) and (fault := _frames_fault(item, moving, mask)):
            faults.frames.setdefault(path, fault)
            faults.files += [item.image, path]
    return Sample(
        key=item.relative,
        name=name,
        size=header.size,
        image_path=item.image,
        mask_path=item.mask,
        caption=item.text,
        settings=settings,
        alpha=alpha,
        subject=item.subject,
        parts=item.parts,
        share=item.share,
        reading=header.reading,
        caption_path=item.caption_file,
        moving=moving,
        mask_moving=item.mask_moving,
    )


def _refuse_moving(item: Item, name: str) -> None:
    """Raises for a mask that moves where none may."""
    first = next((part for part in item.parts if part.moving), None)
    if item.mask is not None and item.mask_moving and not item.moving:
        raise MaskError(
            f"{name}: its mask {item.mask.name} is a clip, but {name} is one still picture. Save the mask as a still "
            "picture, or give the one of them that belongs to something else another name."
        )
    if first is not None and item.subject:
        raise MaskError(
            f"{name}: {first.path.name} is a clip, and masks of several subjects that move are not joined into one. "
            "Set together to 0, or save each subject's mask as a still picture."
        )
    if first is not None:
        raise MaskError(
            f"{name}: {first.path.name} is one of several numbered masks and is a clip; those are not joined into one. "
            "Save one mask clip of all of them, or still pictures."
        )


def _frames_fault(item: Item, clip: ClipHeader, mask: ClipHeader) -> str:
    """What is wrong with a mask's number of frames, in words; empty if nothing is known to be."""
    if item.mask is None or 0 in (clip.frames, mask.frames) or clip.frames == mask.frames:
        return ""
    # Headers may only estimate; the times of frames are counted without decoding any.
    frames, masks = len(frame_times(item.image)), len(frame_times(item.mask))
    if frames == masks:
        return ""
    name = printable(item.relative)
    return (
        f"{name} has {counted(frames, '[frame|frames]')}, but its mask {item.mask.name} has "
        f"{counted(masks, '[frame|frames]')}"
    )


def _is_transparent(path: Path, *, moving: bool) -> bool:
    """Whether a picture's alpha, or that of a frame of a clip, is below 1 anywhere."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    states = [file.stat() for file in files]
    state = [(one.st_size, one.st_mtime_ns, one.st_ctime_ns, one.st_ino) for one in states]
    return _has_transparency(path, moving, *state)


@functools.lru_cache(maxsize=200_000)
def _has_transparency(path: Path, moving: bool, *state: tuple[int, ...]) -> bool:
    if moving:
        count = len(frame_times(path))
        frames = read_frames(path, range(min(count, MOST_FRAMES)))
        # What was not looked at may be transparent: then the alpha is the mask, and later stages see.
        return any(frame.alpha is not None for frame in frames) or count > MOST_FRAMES
    bands = read_bands(path)
    return bands.alpha is not None and bool((bands.alpha < bands.scale).any())


def _other_masks(report: MatchReport) -> str:
    there = [left.name for left in report.left if left.kind == MASK]
    if there:
        return f"{there[0]} is named like a mask: choose mask_source sidecar to use it."
    return "Save the pictures as PNG or WebP with transparency, or choose where else their masks are."


def _is_left_out(sample: Sample, settings: DatasetSettings) -> bool:
    """Whether a sample without a mask is dropped; raises where that is an error."""
    if settings.mask_source == "none" or settings.missing_mask == "train whole image":
        return False
    if settings.missing_mask == "error":
        raise MaskError(
            f"{sample.name}: no mask found (mask source: {settings.mask_source}), and missing masks are an "
            f"error. Add one, or change what missing masks do."
        )
    return True


def _final_report(report: MatchReport, samples: list[Sample], with_mask: list[str], skipped: list[str]) -> MatchReport:
    if not samples:
        clips = len(set(skipped) & set(report.clips))
        noun = "clip" if clips and clips == len(skipped) else "sample" if clips else "picture"
        raise MaskError(
            f"{worded(len(skipped), f'[The only {noun} was|All {len(skipped)} {noun}s were]')} left out for want "
            f"of a mask, beginning with {skipped[0]}. Check the mask source, or train whole images."
        )
    matched = frozenset(with_mask)
    missing = tuple(sample.name for sample in samples if sample.name not in matched)
    kept = frozenset(sample.name for sample in samples)
    bare = tuple(name for name in report.no_caption if name in kept)
    caption = samples[0].settings.caption
    report = replace(report, matched=tuple(with_mask), missing=missing, skipped=tuple(skipped))
    if not bare or caption.missing != "use trigger word":
        of_class = bare if samples[0].settings.regularisation else ()
        unused = (caption.trigger.strip(),) if bare and caption.trigger.strip() and not of_class else ()
        return replace(report, no_caption=bare, unused_triggers=unused, of_class=of_class)
    word = caption.trigger.strip()
    which = of_kinds(len(bare), len(set(bare) & set(report.clips)))
    told = f"{which} without a caption {worded(len(bare), '[gets|get] the trigger word')} {word}: {shown(bare)}."
    return replace(report, no_caption=(), notes=(*report.notes, told))


def _spread(values: Sequence, count: int, what: str) -> list:
    if len(values) in (0, 1):
        return [values[0] if len(values) else None] * count
    if len(values) != count:
        raise DataError(f"{what}: expected none, one, or {count} (one per picture), got {len(values)}.")
    return list(values)


def _memory_sample(
    name: str,
    image: np.ndarray,
    mask: np.ndarray | None,
    caption: str | None,
    settings: DatasetSettings,
    invert: bool,
) -> Sample:
    image, (width, height) = _memory_image(name, image)
    weights = given_mask(name, mask, (width, height), invert)
    if weights is None and image.shape[2] == 4 and bool((image[..., 3] < 1).any()):
        weights = np.clip(image[..., 3], 0, 1).astype(np.float32)
    return Sample(
        f"memory:{name}", name, (width, height), image=image, mask=weights, caption=caption, settings=settings
    )


def _memory_reference(name: str, image: np.ndarray) -> Reference:
    label = f"{name}, reference"
    image, size = _memory_image(label, image)
    return Reference(label, size, image=image, alpha=image.shape[2] == 4)


def _memory_image(name: str, image: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
    """A picture of another node, checked, and its (width, height)."""
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[2] not in (3, 4) or 0 in image.shape:
        raise DataError(f"{name}: expected a picture of shape (height, width, 3), got {image.shape}.")
    height, width = image.shape[:2]
    if height * width >= MAX_PIXELS:
        raise DataError(f"{name}: expected less than 100 Mpx, got {width}×{height}. Scale the picture down.")
    _check_finite(name, image)
    return image, (width, height)


def given_mask(name: str, mask: np.ndarray | None, size: tuple[int, int], invert: bool) -> np.ndarray | None:
    """The mask that another node gave for a picture of `size` (width, height), checked: float32 (H, W) in 0..1.

    Args:
        name: begins the messages.
        mask: (H, W) or (1, H, W); None is no mask.
        size: of the picture; the mask may have another scale.
        invert: for masks in core's polarity, where 1 is transparent.

    Returns:
        None where there is no mask, which the empty 64×64 mask also means that core gives for an opaque
        picture of another size.

    Raises:
        DataError: another shape, or values that are not finite.
        MaskError: another aspect than the picture's.
    """
    if mask is None:
        return None
    weights = np.asarray(mask, np.float32)
    weights = weights[0] if weights.ndim == 3 and weights.shape[0] == 1 else weights
    if weights.ndim != 2 or 0 in weights.shape:
        raise DataError(f"{name}: expected a mask of shape (height, width), got {weights.shape}.")
    if weights.shape == CORE_EMPTY_MASK != size[::-1] and not weights.any():
        return None
    _check_finite(f"{name}, mask", weights)
    check_aspect(name, (weights.shape[1], weights.shape[0]), size)
    weights = np.clip(weights, 0, 1)
    return 1 - weights if invert else weights


def _check_finite(name: str, array: np.ndarray) -> None:
    if not np.isfinite(array).all():
        raise DataError(f"{name}: expected values in 0..1, got NaN or infinity. Check the node that made it.")
