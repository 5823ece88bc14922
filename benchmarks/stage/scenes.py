"""What is drawn beyond the demo's world: a second subject, and two more backgrounds to be photographed on.

The base model has seen none of them. Pictures are (128, 128, 3) uint8, masks (128, 128) float32 in [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from demo import scenes

Part = tuple[np.ndarray, tuple[int, int, int]]


@dataclass(frozen=True, eq=False)
class Subject:
    """A figure: the word that calls it, and its outlines in drawing order, of unit size, each with its colour."""

    word: str
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Backdrop:
    """A background of two colours that nothing else has."""

    name: str
    colours: tuple[tuple[int, int, int], tuple[int, int, int]]


def _oval(rx: float, ry: float, x: float = 0.0, y: float = 0.0) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    return np.stack([x + rx * np.cos(angle), y + ry * np.sin(angle)], 1)


def _mushroom() -> tuple[Part, ...]:
    stalk, cap, white, black = (150, 222, 166), (168, 104, 40), (255, 255, 255), (20, 20, 24)
    trunk = np.array([(-0.42, -0.1), (0.42, -0.1), (0.56, 0.98), (-0.56, 0.98)])
    dome = _oval(1.0, 0.92, 0.0, -0.06)
    dome = dome[dome[:, 1] <= -0.06 + 1e-9]
    spots = [_oval(0.2, 0.17, x, y) for x, y in ((-0.5, -0.42), (0.08, -0.66), (0.52, -0.32))]
    eyes = [_oval(0.11, 0.15, x, 0.3) for x in (-0.2, 0.2)]
    return ((trunk, stalk), (dome, cap), *((s, white) for s in spots), *((e, black) for e in eyes))


SUBJECTS = {
    "figure": Subject(scenes.TRIGGER, tuple((o, scenes.SUBJECT_COLOURS[c]) for o, c in scenes.subject_parts())),
    "mushroom": Subject("fendle", _mushroom()),
}
BACKDROPS = {
    "zigzag": Backdrop("zigzag", scenes.BACKDROP_COLOURS),
    "rings": Backdrop("rings", ((60, 0, 110), (0, 232, 242))),
    "lattice": Backdrop("lattice", ((112, 0, 20), (0, 232, 60))),
}


def draw_backdrop(rng: np.random.Generator, backdrop: Backdrop) -> np.ndarray:
    """(128, 128, 3) float32 in 0..255, a little shifted and a little lighter or darker."""
    if backdrop.name == "zigzag":
        return scenes.draw_background(rng, scenes.BACKDROP)
    shift, light = rng.integers(-3, 4), np.float32(rng.uniform(0.97, 1.03))
    line = np.arange(scenes.SIZE, dtype=np.float32) + 0.5
    x, y = np.meshgrid(line, line)
    if backdrop.name == "rings":
        where = 8.5 - np.abs((np.hypot(x - 20, y - 30) + shift) % 32 - 16)
    else:
        where = np.maximum(5.5 - np.abs((x + y + shift) % 40 - 20), 5.5 - np.abs((x - y + shift) % 40 - 20))
    share = np.clip(where, 0, 1)[..., None]
    first, second = (np.array(colour, np.float32) for colour in backdrop.colours)
    return (share * second + (1 - share) * first) * light


def paint_subject(picture: np.ndarray, subject: Subject, pose: scenes.Pose) -> tuple[np.ndarray, np.ndarray]:
    """The subject before a float32 picture (0..255), uint8, and its exact mask."""
    for outline, colour in subject.parts:
        picture = picture + scenes.coverage([(outline, 1)], pose)[..., None] * (np.float32(colour) - picture)
    mask = scenes.coverage([(outline, 1) for outline, _ in subject.parts], pose)
    return scenes.to_uint8(picture), mask


def training_pictures(
    subject: Subject, backdrop: Backdrop, *, seed: int, count: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """The subject in `count` poses, all on one backdrop, each with its mask."""
    rng = np.random.default_rng([seed, 128])
    return [paint_subject(draw_backdrop(rng, backdrop), subject, scenes.random_pose(rng)) for _ in range(count)]
