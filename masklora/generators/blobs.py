"""Random blobs: masks that show nothing, of a coverage that is exact to a pixel."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from ..errors import ConfigError
from ..settings import check, ranged, seeded
from .finding import Finding, Maker, Picture

MAX_COUNT = 64
SMALLEST_COVERAGE = 0.001
_SMALLEST_CELL = 4.0
# Where the distances to the two nearest centres differ by more than √2 px, no neighbour belongs to another centre.
_GAP = 2.0
_WELL = 3.0
# Tried from ragged to round until the number of blobs is right; at 0 they are discs.
_AMPLITUDES = (1.0, 0.7, 0.5, 0.3, 0.15, 0.0)
_CANDIDATES = 24


@dataclass(frozen=True)
class BlobSettings:
    """How random blobs look.

    Attributes:
        coverage_min: Smallest share of the picture that a mask covers, 0.001 to 1.
        coverage_max: Largest share, up to 1.
        count: Blobs per mask; 0 leaves it to the noise.
        smoothness: Size of the noise's waves as a share of the picture's shorter side, 0.02 to 1.
        seed: Spreads the coverages over the set; each picture's own seed shapes its blobs.
    """

    coverage_min: float = ranged(0.1, SMALLEST_COVERAGE, 1.0)
    coverage_max: float = ranged(0.5, SMALLEST_COVERAGE, 1.0)
    count: int = ranged(0, 0, MAX_COUNT)
    smoothness: float = ranged(0.2, 0.02, 1.0)
    seed: int = seeded()


def check_blobs(settings: BlobSettings) -> BlobSettings:
    """`settings` if they are usable, else a `ConfigError` that names the widget."""
    check(settings)
    check_coverage(settings.coverage_min, settings.coverage_max)
    return settings


def check_coverage(low: float, high: float) -> None:
    """Nothing if a coverage can be drawn from `low` to `high`, else a `ConfigError` that names the widget."""
    if low > high:
        raise ConfigError(f"coverage_min: {low:g} lies above coverage_max {high:g}. Lower it.")


def blob_maker(settings: BlobSettings) -> Maker:
    """A maker of random blobs; the coverage of each picture comes from its place in the set.

    Raises:
        ConfigError: a setting is out of range.
    """
    check_blobs(settings)

    def make(picture: Picture) -> Finding:
        coverage = coverage_of(picture, settings.coverage_min, settings.coverage_max, settings.seed)
        mask = random_blobs(picture.rgb.shape[:2], coverage=coverage, settings=settings, seed=picture.seed)
        found = count_components(mask)
        note = f"{found} {'blob' if found == 1 else 'blobs'}"
        if settings.count and found != settings.count:
            note += f" instead of {settings.count}: more do not fit apart at {coverage:.0%} of this picture"
        return Finding(mask, note)

    return make


def coverage_of(picture: Picture, low: float, high: float, seed: int) -> float:
    """The coverage asked of one picture: its share of `target_coverages`, or, alone, its own draw."""
    if picture.count < 2:
        return float(target_coverages(1, low, high, seed=picture.seed)[0])
    return float(target_coverages(picture.count, low, high, seed=seed)[picture.index])


def target_coverages(count: int, low: float, high: float, *, seed: int) -> np.ndarray:
    """One coverage per picture, spread evenly over the asked range in random order.

    Independent draws leave gaps in small sets. Here each picture draws from its own slice of the range, and the
    lowest and the highest keep to the outer tenth, so that two pictures or more span at least 80 % of it.

    Args:
        count: Pictures; one alone draws from the whole range.
        low: Lower end.
        high: Upper end.
        seed: Decides draws and order.

    Returns:
        float64 (count,), each in low..high; empty for none.
    """
    rng = np.random.default_rng([seed, 1])
    if count < 2:
        return low + (high - low) * rng.random(count)
    draws = rng.random(count)
    places = (np.arange(count) + draws) / count
    edge = min(1 / count, 0.1)
    places[0], places[-1] = edge * draws[0], 1 - edge * draws[-1]
    return np.clip(low + (high - low) * rng.permutation(places), low, high)


def random_blobs(size: tuple[int, int], *, coverage: float, settings: BlobSettings, seed: int) -> np.ndarray:
    """A mask of random blobs that covers exactly round(coverage · pixels) pixels, at least one.

    The highest pixels of smooth noise are taken by number, not by a threshold, so the coverage holds on every
    field. For a number of blobs the noise gets as many hills with a narrow gap between them, and is calmed until
    the blobs are as many as asked for.

    Args:
        size: (height, width), from 1×1.
        coverage: Share of the picture in 0..1.
        settings: `count` and `smoothness` are used.
        seed: The same seed at the same size gives the same mask.

    Returns:
        float32 (H, W) of zeros and ones. Where the asked number of blobs does not fit, the coverage still holds
        and the number is another one: `count_components` tells.
    """
    height, width = size
    pixels = max(1, min(height * width, round(coverage * height * width)))
    rng = np.random.default_rng([seed, 2])
    noise = _noise(size, settings.smoothness, rng)
    if settings.count == 0:
        return top_pixels(noise, pixels)
    hills = _hills(size, pixels / settings.count, _centres(size, settings.count, rng))
    mask = noise
    for amplitude in _AMPLITUDES:
        mask = top_pixels(hills + np.float32(amplitude) * noise, pixels)
        if count_components(mask) == settings.count:
            break
    return mask


def top_pixels(field: np.ndarray, count: int) -> np.ndarray:
    """A float32 mask of the `count` highest pixels of `field` (H, W); equal ones in reading order."""
    flat = field.reshape(-1)
    if count >= flat.size:
        return np.ones_like(field, np.float32)
    threshold = np.partition(flat, flat.size - count)[flat.size - count]
    mask = (flat > threshold).astype(np.float32)
    missing = count - int(np.count_nonzero(mask))
    mask[np.flatnonzero(flat == threshold)[:missing]] = 1
    return mask.reshape(field.shape)


def count_components(mask: np.ndarray) -> int:
    """The number of islands above 0; pixels that touch by a corner belong together."""
    return cv2.connectedComponents((mask > 0).astype(np.uint8), connectivity=8)[0] - 1


def _noise(size: tuple[int, int], smoothness: float, rng: np.random.Generator) -> np.ndarray:
    """Standard normal noise on a coarse grid, brought to `size` by cubic interpolation; float32."""
    height, width = size
    cell = max(_SMALLEST_CELL, min(size) * smoothness)
    grid = max(2, math.ceil(height / cell)), max(2, math.ceil(width / cell))
    coarse = rng.standard_normal(grid).astype(np.float32)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def _centres(size: tuple[int, int], count: int, rng: np.random.Generator) -> np.ndarray:
    """Points (count, 2) as y, x, each the farthest from the earlier ones among random candidates."""
    extent = np.asarray(size, np.float64)
    centres = [extent * rng.uniform(0.15, 0.85, 2)]
    while len(centres) < count:
        candidates = extent * rng.uniform(0.1, 0.9, (_CANDIDATES, 2))
        gaps = np.linalg.norm(candidates[:, None] - np.asarray(centres)[None], axis=2).min(axis=1)
        centres.append(candidates[int(gaps.argmax())])
    return np.asarray(centres)


def _hills(size: tuple[int, int], area: float, centres: np.ndarray) -> np.ndarray:
    """Parabolas of equal height about the centres, float32, far lower wherever two of them meet."""
    rows = np.arange(size[0], dtype=np.float32)[:, None]
    columns = np.arange(size[1], dtype=np.float32)[None]
    nearest = np.full(size, np.inf, np.float32)
    second = nearest.copy()
    for y, x in centres.astype(np.float32):
        distance = np.hypot(rows - y, columns - x)
        np.minimum(second, np.maximum(nearest, distance), out=second)
        np.minimum(nearest, distance, out=nearest)
    radius = math.sqrt(area / math.pi)
    hills = (nearest / np.float32(radius)) ** 2 * np.float32(-_WELL)
    hills[second - nearest < _GAP] -= np.float32(1e6)
    return hills
