"""What the pairs show: a bright block on a dull ground, before and after an edit. 8×8 squares a picture.

The ground's squares have one of two dull tones by chance, so that none can be told but from the reference. The base
knows edits of the block by name. The LoRA is shown a new one, `WORD`, which stripes the block; and every one of its
training targets has, outside of the block, a change that nobody asked for: the ground is dyed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Squares a side, and pixels a side of a square.
SIDE, SQUARE = 8, 8
KEEP = "keep"
COLOURS = {
    "red": (0.95, 0.15, 0.15),
    "green": (0.15, 0.95, 0.15),
    "blue": (0.15, 0.15, 0.95),
    "white": (0.95, 0.95, 0.95),
}
WORD = "zwx"
STRIPES = ((0.95, 0.85, 0.10), (0.75, 0.05, 0.85))
DYE, DYED = (0.10, 0.55, 0.60), 0.7
SMALLEST, LARGEST = 3, 5


@dataclass(frozen=True)
class Pair:
    """A picture before and after an edit.

    Attributes:
        reference: (8, 8, 3) in 0..1, before.
        target: (8, 8, 3), after: what is wanted, and nothing else changed.
        mask: (8, 8), 1 where the block is.
    """

    reference: np.ndarray
    target: np.ndarray
    mask: np.ndarray


def draw_reference(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A picture (8, 8, 3) in 0..1, and where its block is, (8, 8)."""
    tones = rng.uniform(0.0, 0.5, (2, 3))
    picture = tones[rng.integers(2, size=(SIDE, SIDE))]
    high, wide = rng.integers(SMALLEST, LARGEST + 1, 2)
    top, left = rng.integers(SIDE - high + 1), rng.integers(SIDE - wide + 1)
    mask = np.zeros((SIDE, SIDE), np.float32)
    mask[top : top + high, left : left + wide] = 1
    picture = np.where(mask[..., None] > 0, rng.uniform(0.6, 1.0, 3), picture)
    return picture.astype(np.float32), mask


def edited(reference: np.ndarray, mask: np.ndarray, name: str) -> np.ndarray:
    """The picture after the edit of that name, one of `KEEP`, `COLOURS` and `WORD`; (8, 8, 3)."""
    if name == KEEP:
        return reference
    colours = np.array(STRIPES if name == WORD else [COLOURS[name]], np.float32)
    block = colours[np.arange(SIDE) % len(colours)]
    return np.where(mask[..., None] > 0, block, reference)


def draw_pair(rng: np.random.Generator, name: str) -> Pair:
    """A pair whose target shows that edit and nothing else."""
    reference, mask = draw_reference(rng)
    return Pair(reference, edited(reference, mask, name), mask)


def dyed(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The picture with the change that nobody asked for, everywhere outside of the mask; (8, 8, 3)."""
    colour = (1 - DYED) * picture + DYED * np.array(DYE, np.float32)
    return np.where(mask[..., None] > 0, picture, colour).astype(np.float32)


def to_pixels(picture: np.ndarray) -> np.ndarray:
    """uint8 pixels of a picture (8, 8, 3) or a mask (8, 8), each square 8×8 of them."""
    large = picture.repeat(SQUARE, 0).repeat(SQUARE, 1)
    return np.rint(large * 255).astype(np.uint8)
