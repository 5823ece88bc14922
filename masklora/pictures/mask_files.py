"""Masks as PNG files that load back bit for bit, and files that are whole or absent."""

from __future__ import annotations

import contextlib
import os
import uuid
from pathlib import Path

import cv2
import numpy as np

from ..errors import MaskError
from ..files import patiently

PNG_OPTIONS = (cv2.IMWRITE_PNG_COMPRESSION, 3)


def in_eight_bits(mask: np.ndarray) -> np.ndarray | None:
    """The levels, uint8 of the mask's shape, if each value is exactly what float32 makes of a level; None of any other.

    Most masks are such, and this tells in a fraction of the time that exact rounding takes.
    """
    with np.errstate(invalid="ignore"):
        levels = np.rint(np.asarray(mask, np.float32) * np.float32(255)).astype(np.uint8)
    return levels if np.array_equal(levels.astype(np.float32) / np.float32(255), mask) else None


def quantise_mask(mask: np.ndarray) -> np.ndarray:
    """The levels (H, W) that a mask is stored in: uint8 where every value is a multiple of 1/255, else uint16.

    Args:
        mask: (H, W) in 0..1.

    Returns:
        Whole steps of 1/255, or of 1/65535 (an error of at most 1/131070). Divided by the largest level in
        float32 they are what the loader reads.

    Raises:
        MaskError: values are not finite.
    """
    levels = in_eight_bits(mask)
    if levels is not None:
        return levels
    if not np.isfinite(mask).all():
        raise MaskError("the mask holds NaN or infinity. Check what made it.")
    steps = np.rint(np.clip(mask, 0.0, 1.0).astype(np.float64) * 65535).astype(np.uint16)
    return steps if (steps % 257).any() else (steps // 257).astype(np.uint8)


def encode_png(levels: np.ndarray | None, *, rgb: np.ndarray | None = None) -> bytes:
    """A PNG of a mask, or of a picture whose alpha is the mask.

    Args:
        levels: uint8 or uint16 (H, W); None for a picture without alpha.
        rgb: uint8 or uint16 (H, W, 3), or None for a grey file. Eight bits beside sixteen of the mask are
            widened so that the loader finds the very same colours.

    Raises:
        MaskError: OpenCV cannot encode it.
    """
    if rgb is None:
        pixels = levels
    else:
        pixels = rgb[..., ::-1]
        if levels is not None:
            wide = np.uint16 in (levels.dtype, rgb.dtype)
            pixels = np.concatenate([widened(part, wide) for part in (pixels, levels[..., None])], axis=2)
    done, data = cv2.imencode(".png", np.ascontiguousarray(pixels), list(PNG_OPTIONS))
    if not done:
        raise MaskError("OpenCV could not encode a PNG. Check the installed OpenCV.")
    return data.tobytes()


def widened(values: np.ndarray, wide: bool) -> np.ndarray:
    """Eight-bit values in sixteen bits where `wide`; unchanged otherwise."""
    # 257 = 65535 / 255: the same share of full scale.
    return values.astype(np.uint16) * np.uint16(257) if wide and values.dtype == np.uint8 else values


def write_whole(path: Path, data: bytes, *, overwrite: bool) -> None:
    """The whole file or none, in place of an older one only with `overwrite`.

    Raises:
        OSError: It cannot be written; what was there is untouched.
    """
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if not overwrite and path.exists():
            raise FileExistsError("it was made by something else in the meantime")
        patiently(lambda: temporary.replace(path))
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
