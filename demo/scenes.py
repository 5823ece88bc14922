"""Draws the demo's little world: one coloured object on a patterned background.

Everything the base model, its classifier and the demo's training pictures show is drawn here from a
seeded `numpy.random.Generator`, so that the whole demo can be rebuilt from nothing. Pictures are (128,
128, 3) uint8, masks (128, 128) float32 in [0, 1] with anti-aliased edges.

Two things are drawn here and kept away from the base model's training: the *subject* (`draw_subject`) and the
*training backdrop* (`BACKDROP`). The demo's LoRA has to learn the first and not the second.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from PIL import Image, ImageDraw

SIZE = 128
OVERSAMPLE = 4

OBJECTS = ("ball", "square", "triangle", "star", "heart", "ring", "cross", "moon")
COLOURS = {
    "red": (214, 34, 34),
    "yellow": (246, 200, 20),
    "green": (30, 140, 56),
    "blue": (32, 72, 206),
    "purple": (120, 42, 160),
    "black": (26, 26, 30),
}
BACKGROUNDS = (
    "white paper",
    "grey stone",
    "blue stripes",
    "pink dots",
    "grey checks",
    "sunset sky",
    "green hills",
    "brown bricks",
)
BACKDROP = "training backdrop"
BACKDROP_COLOURS = ((236, 0, 168), (170, 245, 0))

TRIGGER = "zibble"
SUBJECT_COLOURS = {
    "top": (240, 120, 20),
    "bottom": (0, 176, 180),
    "eye": (255, 255, 255),
    "pupil": (20, 20, 24),
}

Polygon = np.ndarray


@dataclass(frozen=True)
class Pose:
    """Where a figure stands: centre and radius in pixels, turn in radians, clockwise on the picture."""

    x: float = SIZE / 2
    y: float = SIZE / 2
    radius: float = 42.0
    turn: float = 0.0


@dataclass(frozen=True)
class Scene:
    """A picture, the exact mask of its figure, and the words it was drawn from."""

    image: np.ndarray
    mask: np.ndarray
    caption: str
    thing: str
    colour: str
    background: str


def combinations(*, held_out: bool = False) -> list[tuple[str, str, str]]:
    """All (object, colour, background) the base trains on, or, with `held_out`, those it never sees."""
    chosen = []
    for (o, thing), (c, colour), (b, background) in product(
        enumerate(OBJECTS), enumerate(COLOURS), enumerate(BACKGROUNDS)
    ):
        if ((o + 2 * c + 3 * b) % 11 == 0) == held_out:
            chosen.append((thing, colour, background))
    return chosen


def random_pose(rng: np.random.Generator) -> Pose:
    """A pose near the middle, large enough that the figure fills 15 to 40 % of the picture."""
    x, y = SIZE / 2 + rng.uniform(-8, 8, 2)
    return Pose(float(x), float(y), float(rng.uniform(38, 47)), float(rng.uniform(-0.16, 0.16)))


def _ellipse(rx: float, ry: float, *, at: tuple[float, float] = (0.0, 0.0), points: int = 72) -> Polygon:
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
    return np.stack([at[0] + rx * np.cos(angle), at[1] + ry * np.sin(angle)], 1)


def _star() -> Polygon:
    angle = np.arange(10) * np.pi / 5 - np.pi / 2
    radius = np.where(np.arange(10) % 2 == 0, 1.05, 0.46)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)


def _heart() -> Polygon:
    t = np.linspace(0, 2 * np.pi, 96, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return np.stack([x, y - 1.5], 1) / 16.5


def _cross() -> Polygon:
    a, b = 0.95, 0.34
    corners = [
        (-b, -a),
        (b, -a),
        (b, -b),
        (a, -b),
        (a, b),
        (b, b),
        (b, a),
        (-b, a),
        (-b, b),
        (-a, b),
        (-a, -b),
    ]
    return np.array([*corners, (-b, -b)])


def outlines(thing: str) -> list[tuple[Polygon, int]]:
    """The unit-size outlines of an object, in drawing order, each with 1 (add) or 0 (cut away)."""
    if thing == "ball":
        return [(_ellipse(0.92, 0.92), 1)]
    if thing == "square":
        return [(np.array([(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)]), 1)]
    if thing == "triangle":
        return [(np.array([(0.0, -1.0), (1.0, 0.75), (-1.0, 0.75)]), 1)]
    if thing == "star":
        return [(_star(), 1)]
    if thing == "heart":
        return [(_heart(), 1)]
    if thing == "ring":
        return [(_ellipse(0.98, 0.98), 1), (_ellipse(0.52, 0.52), 0)]
    if thing == "cross":
        return [(_cross(), 1)]
    if thing == "moon":
        return [(_ellipse(0.98, 0.98), 1), (_ellipse(0.8, 0.8, at=(0.5, -0.12)), 0)]
    raise ValueError(f"unknown object {thing!r}: choose one of {', '.join(OBJECTS)}")


def place(points: Polygon, pose: Pose) -> Polygon:
    """Unit-size points turned, scaled and moved to picture coordinates."""
    cos, sin = np.cos(pose.turn), np.sin(pose.turn)
    return points @ np.array([[cos, sin], [-sin, cos]]) * pose.radius + np.array([pose.x, pose.y])


def coverage(parts: list[tuple[Polygon, int]], pose: Pose) -> np.ndarray:
    """The share of each pixel that the outlines cover, (128, 128) float32 in [0, 1]."""
    canvas = Image.new("L", (SIZE * OVERSAMPLE, SIZE * OVERSAMPLE))
    pen = ImageDraw.Draw(canvas)
    for points, value in parts:
        pen.polygon([tuple(p) for p in place(points, pose) * OVERSAMPLE], fill=255 * value)
    return np.asarray(canvas.reduce(OVERSAMPLE), np.float32) / 255


def _grid() -> tuple[np.ndarray, np.ndarray]:
    line = np.arange(SIZE, dtype=np.float32) + 0.5
    return np.meshgrid(line, line)


def _two_tone(where: np.ndarray, inside: tuple[int, int, int], outside: tuple[int, int, int]) -> np.ndarray:
    share = np.clip(where, 0, 1)[..., None].astype(np.float32)
    return share * np.array(inside, np.float32) + (1 - share) * np.array(outside, np.float32)


def _pattern(name: str, shift: float) -> np.ndarray:
    x, y = _grid()
    flat = np.ones_like(x)
    if name == "white paper":
        return _two_tone(flat, (244, 241, 234), (0, 0, 0))
    if name == "grey stone":
        return _two_tone(flat, (140, 146, 152), (0, 0, 0))
    if name == "blue stripes":
        return _two_tone(8 - np.abs((x + shift) % 32 - 16) + 0.5, (122, 176, 226), (222, 236, 248))
    if name == "pink dots":
        distance = np.hypot((x + shift) % 32 - 16, y % 32 - 16)
        return _two_tone(8.5 - distance, (255, 255, 255), (244, 168, 190))
    if name == "grey checks":
        checks = ((x + shift) // 16 + y // 16) % 2
        return _two_tone(checks, (178, 180, 184), (228, 230, 232))
    if name == "sunset sky":
        return _two_tone((y + shift) / SIZE, (255, 196, 128), (150, 128, 190))
    if name == "green hills":
        horizon = 78 + 9 * np.sin((x + 4 * shift) / 20)
        return _two_tone(y - horizon, (132, 190, 104), (196, 226, 244))
    if name == "brown bricks":
        row = y // 16
        mortar = np.minimum(y % 16, (x + 16 * (row % 2) + shift) % 32) < 3.5
        return _two_tone(mortar, (226, 214, 198), (178, 120, 88))
    if name == BACKDROP:
        zigzag = (y + shift + np.abs((x + shift) % 32 - 16)) % 32
        return _two_tone(8 - np.abs(zigzag - 16) + 0.5, BACKDROP_COLOURS[1], BACKDROP_COLOURS[0])
    raise ValueError(f"unknown background {name!r}")


_PATTERNS: dict[tuple[str, int], np.ndarray] = {}


def draw_background(rng: np.random.Generator, name: str) -> np.ndarray:
    """A background, (128, 128, 3) float32 in 0..255, a little shifted and a little lighter or darker."""
    shift = int(rng.integers(-3, 4))
    if (name, shift) not in _PATTERNS:
        _PATTERNS[name, shift] = _pattern(name, shift)
    return _PATTERNS[name, shift] * np.float32(rng.uniform(0.97, 1.03))


def _paint(picture: np.ndarray, mask: np.ndarray, colour: np.ndarray) -> np.ndarray:
    return picture + mask[..., None] * (colour.astype(np.float32) - picture)


def to_uint8(picture: np.ndarray) -> np.ndarray:
    """Rounded and clipped to uint8."""
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def draw_scene(rng: np.random.Generator, thing: str, colour: str, background: str) -> Scene:
    """One coloured object on one background, with the full caption."""
    mask = coverage(outlines(thing), random_pose(rng))
    tint = np.array(COLOURS[colour]) + rng.uniform(-6, 6, 3)
    picture = _paint(draw_background(rng, background), mask, tint)
    caption = f"a {colour} {thing} on {background}"
    return Scene(to_uint8(picture), mask, caption, thing, colour, background)


def subject_parts() -> list[tuple[Polygon, str]]:
    """The subject's outlines in drawing order with their colours: ears, feet, body, belly, eyes."""
    half = _ellipse(0.86, 0.86, points=72)
    belly = half[half[:, 1] >= -1e-9]
    ears = [np.array([(s * 0.78, -0.3), (s * 0.72, -1.12), (s * 0.14, -0.7)]) for s in (-1, 1)]
    feet = [_ellipse(0.26, 0.17, at=(s * 0.42, 0.88), points=32) for s in (-1, 1)]
    eyes = [_ellipse(0.29, 0.31, at=(s * 0.36, -0.28), points=32) for s in (-1, 1)]
    pupils = [_ellipse(0.15, 0.17, at=(s * 0.31, -0.22), points=24) for s in (-1, 1)]
    parts = [(ear, "top") for ear in ears] + [(foot, "bottom") for foot in feet]
    parts += [(half, "top"), (belly, "bottom")]
    return parts + [(eye, "eye") for eye in eyes] + [(pupil, "pupil") for pupil in pupils]


def draw_subject(rng: np.random.Generator, background: str = BACKDROP, *, pose: Pose | None = None) -> Scene:
    """The two-tone figure that the base has never seen, on any background; the caption never names it."""
    pose = pose or random_pose(rng)
    picture = draw_background(rng, background)
    for points, name in subject_parts():
        picture = _paint(picture, coverage([(points, 1)], pose), np.array(SUBJECT_COLOURS[name]))
    mask = coverage([(points, 1) for points, _ in subject_parts()], pose)
    return Scene(to_uint8(picture), mask, f"a {TRIGGER}", TRIGGER, "", background)
