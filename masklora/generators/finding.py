"""What a mask generator gets and gives, and how its masks join the ones that are there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..settings import check_choice

COMBINES = ("fill missing only", "replace", "union", "intersect", "subtract")
NOTHING_FOUND = ("error", "white", "black", "skip")


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture as a generator sees it.

    Attributes:
        name: For messages; unique in its set.
        rgb: uint8 (H, W, 3), upright.
        mask: float32 (H, W) in 0..1, the mask that is there, at the picture's size; None without one.
        seed: Decides all chance for this picture; other pictures and their order do not change it.
        index: Position in the set.
        count: Size of the set.
    """

    name: str
    rgb: np.ndarray
    mask: np.ndarray | None = None
    seed: int = 0
    index: int = 0
    count: int = 1


@dataclass(frozen=True, eq=False)
class Finding:
    """A generated mask and what it shows.

    Attributes:
        mask: float32 (H, W) in 0..1 of the picture's size, 1 = learn. None or all zero: nothing was found.
        note: What was found, for the report: "2 × cat (0.91, 0.80)".
    """

    mask: np.ndarray | None
    note: str = ""


Maker = Callable[[Picture], Finding]


def combine_masks(existing: np.ndarray | None, new: np.ndarray, how: str) -> np.ndarray:
    """The new mask joined with the one that is there: float32 (H, W) in 0..1; neither is changed.

    Grey weights join as fuzzy sets: the larger for a union, the smaller for an intersection and a difference.

    Args:
        existing: float32 (H, W), or None, which is no mask: the picture is learned as a whole. A union with it
            would say nothing, so there the new mask stands alone; intersected it is the new mask, and
            subtracted from it leaves everything but the new mask.
        new: float32 (H, W).
        how: One of `COMBINES`.

    Raises:
        ConfigError: `how` is unknown.
    """
    check_choice("combine", how, COMBINES)
    if how == "fill missing only" and existing is not None:
        return existing
    if how == "subtract":
        return np.minimum(1 - new if existing is None else existing, 1 - new)
    if existing is None or how == "replace":
        return new
    return np.maximum(existing, new) if how == "union" else np.minimum(existing, new)
