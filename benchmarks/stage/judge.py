"""Says what a painted picture shows of the stage's subjects and backdrops, in closed form.

A subject is looked for in every pose of a grid, and compared inside of its outline only: how far the picture's colours
are from its own in the pose that fits best. A backdrop is told by its two colours, which nothing else has. Which of
the demo's objects and backgrounds a picture shows is left to the demo's classifier, which knows these.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import product

import numpy as np

from demo import judge as demo_judge
from demo import scenes

from .scenes import Backdrop, Subject, paint_subject

# Pictures are compared in cells of so many pixels, so that an outline may be a little bent.
CELL = 4
# Mean distance of colours, 0 to 442, up to which a subject is there.
SUBJECT_REACH = 80.0
_PLACES, _RADII, _TURNS = np.linspace(-10.5, 10.5, 7), np.linspace(35, 49, 5), np.linspace(-0.18, 0.18, 3)


def _cells(pictures: np.ndarray) -> np.ndarray:
    """Means over cells: (..., 128, 128, C) to (..., 32, 32, C) float32."""
    side = scenes.SIZE // CELL
    *head, _, _, channels = pictures.shape
    return pictures.reshape(*head, side, CELL, side, CELL, channels).mean((-4, -2), dtype=np.float32)


def _poses() -> Iterator[scenes.Pose]:
    for x, y, radius, turn in product(_PLACES, _PLACES, _RADII, _TURNS):
        yield scenes.Pose(scenes.SIZE / 2 + x, scenes.SIZE / 2 + y, float(radius), float(turn))


@cache
def _templates(subject: Subject) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each pose the cells that the subject fills, and its colours there."""
    found = []
    for pose in _poses():
        picture, mask = paint_subject(np.full((scenes.SIZE, scenes.SIZE, 3), 200.0, np.float32), subject, pose)
        inside = np.flatnonzero(_cells(mask[..., None]) > 0.99)
        found.append((inside, _cells(picture).reshape(-1, 3)[inside]))
    return found


def subject_distance(pictures: np.ndarray, subject: Subject) -> np.ndarray:
    """How far pictures (B, 128, 128, 3) uint8 are from the subject in the pose that fits best: (B,), 0 to 442."""
    cells = _cells(pictures).reshape(len(pictures), -1, 3)
    far = [np.linalg.norm(cells[:, inside] - colours, axis=-1).mean(1) for inside, colours in _templates(subject)]
    return np.min(far, axis=0)


def shows_backdrop(pictures: np.ndarray, backdrop: Backdrop) -> np.ndarray:
    """(B,) bool: a tenth of the pixels or more are in the backdrop's colours."""
    far = [np.linalg.norm(pictures.astype(np.float32) - np.float32(colour), axis=-1) for colour in backdrop.colours]
    return (np.minimum(*far) < demo_judge.BACKDROP_REACH).mean((1, 2)) > demo_judge.SHARE_LIMIT
