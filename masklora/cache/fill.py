"""What the VAE sees where nothing is learned: the outside of a mask replaced before encoding."""

from __future__ import annotations

import cv2
import numpy as np

from ..errors import MaskError
from ..settings import FILLS, check_choice

GREY = 128
INPAINT_RADIUS = 3
BLUR_SHARE = 1 / 32


def apply_fill(rgb: np.ndarray, mask: np.ndarray, kind: str, *, seed: int = 0) -> np.ndarray:
    """The picture with what its mask ignores replaced; where the mask is 1 every pixel stays as it was.

    The VAE's receptive field carries outside pixels into the cells of a mask's edge, so what lies there
    matters although it has no weight. A grey mask mixes picture and filling in proportion, so soft edges stay
    soft.

    Args:
        rgb: uint8 (H, W, 3); not changed.
        mask: float32 (H, W) in 0..1, 1 = learn, of the same size.
        kind: "keep", "grey" (128), "mean colour" (of the inside, weighted by the mask), "blur" (Gaussian, σ
            of 1/32 of the short side), "noise" (uniform, from `seed`) or "inpaint" (Telea, from the inside).
        seed: decides the noise.

    Returns:
        uint8 (H, W, 3), deterministic. Where the inside is empty, mean colour and inpainting give grey.

    Raises:
        MaskError: the sizes differ.
        ConfigError: `kind` is unknown.

    Source: A. Telea, "An image inpainting technique based on the fast marching method", 2004 (OpenCV's).
    """
    check_choice("fill", kind, FILLS)
    if mask.shape != rgb.shape[:2]:
        raise MaskError(
            f"fill: the mask is {mask.shape[1]}×{mask.shape[0]}, the picture {rgb.shape[1]}×{rgb.shape[0]}; "
            "bring both to one size first."
        )
    if kind == "keep" or bool((mask >= 1).all()):
        return rgb.copy()
    filling = _filling(rgb, mask, kind, seed)
    weight = mask[..., None].astype(np.float32)
    mixed = rgb.astype(np.float32) * weight + filling.astype(np.float32) * (1 - weight)
    return np.rint(mixed).clip(0, 255).astype(np.uint8)


def _filling(rgb: np.ndarray, mask: np.ndarray, kind: str, seed: int) -> np.ndarray:
    if kind == "blur":
        sigma = max(2.0, min(mask.shape) * BLUR_SHARE)
        return cv2.GaussianBlur(rgb, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101)
    if kind == "noise":
        return np.random.default_rng(seed).integers(0, 256, rgb.shape, dtype=np.uint8)
    if kind == "mean colour" and float(mask.sum()) > 0:
        total = (rgb * mask[..., None].astype(np.float64)).sum(axis=(0, 1))
        return np.broadcast_to(total / float(mask.sum(dtype=np.float64)), rgb.shape)
    # Relative to the largest weight: a mask that is grey throughout, or came through JPEG, still has an
    # inside.
    inside = mask >= 0.98 * float(mask.max())
    if kind == "inpaint" and float(mask.max()) > 0 and not inside.all():
        return cv2.inpaint(np.ascontiguousarray(rgb), (~inside).astype(np.uint8), INPAINT_RADIUS, cv2.INPAINT_TELEA)
    return np.full_like(rgb, GREY)
