"""A world of clips of 8×12 squares: one coloured shape that crosses one background, or stands on it.

Shapes, colours, backgrounds and the subject are the still world's. Clips are (17, 8, 12, 3) float32 in [0, 1], masks
(17, 8, 12) float32 of 0 and 1, both in squares. No base model ever saw the subject or the training background.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.leakage import scenes as still

ROWS, COLUMNS, FRAMES = 8, 12, 17
SQUARE = 8
SIZE = 4
# Of those of the still world, what a small network learns in minutes.
SHAPES = ("ball", "block", "cross")
BACKGROUNDS = ("snow", "stone", "stripes", "checks")
# Figures go from edge to edge, or stand in the middle.
LAST = COLUMNS - SIZE
MOTIONS = ("still", "right", "left")
# The subject's, which no caption tells.
OWN_MOTION = "right"
SUBJECT = 5


@dataclass(frozen=True, eq=False)
class Clip:
    """Frames, the mask of the figure in each of them, and the words they were drawn from."""

    frames: np.ndarray
    masks: np.ndarray
    shape: str
    colour: str
    motion: str
    background: str

    @property
    def union(self) -> np.ndarray:
        """Every square that the figure covers at any time, (8, 12): the one still mask of the clip."""
        return self.masks.max(0)


def path(motion: str) -> np.ndarray:
    """The figure's upper left corner in each frame, (17, 2) int of row and column.

    Raises:
        ValueError: The motion is unknown.
    """
    if motion not in MOTIONS:
        raise ValueError(f"unknown motion {motion!r}: choose one of {', '.join(MOTIONS)}")
    right = np.arange(FRAMES) * LAST // (FRAMES - 1)
    columns = {"still": np.full(FRAMES, LAST // 2), "right": right, "left": LAST - right}[motion]
    return np.stack([np.full(FRAMES, (ROWS - SIZE) // 2), columns], 1)


def combinations() -> list[tuple[str, str, str]]:
    """All (shape, colour, background) that the base trains on."""
    return [c for c in still.combinations() if c[0] in SHAPES and c[2] in BACKGROUNDS]


def draw_clip(rng: np.random.Generator, shape: str, colour: str, motion: str, background: str) -> Clip:
    """One coloured shape that moves over one background."""
    takes = still.shape_stencil(shape, SIZE)
    tint = np.array(still.COLOURS[colour]) + rng.uniform(-0.02, 0.02, 3)
    colours = np.broadcast_to(tint.astype(np.float32), (SIZE, SIZE, 3))
    return _place(rng, takes, colours, (shape, colour, motion, background))


def draw_subject(rng: np.random.Generator, background: str = still.BACKDROP, *, motion: str = OWN_MOTION) -> Clip:
    """The subject, which crosses a background in its own way."""
    return _place(rng, *still.subject_stencil(SUBJECT), (still.TRIGGER, "", motion, background))


def draw_empty(rng: np.random.Generator, background: str) -> Clip:
    """A background without any figure."""
    return _place(rng, np.zeros((SIZE, SIZE), bool), np.zeros((SIZE, SIZE, 3)), ("", "", "still", background))


def _place(rng: np.random.Generator, takes: np.ndarray, colours: np.ndarray, words: tuple[str, str, str, str]) -> Clip:
    ground = still.draw_background(rng, words[3])[:ROWS, :COLUMNS].clip(0, 1)
    frames, masks = np.repeat(ground[None], FRAMES, 0), np.zeros((FRAMES, ROWS, COLUMNS), np.float32)
    for frame, mask, (row, column) in zip(frames, masks, path(words[2]), strict=True):
        frame[row : row + SIZE, column : column + SIZE][takes] = colours[takes]
        mask[row : row + SIZE, column : column + SIZE][takes] = 1
    return Clip(frames.astype(np.float32), masks, *words)


def to_pixels(squares: np.ndarray) -> np.ndarray:
    """uint8 (..., 64, 96, 3) of (..., 8, 12, 3), or of masks (..., 8, 12), which become grey."""
    shown = squares if squares.shape[-1] == 3 else np.repeat(squares[..., None], 3, -1)
    return np.rint(255 * shown.clip(0, 1)).astype(np.uint8).repeat(SQUARE, -3).repeat(SQUARE, -2)
