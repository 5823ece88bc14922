"""A step with compiled blocks against one whose blocks are recomputed: `dev.py run benchmarks/compiled_step.py`.

Forward and backward of one sample, checkpointing per block, processor time of one thread; the ways take turns. "As
graphs" runs what is traced without a compiler. Torch compiles for the CPU here, with C++; on a card it uses Triton.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from harness.models import small_model, small_text
from masklora.autograd.compiled import Compiler, inductor
from masklora.dataset.geometry import Geometry
from masklora.host.model.trainable import TrainableModel
from masklora.settings import AdapterSettings

RESULTS = Path(__file__).with_suffix(".json")
ROUNDS, STEPS, TOKENS = 5, 4, 77
WAYS = ("recomputed", "as graphs", "compiled")


@dataclass(frozen=True)
class Network:
    """A small network, and the side of its latents."""

    family: str
    side: int
    sizes: tuple[tuple[str, int], ...] = ()


_FLUX = (("hidden", 512), ("double", 2), ("single", 3))
NETWORKS = {"U-Net, 24": Network("sd15", 24), "FLUX.1, 24": Network("flux", 24, _FLUX)}


class Stage:
    """One sample on one network, with adapters that are no zeros."""

    def __init__(self, network: Network) -> None:
        self.family = network.family
        self.trainable = TrainableModel(small_model(network.family, **dict(network.sizes)), dtype=torch.float32)
        self.trainable.load(activation_bytes=0)
        self.adapters = self.trainable.make_adapters(AdapterSettings(rank=8, alpha=8.0), seed=0)
        generator = torch.Generator().manual_seed(0)
        for parameter in self.adapters.parameters().values():
            parameter.data.normal_(std=0.02, generator=generator)
        shape = 1, self.trainable.channels, network.side, network.side
        self.noisy, self.target = (torch.randn(shape, generator=generator) for _ in range(2))
        pixels = (network.side * self.trainable.stride,) * 2
        self.geometry = Geometry(source=pixels, resized=pixels, crop=(0, 0, *pixels))
        graphs, compiled = (Compiler(tell=sys.stderr.write, compile=way) for way in (lambda graph: graph, inductor))
        self.compilers = {"recomputed": None, "as graphs": graphs, "compiled": compiled}

    @contextlib.contextmanager
    def running(self, way: str) -> Iterator[None]:
        """A session in which blocks run that way."""
        with self.trainable.session(self.adapters, compiler=self.compilers[way]):
            self.texts = self.trainable.collate(
                [small_text(self.family, tokens=TOKENS)], [self.geometry], self.noisy.shape[1:]
            )
            yield

    def step(self) -> float:
        """Seconds of one forward and backward."""
        start = time.process_time()
        with self.trainable.autograd_scope():
            answer = self.trainable.denoise(self.noisy, torch.tensor([0.5]), self.texts)
            (answer - self.target).square().mean().backward()
        return time.process_time() - start

    def gradient(self) -> torch.Tensor:
        """Of all adapters since the last time."""
        found = [p.grad for p in self.adapters.parameters().values() if p.grad is not None]
        for parameter in self.adapters.parameters().values():
            parameter.grad = None
        return torch.cat([grad.flatten() for grad in found])


def measure(network: Network, *, rounds: int = ROUNDS, steps: int = STEPS, ways: tuple[str, ...] = WAYS) -> dict:
    """Seconds of the fastest step by way and round, the first step's, and how far the gradient is from the first way's.

    Returns:
        By way: `seconds` of the rounds, `first`, `apart`.
    """
    stage, found, truth = Stage(network), {}, None
    for number in range(rounds + 1):
        for way in ways[:: -1 if number % 2 else 1]:
            with stage.running(way):
                seconds = [stage.step()]
                gradient = stage.gradient()
                truth = gradient if truth is None else truth
                if number:
                    seconds += [stage.step() for _ in range(steps - 1)]
                    found[way]["seconds"].append(min(seconds[1:]))
                    stage.gradient()
                else:
                    apart = float((gradient - truth).norm() / truth.norm())
                    found[way] = {"seconds": [], "first": seconds[0], "apart": apart}
    return found


def ratio(found: dict, way: str) -> float:
    """The median over the rounds of a way's step beside a recomputed one."""
    pairs = zip(found[way]["seconds"], found["recomputed"]["seconds"], strict=True)
    return statistics.median(a / b for a, b in pairs)


def line_of(name: str, found: dict) -> str:
    """Of the table in docs/evidence.md."""
    graphs, compiled = (ratio(found, way) for way in WAYS[1:])
    first, apart = found["compiled"]["first"], found["compiled"]["apart"]
    return f"| {name} | {graphs:.2f} | {compiled:.2f} | {first:.0f} s | {apart:.0e} |"


def main() -> None:
    """Measure all networks."""
    torch.set_num_threads(1)
    results = {}
    for name, network in NETWORKS.items():
        results[name] = measure(network)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        sys.stdout.write(line_of(name, results[name]) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
