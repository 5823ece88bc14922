"""A mask as a few bytes and back: masks at pixel size would otherwise be most of a cache."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import torch

from ..errors import CacheError

_LEVELS = 65535


def encode_mask(mask: np.ndarray) -> tuple[torch.Tensor, dict[str, Any]]:
    """A mask (H, W) in 0..1 as compressed bytes and what is needed to read them.

    Values become whole steps of 1/65535 (an error of at most 1/131070), stored in one byte each where all
    are multiples of 1/255; so masks of 8 and 16 bits, and 0 and 1 in any mask, are exact.
    """
    steps = np.rint(np.clip(mask, 0.0, 1.0).astype(np.float64) * _LEVELS).astype("<u2")
    small = not (steps % 257).any()
    packed = zlib.compress((steps // 257).astype("u1").tobytes() if small else steps.tobytes(), 1)
    with torch.inference_mode(False):
        data = torch.frombuffer(bytearray(packed), dtype=torch.uint8)
    return data, {"shape": list(mask.shape), "bits": 8 if small else 16}


def decode_mask(data: torch.Tensor, values: dict[str, Any]) -> torch.Tensor:
    """The mask of `encode_mask`'s result as float32 (1, H, W) in 0..1.

    Raises:
        CacheError: The bytes do not fit the shape.
    """
    height, width = values["shape"]
    small = values["bits"] == 8
    size = height * width * (1 if small else 2)
    try:
        raw = zlib.decompressobj().decompress(data.numpy().tobytes(), size + 1)
    except zlib.error:
        raw = b""
    if len(raw) != size:
        raise CacheError("A cached mask does not fit its size. Empty the cache folder and run again.")
    steps = np.frombuffer(raw, "u1" if small else "<u2").astype(np.float32)
    scaled = (steps / np.float32(255 if small else _LEVELS)).reshape(1, height, width)
    with torch.inference_mode(False):
        return torch.from_numpy(scaled)
