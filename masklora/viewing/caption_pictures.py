"""Pictures of a data set as a model that describes them is shown them: whole, or their masked part."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..dataset.sample import Sample, fit_mask, load_sample
from ..settings import chosen, ranged
from .sheet import small

PARTS = ("whole picture", "masked part", "masked part alone")
# Of the mask's peak: what is learned less counts as its surroundings.
_LEARNED = 0.1
_MARGIN = 0.05
_GREY = 128


@dataclass(frozen=True)
class CaptionPictures:
    """Which pictures are described, and what of them is seen.

    Attributes:
        part: One of `PARTS`. The masked part is the box around what is learned; alone, all else is grey.
        side: Longer side in pixels at most.
        only_missing: Leave out those that have a caption.
        most: How many at most, in the order of the data set.
    """

    part: str = chosen("whole picture", PARTS)
    side: int = ranged(768, 64, 4096)
    only_missing: bool = True
    most: int = ranged(100, 1, 100_000)


def without_caption(sample: Sample) -> bool:
    """Whether a sample has no caption, or one of no words."""
    return not (sample.caption or "").strip()


def draw_caption_picture(sample: Sample, settings: CaptionPictures) -> np.ndarray:
    """What is seen of a sample, uint8 (H, W, 3); all of a picture whose mask is missing or black.

    Raises:
        DataError, MaskError: The picture or its mask cannot be read.
    """
    loaded = load_sample(sample)
    rgb = loaded.rgb
    if settings.part != "whole picture" and loaded.has_mask:
        mask = fit_mask(loaded.shown, sample.size)
        rgb = _masked(rgb, mask, alone=settings.part == "masked part alone")
    return small(rgb, settings.side) if max(rgb.shape[:2]) > settings.side else np.ascontiguousarray(rgb)


def _masked(rgb: np.ndarray, mask: np.ndarray, *, alone: bool) -> np.ndarray:
    learned = mask > _LEARNED * mask.max(initial=0)
    rows, columns = np.flatnonzero(learned.any(1)), np.flatnonzero(learned.any(0))
    if not len(rows):
        return rgb
    if alone:
        weight = np.clip(mask / mask.max(), 0, 1)[..., None]
        rgb = np.rint(rgb * weight + _GREY * (1 - weight)).astype(np.uint8)
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    margin = round(_MARGIN * max(bottom - top, right - left))
    return rgb[max(top - margin, 0) : bottom + margin, max(left - margin, 0) : right + margin]
