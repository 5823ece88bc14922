"""Random numbers of a run: seeds that steps do not share, and the global generators, lent and given back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

# Keeps what is drawn apart from what dropout draws.
_DRAWS = 0xD4A35


def mix(seed: int, number: int) -> int:
    """A seed for the `number`-th part of a run, unlike those of its neighbours."""
    return (seed * 0x9E3779B97F4A7C15 + (number + 1) * 0xBF58476D1CE4E5B9) % 2**63


def chance_of(device: torch.device, seed: int, number: int) -> torch.Generator:
    """What a micro-batch draws its noise and noise levels from: of its number alone, whoever computes it."""
    return torch.Generator(device=device).manual_seed(mix(seed + _DRAWS, number))


def seed_global_random(device: torch.device, seed: int) -> None:
    """Seed the generators that a step on `device` may draw from."""
    # torch.manual_seed visits every backend, which costs milliseconds, and queues calls for absent ones.
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


@contextlib.contextmanager
def own_global_random(device: torch.device) -> Iterator[None]:
    """The global generators of the CPU and of `device` are as before when the context ends."""
    index = device.index if device.index is not None else 0
    with torch.random.fork_rng(devices=[index] if device.type == "cuda" else []):
        yield
