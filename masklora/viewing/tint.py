"""Which tint stands out from a picture's own colours: the one place where the tint of a mask is chosen."""

from __future__ import annotations

import cv2
import numpy as np

SIDE = 64
# Of colours that the tint does not lie on, so that it is also told from what it lies beside.
BESIDE = 0.25
# Differences in CIE L*a*b* around which two colours stop being alike.
ALIKE = 20.0
# RGB, the usual one first.
TINTS = ((220, 30, 60), (0, 184, 74), (47, 107, 255), (255, 208, 0), (232, 21, 232), (0, 207, 224))


def standing_out(rgb: np.ndarray, mask: np.ndarray, *, on: str = "ignored") -> tuple[int, int, int]:
    """The one of `TINTS` that a picture has least of, as RGB.

    Args:
        rgb: uint8 (H, W, 3).
        mask: float32 (H, W) in 0..1, 1 = learn.
        on: What the tint lies on, "ignored" or "learned": its colours count most.
    """
    shrinks = max(rgb.shape[:2]) > SIDE
    way = cv2.INTER_AREA if shrinks else cv2.INTER_NEAREST
    colours = _lab(cv2.resize(rgb, (SIDE, SIDE), interpolation=way))
    learned = cv2.resize(mask, (SIDE, SIDE), interpolation=way)
    weights = BESIDE + (learned if on == "learned" else 1 - learned)
    palette = _lab(np.array([TINTS], np.uint8))[0]
    apart = np.linalg.norm(colours[..., None, :] - palette, axis=-1) / ALIKE
    likeness = (weights[..., None] / (1 + apart**2)).sum((0, 1))
    return TINTS[int(likeness.argmin())]


def _lab(rgb: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
