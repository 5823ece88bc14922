"""Whether a file that is named like a mask is a picture in colours, from as few bytes and pixels as will tell."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 64
# Files that are decoded whatever they weigh. Beyond them only those that hold a photograph's wealth of bytes are.
ALWAYS_LOOKED_AT = 128
RICH = 0.25
MOST_PIXELS = 100_000_000
COLOURED = 24
_GREY_MODES = frozenset({"1", "L", "La", "LA", "I", "F", "I;16", "I;16L", "I;16B", "I;16N"})


def in_colours(files: Iterable[Path], *, cutouts: bool) -> list[bool]:
    """For each file whether it is a picture in colours, such as a photograph, rather than a mask.

    Grey files, and flat colours on black or white (a key colour, the colours of classes), may be masks. A file that
    cannot be read is judged by nobody here: its error comes when it is loaded.

    Args:
        files: are opened, and decoded where their first bytes do not tell.
        cutouts: whether pictures with transparent parts count; beside a whole picture they are its mask.
    """
    judged = []
    looked = 0
    for path in files:
        told = _told_by_png(path, always=looked < ALWAYS_LOOKED_AT)
        if told is None:
            told = _looks_coloured(path, always=looked < ALWAYS_LOOKED_AT, cutouts=cutouts)
            looked += 1
        judged.append(told)
    return judged


def _told_by_png(path: Path, *, always: bool) -> bool | None:
    """What a PNG's first bytes tell: that it has no colours, or too few bytes for a photograph; None if neither."""
    try:
        with path.open("rb", buffering=0) as file:
            starts = file.read(26)
            size = 0 if always else os.fstat(file.fileno()).st_size
    except OSError:
        return False
    if not starts.startswith(b"\x89PNG") or len(starts) < 26:
        return None
    pixels = int.from_bytes(starts[16:20], "big") * int.from_bytes(starts[20:24], "big")
    grey = starts[25:26] in (b"\0", b"\4")
    return False if grey or (not always and size < RICH * pixels) else None


def _looks_coloured(path: Path, *, always: bool, cutouts: bool) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                pixels = image.width * image.height
                if image.mode in _GREY_MODES or pixels >= MOST_PIXELS:
                    return False
                if not always and path.stat().st_size < RICH * pixels and image.format != "JPEG":
                    return False
                image.draft("RGB", (SIDE, SIDE))
                return _are_coloured(image, cutouts=cutouts)
    # Of damaged files Pillow's readers raise anything; loading tells what it is.
    except Exception:
        return False


def _are_coloured(image: Image.Image, *, cutouts: bool) -> bool:
    lossy = image.format in ("JPEG", "WEBP", "AVIF", "HEIF", "JXL")
    # Never blended: between two flat colours there would be others.
    sample = image.resize((SIDE, SIDE), Image.Resampling.NEAREST).convert("RGBA")
    values = np.asarray(sample)
    alpha, rgb = values[..., 3], values[..., :3].reshape(-1, 3)
    if alpha.min() < 255 and not cutouts:
        return False
    return has_colours(rgb) and not has_flat_colours(rgb, lossy=lossy)


def has_colours(rgb: np.ndarray) -> bool:
    """Whether pixels, uint8 (n, 3), have clear colours, but for a few."""
    return bool(_coloured(rgb).mean() >= 0.02)


def _coloured(rgb: np.ndarray) -> np.ndarray:
    return rgb.max(axis=1).astype(int) - rgb.min(axis=1) > COLOURED


def has_flat_colours(rgb: np.ndarray, *, lossy: bool) -> bool:
    """Whether there are a few flat colours on black or white, as masks of classes and key colours have them.

    Args:
        rgb: uint8 (n, 3), pixels of a file that were not blended with each other.
        lossy: whether the file's format blurs colours.
    """
    coloured = _coloured(rgb)
    if not has_colours(rgb):
        return False
    ground = (rgb.max(axis=1) <= 24) | (rgb.min(axis=1) >= 231)
    if ground.mean() < 0.01:
        return False
    # Lossy files blur flat colours, so these are told apart less finely, and fewer of them are believed.
    shift, most = (6, 4) if lossy else (3, 12)
    bins = (rgb[coloured] >> shift).astype(np.int64) @ np.array([1, 256, 65536])
    counts = np.sort(np.unique(bins, return_counts=True)[1])[::-1]
    return bool(counts[:most].sum() >= 0.95 * counts.sum())
