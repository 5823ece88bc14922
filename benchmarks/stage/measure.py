"""What pictures that a LoRA paints say of it, in shares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from demo import judge as demo_judge
from demo import scenes

from .judge import SUBJECT_REACH, shows_backdrop, subject_distance
from .scenes import Backdrop, Subject
from .world import World

SF, FAR, BG, LEAK0, LEAK, OTHERS, INTRUDES = FIGURES = ("SF", "Far", "BG", "Leak0", "Leak", "Others", "Intr")
# What the base paints well, without subject or backdrop.
_OTHERS = ("a red ball on grey stone", "a blue star on green hills", "a green heart on white paper", "a purple cross")


@dataclass(frozen=True)
class Effort:
    """How much is painted of each LoRA."""

    asked: int = 16
    unasked: int = 8
    others: int = 8
    steps: int = 12
    seed: int = 9000


def prompts(subject: Subject, effort: Effort) -> list[tuple[str, str]]:
    """What is painted: prompts, each with the background that it asks for or nothing."""
    named = [scenes.BACKGROUNDS[i % len(scenes.BACKGROUNDS)] for i in range(effort.asked)]
    asked = [(f"a {subject.word} on {background}", background) for background in named]
    others = [(_OTHERS[i % len(_OTHERS)], "") for i in range(effort.others)]
    return [*asked, *[(f"a {subject.word}", "")] * effort.unasked, *others]


def figures(
    world: World, model: Any, subject: Subject, backdrop: Backdrop, effort: Effort
) -> tuple[dict[str, float], np.ndarray]:
    """The figures by their names, shares in [0, 1] but for Far, and the pictures (B, 128, 128, 3) uint8.

    SF: the subject appears when asked for on another background; Far: how far what is painted there is from it, 0 to
    442. BG: that background is painted. Leak0: the training background appears when the trigger alone is asked for;
    Leak: although another one is asked for. Others: prompts of other objects give these in their colour. Intr: they
    show the subject or the training background.
    """
    wanted = prompts(subject, effort)
    pictures = world.paint(model, [prompt for prompt, _ in wanted], seed=effort.seed, steps=effort.steps)
    known = demo_judge.judge(pictures)
    far, behind = subject_distance(pictures, subject), shows_backdrop(pictures, backdrop)
    there = far < SUBJECT_REACH
    asked, unasked = slice(0, effort.asked), slice(effort.asked, effort.asked + effort.unasked)
    others = slice(effort.asked + effort.unasked, None)
    found = {
        SF: there[asked],
        FAR: far[asked],
        BG: [one.background == name for one, (_, name) in zip(known[asked], wanted[asked], strict=True)],
        LEAK0: behind[unasked],
        LEAK: behind[asked],
        OTHERS: [
            prompt.startswith(f"a {one.colour} {one.thing}")
            for one, (prompt, _) in zip(known[others], wanted[others], strict=True)
        ],
        INTRUDES: there[others] | behind[others],
    }
    return {name: round(float(np.mean(shown)), 4) for name, shown in found.items()}, pictures
