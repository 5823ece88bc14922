"""The masks of a clip over time: what flickers joined, what jumps blended."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

# Beyond this many σ a Gaussian weighs nothing that counts.
_REACH = 3


def neighbours(numbers: Sequence[int], *, count: int, union: int, feather: float) -> list[int]:
    """Every frame that the masks of these frames hang on, ascending, each once.

    Args:
        numbers: Of frames, in 0..count − 1.
        count: Frames of the clip.
        union: As for `over_time`.
        feather: As for `over_time`.
    """
    reach = union + math.ceil(_REACH * feather)
    return sorted({k for i in set(numbers) for k in range(max(0, i - reach), min(count, i + reach + 1))})


def over_time(
    masks: Iterator[np.ndarray], numbers: Sequence[int], *, count: int, union: int = 0, feather: float = 0.0
) -> Iterator[np.ndarray]:
    """The masks of some frames of a clip after the transforms along time; only the frames around one are in memory.

    First each frame's mask becomes the largest of those at most `union` frames away, then their mean with the weights
    of a Gaussian of σ = `feather` frames. At a clip's ends only the frames that there are count.

    Args:
        masks: float32 (H, W) in 0..1 of the frames that `neighbours` names, in that order.
        numbers: Of the frames wanted, ascending, repeats allowed.
        count: Frames of the clip.
        union: How many frames before and after; 0 leaves the masks as they are.
        feather: In frames; 0 leaves them as they are.

    Yields:
        float32 (H, W) in 0..1. Masks that are the same in all frames come out bit for bit.
    """
    coming = iter(neighbours(numbers, count=count, union=union, feather=feather))
    reach = math.ceil(_REACH * feather)
    given: dict[int, np.ndarray] = {}
    joined: dict[int, np.ndarray] = {}

    def around(middle: int, width: int) -> range:
        return range(max(0, middle - width), min(count, middle + width + 1))

    for number in numbers:
        while around(number, reach + union)[-1] not in given:
            given[next(coming)] = next(masks)
        for gone in [k for k in given if k < number - reach - union]:
            del given[gone]
        for gone in [k for k in joined if k < number - reach]:
            del joined[gone]
        for k in around(number, reach):
            if k not in joined:
                joined[k] = np.maximum.reduce([given[one] for one in around(k, union)])
        yield _blended({k - number: joined[k] for k in around(number, reach)}, feather)


def _blended(masks: dict[int, np.ndarray], feather: float) -> np.ndarray:
    """The mean of masks by how many frames they are away."""
    if len(masks) == 1:
        return masks[0]
    middle = masks[0]
    weights = {away: math.exp(-0.5 * (away / feather) ** 2) for away in masks}
    total = sum(weights.values())
    # What differs from the middle is added, so that equal masks stay as they are.
    apart = sum((np.float32(weights[away] / total) * (mask - middle) for away, mask in masks.items() if away), 0.0)
    return np.clip(middle + apart, 0.0, 1.0).astype(np.float32)
