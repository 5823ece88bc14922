"""Two models of one run that take turns: which of them has which noise levels and steps, and what is named after them.

Some video models come as two: one for high noise, which decides what moves where, one for low noise, which draws it.
Each goes through the run as if it were trained alone, so that its LoRA is that of a run of its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from .errors import ConfigError
from .settings import LossSettings

# In the order of their turns, which is that of sampling too; files are named so as other trainers name them.
HIGH, LOW = EXPERTS = ("high_noise", "low_noise")

T = TypeVar("T")


def levels_of(expert: str, loss: LossSettings, switch: float) -> LossSettings:
    """The loss with those of its noise levels that are the expert's: from `switch` up, or below.

    Raises:
        ConfigError: There are none; names the widgets.
    """
    low = max(loss.timestep_min, switch) if expert == HIGH else loss.timestep_min
    high = loss.timestep_max if expert == HIGH else min(loss.timestep_max, switch)
    of = "high noise" if expert == HIGH else "low noise"
    if low >= high:
        raise ConfigError(
            f"timestep_min, timestep_max: from {loss.timestep_min:g} to {loss.timestep_max:g} there are no levels for "
            f"the {of} model, as the two change over at {switch:g}. Set them to 0 and 1, or disconnect model_low and "
            "train the other model alone."
        )
    if low >= loss.masked_timestep_max:
        raise ConfigError(
            f"masked_timestep_max: up to {loss.masked_timestep_max:g} there are no levels for the {of} model, which "
            f"begins at {low:g}. Set it to 1, or disconnect model_low."
        )
    return dataclasses.replace(loss, timestep_min=low, timestep_max=high)


def turn_of(step: int, every: int) -> int:
    """Which of the two takes the step of this 0-based number; they change over after every so many."""
    return step // every % 2


def steps_of(expert: int, steps: int, every: int) -> int:
    """How many of the first `steps` steps are this one's."""
    rounds, rest = divmod(steps, 2 * every)
    return rounds * every + (min(rest, every) if expert == 0 else max(0, rest - every))


def steps_until(expert: int, own: int, every: int) -> int:
    """After how many steps this one has taken `own`: the other way round of `steps_of`."""
    if not own:
        return 0
    rounds, rest = divmod(own - 1, every)
    return (2 * rounds + expert) * every + rest + 1


def steps_for_both(each: int, every: int) -> int:
    """How many steps give the second of the two `each` of its own, and the first at least as many."""
    return steps_until(1, each, every)


def check_turns(steps: int, every: int) -> None:
    """Nothing if both get steps.

    Raises:
        ConfigError: The run ends before the second one's turn.
    """
    if not steps_of(1, steps, every):
        raise ConfigError(
            f"switch_experts_every: the run ends after {steps} steps, before the low noise model's first turn at step "
            f"{every + 1}. Lower it, or raise steps."
        )


def joined(parts: Sequence[Mapping[str, T]]) -> dict[str, T]:
    """What the two have by names, in one: each name behind its expert's."""
    return {f"{expert}.{name}": one for expert, part in zip(EXPERTS, parts, strict=True) for name, one in part.items()}


def parted(both: Mapping[str, T], expert: str) -> dict[str, T]:
    """What of `joined` is this expert's."""
    return {name.removeprefix(f"{expert}."): one for name, one in both.items() if name.startswith(f"{expert}.")}


def joined_states(states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The states of both in one of the same keys, None where none has any."""
    keys = states[0]
    both = {key: dict(zip(EXPERTS, (state[key] for state in states), strict=True)) for key in keys}
    return {key: None if all(one is None for one in each.values()) else each for key, each in both.items()}


def parted_state(both: Mapping[str, Any], expert: str) -> dict[str, Any]:
    """What of `joined_states` is this expert's."""
    return {key: None if each is None else each[expert] for key, each in both.items()}


def file_of(path: Path, expert: str) -> Path:
    """Where an expert's LoRA file is, from where the run's would be: name_high_noise, name_low_noise."""
    return path.with_name(f"{path.name.removesuffix('.safetensors')}_{expert}.safetensors")


def files_of(lora: Any, path: Path) -> list[tuple[Any, Path]]:
    """What is written, and where, of a LoRA that is wanted at `path`: two files where it has another as its `low`."""
    if getattr(lora, "low", None) is None:
        return [(lora, path)]
    return [(lora, file_of(path, HIGH)), (lora.low, file_of(path, LOW))]
