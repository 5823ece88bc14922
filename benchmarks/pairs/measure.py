"""How far pictures are from what was asked for, inside and outside of the block; nothing is trained to judge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from . import scenes
from .world import STEPS, World

# Mean squares of colours from 0 to 1, as the losses and the drift on a run's own curves are mean squares.
FIGURES = {
    "error inside": "inside of the block, from the edit that is wanted, on references never seen",
    "drift outside": "outside of the block, from what the base makes of the same reference and noise",
    "drift beyond": "the same, where no token holds a part of the block",
    "error outside": "outside of the block, from the reference",
    "drift of others": "everywhere, from what the base makes of the edits that it knows",
}
NOISE_SEED = 1234
# Draws the references that nobody trained on.
REFERENCE_SEED = 77


@dataclass(frozen=True)
class Effort:
    """How many references get the new edit, and how many each of those that the base knows."""

    asked: int = 48
    others: int = 8
    steps: int = STEPS


@dataclass(frozen=True)
class Asked:
    """What is sampled: references (B, 8, 8, 3), where their blocks are (B, 8, 8), and an edit for each."""

    references: np.ndarray
    masks: np.ndarray
    edits: tuple[str, ...]

    @property
    def wanted(self) -> np.ndarray:
        """What should come out, (B, 8, 8, 3)."""
        each = zip(self.references, self.masks, self.edits, strict=True)
        return np.stack([scenes.edited(*one) for one in each])


def asked_of(effort: Effort) -> tuple[Asked, Asked]:
    """References for the new edit, and references for those that the base knows."""
    rng, known = np.random.default_rng(REFERENCE_SEED), (scenes.KEEP, *scenes.COLOURS)
    groups = [scenes.WORD] * effort.asked, [name for name in known for _ in range(effort.others)]
    found = []
    for edits in groups:
        pictures, masks = zip(*(scenes.draw_reference(rng) for _ in edits), strict=True)
        found.append(Asked(np.stack(pictures), np.stack(masks), tuple(edits)))
    return found[0], found[1]


def mean_square(pictures: np.ndarray, others: np.ndarray, weight: np.ndarray) -> float:
    """Of the colours' differences where `weight` is 1; (B, 8, 8, 3) twice, and (B, 8, 8)."""
    squares = np.square(pictures.astype(np.float64) - others).mean(-1)
    return float((squares * weight).sum() / weight.sum())


def whole_tokens(masks: np.ndarray) -> np.ndarray:
    """Masks (B, 8, 8) that hold all squares of each token, two a side, of which they hold any."""
    tokens = masks.reshape(len(masks), scenes.SIDE // 2, 2, scenes.SIDE // 2, 2).max((2, 4))
    return tokens.repeat(2, 1).repeat(2, 2)


class Judge:
    """Measures MODELs beside the base, which is sampled once."""

    def __init__(self, world: World, effort: Effort) -> None:
        """Samples the base."""
        self.world, self.effort = world, effort
        self.asked, self.others = asked_of(effort)
        self._base = [self.draw(world.model, group) for group in (self.asked, self.others)]

    def draw(self, model: Any, group: Asked) -> np.ndarray:
        """What a MODEL makes of a group."""
        return self.world.sample(model, group.references, group.edits, seed=NOISE_SEED, steps=self.effort.steps)

    def figures(self, model: Any) -> dict[str, float]:
        """All figures of one MODEL, by the names in `FIGURES`."""
        asked, others = self.draw(model, self.asked), self.draw(model, self.others)
        inside, outside = self.asked.masks, 1 - self.asked.masks
        beyond = 1 - whole_tokens(self.asked.masks)
        return {
            "error inside": mean_square(asked, self.asked.wanted, inside),
            "drift outside": mean_square(asked, self._base[0], outside),
            "drift beyond": mean_square(asked, self._base[0], beyond),
            "error outside": mean_square(asked, self.asked.references, outside),
            "drift of others": mean_square(others, self._base[1], np.ones_like(self.others.masks)),
        }
