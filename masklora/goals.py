"""What a LoRA is meant to learn, and what settings that stand at "by goal" are then.

The values are starts from the help page *masks that work*, not measured optima; what a person sets goes before them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import ConfigError
from .settings import BY_GOAL, GOALS, OWN_GOAL, CacheSettings, LossSettings

# As `BY_GOAL`, of a widget that is a number: below its least.
FEATHER_BY_GOAL = -1.0


@dataclass(frozen=True)
class Goal:
    """What a goal decides where a person does not.

    Attributes:
        crop: Of the cache.
        infill: Of the cache.
        feather: Of masks, Gaussian σ in picture pixels.
        rank: Factor on the rank, and on the alpha, that is usual for the model's family.
        length: Factor on the number of steps that is usual for the model's family.
        loss: Options of the masked loss that differ from our defaults.
    """

    crop: str = CacheSettings.crop
    infill: str = CacheSettings.infill
    feather: float = 0.0
    rank: int = 1
    length: float = 1.0
    loss: Mapping[str, Any] = field(default_factory=dict)


UNDECIDED = Goal()
_GOALS = {
    OWN_GOAL: UNDECIDED,
    # Hair and skin end softly; limbs leave through the border of a picture that is cut around them.
    "person": Goal(crop="around mask", feather=8.0),
    "object": Goal(crop="around mask", length=0.75),
    # The wearer is what all pictures share beside the garment: other pictures of the set would show them again.
    "clothing": Goal(crop="around mask", infill="flat colour"),
    # Backgrounds belong to a style; its masks leave out marks and frames, and need be right only roughly.
    "style": Goal(feather=16.0, rank=2, length=1.5, loss={"infill_probability": 0.0}),
}
assert tuple(_GOALS) == GOALS


def goal(name: str) -> Goal:
    """The goal of that name; raises `ConfigError` for one that is none of `GOALS`."""
    if name not in _GOALS:
        raise ConfigError(f"goal: expected one of {', '.join(GOALS)}, got {name!r}.")
    return _GOALS[name]


def common_goal(names: Iterable[str]) -> str:
    """The one goal that all data sets have; `OWN_GOAL` where they differ or there is none."""
    found = set(names)
    return found.pop() if len(found) == 1 else OWN_GOAL


def decide(name: str, widgets: Mapping[str, Any], left: Iterable[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Widgets with the goal's values for those of `left` that stand open or are not there, and which these are.

    Raises:
        ConfigError: Unknown goal.
    """
    chosen = goal(name)
    marks = {one: FEATHER_BY_GOAL if one == "feather" else BY_GOAL for one in left}
    decided = {one: getattr(chosen, one) for one, mark in marks.items() if widgets.get(one, mark) == mark}
    return {**widgets, **decided}, decided


def loss_by_goal(name: str, loss: LossSettings) -> LossSettings:
    """A loss whose preset is `BY_GOAL` as the goal has it, where options stand at our defaults; every other stays.

    Raises:
        ConfigError: Unknown goal.
    """
    if loss.preset != BY_GOAL:
        return loss
    ours = LossSettings()
    decided = {one: value for one, value in goal(name).loss.items() if getattr(loss, one) == getattr(ours, one)}
    return dataclasses.replace(loss, preset=ours.preset, **decided)


def told(name: str, decided: Mapping[str, Any]) -> list[str]:
    """A line that tells what the goal decided; none where there is no goal, or it decided nothing."""
    if name == OWN_GOAL or not decided:
        return []
    return [f"By the goal {name}: {', '.join(f'{one} {_shown(value)}' for one, value in decided.items())}."]


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
