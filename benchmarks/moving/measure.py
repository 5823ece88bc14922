"""What a trained LoRA does, read from sampled clips in closed form; nothing is trained to judge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.leakage import oracle
from benchmarks.leakage import scenes as still

from . import scenes
from .world import TRIGGERED, World

FIGURES = {
    "leak": "share of what no figure covers that shows the training background, where another one is asked for",
    "subject": "share of frames in which the subject stands, whole, where it is asked for on another background",
    "motion": "mean distance in squares between where the subject is and where it was at that time in training",
    "background": "share of frames that show the background that is asked for with the subject",
    "leak alone": "as leak, where no background is asked for",
    "leak others": "as leak, in clips of other things",
}
# Where more is better; of the others less is.
GAINS = ("subject", "background")
NOISE_SEED = 1234


@dataclass(frozen=True)
class Effort:
    """How many clips are sampled: of the subject a background, of the subject alone, and of other things."""

    asked: int = 6
    alone: int = 8
    others: int = 8
    steps: int = 12


def measure(world: World, model: Any, effort: Effort) -> dict[str, float]:
    """All figures of one MODEL, by the names in `FIGURES`."""
    groups = prompts_of(effort)
    clips = world.sample(model, [p for group in groups.values() for p in group], seed=NOISE_SEED, steps=effort.steps)
    shown = {}
    for name, group in groups.items():
        shown[name], clips = clips[: len(group)], clips[len(group) :]
    return {
        "leak": leak(shown["asked"]),
        "subject": subject(shown["asked"]),
        "motion": motion(shown["asked"]),
        "background": background(shown["asked"], [prompt.split()[-1] for prompt in groups["asked"]]),
        "leak alone": leak(shown["alone"]),
        "leak others": leak(shown["others"]),
    }


def prompts_of(effort: Effort) -> dict[str, list[str]]:
    """What is sampled: the subject on every other background, the subject alone, and things that the base knows."""
    rng, combos, others = np.random.default_rng(77), scenes.combinations(), []
    for _ in range(effort.others):
        shape, colour, ground = combos[rng.integers(len(combos))]
        others.append(f"{colour} {shape} {scenes.MOTIONS[rng.integers(len(scenes.MOTIONS))]} on {ground}")
    asked = [f"{TRIGGERED} on {ground}" for ground in scenes.BACKGROUNDS for _ in range(effort.asked)]
    return {"asked": asked, "alone": [TRIGGERED] * effort.alone, "others": others}


def leak(clips: np.ndarray) -> float:
    """How much of what no figure covers has a tone of the training background; clips (B, F, H, W, 3), 0 to 1."""
    frames = clips.reshape(-1, *clips.shape[2:])
    bare = oracle.free(frames)
    hits = np.stack([oracle.near(frames, tone) for tone in still.TONES[still.BACKDROP]]).any(0) & bare
    return float((hits.sum((1, 2)) / np.maximum(bare.sum((1, 2)), 1)).mean())


def subject(clips: np.ndarray) -> float:
    """In which share of the frames the subject stands, whole and not smeared; clips (B, F, H, W, 3)."""
    frames = clips.reshape(-1, *clips.shape[2:])
    return float(oracle.subject_fits(frames, coverage=scenes.SUBJECT).mean())


def places(clips: np.ndarray) -> np.ndarray:
    """Where the subject's colours fit best in each frame, its upper left corner, (B, F, 2); some place if nowhere."""
    _, colours = still.subject_stencil(scenes.SUBJECT)
    windows = np.lib.stride_tricks.sliding_window_view(clips, colours.shape[:2], axis=(2, 3))
    distance = np.square(windows - np.moveaxis(colours, -1, 0)).sum(-3).mean((-1, -2))
    best = distance.reshape(*distance.shape[:2], -1).argmin(-1)
    return np.stack(np.unravel_index(best, distance.shape[2:]), -1)


def motion(clips: np.ndarray) -> float:
    """How far the subject is from where it was in training, in squares, over all frames.

    A frame without it counts with the place that looks most like it, so that a clip without it has what chance gives.
    """
    return float(np.linalg.norm(places(clips) - scenes.path(scenes.OWN_MOTION), axis=-1).mean())


def background(clips: np.ndarray, wanted: list[str]) -> float:
    """In which share of the frames the background is the wanted one; clips (B, F, H, W, 3), a name for each clip."""
    seen = oracle.backgrounds(clips.reshape(-1, *clips.shape[2:]))
    names = np.repeat(wanted, clips.shape[1])
    return float(np.mean([one == name for one, name in zip(seen, names, strict=True)]))
