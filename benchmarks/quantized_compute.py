"""How near gradients in 8 bits are to exact ones: `python dev.py run benchmarks/quantized_compute.py`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.casting import CastRun
from harness.quantised import LAYOUTS, quantised_model, with_kernels
from masklora.loss.losses import masked_objective
from masklora.loss.prior import Prior
from masklora.settings import LossSettings

STORED = Path(__file__).with_suffix(".json")
FAMILIES = ("flux", "qwen_image", "z_image")
# Titles of columns, and the layouts; bfloat16 is what an exact product is rounded to without the switch.
COLUMNS = {"fp8 e4m3": "fp8 e4m3", "int8": "int8", "int8 convrot": "int8, rotated"}
ROUNDED = "bfloat16"
SEEDS = (0, 1, 2)
# Bars: the least cosine with the exact gradient.
LEAST = {"fp8 e4m3": 0.995, "int8": 0.999, "int8 convrot": 0.999, ROUNDED: 0.999}


class MaskedRun(CastRun):
    """One sample with a mask, whose outside is held to the base model."""

    def draw(self, seed: int) -> None:
        """Other adapters, noise, goal and mask."""
        generator = torch.Generator().manual_seed(seed)
        for name, p in self.adapters.parameters().items():
            if name.endswith("lora_B"):
                p.data.normal_(0.0, 0.02, generator=generator)
        shape = self.noisy.shape
        self.noisy, self.goal = (torch.randn(shape, generator=generator) for _ in range(2))
        self.w = (torch.rand(1, 1, *shape[2:], generator=generator) > 0.6).float()

    def gradient(self, *, quantised: bool) -> Tensor:
        """Of all adapters, by the masked loss with its prior, as one vector in float64."""
        self.trainable.quantised = quantised
        with self.trainable.session(self.adapters, checkpointing="per block"):
            with torch.no_grad(), self.adapters.disabled():
                base = self.predict()
            with self.trainable.autograd_scope():
                prior = Prior(base, 1 - self.w, torch.ones(1))
                loss, _ = masked_objective(self.predict(), self.goal, self.w, LossSettings(), prior=prior)
                grads = torch.autograd.grad(loss, self.parameters, materialize_grads=True)
        return torch.cat([g.flatten().double() for g in grads])


def measure(family: str, layout: str, *, seeds: Sequence[int] = SEEDS, rounded: bool = False) -> list[dict[str, float]]:
    """Of each seed the cosine with the exact gradient and the ratio of lengths: in 8 bits, or exactly in bfloat16."""
    model = with_kernels(quantised_model(family, LAYOUTS[layout]))
    exact = MaskedRun(family, model)
    run = MaskedRun(family, model, dtype=torch.bfloat16) if rounded else exact
    found = []
    for seed in seeds:
        exact.draw(seed)
        run.draw(seed)
        found.append(_compared(run.gradient(quantised=not rounded), exact.gradient(quantised=False)))
    return found


def _compared(found: Tensor, exact: Tensor) -> dict[str, float]:
    return {
        "cosine": float(found @ exact / (found.norm() * exact.norm())),
        "length": float(found.norm() / exact.norm()),
    }


def table(results: Mapping[str, Any]) -> str:
    """The lowest cosine of all seeds, by family and layout, as a table of Markdown."""
    lines = [f"| family | {' | '.join(COLUMNS.values())} | {ROUNDED}, exact |", "|---|---|---|---|---|"]
    for family, found in results.items():
        cells = [min(one["cosine"] for one in found[name]) for name in (*COLUMNS, ROUNDED)]
        lines.append(f"| {family} | {' | '.join(f'{cell:.4f}' for cell in cells)} |")
    return "\n".join(lines)


def unlike(results: Mapping[str, Any]) -> float:
    """By how much of its length a gradient in 8 bits is longer or shorter than the exact one, at most."""
    rows = [one for found in results.values() for name in COLUMNS for one in found[name]]
    return max(abs(one["length"] - 1) for one in rows)


def main() -> None:
    """Measure every family in every layout and store it."""
    results: dict[str, Any] = {}
    for family in FAMILIES:
        results[family] = {layout: measure(family, layout) for layout in COLUMNS}
        results[family][ROUNDED] = measure(family, "int8", rounded=True)
        sys.stdout.write(f"{table({family: results[family]})}\n")
        sys.stdout.flush()
    STORED.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
