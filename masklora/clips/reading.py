"""Clips from files: containers, animated pictures and folders of numbered pictures, read alike.

Frame number i is everywhere the i-th frame that is shown, counted from 0 in the order of showing. Rotation flags,
pixels that are not square, interlacing, bit depth, colour range and colour matrix are resolved, as players do.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from ..errors import DataError, MaskError
from ..pictures.reading import Bands, ImageData, image_of, read_header
from ..settings import MASK_CHANNELS, check_choice
from .animation_times import is_lossy_webp
from .animations import animation_bands, animation_header, animation_times, is_animation
from .header import ANIMATED_EXTENSIONS, CLIP_EXTENSIONS, ClipHeader
from .masks import MaskMeaning, meaning
from .sequences import sequence_bands, sequence_header, sequence_pictures, sequence_times
from .timeline import Unhashed, timeline
from .video import is_lossless, video_bands, video_header

__all__ = [
    "ANIMATED_EXTENSIONS",
    "CLIP_EXTENSIONS",
    "ClipHeader",
    "frame_times",
    "is_animated",
    "key_frames",
    "mask_clip_meaning",
    "read_clip_header",
    "read_frames",
    "read_mask_frames",
]

# Frames by which a mask clip is judged.
_LOOKED_AT = 8
_LOSSY_PICTURES = {".jpg", ".jpeg", ".avif"}


def read_clip_header(path: Path) -> ClipHeader:
    """Size, number of frames, rate and alpha of a clip, from its header only.

    Args:
        path: A video, an animated picture, or a folder of numbered pictures.

    Raises:
        DataError: the file is missing, empty, no clip, damaged, without a frame, or of 100 Mpx and more.
    """
    if path.is_dir():
        return sequence_header(path)
    return animation_header(path) if _is_animation_file(path) else video_header(path)


def is_animated(path: Path) -> bool:
    """Whether a file of `ANIMATED_EXTENSIONS` has more than one frame; False for what is unreadable or a still."""
    return _is_animation_file(path) and is_animation(path)


def frame_times(path: Path) -> np.ndarray:
    """When each frame is shown: float64 (N,), seconds in ascending order, the first 0; nothing is decoded.

    In a folder of pictures, whose rate is unknown, frame i is shown at i seconds.

    Raises:
        DataError: as `read_clip_header`.
    """
    if path.is_dir():
        return sequence_times(path)
    return animation_times(path) if _is_animation_file(path) else timeline(path).times.copy()


def key_frames(path: Path) -> list[int]:
    """The frames of a video that stand alone in the file, ascending; none of what is no video. Nothing is decoded.

    Raises:
        DataError: as `read_clip_header`.
    """
    if path.is_dir() or _is_animation_file(path):
        return []
    line = timeline(path)
    shown = line.rank_of[line.keys]
    return sorted(shown[shown >= 0].tolist())


def read_frames(
    path: Path, numbers: Sequence[int], *, check_cancel: Callable[[], None] = lambda: None
) -> Iterator[ImageData]:
    """Frames as upright RGB in sRGB, in the order asked, one at a time.

    Args:
        path: A video, an animated picture, or a folder of numbered pictures.
        numbers: Which frames, ascending, repeats allowed.
        check_cancel: Called often; raises to stop.

    Yields:
        `rgb` uint8 (H, W, 3), `alpha` float32 (H, W) in 0..1; alpha is None without a band or where it is opaque
        everywhere. All frames have the size of `read_clip_header`.

    Raises:
        DataError: the clip has no such frame, or it cannot be decoded; names the file and the frame's number.
        ValueError: `numbers` do not ascend or hold a negative one.
    """
    _check_ascending(numbers)
    return (image_of(bands) for bands in _bands(path, numbers, check_cancel, colours=True))


def read_mask_frames(
    path: Path, numbers: Sequence[int], channel: str = "luminance", *, check_cancel: Callable[[], None] = lambda: None
) -> Iterator[np.ndarray]:
    """Frames of a mask clip as weights, in the order asked, one at a time.

    What the numbers mean is judged once for the whole clip, as `pictures.mask_values` judges a mask. In clips that
    lose detail, what is nearly black or white becomes exactly 0 or 1.

    Args:
        path: A video, an animated picture, or a folder of numbered pictures.
        numbers: Which frames, ascending, repeats allowed.
        channel: One of `settings.MASK_CHANNELS`.
        check_cancel: Called often; raises to stop.

    Yields:
        float32 (H, W) in 0..1, 1 = learn.

    Raises:
        MaskError: `channel` is "alpha" and the clip has none, or a frame cannot be read.
        ConfigError: `channel` is unknown.
    """
    check_choice("mask_channel", channel, MASK_CHANNELS)
    _check_ascending(numbers)
    return _weights(path, numbers, channel, check_cancel)


def _weights(
    path: Path, numbers: Sequence[int], channel: str, check_cancel: Callable[[], None]
) -> Iterator[np.ndarray]:
    meant = mask_clip_meaning(path, channel, check_cancel=check_cancel)
    try:
        for bands in _bands(path, numbers, check_cancel):
            yield meant.weights(bands)
    except MaskError:
        raise
    except DataError as error:
        raise MaskError(f"mask {error}") from error


def mask_clip_meaning(
    path: Path, channel: str = "luminance", *, check_cancel: Callable[[], None] = lambda: None
) -> MaskMeaning:
    """What the numbers of a mask clip mean, judged by some of its frames; of the last clips it is remembered.

    Raises:
        MaskError: as `read_mask_frames`.
    """
    try:
        with Unhashed(check_cancel) as unhashed:
            return _remembered_meaning(path, channel, _mark(path), unhashed)
    except MaskError:
        raise
    except DataError as error:
        raise MaskError(f"mask {error}") from error
    except OSError as error:
        raise MaskError(f"mask {path.name}: the file cannot be read ({error.strerror}). Reload the dataset.") from None


def _mark(path: Path) -> tuple[tuple[int, int], ...]:
    """By what a changed clip is known."""
    found = [file.stat() for file in (sequence_pictures(path) if path.is_dir() else [path])]
    return tuple((file.st_mtime_ns, file.st_size) for file in found)


@functools.lru_cache(maxsize=64)
def _remembered_meaning(
    path: Path, channel: str, mark: tuple[tuple[int, int], ...], check_cancel: Unhashed
) -> MaskMeaning:
    count = len(frame_times(path))
    numbers = np.unique(np.linspace(0, count - 1, _LOOKED_AT).astype(int)).tolist()
    frames = _looked_at(path, numbers, check_cancel.call)
    if _may_have_alpha(path) and not any(map(_is_transparent, frames)):
        # Where nothing else is in the mask, the one frame that is not opaque says what is meant.
        frames += _transparent_frames(path, sorted(set(range(count)) - set(numbers)), check_cancel.call)
    return meaning(frames, channel, lossy=_is_lossy(path), name=path.name)


def _looked_at(path: Path, numbers: list[int], check_cancel: Callable[[], None]) -> list[Bands]:
    """Those of the frames that can be decoded: a damaged one that is never asked for shall not spoil the clip."""
    try:
        return list(_bands(path, numbers, check_cancel))
    except DataError as error:
        fault = error
    frames = []
    for number in numbers:
        with contextlib.suppress(DataError):
            frames += _bands(path, [number], check_cancel)
    if not frames:
        raise fault
    return frames


def _may_have_alpha(path: Path) -> bool:
    if path.is_dir():
        return any(read_header(file).alpha for file in sequence_pictures(path))
    return read_clip_header(path).alpha


def _is_transparent(bands: Bands) -> bool:
    return bands.alpha is not None and int(bands.alpha.min(initial=bands.scale)) < bands.scale


def _transparent_frames(path: Path, numbers: list[int], check_cancel: Callable[[], None]) -> list[Bands]:
    """Some of the frames that are not opaque; none behind one that cannot be read."""
    found: list[Bands] = []
    with contextlib.suppress(DataError):
        for bands in _bands(path, numbers, check_cancel):
            if _is_transparent(bands):
                found.append(bands)
            if len(found) == _LOOKED_AT:
                break
    return found


def _is_lossy(path: Path) -> bool:
    if path.is_dir():
        return any(_is_lossy_picture(file) for file in sequence_pictures(path))
    return _is_lossy_picture(path) if _is_animation_file(path) else not is_lossless(path)


def _is_lossy_picture(path: Path) -> bool:
    extension = path.suffix.lower()
    return extension in _LOSSY_PICTURES or (extension == ".webp" and is_lossy_webp(path))


def _is_animation_file(path: Path) -> bool:
    return path.suffix.lower() in ANIMATED_EXTENSIONS


def _bands(
    path: Path, numbers: Sequence[int], check_cancel: Callable[[], None] = lambda: None, *, colours: bool = False
) -> Iterator[Bands]:
    """Each of the ascending `numbers`, repeats as often as they are asked for; with `colours` a video's in sRGB."""
    if path.is_dir():
        found = sequence_bands(path, numbers, check_cancel)
    elif _is_animation_file(path):
        found = animation_bands(path, numbers, check_cancel)
    else:
        found = video_bands(path, numbers, check_cancel, colours=colours)
    at = 0
    for number, bands in found:
        while at < len(numbers) and numbers[at] == number:
            yield bands
            at += 1


def _check_ascending(numbers: Sequence[int]) -> None:
    if any(number < 0 for number in numbers[:1]) or any(a > b for a, b in pairwise(numbers)):
        raise ValueError(f"expected ascending frame numbers from 0 on, got {list(numbers)[:20]}")
