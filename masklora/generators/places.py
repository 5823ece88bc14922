"""Boxes and points as texts: in pixels, or in shares of the picture, which suit pictures of any size."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from ..errors import ConfigError, MaskError


@dataclass(frozen=True)
class Box:
    """A box in pixels: left and top edge, width, height; numbers may be fractions of a pixel."""

    x: float
    y: float
    width: float
    height: float


def read_numbers(text: str, count: int, *, widget: str, expected: str) -> list[float]:
    """The `count` numbers, none negative, of a text that separates them by commas or spaces.

    Raises:
        ConfigError: names the widget, what was expected and what it holds.
    """
    parts = [part for part in re.split(r"[\s,;]+", text.strip()) if part]
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        numbers = []
    if len(numbers) != count or not all(math.isfinite(number) and number >= 0 for number in numbers):
        raise ConfigError(f"{widget}: expected {expected}, got {text.strip()!r}. Correct it.")
    return numbers


def check_box(text: str, *, widget: str = "box") -> None:
    """Nothing if `text` is a box of some picture, else a `ConfigError` that names the widget."""
    numbers = read_numbers(
        text,
        4,
        widget=widget,
        expected='"x, y, width, height" in pixels, or in shares of the picture from 0 to 1',
    )
    if not (numbers[2] > 0 and numbers[3] > 0):
        raise ConfigError(f"{widget}: the box {text.strip()!r} has no width or no height. Make it larger.")


def box_in(text: str, size: tuple[int, int], *, name: str, widget: str = "box") -> Box:
    """The box of a text within a picture, cut to it.

    Args:
        text: "x, y, width, height"; four numbers of at most 1 are shares of the picture.
        size: (height, width) of the picture.
        name: Of the picture, for the message.
        widget: For the message.

    Raises:
        ConfigError: The text is no box.
        MaskError: The box lies outside the picture; names it.
    """
    check_box(text, widget=widget)
    height, width = size
    x, y, w, h = _pixels(read_numbers(text, 4, widget=widget, expected=""), (width, height, width, height))
    right, bottom = min(x + w, width), min(y + h, height)
    if right <= x or bottom <= y:
        raise MaskError(
            f"{name}: {widget} {text.strip()!r} lies outside the picture, which is {width}×{height} px. "
            "Move it, or write it in shares of the picture (0 to 1)."
        )
    return Box(x, y, right - x, bottom - y)


def check_point(text: str, *, widget: str = "point") -> None:
    """Nothing if `text` is a point of some picture, else a `ConfigError` that names the widget."""
    read_numbers(text, 2, widget=widget, expected='"x, y" in pixels, or in shares of the picture from 0 to 1')


def point_in(text: str, size: tuple[int, int], *, name: str, widget: str = "point") -> tuple[int, int]:
    """(row, column) of the pixel of a text "x, y"; two numbers of at most 1 are shares of the picture.

    Raises:
        ConfigError: The text is no point.
        MaskError: The point lies outside the picture; names it.
    """
    check_point(text, widget=widget)
    height, width = size
    numbers = read_numbers(text, 2, widget=widget, expected="")
    x, y = _pixels(numbers, (width, height))
    if max(numbers) <= 1:
        x, y = min(x, width - 1), min(y, height - 1)
    if x >= width or y >= height:
        raise MaskError(
            f"{name}: {widget} {text.strip()!r} lies outside the picture, which is {width}×{height} px. "
            "Move it, or write it in shares of the picture (0 to 1)."
        )
    return int(y), int(x)


def _pixels(numbers: list[float], extents: tuple[int, ...]) -> list[float]:
    if max(numbers) > 1:
        return numbers
    return [number * extent for number, extent in zip(numbers, extents, strict=True)]
