"""Masks that move, written so that nothing is lost: grey FFV1 in Matroska, or PNGs, one for each frame of the clip."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from ..clips.containers import opened
from ..clips.reading import CLIP_EXTENSIONS, frame_times, read_clip_header, read_frames, read_mask_frames
from ..clips.sequences import sequence_pictures
from ..dataset.moving import examine_frames, times_of
from ..dataset.sample import Sample, aspect_fault, fit_mask
from ..errors import DataError, MaskError
from ..files import patiently
from ..folder.tree import FRAMES
from ..pictures.mask_files import encode_png, quantise_mask, widened, write_whole
from ..pictures.png_chunks import signed

_TAG, _MAKER = "SOFTWARE", "Masked LoRA"
# What of a clip is looked at to say that it is one of masks.
_LOOKED_AT = 8
_RATE = 24
_TICK = Fraction(1, 1000)

Cancel = Callable[[], None]


@dataclass(frozen=True)
class MovingFacts:
    """What is known of a moving mask: whether a frame has one at all, whether all are white, and its bits.

    `bits` are 8 where every value is 0 or 1, else 16: a reader takes 1 for white in a file of 8 bits in which it sees
    nothing above that, as at the edges of a soft mask.
    """

    has_mask: bool
    white: bool
    bits: int


def mask_frames(sample: Sample, check_cancel: Cancel) -> Iterator[np.ndarray | None]:
    """The levels of each frame's mask at the clip's size, transforms applied: uint8 or uint16 (H, W).

    None for an opaque frame of a clip whose alpha is its mask.

    Raises:
        DataError, MaskError: As `examine_frames`; or a value is not finite.
    """
    count = len(times_of(sample))
    for number, found in enumerate(examine_frames(sample, range(count), check_cancel)):
        if found.mask is None:
            yield None
            continue
        try:
            yield quantise_mask(fit_mask(found.mask, sample.size))
        except MaskError as error:
            raise MaskError(f"{sample.name} (frame {number}): {error}") from error


def moving_facts(sample: Sample, check_cancel: Cancel) -> MovingFacts:
    """One look at all frames."""
    has_mask, white, bits = False, True, 8
    for levels in mask_frames(sample, check_cancel):
        if levels is None:
            continue
        has_mask = True
        full = np.iinfo(levels.dtype).max
        white = white and bool((levels == full).all())
        if bits == 8 and not ((levels == 0) | (levels == full)).all():
            bits = 16
    return MovingFacts(has_mask, has_mask and white, bits)


def holds_masks(path: Path, sample: Sample, check_cancel: Cancel) -> bool:
    """Whether loading the file gives these masks."""
    try:
        count = len(frame_times(path))
        if count != len(times_of(sample)):
            return False
        there = read_mask_frames(path, range(count), check_cancel=check_cancel)
        for levels, found in zip(mask_frames(sample, check_cancel), there, strict=True):
            if not np.array_equal(_weights(levels, sample), found):
                return False
    except DataError:
        return False
    return True


def _weights(levels: np.ndarray | None, sample: Sample) -> np.ndarray:
    if levels is None:
        return np.ones(sample.size[::-1], np.float32)
    return levels.astype(np.float32) / np.float32(np.iinfo(levels.dtype).max)


def write_masks(
    path: Path,
    sample: Sample,
    bits: int,
    *,
    overwrite: bool,
    check_cancel: Cancel,
    names: Sequence[str] | None = None,
) -> None:
    """The whole clip or none, read back before it takes its place.

    Args:
        path: Its file, or with the extension `FRAMES` or where there are `names` its folder of pictures, which replaces
            another one only in the latter case.
        sample: Whose mask moves.
        bits: 8 or 16, as `moving_facts` says.
        overwrite: Whether a file that is there may be replaced.
        check_cancel: Called between frames; raises to stop, and nothing is left.
        names: Of the pictures in a folder, without their extension; None numbers them.

    Raises:
        OSError: It cannot be written; what was there is untouched.
        MaskError: It would not load back as it is.
    """
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == FRAMES or names is not None:
            _write_pictures(temporary, sample, bits, check_cancel, names)
        else:
            _write_clip(temporary, sample, bits, check_cancel)
        if not holds_masks(temporary, sample, check_cancel):
            raise MaskError(
                f"{sample.name}: its masks do not load back from a clip as they are, because their weights are next to "
                "nothing. Make them stronger, or leave the clip out."
            )
        if not overwrite and path.exists():
            raise FileExistsError("it was made by something else in the meantime")
        if names is not None and path.is_dir():
            _take_along(path, temporary)
            _exchange(temporary, path)
        else:
            patiently(lambda: temporary.replace(path))
    finally:
        with contextlib.suppress(OSError):
            shutil.rmtree(temporary) if temporary.is_dir() else temporary.unlink(missing_ok=True)


def _take_along(old: Path, new: Path) -> None:
    """Copies what else lies in a folder of frames than frames, such as another program's project."""
    frames = set(sequence_pictures(old))
    for other in old.iterdir():
        if other in frames:
            continue
        if other.is_dir() and not other.is_symlink():
            shutil.copytree(other, new / other.name, symlinks=True)
        else:
            shutil.copy2(other, new / other.name, follow_symlinks=False)


