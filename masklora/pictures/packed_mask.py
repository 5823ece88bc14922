"""A mask as a few bytes and back: masks at pixel size would otherwise be most of a cache."""

from __future__ import annotations

import hashlib
import math
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..errors import CacheError
from .mask_files import in_eight_bits

_LEVELS = 65535


@dataclass(frozen=True)
class PackedMask:
    """A mask in memory as compressed bytes: ten thousand generated masks must not take forty gigabytes.

    Attributes:
        data: Compressed steps, of one byte each or two.
        shape: (H, W), or (F, H, W) of the frames of a clip.
        bits: 8 or 16.
    """

    data: bytes
    shape: tuple[int, ...]
    bits: int

    def unpack(self) -> np.ndarray:
        """The mask: float32 of `shape` in 0..1, a new array each time."""
        return _steps_to_mask(self.data, self.shape, self.bits)

    @property
    def digest(self) -> str:
        """40 hexadecimal digits that stand for the values."""
        head = f"{self.shape}{self.bits}".encode()
        return hashlib.blake2b(head + self.data, digest_size=20).hexdigest()


@dataclass(frozen=True)
class PackedFrames:
    """The masks of a clip's frames, each packed by itself, so that one is unpacked at a time.

    Attributes:
        frames: One for each frame, (H, W).
    """

    frames: tuple[PackedMask, ...]

    def __len__(self) -> int:
        """The number of frames."""
        return len(self.frames)

    def unpack(self, number: int) -> np.ndarray:
        """The mask of a frame: float32 (H, W) in 0..1, a new array each time."""
        return self.frames[number].unpack()

    @property
    def digest(self) -> str:
        """40 hexadecimal digits that stand for the values of all frames."""
        return hashlib.blake2b("".join(one.digest for one in self.frames).encode(), digest_size=20).hexdigest()


def pack_mask(mask: np.ndarray) -> PackedMask:
    """A mask (H, W), or the masks (F, H, W) of a clip, in 0..1 as compressed bytes.

    Values become whole steps of 1/65535 (an error of at most 1/131070), stored in one byte each where all
    are multiples of 1/255; so masks of 8 and 16 bits, and 0 and 1 in any mask, are exact.
    """
    levels = in_eight_bits(mask)
    if levels is not None:
        return PackedMask(zlib.compress(levels.tobytes(), 1), tuple(mask.shape), 8)
    steps = np.rint(np.clip(mask, 0.0, 1.0).astype(np.float64) * _LEVELS).astype("<u2")
    small = not (steps % 257).any()
    packed = zlib.compress((steps // 257).astype("u1").tobytes() if small else steps.tobytes(), 1)
    return PackedMask(packed, tuple(mask.shape), 8 if small else 16)


def encode_mask(mask: np.ndarray) -> tuple[torch.Tensor, dict[str, Any]]:
    """A mask ([F,] H, W) in 0..1, packed, as what a cache stores: bytes, and what is needed to read them."""
    packed = pack_mask(mask)
    with torch.inference_mode(False):
        data = torch.frombuffer(bytearray(packed.data), dtype=torch.uint8)
    return data, {"shape": list(packed.shape), "bits": packed.bits}


def decode_mask(data: torch.Tensor, values: dict[str, Any]) -> torch.Tensor:
    """The mask of `encode_mask`'s result as float32 (1, [F,] H, W) in 0..1.

    Raises:
        CacheError: The bytes do not fit the shape.
    """
    mask = _steps_to_mask(data.numpy().tobytes(), tuple(values["shape"]), values["bits"])
    with torch.inference_mode(False):
        return torch.from_numpy(mask)[None]


def _steps_to_mask(data: bytes, shape: tuple[int, ...], bits: int) -> np.ndarray:
    size = math.prod(shape) * bits // 8
    try:
        raw = zlib.decompressobj().decompress(data, size + 1)
    except zlib.error:
        raw = b""
    if len(raw) != size:
        raise CacheError("A cached mask does not fit its size. Empty the cache folder and run again.")
    steps = np.frombuffer(raw, "u1" if bits == 8 else "<u2").astype(np.float32)
    return (steps / np.float32(255 if bits == 8 else _LEVELS)).reshape(shape)
