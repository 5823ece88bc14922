"""How a video says that its frames are to be turned, read from its header."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

_BRANCHES = {b"moov", b"trak"}
# How many boxes there may be, and how deep in one another: a forged file shall not be walked for ever.
_MOST_BOXES, _DEEPEST = 10_000, 2
# A matrix's offset in `mvhd` and `tkhd` by their version. Source: ISO/IEC 14496-12, 8.2.2 and 8.3.2.
_MATRIX = {b"mvhd": (36, 48), b"tkhd": (40, 52)}
_TRACK = (12, 20)
# Matroska's roll of the projection, as a float of four or eight bytes.
_ROLLS = (b"\x76\x75\x84", b"\x76\x75\x88")
_HEAD = 1 << 17
# What (x, y) becomes by EXIF orientation: the signs of the matrix's a, b, c and d.
_ORIENTATIONS = {
    (1, 0, 0, 1): 1,
    (-1, 0, 0, 1): 2,
    (-1, 0, 0, -1): 3,
    (1, 0, 0, -1): 4,
    (0, 1, 1, 0): 5,
    (0, 1, -1, 0): 6,
    (0, -1, -1, 0): 7,
    (0, -1, 1, 0): 8,
}


def orientation_of(matrix: Sequence[float]) -> int:
    """EXIF orientation 1..8 of a display matrix of nine numbers; other angles are taken for the nearest of these."""
    a, b, _, c, d = matrix[:5]
    upright = abs(a) + abs(d) >= abs(b) + abs(c)
    return _ORIENTATIONS.get((_sign(a), 0, 0, _sign(d)) if upright else (0, _sign(b), _sign(c), 0), 1)


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)


def mov_orientation(path: Path, track: int) -> int:
    """EXIF orientation of a track of an MP4 or MOV file, by its number there; 1 where nothing is said."""
    matrices: dict[int, list[float]] = {}
    with path.open("rb") as file:
        size = file.seek(0, 2)
        for number, (kind, start, end) in enumerate(_boxes(file, 0, size)):
            if number > _MOST_BOXES:
                break
            if kind in _MATRIX:
                _read_matrix(file, kind, start, end, matrices)
    whole, own = matrices.get(0), matrices.get(track)
    if own is None:
        return 1
    return orientation_of(own if whole is None else _product(own, whole))


def _boxes(file: BinaryIO, start: int, end: int, depth: int = 0) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of the content of each box, with those inside of movies and tracks."""
    while start + 8 <= end:
        file.seek(start)
        head = file.read(16)
        if len(head) < 8:
            return
        length, kind, skip = int.from_bytes(head[:4], "big"), head[4:8], 8
        if length == 1 and len(head) == 16:
            length, skip = int.from_bytes(head[8:], "big"), 16
        elif length == 0:
            length = end - start
        if length < skip:
            return
        yield kind, start + skip, min(start + length, end)
        if kind in _BRANCHES and depth < _DEEPEST:
            yield from _boxes(file, start + skip, min(start + length, end), depth + 1)
        start += length


def _read_matrix(file: BinaryIO, kind: bytes, start: int, end: int, matrices: dict[int, list[float]]) -> None:
    file.seek(start)
    data = file.read(min(end - start, 128))
    version = 1 if data[:1] == b"\1" else 0
    at = _MATRIX[kind][version]
    if len(data) < at + 36:
        return
    matrix = [value / 65536 for value in struct.unpack_from(">9i", data, at)]
    track = 0 if kind == b"mvhd" else int.from_bytes(data[_TRACK[version] :][:4], "big")
    matrices.setdefault(track, matrix)


def _product(first: list[float], second: list[float]) -> list[float]:
    """Of the turning parts of two display matrices."""
    a, b, c, d = first[0], first[1], first[3], first[4]
    e, f, g, h = second[0], second[1], second[3], second[4]
    return [a * e + b * g, a * f + b * h, 0, c * e + d * g, c * f + d * h]


def may_be_rolled(path: Path) -> bool:
    """Whether the beginning of a Matroska file may tell of a turned projection; the decoder then says which."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    return any(roll in head for roll in _ROLLS)
