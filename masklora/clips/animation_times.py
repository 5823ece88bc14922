"""How long each frame of an animated GIF, PNG or WebP is shown, read from the file's blocks, none decoded."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ..pictures.reading import PNG_SIGNATURE

# What asks for less than the first is shown for the second: browsers do so since frames without a time were common.
_TOO_SHORT, _INSTEAD = 0.011, 0.1


def durations(path: Path) -> list[float] | None:
    """Seconds that each frame is shown; None where the file is none of the three kinds.

    A file that ends too early gives those that are there.
    """
    with path.open("rb") as file:
        head = file.read(12)
        file.seek(0)
        if head.startswith(PNG_SIGNATURE):
            found = list(_png(file))
        elif head[:6] in (b"GIF87a", b"GIF89a"):
            found = list(_gif(file))
        elif head[:4] == b"RIFF" and head[8:] == b"WEBP":
            found = list(_webp(file))
        else:
            return None
    return [seconds if seconds >= _TOO_SHORT else _INSTEAD for seconds in found]


def is_lossy_webp(path: Path) -> bool:
    """Whether some picture in a WebP file is coded in a way that loses detail."""
    with path.open("rb") as file:
        file.seek(12)
        while len(head := file.read(8)) == 8:
            kind, length = head[:4], int.from_bytes(head[4:], "little")
            if kind == b"VP8 ":
                return True
            # What a frame consists of lies behind its place and time.
            file.seek(16 if kind == b"ANMF" else length + length % 2, 1)
    return False


def _png(file: BinaryIO) -> Iterator[float]:
    """Of a PNG's `fcTL` chunks; a picture before the first of them is no frame of the animation."""
    file.seek(8)
    animated = False
    while len(head := file.read(8)) == 8:
        length, kind = int.from_bytes(head[:4], "big"), head[4:]
        if kind == b"acTL":
            animated = True
        elif kind == b"fcTL" and animated and length == 26 and len(data := file.read(26)) == 26:
            over, under = struct.unpack(">HH", data[20:24])
            yield over / (under or 100)
            length = 0
        elif kind == b"IEND":
            return
        file.seek(length + 4, 1)


def _gif(file: BinaryIO) -> Iterator[float]:
    """Of the graphic control extension before each picture; GIF89a, 23."""
    screen = file.read(13)
    if len(screen) < 13:
        return
    file.seek(_palette(screen[10]), 1)
    seconds = 0.0
    while kind := file.read(1):
        if kind == b"!":
            label, first = file.read(1), _block(file)
            if label == b"\xf9" and len(first) >= 4:
                seconds = int.from_bytes(first[1:3], "little") / 100
            while first:
                first = _block(file)
        elif kind == b",":
            place = file.read(9)
            if len(place) < 9:
                return
            file.seek(_palette(place[8]) + 1, 1)
            while _block(file):
                pass
            yield seconds
            seconds = 0.0
        elif kind == b";":
            return


def _palette(flags: int) -> int:
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


def _block(file: BinaryIO) -> bytes:
    length = file.read(1)
    return file.read(length[0]) if length else b""


def _webp(file: BinaryIO) -> Iterator[float]:
    """Of the `ANMF` chunks; WebP container specification, animation."""
    file.seek(12)
    while len(head := file.read(8)) == 8:
        length = int.from_bytes(head[4:], "little")
        if head[:4] == b"ANMF":
            data = file.read(16)
            if len(data) < 16:
                return
            yield int.from_bytes(data[12:15], "little") / 1000
            file.seek(length + length % 2 - 16, 1)
        else:
            file.seek(length + length % 2, 1)
