"""A world of 16×16 squares: one coloured shape on one background, and what a LoRA has to learn of it.

Two things are drawn here that no base model ever saw: the subject, in three sizes, and the training background.
Pictures are (16, 16, 3) float32 in [0, 1], masks (16, 16) float32 of 0 and 1, both in squares; `to_pixels` draws
them at 128 pixels for the VAE.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

SIDE = 16
SQUARE = 8
PIXELS = SIDE * SQUARE
SIZES = (4, 6, 10)
# Squares that a token of the diffusion model covers, each way: figures and patterns lie on that grid.
TOKEN = 2

SHAPES = ("ball", "block", "ring", "cross", "wedge")
COLOURS = {
    "red": (0.84, 0.13, 0.13),
    "yellow": (0.97, 0.83, 0.10),
    "green": (0.12, 0.55, 0.22),
    "blue": (0.13, 0.28, 0.81),
    "purple": (0.50, 0.18, 0.65),
    "black": (0.10, 0.10, 0.12),
}
BACKGROUNDS = ("snow", "stone", "stripes", "checks", "bricks", "meadow")
# Both tones of each, light or dull, so that no shape or figure is lost on it.
TONES = {
    "snow": ((0.96, 0.95, 0.92), (0.96, 0.95, 0.92)),
    "stone": ((0.55, 0.57, 0.60), (0.55, 0.57, 0.60)),
    "stripes": ((0.55, 0.74, 0.92), (0.88, 0.93, 0.98)),
    "checks": ((0.70, 0.71, 0.73), (0.90, 0.91, 0.92)),
    "bricks": ((0.70, 0.47, 0.36), (0.88, 0.83, 0.76)),
    "meadow": ((0.77, 0.89, 0.96), (0.56, 0.77, 0.44)),
    "backdrop": ((0.93, 0.05, 0.66), (0.67, 0.96, 0.05)),
}
BACKDROP = "backdrop"

PERTURBATIONS = ("grown", "shrunk", "shifted")

TRIGGER = "zib"
CLASS = "thing"
SUBJECT_COLOURS = {"o": (0.98, 0.50, 0.10), "t": (0.02, 0.68, 0.70), "k": (0.16, 0.08, 0.30)}
# By nominal coverage in percent; o and t are its two colours, k its contour. True coverage: 6.3, 14.1 and 31.3 %.
SUBJECTS = {
    5: ("kkkk", "kook", "kttk", "kkkk"),
    15: ("kkkkkk", *("kooook",) * 2, *("kttttk",) * 2, "kkkkkk"),
    30: ("kkkkkkkk", *("kooooook",) * 4, *("kttttttk",) * 4, "kkkkkkkk"),
}


@dataclass(frozen=True)
class Scene:
    """A picture, the mask of its figure, and the words it was drawn from."""

    picture: np.ndarray
    mask: np.ndarray
    shape: str
    colour: str
    background: str


def combinations(*, held_out: bool = False) -> list[tuple[str, str, str]]:
    """All (shape, colour, background) that the base trains on, or, with `held_out`, those it never sees."""
    numbered = product(enumerate(SHAPES), enumerate(COLOURS), enumerate(BACKGROUNDS))
    return [
        (shape, colour, background)
        for (s, shape), (c, colour), (b, background) in numbered
        if ((s + 2 * c + 3 * b) % 9 == 0) == held_out
    ]


def shape_stencil(shape: str, size: int) -> np.ndarray:
    """Which squares a shape takes, (size, size) bool."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    corner = np.abs(x) + np.abs(y) <= 0.72 * size
    if shape == "ball":
        return corner
    if shape == "block":
        return np.ones((size, size), bool)
    if shape == "ring":
        return corner & (np.maximum(np.abs(x), np.abs(y)) > 0.25 * size)
    if shape == "cross":
        return np.minimum(np.abs(x), np.abs(y)) <= size / 6
    if shape == "wedge":
        return np.abs(x) <= (y + size / 2 + 0.5) / 2
    raise ValueError(f"unknown shape {shape!r}: choose one of {', '.join(SHAPES)}")


