"""What a mask generator gets and gives, and how its masks join the ones that are there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..errors import MaskError
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
        first: Of a clip the first frame, as `rgb`; None of a picture.
    """

    name: str
    rgb: np.ndarray
    mask: np.ndarray | None = None
    seed: int = 0
    index: int = 0
    count: int = 1
    first: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Things:
    """What a mask is made of, for what follows each thing through a clip.

    Attributes:
        wanted: bool (N, h, w), at any size: the mask is what lies in one of them
        unwanted: bool (M, h, w): and in none of these.
    """

    wanted: np.ndarray
    unwanted: np.ndarray


@dataclass(frozen=True, eq=False)
class Finding:
    """A generated mask and what it shows.

    Attributes:
        mask: float32 (H, W) in 0..1 of the picture's size, 1 = learn. None or all zero: nothing was found.
        note: What was found, for the report: "2 × cat (0.91, 0.80)".
        things: What the mask is made of; None where a generator does not tell.
    """

    mask: np.ndarray | None
    note: str = ""
    things: Things | None = None


Maker = Callable[[Picture], Finding]


def checked(finding: Finding, name: str, size: tuple[int, int]) -> np.ndarray | None:
    """The finding's mask, float32 (H, W) in 0..1, None where it is empty.

    Raises:
        MaskError: A generator's fault, told with the picture's `name`: a mask of another size than its `size`
            (width, height), or of values that are not finite.
    """
    if finding.mask is None:
        return None
    mask = np.asarray(finding.mask, np.float32)
    if mask.shape != size[::-1] or not bool(np.isfinite(mask).all()):
        raise MaskError(
            f"{name}: the generator gave a mask of shape {mask.shape} or with values that are not finite, "
            f"expected {size[::-1]} in 0..1. This is a fault of the generator or of its model."
        )
    return np.clip(mask, 0, 1) if mask.any() else None


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
