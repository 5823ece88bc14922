"""Folders of numbered pictures as clips."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import DataError
from ..file_names import natural_key
from ..pictures.reading import Bands, read_bands, read_header
from .header import ClipHeader

_NUMBER = re.compile(r"([0-9]+)[^0-9]*$")
# Pictures that hold one frame each and that Pillow reads without a plugin.
_EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".tga", ".avif"})


def sequence_pictures(folder: Path) -> list[Path]:
    """The pictures right in a folder, in natural order: frame_2 before frame_10.

    Raises:
        DataError: the folder cannot be read, holds no picture, or one that seems to be no frame.
    """
    readable = _EXTENSIONS & Image.registered_extensions().keys()
    try:
        files = [file for file in folder.iterdir() if file.suffix.lower() in readable and file.is_file()]
    except OSError as error:
        raise DataError(
            f"{folder.name}: the folder cannot be read ({error.strerror}). Check its permissions."
        ) from None
    files = [file for file in files if not file.name.startswith(".")]
    if not files:
        raise DataError(
            f"{folder.name}: expected a folder of numbered pictures, but there is none in it. Put the frames of a clip "
            "into it as PNG or JPEG, or remove it."
        )
    files = sorted(files, key=lambda file: natural_key(file.name))
    _check_frames(folder, files)
    return files


def _check_frames(folder: Path, files: list[Path]) -> None:
    """Nothing unless some picture would shift all that are behind it: one without a number, or one that is there twice.

    Where most have no number, their names are meant to be in order.
    """
    bare = [file for file in files if not _NUMBER.search(file.stem)]
    if bare and 2 * len(bare) < len(files):
        raise DataError(
            f"{folder.name}: {bare[0].name} has no number, as its other pictures have. All of them are taken for "
            "frames, in the order of their names: move it away, or number it."
        )
    stems = {file.stem: file for file in files}
    double = next((file for file in files if stems[file.stem] != file), None)
    if double is not None:
        raise DataError(
            f"{folder.name}: {double.name} and {stems[double.stem].name} would both be frames. Keep one of them."
        )


@contextmanager
def _naming(folder: Path) -> Iterator[None]:
    """A context in which errors of reading a picture tell the folder."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{folder.name}: {error}") from error


def picture_numbers(folder: Path) -> list[int]:
    """The numbers at the end of the pictures' names, counted from the first one's; empty where one has none.

    Raises:
        DataError: as `sequence_pictures`.
    """
    found = [_NUMBER.search(file.stem) for file in sequence_pictures(folder)]
    numbers = [int(one[1]) for one in found if one]
    return [number - numbers[0] for number in numbers] if len(numbers) == len(found) else []


def sequence_header(folder: Path) -> ClipHeader:
    """The header of a folder of pictures; the first one's and the last one's tell the size."""
    files = sequence_pictures(folder)
    with _naming(folder):
        first, last = read_header(files[0]), read_header(files[-1])
    _check_size(folder, files[0], first.size, files[-1], last.size)
    return ClipHeader(first.size, len(files), 0.0, 0.0, first.alpha, first.reading)


def sequence_times(folder: Path) -> np.ndarray:
    """One second for each picture; see `reading.frame_times`.

    Raises:
        DataError: the pictures are not all of one size.
    """
    files = sequence_pictures(folder)
    with _naming(folder):
        sizes = [read_header(file).size for file in files]
    for file, size in zip(files, sizes, strict=True):
        _check_size(folder, files[0], sizes[0], file, size)
    return np.arange(len(files), dtype=np.float64)


def sequence_bands(
    folder: Path, numbers: Sequence[int], check_cancel: Callable[[], None]
) -> Iterator[tuple[int, Bands]]:
    """(number, upright bands) of each of the ascending numbers once.

    Raises:
        DataError: there is no such picture, it cannot be read, or it has another size than the first one.
    """
    files = sequence_pictures(folder)
    with _naming(folder):
        size = read_header(files[0]).size
    for number in dict.fromkeys(numbers):
        check_cancel()
        if number >= len(files):
            raise DataError(f"{folder.name}: frame {number} is asked for, but there are only {len(files)} pictures.")
        try:
            bands = read_bands(files[number])
        except DataError as error:
            raise DataError(f"{folder.name}: frame {number}: {error}") from error
        height, width = bands.values.shape[:2]
        _check_size(folder, files[0], size, files[number], (width, height))
        yield number, replace(bands, reading="")


def _check_size(folder: Path, first: Path, size: tuple[int, int], other: Path, found: tuple[int, int]) -> None:
    if size != found:
        raise DataError(
            f"{folder.name}: {first.name} is {size[0]}×{size[1]}, but {other.name} is {found[0]}×{found[1]}. The "
            "pictures of one clip are all of one size: scale them, or move others to another folder."
        )
