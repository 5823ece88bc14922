"""Masks from colour: what looks like a key colour, lies in a range of lightness, or hangs together with a point."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from ..errors import ConfigError
from ..settings import check, ranged
from .finding import Finding, Maker, Picture
from .places import check_point, point_in

MAX_COLOURS = 16
# Of rows worked on at a time, so that pictures of any size need little memory.
_STRIP_PIXELS = 1 << 20


@dataclass(frozen=True)
class ColourSettings:
    """Which colours are found.

    Differences of colour are ΔE of 1976: the distance in CIE Lab (D65). 2 is just visible, 100 is from black to
    white.

    Attributes:
        colours: Hexadecimal colours separated by commas, "#00ff00, #fff"; empty takes every colour.
        tolerance: ΔE up to which a pixel counts as a key colour, 0 to 200.
        softness: ΔE beyond the tolerance over which the weight falls from 1 to 0; 0 gives a hard edge.
        luminance_min: Lowest lightness L*, 0 black to 100 white.
        luminance_max: Highest lightness.
        point: "x, y" in pixels or shares: only what hangs together with this point is found; empty finds all.
        colour_from_point: The key colour is the one at the point, the most typical of 3×3 pixels, of a clip in its
            first frame, and `colours` is not used.
        invert: Everything but what was found is learned, as before a green screen.
    """

    colours: str = "#00ff00"
    tolerance: float = ranged(25.0, 0.0, 200.0)
    softness: float = ranged(0.0, 0.0, 200.0)
    luminance_min: float = ranged(0.0, 0.0, 100.0)
    luminance_max: float = ranged(100.0, 0.0, 100.0)
    point: str = ""
    colour_from_point: bool = False
    invert: bool = False


def check_colours(settings: ColourSettings) -> ColourSettings:
    """`settings` if they are usable, else a `ConfigError` that names the widget."""
    check(settings)
    if settings.luminance_min > settings.luminance_max:
        raise ConfigError(
            f"luminance_min: {settings.luminance_min:g} lies above luminance_max {settings.luminance_max:g}. Lower it."
        )
    if settings.point.strip():
        check_point(settings.point)
    if settings.colour_from_point:
        if not settings.point.strip():
            raise ConfigError('colour_from_point: there is no point. Write one as "x, y", or switch this off.')
    elif not len(parse_colours(settings.colours)) and (settings.luminance_min, settings.luminance_max) == (0, 100):
        raise ConfigError(
            'colours: expected colours such as "#00ff00, #ffffff", got none, and the luminance range takes everything. '
            "Write a colour or narrow luminance_min to luminance_max."
        )
    return settings


def parse_colours(text: str) -> np.ndarray:
    """The colours of a text as uint8 (n, 3), n from 0 to 16.

    Raises:
        ConfigError: a part is no "#rrggbb" or "#rgb", or there are more than 16.
    """
    parts = [part for part in re.split(r"[\s,;]+", text.strip()) if part]
    if len(parts) > MAX_COLOURS:
        raise ConfigError(f"colours: expected at most {MAX_COLOURS} colours, got {len(parts)}. Remove some.")
    colours = []
    for part in parts:
        digits = part.removeprefix("#")
        if not re.fullmatch(r"[0-9a-fA-F]{3}|[0-9a-fA-F]{6}", digits):
            raise ConfigError(
                f"colours: expected colours such as #00ff00, separated by commas, got {part!r}. Correct it."
            )
        if len(digits) == 3:
            digits = "".join(2 * digit for digit in digits)
        colours.append(tuple(bytes.fromhex(digits)))
    return np.asarray(colours, np.uint8).reshape(-1, 3)


def to_lab(rgb: np.ndarray) -> np.ndarray:
    """CIE Lab of sRGB colours: uint8 (H, W, 3) → float32 (H, W, 3), L 0..100, white point D65."""
    return cv2.cvtColor(rgb.astype(np.float32) / np.float32(255), cv2.COLOR_RGB2Lab)


def colour_weights(
    rgb: np.ndarray, colours: np.ndarray, *, tolerance: float, softness: float, luminance: tuple[float, float]
) -> np.ndarray:
    """How much each pixel counts as one of the colours within the range of lightness.

    Args:
        rgb: uint8 (H, W, 3).
        colours: uint8 (n, 3); none means that every colour counts.
        tolerance: ΔE, inclusive.
        softness: ΔE from full weight to none; beyond the tolerance, and likewise of L* beyond the range.
        luminance: Lowest and highest L*, inclusive.

    Returns:
        float32 (H, W) in 0..1; zeros and ones where `softness` is 0.
    """
    keys = to_lab(colours[None])[0] if len(colours) else []
    weights = np.empty(rgb.shape[:2], np.float32)
    for rows, lab in _lab_strips(rgb):
        light = lab[..., 0]
        beyond = np.maximum(luminance[0] - light, light - luminance[1])
        if len(keys):
            nearest = np.min([_distance(lab, key) for key in keys], axis=0)
            beyond = np.maximum(beyond, nearest - np.float32(tolerance))
        # Black and white come out of the conversion a hair beyond 0 and 100.
        beyond = np.maximum(beyond - np.float32(1e-3), 0)
        weights[rows] = 1 - beyond / np.float32(softness) if softness > 0 else beyond == 0
    return np.maximum(weights, 0, out=weights)


def colour_maker(settings: ColourSettings) -> Maker:
    """A maker of colour masks.

    Raises:
        ConfigError: a setting is out of range or a colour or point cannot be read.
    """
    check_colours(settings)

    def make(picture: Picture) -> Finding:
        point = point_in(settings.point, picture.rgb.shape[:2], name=picture.name) if settings.point.strip() else None
        colours = parse_colours(settings.colours)
        if settings.colour_from_point and point is not None:
            # What has the point's colour in a clip's first frame need not be there in the others.
            shown = picture.rgb if picture.first is None else picture.first
            point = _typical(shown, point)
            colours = shown[point][None]
        weights = colour_weights(
            picture.rgb,
            colours,
            tolerance=settings.tolerance,
            softness=settings.softness,
            luminance=(settings.luminance_min, settings.luminance_max),
        )
        note = f"key {_hex(colours)}" if settings.colour_from_point else ""
        if point is not None:
            if weights[point] == 0:
                return Finding(None, _missed_point(picture, point, colours, settings))
            weights = _connected(weights, point)
        if not weights.any():
            return Finding(
                None,
                f"no pixel within ΔE {settings.tolerance:g} of {_hex(colours)}"
                if len(colours)
                else "no pixel in the luminance range",
            )
        if settings.invert and (weights == 1).all():
            return Finding(None, "all of the picture has such a colour, so inverted nothing is left")
        return Finding(1 - weights if settings.invert else weights, note)

    return make


def _lab_strips(rgb: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    strip = max(1, _STRIP_PIXELS // rgb.shape[1])
    for top in range(0, rgb.shape[0], strip):
        rows = slice(top, top + strip)
        yield rows, to_lab(rgb[rows])


def _distance(lab: np.ndarray, key: np.ndarray) -> np.ndarray:
    """ΔE of 1976 between pixels (H, W, 3) and one colour (3,): float32 (H, W)."""
    difference = lab - key
    return np.sqrt(np.einsum("hwc,hwc->hw", difference, difference))


def _typical(rgb: np.ndarray, point: tuple[int, int]) -> tuple[int, int]:
    """The pixel, of the 3×3 around a point, that differs least from the others: noise does not decide."""
    top, left = max(0, point[0] - 1), max(0, point[1] - 1)
    lab = to_lab(rgb[top : point[0] + 2, left : point[1] + 2])
    pixels = lab.reshape(-1, 3)
    differences = np.linalg.norm(pixels[:, None] - pixels[None], axis=2).sum(axis=1)
    row, column = np.unravel_index(int(differences.argmin()), lab.shape[:2])
    return top + int(row), left + int(column)


def _connected(weights: np.ndarray, point: tuple[int, int]) -> np.ndarray:
    """The weights of the island above 0 that holds the point, 0 elsewhere; connected over edges and corners."""
    _, labels = cv2.connectedComponents((weights > 0).astype(np.uint8), connectivity=8)
    return np.where(labels == labels[point], weights, np.float32(0))


def _missed_point(picture: Picture, point: tuple[int, int], colours: np.ndarray, settings: ColourSettings) -> str:
    here = picture.rgb[point][None, None]
    lab = to_lab(here)
    light = f"#{bytes(here[0, 0]).hex()}, L* {lab[0, 0, 0]:.0f}"
    if not len(colours):
        return f"the point's lightness is outside the range ({light})"
    distance = min(float(_distance(lab, key)[0, 0]) for key in to_lab(colours[None])[0])
    if distance <= settings.tolerance + settings.softness:
        return f"the point's lightness is outside the range ({light})"
    return f"the point ({light}) is ΔE {distance:.0f} from {_hex(colours)}, more than {settings.tolerance:g}"


def _hex(colours: np.ndarray) -> str:
    return ", ".join(f"#{bytes(colour).hex()}" for colour in colours)
