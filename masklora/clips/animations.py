"""Animated GIF, PNG and WebP as clips: Pillow lays each frame over the ones before it, as it is shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import DataError
from ..pictures.reading import Bands, bands_of, check_pixels, faults_named, read_header
from .animation_times import durations
from .header import ClipHeader


def is_animation(path: Path) -> bool:
    """Whether a file is an animated GIF, PNG or WebP of several frames; False for what is unreadable."""
    try:
        return len(durations(path) or ()) > 1
    except OSError:
        return False


def animation_header(path: Path) -> ClipHeader:
    """The header of an animated picture; of a still one with one frame."""
    header = read_header(path)
    shown = _durations(path)
    total = sum(shown)
    # An animation's frames may leave free what its first one, which alone is looked at, fills.
    return ClipHeader(header.size, len(shown), len(shown) / total, total, header.alpha or len(shown) > 1)


def animation_times(path: Path) -> np.ndarray:
    """When each frame is shown; see `reading.frame_times`."""
    read_header(path)
    return np.cumsum([0.0, *_durations(path)[:-1]])


def animation_bands(
    path: Path, numbers: Sequence[int], check_cancel: Callable[[], None]
) -> Iterator[tuple[int, Bands]]:
    """(number, bands) of each of the ascending numbers once.

    Raises:
        DataError: there is no such frame, or it cannot be decoded.
    """
    count = len(_durations(path))
    with ExitStack() as stack:
        with faults_named(path):
            image: Any = stack.enter_context(Image.open(stack.enter_context(path.open("rb"))))
            check_pixels(path, image.size)
        # A PNG may hold a picture for readers that know no animations, which Pillow gives as frame 0.
        hidden = int(bool(getattr(image, "default_image", False)))
        place = -1
        for number in dict.fromkeys(numbers):
            if number >= count:
                raise DataError(f"{path.name}: frame {number} is asked for, but it has only {count} frames.")
            while place < number:
                place += 1
                check_cancel()
                bands = _frame(path, image, place, hidden, last=place == number)
            yield number, bands


def _frame(path: Path, image: Any, number: int, hidden: int, *, last: bool) -> Bands | None:
    """The bands of the next frame; None of one that only the ones after it need."""
    try:
        with faults_named(path):
            image.seek(number + hidden)
            # Pillow's readers lay frames over one another as they are loaded.
            image.load()
            return bands_of(path, image) if last else None
    except DataError as error:
        raise DataError(f"{path.name}: frame {number}: {str(error).removeprefix(f'{path.name}: ')}") from error


def _durations(path: Path) -> list[float]:
    """Seconds of each frame; a still picture is shown for as long as browsers show a frame without a time."""
    with faults_named(path):
        return durations(path) or [0.1]
