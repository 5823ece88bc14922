"""What it costs that texts differ in length, at batch 4: `python dev.py run benchmarks/unequal_texts.py`.

Prints a table and writes unequal_texts.json beside this file. A step (forward and backward, per block) of small models
with texts of 40, 90, 150 and 256 tokens: filled up to the longest and hidden from attention, against one sample after
the other, which is what models do that cannot hide them. Beside them the same step with four texts of the mean length,
which none has to pay for. One process, one thread, CPU time; the variants take turns (A B C C B A …).
"""

import json
import statistics
import sys
import time
from pathlib import Path

import torch

from benchmarks.counting import Counted
from harness.models import small_model, small_text
from masklora.dataset.geometry import Geometry
from masklora.host.model.trainable import TrainableModel
from masklora.settings import AdapterSettings

RESULTS = Path(__file__).with_suffix(".json")
LENGTHS = (40, 90, 150, 256)
MODELS = {"flux": {"hidden": 256, "double": 4, "single": 12}, "qwen_image": {}}
# Cells a side of the latents: of a picture of 512 pixels, 1024 tokens.
LATENT = 64
STEPS, WARM_UP = 5, 1
GEOMETRY = Geometry(source=(512, 512), resized=(512, 512), crop=(0, 0, 512, 512))


class Step:
    """One training step of four samples with texts of these lengths."""

    def __init__(self, name, lengths, *, together):
        self.trainable = TrainableModel(small_model(name, **MODELS[name]))
        self.adapters = self.trainable.make_adapters(AdapterSettings(rank=4, alpha=4.0), seed=0)
        generator = torch.Generator().manual_seed(0)
        shape = self.trainable.channels, LATENT, LATENT
        self.noisy = torch.randn(4, *shape, generator=generator)
        self.u = torch.tensor([0.2, 0.4, 0.6, 0.8])
        self.texts = [small_text(name, tokens=n, seed=i) for i, n in enumerate(lengths)]
        self.groups = [[0, 1, 2, 3]] if together else [[0], [1], [2], [3]]

    def __call__(self):
        """Forward and backward, as a micro-batch of the trainer's: one graph for all of it."""
        t = self.trainable
        conditioning = t.collate(self.texts, [GEOMETRY] * 4, self.noisy.shape[1:])
        with t.autograd_scope():
            parts = [t.denoise(self.noisy[g], self.u[g], [conditioning[i] for i in g]) for g in self.groups]
            loss = torch.cat(parts).square().mean()
            torch.autograd.grad(loss, list(self.adapters.parameters().values()), materialize_grads=True)


def counted(step):
    """Operations and FLOPs of one step."""
    with step.trainable.session(step.adapters), Counted(torch.device("cpu")) as found:
        step()
    return {"launches": found.launches.total(), "gigaflops": found.flops / 1e9}


def timed(steps):
    """Median CPU seconds of each variant's step."""
    took = {name: [] for name in steps}
    for turn in range(WARM_UP + STEPS):
        for name in list(steps) if turn % 2 else reversed(list(steps)):
            with steps[name].trainable.session(steps[name].adapters):
                start = time.process_time()
                steps[name]()
                took[name].append(time.process_time() - start)
    return {name: statistics.median(seconds[WARM_UP:]) for name, seconds in took.items()}


def measure(name):
    """One model's figures, by variant."""
    mean = [round(statistics.mean(LENGTHS))] * 4
    steps = {
        "one by one": Step(name, LENGTHS, together=False),
        "filled": Step(name, LENGTHS, together=True),
        "equal": Step(name, mean, together=True),
    }
    seconds = timed(steps)
    return {variant: {"seconds": seconds[variant], **counted(step)} for variant, step in steps.items()}


def main():
    """Measure all models."""
    torch.set_num_threads(1)
    results = {name: measure(name) for name in MODELS}
    RESULTS.write_text(json.dumps({"lengths": LENGTHS, "models": results}, indent=1) + "\n", encoding="utf-8")
    for name, variants in results.items():
        for variant, found in variants.items():
            line = f"{name:12} {variant:12} {found['seconds']:.3f} s {found['launches']:6} {found['gigaflops']:.1f} G"
            sys.stdout.write(line + "\n")


if __name__ == "__main__":
    main()
