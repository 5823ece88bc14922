"""A picture beside its references, as a person compares them."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from ..dataset.references import load_reference
from ..dataset.sample import Sample, load_sample
from .sheet import small

# Between two pictures, as a share of the height, in a grey that is seen beside dark and light ones.
GAP_SHARE = 1 / 64
GAP_COLOUR = 128


def draw_pair(sample: Sample, *, side: int = 0) -> np.ndarray:
    """The references in their order, then the picture: uint8 (H, W, 3), all of the picture's height.

    Args:
        sample: With or without references; without, the picture alone.
        side: The longer side of the whole, px; 0 for the picture's own height.

    Raises:
        DataError, MaskError: A file cannot be read.
    """
    return beside([load_reference(one).rgb for one in sample.references], load_sample(sample).rgb, side=side)


def beside(references: Sequence[np.ndarray], rgb: np.ndarray, *, side: int = 0) -> np.ndarray:
    """References beside a picture, as `draw_pair`; all uint8 (H, W, 3)."""
    height = rgb.shape[0]
    gap = np.full((height, max(1, round(height * GAP_SHARE)), 3), GAP_COLOUR, np.uint8)
    row: list[np.ndarray] = []
    for reference in references:
        width = max(1, round(reference.shape[1] * height / reference.shape[0]))
        row += [cv2.resize(reference, (width, height), interpolation=cv2.INTER_AREA), gap]
    whole = np.concatenate([*row, rgb], axis=1)
    return small(whole, side) if side else whole
