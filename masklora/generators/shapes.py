"""Drawn shapes: ellipse, rectangle, polygon and brush strokes, and a disc of the mask that is there.

A shape is a field that grows outwards from 1 on its outline, its gauge; taking the lowest pixels by number gives
the asked coverage exactly, also where the picture's border cuts the shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from ..errors import ConfigError, MaskError
from ..loss.masks import feather_mask, shrink_to_circle
from ..settings import check, chosen, ranged, seeded
from .blobs import SMALLEST_COVERAGE, check_coverage, coverage_of, top_pixels
from .finding import Finding, Maker, Picture
from .places import Box, box_in, check_box

CIRCULAR_SHRINK = "circular shrink"
BRUSH = "brush"
SHAPES = ("ellipse", "rectangle", "polygon", BRUSH, CIRCULAR_SHRINK)
WITHOUT_MASK = ("error", "whole picture")
LEAST_ASPECT = 0.05
# Of rows worked on at a time, so that pictures of any size need little memory.
_STRIP_PIXELS = 1 << 20
_LONGEST_WALK = 4000

Gauge = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class ShapeSettings:
    """Which shape, how large and where.

    Attributes:
        shape: One of `SHAPES`.
        coverage_min: Smallest share of the picture that a shape covers, 0.001 to 1.
        coverage_max: Largest share, up to 1.
        box: "x, y, width, height" in pixels or shares: the shape is inscribed in this box; empty draws size and place.
        angle: Degrees, clockwise.
        angle_jitter: Each picture's angle differs by up to this many degrees either way, 0 to 180.
        aspect: Width over height before turning; 0 draws one from 1:2 to 2:1.
        corners: Of the polygon, 3 to 32.
        strokes: Of the brush, 1 to 32.
        stroke_width: About how wide a stroke is, as a share of the shorter side.
        shrink_min: Smallest radius of the circular shrink, as a share of the one that keeps everything.
        shrink_max: Largest radius.
        feather: Gaussian σ in picture pixels, last of all.
        without_mask: What the circular shrink takes where a picture has no mask: one of `WITHOUT_MASK`.
        seed: Spreads the coverages over the set; each picture's own seed shapes and places.
    """

    shape: str = chosen("ellipse", SHAPES)
    coverage_min: float = ranged(0.1, SMALLEST_COVERAGE, 1.0)
    coverage_max: float = ranged(0.5, SMALLEST_COVERAGE, 1.0)
    box: str = ""
    angle: float = ranged(0.0, -180.0, 180.0)
    angle_jitter: float = ranged(0.0, 0.0, 180.0)
    aspect: float = ranged(0.0, 0.0, 20.0)
    corners: int = ranged(6, 3, 32)
    strokes: int = ranged(3, 1, 32)
    stroke_width: float = ranged(0.1, 0.005, 1.0)
    shrink_min: float = ranged(0.2, 0.01, 1.0)
    shrink_max: float = ranged(1.0, 0.01, 1.0)
    feather: float = ranged(0.0, 0.0, 256.0)
    without_mask: str = chosen("error", WITHOUT_MASK)
    seed: int = seeded()


def check_shapes(settings: ShapeSettings) -> ShapeSettings:
    """`settings` if they are usable, else a `ConfigError` that names the widget."""
    check(settings)
    check_coverage(settings.coverage_min, settings.coverage_max)
    if settings.box.strip():
        check_box(settings.box)
    if 0 < settings.aspect < LEAST_ASPECT:
        raise ConfigError(f"aspect: expected 0 or at least {LEAST_ASPECT:g}, got {settings.aspect:g}.")
    if settings.shrink_min > settings.shrink_max:
        raise ConfigError(
            f"shrink_min: {settings.shrink_min:g} lies above shrink_max {settings.shrink_max:g}. Lower it."
        )
    return settings


def check_shape_combine(settings: ShapeSettings, combine: str) -> None:
    """Nothing if the choice of combining can change a mask, else a `ConfigError` that names the choice to take."""
    if settings.shape == CIRCULAR_SHRINK and combine in ("fill missing only", "union"):
        raise ConfigError(
            f"combine: {combine} leaves every mask as it is, because {CIRCULAR_SHRINK} keeps a part of the mask that "
            "is there. Choose replace."
        )


def shape_maker(settings: ShapeSettings) -> Maker:
    """A maker of shapes; coverage from the picture's place in the set, all else from its seed.

    Raises:
        ConfigError: a setting is out of range.
    """
    check_shapes(settings)

    def make(picture: Picture) -> Finding:
        finding = _shrunk(picture, settings) if settings.shape == CIRCULAR_SHRINK else _drawn(picture, settings)
        if finding.mask is None or settings.feather == 0:
            return finding
        return Finding(feather_mask(finding.mask, sigma=settings.feather), finding.note)

    return make


def _shrunk(picture: Picture, settings: ShapeSettings) -> Finding:
    mask = picture.mask
    if mask is None:
        if settings.without_mask == "error":
            raise MaskError(
                f"{picture.name}: {CIRCULAR_SHRINK} keeps a part of the mask that is there, but the picture has none. "
                "Make a mask first, or set without_mask to whole picture."
            )
        mask = np.ones(picture.rgb.shape[:2], np.float32)
    if not mask.any():
        return Finding(None, "the mask that is there is empty")
    rng = np.random.default_rng([picture.seed, 1])
    factor = float(rng.uniform(settings.shrink_min, settings.shrink_max))
    kept = shrink_to_circle(mask, factor=factor, seed=picture.seed)
    share = float(kept.sum(dtype=np.float64) / mask.sum(dtype=np.float64))
    return Finding(kept, f"kept {share:.0%} of the mask in a disc")


def _drawn(picture: Picture, settings: ShapeSettings) -> Finding:
    size = picture.rgb.shape[:2]
    coverage = coverage_of(picture, settings.coverage_min, settings.coverage_max, settings.seed)
    box = box_in(settings.box, size, name=picture.name) if settings.box.strip() else None
    rng = np.random.default_rng([picture.seed, 3])
    if settings.shape == BRUSH:
        mask = brush_strokes(size, coverage=coverage, settings=settings, box=box, rng=rng)
        return Finding(mask, f"{settings.strokes} brush strokes" if settings.strokes > 1 else "1 brush stroke")
    return Finding(draw_shape(size, coverage=coverage, settings=settings, box=box, rng=rng), settings.shape)


def draw_shape(
    size: tuple[int, int], *, coverage: float, settings: ShapeSettings, box: Box | None, rng: np.random.Generator
) -> np.ndarray:
    """An ellipse, rectangle or polygon as float32 (H, W) of zeros and ones, never empty.

    Args:
        size: (height, width), from 1×1.
        coverage: Share of the picture in 0..1, exact to a pixel, of an upright rectangle to half a row or column.
        settings: Shape, angle, aspect and corners are used.
        box: The shape is inscribed in it and turned about its middle; the coverage does not count then.
        rng: Draws aspect, angle, corners and place.
    """
    aspect = settings.aspect or math.exp(rng.uniform(-math.log(2), math.log(2)))
    angle = math.radians(settings.angle + rng.uniform(-1, 1) * settings.angle_jitter)
    gauge, area, outline = _unit_shape(settings, rng)
    if box is not None:
        middle, axes = (box.x + box.width / 2, box.y + box.height / 2), (box.width / 2, box.height / 2)
        field = _field(size, gauge, middle=middle, axes=axes, angle=angle)
        mask = (field <= 1).astype(np.float32)
        return mask if mask.any() else top_pixels(-field, 1)
    pixels = max(1, round(coverage * size[0] * size[1]))
    scale = math.sqrt(pixels / area)
    axes = scale * math.sqrt(aspect), scale / math.sqrt(aspect)
    middle = _place(size, outline * np.asarray(axes), angle, rng)
    field = _field(size, gauge, middle=middle, axes=axes, angle=angle)
    return _whole_rows(field, pixels) if settings.shape == "rectangle" else top_pixels(-field, pixels)


def brush_strokes(
    size: tuple[int, int], *, coverage: float, settings: ShapeSettings, box: Box | None, rng: np.random.Generator
) -> np.ndarray:
    """Winding strokes as float32 (H, W) of zeros and ones, never empty; they may cross.

    The strokes' length follows from the coverage and the asked width; their width is then what makes the coverage
    exact.

    Args:
        size: (height, width), from 1×1.
        coverage: Share of the picture, or of the box, exact to a pixel.
        settings: `strokes` and `stroke_width` are used.
        box: The strokes stay inside; None is the whole picture.
        rng: Draws the ways.
    """
    height, width = size
    box = box or Box(0, 0, width, height)
    top, left = min(int(box.y), height - 1), min(int(box.x), width - 1)
    bottom = min(height, max(top + 1, round(box.y + box.height)))
    right = min(width, max(left + 1, round(box.x + box.width)))
    inner = bottom - top, right - left
    pixels = max(1, round(coverage * inner[0] * inner[1]))
    wide = max(1.0, settings.stroke_width * min(inner))
    canvas = np.ones(inner, np.uint8)
    for _ in range(settings.strokes):
        way = _walk(inner, length=pixels / wide / settings.strokes, rng=rng)
        cv2.polylines(canvas, [way], False, 0)
    # The walk starts inside, so there is a zero to measure from.
    distance = cv2.distanceTransform(canvas, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    mask = np.zeros(size, np.float32)
    mask[top:bottom, left:right] = top_pixels(-distance, pixels)
    return mask


def _unit_shape(settings: ShapeSettings, rng: np.random.Generator) -> tuple[Gauge, float, np.ndarray]:
    """Gauge, area and outline (n, 2) of the shape within the square from −1 to 1."""
    if settings.shape == "rectangle":
        corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], np.float64)
        return (lambda u, v: np.maximum(np.abs(u), np.abs(v))), 4.0, corners
    if settings.shape == "ellipse":
        turn = np.linspace(0, 2 * math.pi, 64, endpoint=False)
        return np.hypot, math.pi, np.stack([np.cos(turn), np.sin(turn)], axis=1)
    # Less than half a turn between corners, also of a triangle, keeps the middle inside.
    turns = (np.arange(settings.corners) + rng.uniform(-0.2, 0.2, settings.corners)) * 2 * math.pi / settings.corners
    reach = rng.uniform(0.6, 1.0, settings.corners)
    reach /= reach.max()
    corners = reach[:, None] * np.stack([np.cos(turns), np.sin(turns)], axis=1)
    following = np.roll(corners, -1, axis=0)
    doubled = corners[:, 0] * following[:, 1] - corners[:, 1] * following[:, 0]
    return _polygon_gauge(corners, turns, doubled), float(doubled.sum() / 2), corners


def _polygon_gauge(corners: np.ndarray, turns: np.ndarray, doubled: np.ndarray) -> Gauge:
    """1 on the outline, linear along every ray; between two corners a plane through both."""
    following = np.roll(corners, -1, axis=0)
    along_u = ((following[:, 1] - corners[:, 1]) / doubled).astype(np.float32)
    along_v = ((corners[:, 0] - following[:, 0]) / doubled).astype(np.float32)

    def gauge(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        turn = np.mod(np.arctan2(v, u) - turns[0], 2 * math.pi)
        wedge = np.searchsorted(turns - turns[0], turn, side="right") - 1
        return along_u[wedge] * u + along_v[wedge] * v

    return gauge


def _field(
    size: tuple[int, int], gauge: Gauge, *, middle: tuple[float, float], axes: tuple[float, float], angle: float
) -> np.ndarray:
    """The gauge at every pixel's middle, float32 (H, W): at most 1 inside."""
    height, width = size
    cos, sin = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    x = np.arange(width, dtype=np.float32)[None] + np.float32(0.5 - middle[0])
    field = np.empty(size, np.float32)
    strip = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, strip):
        y = np.arange(top, min(top + strip, height), dtype=np.float32)[:, None] + np.float32(0.5 - middle[1])
        u, v = (x * cos + y * sin) / np.float32(axes[0]), (y * cos - x * sin) / np.float32(axes[1])
        field[top : top + strip] = gauge(u, v)
    return field


