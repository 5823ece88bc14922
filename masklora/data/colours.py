"""Whether a file that is named like a mask is a picture in colours, from as few bytes and pixels as will tell."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 64
# Files that are decoded whatever they weigh. Beyond them only those that hold a photograph's wealth of bytes are.
ALWAYS_LOOKED_AT = 256
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
        if _is_grey_png(path):
            judged.append(False)
            continue
        judged.append(_looks_coloured(path, always=looked < ALWAYS_LOOKED_AT, cutouts=cutouts))
        looked += 1
    return judged


def _is_grey_png(path: Path) -> bool:
    """Whether a PNG says in its first bytes that it has no colours, which most masks do."""
    try:
        with path.open("rb") as file:
            starts = file.read(26)
    except OSError:
        return False
    return starts.startswith(b"\x89PNG") and starts[25:26] in (b"\0", b"\4")


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
    sample = image.convert("RGBA").resize((SIDE, SIDE), Image.Resampling.NEAREST)
    values = np.asarray(sample)
    alpha, rgb = values[..., 3], values[..., :3].reshape(-1, 3)
    if alpha.min() < 255 and not cutouts:
        return False
    chroma = rgb.max(axis=1).astype(int) - rgb.min(axis=1)
    coloured = chroma > COLOURED
    if coloured.mean() < 0.02:
        return False
    return not _are_flat(rgb, coloured, lossy=lossy)


def _are_flat(rgb: np.ndarray, coloured: np.ndarray, *, lossy: bool) -> bool:
    """Whether the colours are a few flat ones on black or white, as masks of classes and key colours have them."""
    ground = (rgb.max(axis=1) <= 24) | (rgb.min(axis=1) >= 231)
    if ground.mean() < 0.01:
        return False
    shift = 6 if lossy else 3
    bins = (rgb[coloured] >> shift).astype(np.int64) @ np.array([1, 256, 65536])
    _, counts = np.unique(bins, return_counts=True)
    counts = np.sort(counts)[::-1]
    return bool(counts[:12].sum() >= 0.95 * counts.sum()) if not lossy else _few(counts)


def _few(counts: Sequence[int]) -> bool:
    total = sum(counts)
    return sum(counts[:4]) >= 0.95 * total
