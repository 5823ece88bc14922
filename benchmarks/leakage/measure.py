"""What a trained LoRA does: the benchmark's figures for one MODEL.

Every figure but LeakProj, Drift and Held-out is the share of sampled pictures in which the oracle sees something.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import codec, oracle, scenes
from .world import World

FIGURES = {
    "SF": "the subject appears when asked for on another background",
    "BG": "the background that is asked for with it is painted",
    "Leak0": "the training background appears unasked, prompted by trigger and class alone",
    "Intr": "base prompts paint the subject, its two colours, or the training background",
    "Drift": "squared change of the velocity on base prompts, over the base model's own error",
    "LeakProj": "change of the picture outside of the mask, projected onto the training background: 1 = it is there",
    "Held-out": "loss inside of the mask, on pictures and backgrounds that were not trained on",
}
# Where less is better.
COSTS = ("Leak0", "Intr", "Drift", "LeakProj", "Held-out")
_LEVELS = (0.35, 0.6, 0.8, 0.92)


@dataclass(frozen=True)
class Effort:
    """How much is sampled.

    Attributes:
        asked: Pictures of the subject per background.
        alone: Pictures of the trigger alone.
        base: Pictures of base prompts.
        probes: Noisy latents for the figures that need no sampling.
        steps: Of the sampler.
    """

    asked: int = 6
    alone: int = 36
    base: int = 48
    probes: int = 48
    steps: int = 10


@dataclass(frozen=True, eq=False)
class Probe:
    """Noisy latents with what a perfect model would say, for figures that need no sampling.

    Attributes:
        noisy: (B, 16, 16, 16) in the model's space.
        u: noise levels (B,).
        velocity: the true one.
        prompts: one a row.
        mask: the subject's squares, (B, 1, 16, 16).
        towards: the training background less the latents, outside of the mask.
        base: the base model's velocity.
    """

    noisy: Tensor
    u: Tensor
    velocity: Tensor
    prompts: tuple[str, ...]
    mask: Tensor
    towards: Tensor
    base: Tensor


def measure(world: World, model: Any, *, coverage: int, effort: Effort) -> dict[str, float]:
    """All figures of one MODEL, by the names in `FIGURES`."""
    return {**sampled(world, model, coverage=coverage, effort=effort), **probed(world, model, coverage, effort)}


def prompts_of(effort: Effort) -> dict[str, list[str]]:
    """What is sampled: the subject on every background, trigger and class alone, and base prompts.

    A quarter of the base prompts names the class in place of the shape, a quarter is of combinations that the base
    never saw.
    """
    trigger, rng = f"{scenes.TRIGGER} {scenes.CLASS}", np.random.default_rng(77)
    known, new = scenes.combinations(), scenes.combinations(held_out=True)
    base = []
    for i in range(effort.base):
        pool = new if i % 4 == 1 else known
        shape, colour, background = pool[rng.integers(len(pool))]
        base.append(f"{scenes.CLASS} on {background}" if i % 4 == 0 else f"{colour} {shape} on {background}")
    return {
        "asked": [f"{trigger} on {b}" for b in scenes.BACKGROUNDS for _ in range(effort.asked)],
        "alone": [trigger] * effort.alone,
        "base": base,
    }


def sampled(world: World, model: Any, *, coverage: int, effort: Effort) -> dict[str, float]:
    """The figures that need pictures."""
    groups = prompts_of(effort)
    pictures = world.sample(model, [p for group in groups.values() for p in group], seed=1234, steps=effort.steps)
    verdicts, seen = oracle.judge(pictures, coverage=coverage), {}
    for name, group in groups.items():
        seen[name], verdicts = verdicts[: len(group)], verdicts[len(group) :]
    wanted = [prompt.split()[-1] for prompt in groups["asked"]]
    return {
        "SF": share(v.subject for v in seen["asked"]),
        "BG": share(v.background == b for v, b in zip(seen["asked"], wanted, strict=True)),
        "Leak0": share(v.backdrop for v in seen["alone"]),
        "Intr": share(v.subject or v.traces or v.backdrop for v in seen["base"]),
    }


def share(answers: Any) -> float:
    """How many of the answers are yes."""
    answers = list(answers)
    return sum(map(bool, answers)) / len(answers)


def probed(world: World, model: Any, coverage: int, effort: Effort) -> dict[str, float]:
    """The figures that need no sampling."""
    base, subject = probes(world, coverage, effort)
    return {
        "Drift": drift(base, world.predict(model, base.noisy, base.u, base.prompts)),
        **subject_figures(subject, world.predict(model, subject.noisy, subject.u, subject.prompts)),
    }


def drift(probe: Probe, velocity: Tensor) -> float:
    """Mean squared change of the velocity over the base model's mean squared error."""
    changed = (velocity - probe.base).square().mean()
    return float(changed / (probe.base - probe.velocity).square().mean())


def subject_figures(probe: Probe, velocity: Tensor) -> dict[str, float]:
    """LeakProj and the held-out loss.

    A velocity that changes by d at noise level u moves the picture that the model has in mind by −u·d.
    """
    moved = -probe.u[:, None, None, None] * (velocity - probe.base)
    along = (moved * probe.towards).sum() / probe.towards.square().sum()
    error = (velocity - probe.velocity).square().mean(1, keepdim=True)
    return {"LeakProj": float(along), "Held-out": float((error * probe.mask).sum() / probe.mask.sum())}


_PROBES: dict[Any, tuple[Probe, Probe]] = {}


def probes(world: World, coverage: int, effort: Effort) -> tuple[Probe, Probe]:
    """Base scenes with their captions, and the subject on other backgrounds with the caption that names them."""
    key = world.variant, coverage, effort
    if key not in _PROBES:
        rng, combos = np.random.default_rng(55), scenes.combinations()
        drawn = [scenes.draw_scene(rng, *combos[rng.integers(len(combos))]) for _ in range(effort.probes)]
        figures = [
            scenes.draw_subject(rng, coverage, scenes.BACKGROUNDS[i % len(scenes.BACKGROUNDS)])
            for i in range(effort.probes)
        ]
        said = [f"{s.colour} {s.shape} on {s.background}" for s in drawn]
        asked = [f"{scenes.TRIGGER} {scenes.CLASS} on {s.background}" for s in figures]
        _PROBES[key] = _probe(world, drawn, said, seed=5), _probe(world, figures, asked, seed=6)
    return _PROBES[key]


def _probe(world: World, drawn: list[scenes.Scene], prompts: list[str], *, seed: int) -> Probe:
    generator, rng = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    encode = functools.partial(codec.to_model_space, variant=world.variant)
    latents = encode(np.stack([s.picture for s in drawn]))
    u = torch.tensor(_LEVELS).repeat(-(-len(drawn) // len(_LEVELS)))[: len(drawn)]
    noise = torch.randn(latents.shape, generator=generator)
    level = u[:, None, None, None]
    noisy, velocity = (1 - level) * latents + level * noise, noise - latents
    mask = torch.from_numpy(np.stack([s.mask for s in drawn]))[:, None]
    other = np.stack([np.where(s.mask[..., None] > 0, s.picture, _backdrop(rng)) for s in drawn])
    towards = (encode(other.astype(np.float32)) - latents) * (1 - mask)
    base = world.predict(world.model, noisy, u, prompts)
    return Probe(noisy, u, velocity, tuple(prompts), mask, towards, base)


def _backdrop(rng: np.random.Generator) -> np.ndarray:
    return scenes.draw_background(rng, scenes.BACKDROP)