def _place(size: tuple[int, int], outline: np.ndarray, angle: float, rng: np.random.Generator) -> tuple[float, float]:
    """A random middle (x, y) at which the turned outline lies inside the picture, or centred where it is too large."""
    x = outline[:, 0] * math.cos(angle) - outline[:, 1] * math.sin(angle)
    y = outline[:, 0] * math.sin(angle) + outline[:, 1] * math.cos(angle)
    middle = []
    for along, extent in ((x, size[1]), (y, size[0])):
        low, high = -along.min(), extent - along.max()
        draw = rng.random()
        middle.append(low + draw * (high - low) if low < high else (low + high) / 2)
    return middle[0], middle[1]


def _whole_rows(field: np.ndarray, pixels: int) -> np.ndarray:
    """The lowest pixels, about so many, equal ones all in or all out; never none."""
    exact = top_pixels(-field, pixels)
    level = field[exact > 0].max()
    without, within = field < level, field <= level
    few, many = int(np.count_nonzero(without)), int(np.count_nonzero(within))
    return (without if few and pixels - few < many - pixels else within).astype(np.float32)


def _walk(size: tuple[int, int], *, length: float, rng: np.random.Generator) -> np.ndarray:
    """A smoothly winding way (n, 1, 2) of integer x, y inside the picture, thrown back at its borders."""
    height, width = size
    step = max(1.0, min(size) / 24)
    count = min(_LONGEST_WALK, max(2, math.ceil(length / step) + 1))
    position = np.array([rng.uniform(0, width), rng.uniform(0, height)])
    heading, bend = rng.uniform(0, 2 * math.pi), 0.0
    way = np.empty((count, 2))
    for i in range(count):
        way[i] = position
        bend = 0.8 * bend + rng.normal(0, 0.12)
        heading += bend
        position = position + step * np.array([math.cos(heading), math.sin(heading)])
        if not 0 <= position[0] < width:
            heading, bend = math.pi - heading, 0.0
        if not 0 <= position[1] < height:
            heading, bend = -heading, 0.0
        position = np.clip(position, 0, [width - 1, height - 1])
    return np.floor(way).clip(0, [width - 1, height - 1]).astype(np.int32)[:, None]
