"""Video files: their headers, and their frames turned, made square and brought to RGB."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from ..errors import DataError
from ..pictures.reading import Bands, check_pixels, upright
from .containers import Video, opened, unreadable
from .decoding import decoded_frames
from .header import ClipHeader
from .pixels import bands_of_frame, matrix_of
from .timeline import timeline
from .turning import may_be_rolled, mov_orientation, orientation_of
from .wide_colours import wide_colours_of

# FFmpeg's AVFieldOrder of what is interlaced.
_INTERLACED = {2, 3, 4, 5}
# Pixels of other shapes than these are a damaged tag.
_LEAST_SHAPE, _MOST_SHAPE = Fraction(1, 8), Fraction(8)
# To count frames that no container tells, a file is read whole: a thousand larger ones would take minutes.
_COUNTED_BYTES = 16 << 20
# The losses of these are none: what is stored is what was put in.
_LOSSLESS = {"ffv1", "huffyuv", "ffvhuff", "utvideo", "qtrle", "png", "rawvideo", "magicyuv", "v210", "v410", "r210"}


def video_header(path: Path) -> ClipHeader:
    """The header of a video file; see `reading.read_clip_header`."""
    with opened(path) as video:
        video.check_whole()
        stored = stored_size(video)
        check_pixels(path, stored)
        orientation = _orientation(video)
        size = _shown_size(video, stored, orientation)
        check_pixels(path, size)
        rate, duration = _rate(video), _duration(video)
        frames, guessed = video.frames, round(rate * duration)
        alpha, reading = has_alpha(video), _reading(video, orientation, stored, size)
    stored_bytes = path.stat().st_size
    # No frame takes less than a byte.
    if not 0 < frames <= stored_bytes:
        # Where frames are shown for longer and shorter, rate and duration do not tell how many there are.
        frames = guessed if stored_bytes > _COUNTED_BYTES and guessed else len(timeline(path).times)
        rate = frames / duration if duration and abs(frames - guessed) > 1 else rate
    return ClipHeader(size, frames, rate, duration, alpha, reading)


def stored_size(video: Video) -> tuple[int, int]:
    """(width, height) before turning."""
    context = video.stream.codec_context
    return context.width, context.height


def has_alpha(video: Video) -> bool:
    """Whether a video has an alpha band, or colours that may be transparent."""
    layout = video.stream.codec_context.format
    if layout is None:
        return video.alpha_beside
    return video.alpha_beside or layout.name == "pal8" or any(part.is_alpha for part in layout.components)


def is_lossless(path: Path) -> bool:
    """Whether a video is coded in a way that always keeps every number."""
    with opened(path) as video:
        return video.codec in _LOSSLESS


def video_bands(
    path: Path, numbers: Sequence[int], check_cancel: Callable[[], None], *, colours: bool
) -> Iterator[tuple[int, Bands]]:
    """(number, upright bands) of each of the ascending numbers once; with `colours` in sRGB, else numbers as stored.

    Raises:
        DataError: there is no such frame, it cannot be decoded, or it has another size than the clip.
    """
    with opened(path) as video:
        stored = stored_size(video)
        check_pixels(path, stored)
        orientation = _orientation(video)
        shown = _shown_size(video, stored, orientation)
        check_pixels(path, shown)
        wide = wide_colours_of(video.stream.codec_context)
    square = shown if orientation < 5 else shown[::-1]
    for number, frame in decoded_frames(path, numbers, check_cancel):
        if (frame.width, frame.height) != stored:
            raise DataError(
                f"{path.name}: frame {number} is {frame.width}×{frame.height}, but the clip is "
                f"{stored[0]}×{stored[1]}. Save it again in one size."
            )
        bands = bands_of_frame(frame, matrix_of(frame))
        if colours and wide.mark and bands.colours.shape[2] == 3:
            values = wide.to_srgb(bands.colours)
            bands = replace(bands, values=values if bands.alpha is None else np.dstack([values, bands.alpha]))
        if square != stored:
            values = cv2.resize(bands.values, square, interpolation=cv2.INTER_LINEAR)
            bands = replace(bands, values=values.reshape(*values.shape[:2], -1))
        yield number, replace(bands, values=upright(bands.values, orientation), orientation=orientation)


def _shown_size(video: Video, stored: tuple[int, int], orientation: int) -> tuple[int, int]:
    """(width, height) with square pixels, upright: the side that pixels are longer along is enlarged."""
    width, height = stored
    shape = video.stream.sample_aspect_ratio
    if shape and _LEAST_SHAPE <= shape <= _MOST_SHAPE:
        width, height = round(width * max(shape, 1)), round(height / min(shape, 1))
    return (height, width) if orientation >= 5 else (width, height)


def _orientation(video: Video) -> int:
    """EXIF orientation by the file's flag for turning it."""
    kind = video.container.format.name
    if kind.startswith("mov"):
        return mov_orientation(video.path, video.stream.id)
    if "matroska" in kind and may_be_rolled(video.path):
        return _orientation_of_first_frame(video)
    return 1


def _orientation_of_first_frame(video: Video) -> int:
    try:
        for frame in video.container.decode(video.stream):
            side = frame.side_data.get("DISPLAYMATRIX")
            return 1 if side is None else orientation_of(memoryview(bytes(side)).cast("i").tolist())
    except (av.FFmpegError, ValueError) as error:
        raise DataError(unreadable(video.path, error)) from error
    return 1


def _rate(video: Video) -> float:
    rate = video.stream.average_rate or video.stream.guessed_rate
    return float(rate) if rate else 0.0


def _duration(video: Video) -> float:
    stream, container = video.stream, video.container
    if stream.duration and stream.time_base:
        return max(0.0, float(stream.duration * stream.time_base))
    return max(0.0, (container.duration or 0) / av.time_base)


def _reading(video: Video, orientation: int, stored: tuple[int, int], size: tuple[int, int]) -> str:
    context: Any = video.stream.codec_context
    layout = context.format
    marks = []
    if orientation > 1:
        marks.append("rotated")
    if sorted(stored) != sorted(size):
        marks.append("square-pixels")
    if getattr(context, "field_order", 0) in _INTERLACED:
        marks.append("deinterlaced")
    if layout is not None and layout.components and layout.components[0].bits > 8:
        marks.append(f"{layout.components[0].bits}-bit")
    marks.append(wide_colours_of(context).mark)
    return " ".join(mark for mark in marks if mark)
