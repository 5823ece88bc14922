"""A clip's frames with their masks, decoded one at a time: what `sample` does for pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from ..clips.reading import ANIMATED_EXTENSIONS, frame_times, mask_clip_meaning, read_frames, read_mask_frames
from ..clips.sequences import picture_numbers, sequence_pictures
from ..errors import MaskError
from ..loss.frame_masks import neighbours, over_time
from ..loss.masks import transform_mask
from ..pictures.mask_values import MaskValues
from ..pictures.packed_mask import PackedFrames
from .sample import (
    ExaminedMask,
    LoadedSample,
    Sample,
    alpha_values,
    check_aspect,
    examined,
    naming,
    source_path,
    still_mask,
)

Cancel = Callable[[], None]


def times_of(sample: Sample) -> np.ndarray:
    """When each frame of a clip is shown: float64 (N,), seconds, the first 0.

    Raises:
        DataError: The clip cannot be read.
        MaskError: Its mask has another number of frames.
    """
    path = source_path(sample)
    with naming(path, sample.name):
        times = frame_times(path)
    count = _count_masks(sample)
    if count not in (None, len(times)):
        fault = (
            f"{_label(sample)}: the mask has {count} frames but the clip has {len(times)}. Frames are matched by "
            "their number: save the mask with one frame for each of the clip's."
        )
        files = [one for one in (path, sample.mask_path) if one is not None and sample.mask is None]
        raise MaskError(" ".join([fault, *left_out_hint(files)]))
    _check_numbers(sample, path)
    return times


def left_out_hint(files: Iterable[Path]) -> list[str]:
    """A sentence more on why the frames of clip and mask differ in number; none if nothing is known."""
    if not any(file.suffix.lower() in ANIMATED_EXTENSIONS for file in files):
        return []
    return [
        "Programs leave out of a GIF, WebP or PNG each frame that is as the one before it: save the mask as a video or "
        "as a folder of frames, and the clip too if it is such a file."
    ]


def _check_numbers(sample: Sample, clip: Path) -> None:
    """Nothing if two folders of pictures miss the same numbers; else frames would meet the masks of others."""
    if not (clip.is_dir() and sample.mask is None and sample.mask_path and sample.mask_path.is_dir()):
        return
    own, masks = picture_numbers(clip), picture_numbers(sample.mask_path)
    if own and masks and own != masks:
        odd = next(index for index, (number, other) in enumerate(zip(own, masks, strict=True)) if number != other)
        raise MaskError(
            f"{_label(sample)}: from {sequence_pictures(clip)[odd].name} on, the masks are numbered otherwise than the "
            "clip. Frames are matched in order: add the one that is missing, or number both alike."
        )


def _count_masks(sample: Sample) -> int | None:
    """How many frames a mask has that is kept apart from its clip; None where it does not move, or is the alpha."""
    if isinstance(sample.mask, PackedFrames):
        return len(sample.mask)
    if sample.mask is not None or not sample.mask_moving or sample.mask_path is None:
        return None
    with naming(sample.mask_path, _label(sample), MaskError):
        return len(frame_times(sample.mask_path))


def load_frames(sample: Sample, numbers: Sequence[int], check_cancel: Cancel = lambda: None) -> Iterator[LoadedSample]:
    """The decoded frames of a clip with their masks after the pixel transforms, before fill and geometry.

    A still mask is the same for all frames. Where the mask is the clip's own alpha, a frame that is opaque is learned
    as a whole.

    Args:
        sample: Of a clip.
        numbers: Of the frames, ascending, repeats allowed.
        check_cancel: Called between frames; raises to stop.

    Raises:
        DataError: A frame cannot be read.
        MaskError: A mask cannot be read or is of another aspect.
    """
    still = None if sample.moves else still_mask(sample)
    masks = _masks(sample, numbers, check_cancel) if sample.moves else None
    path = source_path(sample)
    with naming(path, sample.name):
        for data in read_frames(path, numbers, check_cancel=check_cancel):
            if masks is not None:
                mask = next(masks)
                yield LoadedSample(data.rgb, mask, True, mask)
            elif still is not None:
                yield LoadedSample(data.rgb, still[0], True, still[1])
            else:
                white = _white(data.rgb.shape[:2])
                yield LoadedSample(data.rgb, white, False, white)


def examine_frames(
    sample: Sample, numbers: Sequence[int], check_cancel: Cancel = lambda: None
) -> Iterator[ExaminedMask]:
    """The masks of these frames of a clip whose mask moves, with what was made of them; each number once.

    Where the mask is the clip's alpha, there is none for a frame that is opaque; see `examine_opaque`.

    Raises:
        DataError, MaskError: As `load_frames`.
    """
    seen: dict[int, MaskValues | None] = {}
    once = sorted(set(numbers))
    for number, mask in zip(once, _masks(sample, once, check_cancel, seen), strict=True):
        values = seen[number]
        yield ExaminedMask(None) if values is None else examined(mask, [values])
        for passed in [k for k in seen if k <= number]:
            del seen[passed]


def examine_opaque(sample: Sample) -> ExaminedMask:
    """The mask of an opaque frame of a clip whose alpha is its mask."""
    raw = _white(sample.size[::-1])
    return examined(_transformed(sample, raw), [MaskValues(raw)])


def _masks(
    sample: Sample, numbers: Sequence[int], check_cancel: Cancel, seen: dict[int, MaskValues | None] | None = None
) -> Iterator[np.ndarray]:
    """The masks of these frames after all transforms; what was read of each file's frame is put into `seen`."""
    union, feather = sample.transform.frame_union, sample.transform.frame_feather
    over = bool(union or feather)
    count = len(frame_times(source_path(sample))) if over else 0
    wanted = neighbours(numbers, count=count, union=union, feather=feather) if over else numbers

    def each() -> Iterator[np.ndarray]:
        for number, values in zip(wanted, _raw(sample, wanted, check_cancel), strict=True):
            if seen is not None:
                seen[number] = values
            yield _transformed(sample, _white(sample.size[::-1]) if values is None else values.weights)

    return over_time(each(), numbers, count=count, union=union, feather=feather) if over else each()


def _raw(sample: Sample, numbers: Sequence[int], check_cancel: Cancel) -> Iterator[MaskValues | None]:
    """What is stored of each frame's mask; None where the mask is the clip's alpha and the frame is opaque."""
    if isinstance(sample.mask, PackedFrames):
        for number in numbers:
            check_cancel()
            yield MaskValues(sample.mask.unpack(number))
        return
    path = sample.mask_path
    if not sample.mask_moving or path is None:
        clip = source_path(sample)
        with naming(clip, sample.name):
            for data in read_frames(clip, numbers, check_cancel=check_cancel):
                yield None if data.alpha is None else alpha_values(data.alpha)
        return
    with naming(path, _label(sample), MaskError):
        channel = sample.settings.mask_channel
        meant = mask_clip_meaning(path, channel, check_cancel=check_cancel)
        for raw in read_mask_frames(path, numbers, channel, check_cancel=check_cancel):
            check_aspect(_label(sample), (raw.shape[1], raw.shape[0]), sample.size)
            yield MaskValues(raw, read=meant.read, doubt=meant.doubt)


def _label(sample: Sample) -> str:
    if sample.mask_path is None:
        return sample.name
    return f"{sample.name} (mask file {sample.mask_path.name})"


def _white(shape: tuple[int, ...]) -> np.ndarray:
    return np.ones(shape, np.float32)


def _transformed(sample: Sample, raw: np.ndarray) -> np.ndarray:
    return transform_mask(raw, sample.transform, scale=raw.shape[1] / sample.size[0])