def _exchange(new: Path, old: Path) -> None:
    """A folder takes the place of another, which comes back where that fails."""
    aside = old.with_name(f".{uuid.uuid4().hex}.tmp")
    patiently(lambda: old.replace(aside))
    try:
        patiently(lambda: new.replace(old))
    except OSError:
        aside.replace(old)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _write_pictures(
    folder: Path, sample: Sample, bits: int, check_cancel: Cancel, names: Sequence[str] | None = None
) -> None:
    """One PNG for each frame, numbered from 0 on as frames are everywhere, unless they have `names`."""
    folder.mkdir()
    places = len(str(len(times_of(sample))))
    for number, levels in enumerate(mask_frames(sample, check_cancel)):
        data = signed(encode_png(_in_bits(levels, sample, bits)))
        name = f"{number:0{max(4, places)}d}" if names is None else names[number]
        write_whole(folder / f"{name}.png", data, overwrite=False)


def _write_clip(path: Path, sample: Sample, bits: int, check_cancel: Cancel) -> None:
    with path.open("xb"):
        pass
    try:
        _encode(path, sample, bits, check_cancel)
    except av.FFmpegError as error:
        raise OSError(error.errno, error.strerror) from error
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _encode(path: Path, sample: Sample, bits: int, check_cancel: Cancel) -> None:
    width, height = sample.size
    pixels = "gray" if bits == 8 else "gray16le"
    with av.open(str(path), "w", format="matroska") as container:
        container.metadata[_TAG] = _MAKER
        # Each frame by itself, with a sum that tells damage.
        stream = container.add_stream("ffv1", rate=_RATE, options={"g": "1", "level": "3", "slicecrc": "1"})
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        stream.codec_context.time_base = _TICK
        for levels, time in zip(mask_frames(sample, check_cancel), _ticks(sample), strict=True):
            frame = av.VideoFrame.from_ndarray(_in_bits(levels, sample, bits), format=pixels)
            frame.pts, frame.time_base = time, _TICK
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _in_bits(levels: np.ndarray | None, sample: Sample, bits: int) -> np.ndarray:
    if levels is None:
        levels = np.full(sample.size[::-1], 255, np.uint8)
    return widened(levels, bits == 16)


def _ticks(sample: Sample) -> list[int]:
    """When each frame is shown, in milliseconds, no two at once."""
    times = times_of(sample)
    if sample.moving is not None and sample.moving.rate <= 0:
        # Folders of pictures tell no times.
        times = times / _RATE
    ticks = np.rint(times * 1000).astype(np.int64)
    places = np.arange(len(ticks))
    return (np.maximum.accumulate(ticks - places) + places).tolist()


def may_be_replaced(path: Path, sample: Sample) -> bool:
    """Whether a clip in the way of a mask is one that this pack made, or looks like a clip of masks for this one."""
    try:
        if path.suffix.lower() in CLIP_EXTENSIONS and _is_signed(path):
            return True
        header = read_clip_header(path)
        count = len(frame_times(path))
        if aspect_fault(path.name, header.size, sample.size) or count != len(times_of(sample)):
            return False
        numbers = np.unique(np.linspace(0, count - 1, _LOOKED_AT).astype(int)).tolist()
        return all(_is_black_and_white(data.rgb) for data in read_frames(path, numbers))
    except DataError:
        return False


def _is_signed(path: Path) -> bool:
    with opened(path) as video:
        return {**video.container.metadata}.get(_TAG) == _MAKER


def _is_black_and_white(rgb: np.ndarray) -> bool:
    near, most = 12, 0.6
    grey = int((rgb.max(axis=2) - rgb.min(axis=2)).max(initial=0)) <= near
    return grey and bool(((rgb < near) | (rgb > 255 - near)).mean() >= most)
