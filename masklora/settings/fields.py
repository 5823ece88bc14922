"""Fields of settings: each with its default and its range or choices, once; widgets and checks read them."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import Any, TypeVar

from ..errors import ConfigError

T = TypeVar("T")

# One way in which a setting comes to have an effect: what other settings, by their widgets' names, then are or are not.
# All must hold.
Use = Mapping[str, Mapping[str, Any]]


def being(*values: Any) -> dict[str, Any]:
    """What a setting must be, one of these, for another to have an effect."""
    return {"is": list(values)}


def other_than(*values: Any) -> dict[str, Any]:
    """What a setting must not be for another to have an effect."""
    return {"not": list(values)}


def ranged(default: Any, low: float, high: float, *widgets: str, used: Iterable[Use] = ()) -> Any:
    """A field for a number, or a tuple of numbers: its default, and the least and the largest value that it takes.

    `widgets` are the names that people know it by, where these are others than the field's. `used` tells the ways in
    which it comes to have an effect, for the page to hide what has none; empty where it always has.
    """
    return field(default=default, metadata={"range": (low, high), "widgets": widgets, "used": tuple(used)})


def seeded(most: int = 2**32 - 1) -> Any:
    """A field for what decides all chance: its widget ends at `most`, but any number that torch takes is one."""
    return field(default=0, metadata={"range": (-(2**63), 2**64 - 1), "shown": (0, most)})


def chosen(default: str, choices: Iterable[str], *widgets: str, used: Iterable[Use] = ()) -> Any:
    """A field for one of some texts; `widgets` and `used` as in `ranged`."""
    return field(default=default, metadata={"choices": tuple(choices), "widgets": widgets, "used": tuple(used)})


def switched(default: bool, *, used: Iterable[Use]) -> Any:
    """A field for yes or no; `used` as in `ranged`."""
    return field(default=default, metadata={"used": tuple(used)})


def texted(default: str, *, used: Iterable[Use]) -> Any:
    """A field for any text; `used` as in `ranged`."""
    return field(default=default, metadata={"used": tuple(used)})


def named(default: Any, widget: str) -> Any:
    """A field for anything else that people know by another name than the field's."""
    return field(default=default, metadata={"widgets": (widget,)})


def about(settings: Any, name: str) -> dataclasses.Field:
    """The field of that name in a settings dataclass, or in one of its instances: default, range or choices."""
    return next(one for one in dataclasses.fields(settings) if one.name == name)


def widgets_of(one: dataclasses.Field) -> tuple[str, ...]:
    """The names by which people know a field: its own, unless it was given others."""
    return one.metadata.get("widgets") or (one.name,)


def check_choice(widget: str, value: str, choices: tuple[str, ...]) -> str:
    """`value` if it is one of `choices`, else a `ConfigError` that names the widget and the choices."""
    if value not in choices:
        raise ConfigError(f"{widget}: expected one of {', '.join(filter(None, choices))}, got {value!r}.")
    return value


def check_range(widget: str, value: float, low: float, high: float) -> float:
    """`value` if low ≤ value ≤ high, else a `ConfigError` that names the widget and the range."""
    if not low <= value <= high:
        raise ConfigError(f"{widget}: expected {low:g} to {high:g}, got {value:g}.")
    return value


def check(settings: T) -> T:
    """`settings` if every field is in its range or one of its choices and every number is one.

    Dataclasses in it are looked into.

    Raises:
        ConfigError: One is not; it names the widget and what it takes.
    """
    for one in dataclasses.fields(settings):  # type: ignore[arg-type]
        value = getattr(settings, one.name)
        if dataclasses.is_dataclass(value):
            check(value)
            continue
        each = value if isinstance(value, tuple) else (value,)
        for widget, single in zip(itertools.cycle(widgets_of(one)), each, strict=False):
            _check_value(widget, single, one.metadata)
    return settings


def _check_value(widget: str, value: Any, limits: Mapping[str, Any]) -> None:
    # NaN passes each comparison that looks for what is too large or too small.
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{widget}: expected a number, got {value}. Write one.")
    if "range" in limits:
        check_range(widget, value, *limits["range"])
    if "choices" in limits:
        check_choice(widget, value, limits["choices"])