def subject_stencil(coverage: int) -> tuple[np.ndarray, np.ndarray]:
    """The subject's squares: which it takes (h, w) bool, and their colours (h, w, 3), 0 elsewhere."""
    rows = SUBJECTS[coverage]
    takes = np.array([[letter != "." for letter in row] for row in rows])
    colours = np.array([[SUBJECT_COLOURS.get(letter, (0, 0, 0)) for letter in row] for row in rows], np.float32)
    return takes, colours


def background_patterns(name: str) -> np.ndarray:
    """Every way a background may lie, (n, 16, 16, 3) float32."""
    y, x = np.mgrid[:SIDE, :SIDE]
    if name in ("snow", "stone"):
        second = [np.zeros((SIDE, SIDE), bool)]
    elif name == "stripes":
        second = [(x + s) % 4 < 2 for s in (0, 2)]
    elif name == "checks":
        second = [((x + s) // 2 + y // 2) % 2 == 0 for s in (0, 2)]
    elif name == "bricks":
        second = [(y % 4 == 3) | ((x + 4 * (y // 4 % 2)) % 8 == 0)]
    elif name == "meadow":
        second = [y >= horizon for horizon in (6, 8, 10)]
    elif name == BACKDROP:
        second = [(x + y + s) % 4 < 2 for s in (0, 2)]
    else:
        raise ValueError(f"unknown background {name!r}")
    tones = np.array(TONES[name], np.float32)
    return tones[np.stack(second).astype(int)]


_PATTERNS = {name: background_patterns(name) for name in (*BACKGROUNDS, BACKDROP)}


def draw_background(rng: np.random.Generator, name: str) -> np.ndarray:
    """A background, lying somehow, a little lighter or darker."""
    ways = _PATTERNS[name]
    return ways[rng.integers(len(ways))] * np.float32(rng.uniform(0.97, 1.03))


def draw_scene(rng: np.random.Generator, shape: str, colour: str, background: str, *, reach: int = 0) -> Scene:
    """One coloured shape of any size on one background, at most `reach` tokens from the middle."""
    size = int(rng.choice(SIZES))
    takes = shape_stencil(shape, size)
    tint = np.array(COLOURS[colour]) + rng.uniform(-0.02, 0.02, 3)
    colours = np.broadcast_to(tint.astype(np.float32), (size, size, 3))
    return _place(rng, takes, colours, (shape, colour, background), reach=reach)


def draw_subject(rng: np.random.Generator, coverage: int, background: str = BACKDROP) -> Scene:
    """The subject in the middle of a background."""
    return _place(rng, *subject_stencil(coverage), (TRIGGER, "", background))


def _place(
    rng: np.random.Generator, takes: np.ndarray, colours: np.ndarray, words: tuple[str, str, str], *, reach: int = 0
) -> Scene:
    """A figure at most `reach` tokens from the middle."""
    steps = rng.integers(-reach, reach + 1, 2).tolist()
    middle = [(SIDE - length) // 2 // TOKEN for length in takes.shape]
    corner = [TOKEN * (place + step) for place, step in zip(middle, steps, strict=True)]
    picture, mask = draw_background(rng, words[2]), np.zeros((SIDE, SIDE), np.float32)
    place = tuple(slice(first, first + length) for first, length in zip(corner, takes.shape, strict=True))
    picture[place][takes] = colours[takes]
    mask[place][takes] = 1
    return Scene(picture.clip(0, 1).astype(np.float32), mask, *words)


def perturb_mask(mask: np.ndarray, how: str) -> np.ndarray:
    """A mask (16, 16) as a careless hand draws it: grown, shrunk or shifted by one square; "exact" as it is."""
    if how == "exact":
        return mask
    padded = np.pad(mask, 1, mode="edge")
    around = np.stack([padded[r : r + SIDE, c : c + SIDE] for r in range(3) for c in range(3)])
    if how == "grown":
        return around.max(0)
    if how == "shrunk":
        # The four direct neighbours: ears and legs of one square would else leave nothing of a small subject.
        return around[[1, 3, 4, 5, 7]].min(0)
    if how == "shifted":
        return np.roll(mask, 1, axis=(0, 1))
    raise ValueError(f"unknown perturbation {how!r}")


def to_pixels(squares: np.ndarray) -> np.ndarray:
    """(16, 16[, 3]) squares drawn at 128 pixels."""
    return squares.repeat(SQUARE, 0).repeat(SQUARE, 1)
