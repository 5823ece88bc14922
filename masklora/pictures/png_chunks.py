"""PNG files taken apart, so that a picture whose pixels are written anew keeps everything else that it says."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from ..errors import DataError
from .reading import PNG_SIGNATURE

# What describes the old pixels, in ways that no longer hold.
_OF_PIXELS = frozenset({b"tRNS", b"bKGD", b"sBIT", b"hIST", b"sPLT"})
_ANIMATION = frozenset({b"acTL", b"fcTL", b"fdAT"})
_GREY_TYPES = (0, 4)
_SOFTWARE, _MAKER, _REPLACES = b"Software", b"Masked LoRA", b"Replaces"
# What comes before the pixels of a file of ours is far shorter.
_LOOKED_AT = 1 << 16


def carry_over(new: bytes, old: bytes) -> bytes:
    """The PNG `new` with what `old` says besides its pixels: profile, resolution, EXIF, texts.

    Args:
        new: Of the same size in pixels, in colour.
        old: The file that it replaces.

    Raises:
        DataError: `old` is no PNG, or an animation, which would lose its other pictures.
    """
    if not old.startswith(PNG_SIGNATURE):
        raise DataError("the file is no PNG, whatever its name says. Save it as PNG.")
    before, after, pixels, grey = [], [], False, False
    for kind, whole in _chunks(old):
        if kind in _ANIMATION:
            raise DataError("the file is an animation, which would lose its other pictures. Save one of them as PNG.")
        grey = grey or (kind == b"IHDR" and whole[8 + 9] in _GREY_TYPES)
        pixels = pixels or kind == b"IDAT"
        # A grey profile does not fit a picture in colour.
        kept = kind[0:1].islower() and kind not in _OF_PIXELS and not (grey and kind == b"iCCP")
        if kept:
            (after if pixels else before).append(whole)
    own = [(kind, whole) for kind, whole in _chunks(new) if kind in (b"IHDR", b"IDAT", b"IEND")]
    head, body, end = own[0][1], [whole for kind, whole in own if kind == b"IDAT"], own[-1][1]
    return b"".join([PNG_SIGNATURE, head, *before, *body, *after, end])


def signed(png: bytes, *, replaces: str = "") -> bytes:
    """The PNG with a note that this pack made it, so that it may be replaced by it later.

    Args:
        png: Without such a note.
        replaces: Name of the file in another format whose place it takes; see `replaced_by`.
    """
    texts = _text(_SOFTWARE, _MAKER) + (_text(_REPLACES, replaces.encode("utf-8", "replace")) if replaces else b"")
    (_, head), *rest = _chunks(png)
    return b"".join([PNG_SIGNATURE, head, texts, *(whole for _, whole in rest)])


def is_signed(path: Path) -> bool:
    """Whether the file is a PNG that this pack made."""
    return _notes(path).get(_SOFTWARE) == _MAKER


def replaced_by(path: Path) -> str:
    """Name of the file whose place a PNG of this pack takes; empty where there is none."""
    notes = _notes(path)
    return notes.get(_REPLACES, b"").decode("utf-8", "replace") if notes.get(_SOFTWARE) == _MAKER else ""


def _notes(path: Path) -> dict[bytes, bytes]:
    """Texts that come before the pixels, by their keys."""
    found: dict[bytes, bytes] = {}
    try:
        with path.open("rb") as file:
            start = file.read(_LOOKED_AT)
    except OSError:
        return found
    for kind, whole in _chunks(start) if start.startswith(PNG_SIGNATURE) else ():
        if kind == b"IDAT":
            break
        if kind == b"tEXt":
            key, _, text = whole[8:-4].partition(b"\0")
            found[key] = text
    return found


def _text(key: bytes, text: bytes) -> bytes:
    content = b"tEXt" + key + b"\0" + text
    return struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))


def _chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and all bytes of each chunk."""
    place = len(PNG_SIGNATURE)
    while place + 12 <= len(png):
        (length,) = struct.unpack(">I", png[place : place + 4])
        yield png[place + 4 : place + 8], png[place : place + 12 + length]
        place += 12 + length
