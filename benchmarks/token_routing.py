"""What token routing and the attention mask do to a training step: `python dev.py run benchmarks/token_routing.py`.

Prints a table and writes token_routing.json beside this file. Our own trainer on a small Flux at 1024 tokens, masks of
a fifth of the picture of which a quarter of the rest is kept, the first and last two blocks unrouted. One process, one
thread, CPU time of the process; the variants take turns (A B C C B A …).

Speed alone could be had by learning nothing, so both ways then train for equal steps on the same network, all of its
layers, and both are judged without routing on held-out pictures. Of noise nothing can be learned but its mean: the
latents are those of coloured discs on gradients. Pictures a quarter as large let it learn more in the same time. What
a network of random weights learns first is to predict nothing at all; the loss of that is given beside the others.
"""

import argparse
import json
import logging
import platform
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path

import comfy.sd
import numpy as np
import safetensors.torch
import torch

from benchmarks.sides import RANK, STRIDE, WARM_UP, Variant, tidy, train_ours
from harness.models import HashedText, small_model
from masklora.cache.cache import build_cache
from masklora.cache.shots import ClipRule
from masklora.dataset.loading import from_images
from masklora.host.training import Request, train_lora
from masklora.settings import (
    AdapterSettings,
    CacheSettings,
    DatasetSettings,
    LossSettings,
    OptimizerSettings,
    TrainSettings,
)
from masklora.training.job import Hooks

SIZES = {"hidden": 256, "double": 4, "single": 12}
LATENT, LEARNING_LATENT = 64, 32
PICTURES = 12
ROUTES = "0.75: 2..-3"
SPEED_BAR = 1.5
LOSS_BAR = 0.05
RATE, LEARNING_RANK = 2e-3, 16
# Without a prior: it would ask the base model with the same tokens and cost the same share.
LOSSES = {
    "without": LossSettings(prior_weight=0.0),
    "routed": LossSettings(prior_weight=0.0, routes=ROUTES),
    "attention mask": LossSettings(prior_weight=0.0, attention_mask=True),
}
VARIANTS = {name: Variant("ours", targets="default", loss=loss) for name, loss in LOSSES.items()}


class Discs:
    """A VAE of the cache's protocol: colours averaged over a cell and spread over sixteen channels."""

    channels, stride, rule = 16, STRIDE, ClipRule()

    def __init__(self):
        self.identity = "discs"
        spread = torch.randn(self.channels, 3, generator=torch.Generator().manual_seed(5))
        self.spread = spread / spread.norm(dim=1, keepdim=True)

    def encode(self, images):
        cells = torch.nn.functional.avg_pool2d(images.movedim(-1, 1), STRIDE)
        return torch.einsum("cr,brhw->bchw", self.spread, 4 * cells - 2)


def draw(number, side):
    """A picture of a disc on a gradient, and a mask about it of a fifth of the picture, whole tokens of it."""
    rng = np.random.default_rng(number)
    token = side // 32
    height, width = (13 * token, 16 * token)
    top, left = (int(rng.integers(1, 32 - n // token)) * token for n in (height, width))
    y, x = np.mgrid[:side, :side] / side
    sky, ground = rng.random((2, 3))
    picture = sky * (1 - y[..., None]) + ground * y[..., None]
    away = np.hypot(y - (top + height / 2) / side, x - (left + width / 2) / side)
    # Every disc is of the same red, which is there to be learned.
    picture[away < height / 2 / side] = (0.9, 0.15, 0.1)
    mask = np.zeros((side, side), np.float32)
    mask[top : top + height, left : left + width] = 1.0
    return picture.astype(np.float32), mask


class RoutingStage:
    """A small Flux in a file, as a loader node would open it, and the pictures that every variant trains on."""

    def __init__(self, folder, *, sizes=None, latent=LATENT, pictures=PICTURES):
        self.folder, self.sizes, self.clock = folder, sizes or SIZES, time.process_time
        self.file = folder / "flux.safetensors"
        weights = small_model("flux", **self.sizes).model.diffusion_model.state_dict()
        safetensors.torch.save_file({k: v.contiguous() for k, v in weights.items()}, self.file)
        self.parameters = sum(v.numel() for v in weights.values())
        drawn = [draw(number, latent * STRIDE) for number in range(pictures)]
        self.cache = build_cache(
            from_images([p for p, _ in drawn], [m for _, m in drawn], ["a red disc"] * pictures, DatasetSettings()),
            CacheSettings(resolution=latent * STRIDE, storage="memory", infill_variants=0),
            encoder=Discs(),
            text=HashedText("flux"),
        )
        with torch.inference_mode():
            self.model = comfy.sd.load_diffusion_model(str(self.file))

    def train(self, variant, *, steps, warm_up=WARM_UP):
        """Seconds of CPU of each measured step."""
        with tidy():
            return train_ours(self, variant, steps=steps, warm_up=warm_up).seconds

    def held_out(self, loss, *, steps, rate=RATE):
        """What `steps` with these settings leave: the unrouted loss on held-out pictures, and the kept tokens."""
        with tidy(), tempfile.TemporaryDirectory(dir=self.folder) as runs, torch.inference_mode():
            request = Request(
                model=self.model,
                cache=self.cache,
                loss=loss,
                adapter=AdapterSettings(rank=LEARNING_RANK, alpha=LEARNING_RANK, targets="all"),
                optimizer=OptimizerSettings(learning_rate=rate, schedule="cosine"),
                train=TrainSettings(steps=steps, validate_every=steps, validation_share=0.34),
            )
            summary = train_lora(request, runs=Path(runs), hooks=Hooks(), report=lambda text: None).result.summary
        return {"held-out loss": summary["validation"], "kept tokens": summary.get("kept_tokens")}

    def loss_of_nothing(self):
        """The mean loss of a prediction of zeros: the target is noise of variance 1 less the latent."""
        latents = torch.stack([self.cache.latent(entry) for entry in self.cache.entries])
        masks = torch.stack([self.cache.mask(entry) for entry in self.cache.entries])
        inside = torch.nn.functional.avg_pool2d(masks, STRIDE)
        squares = self.model.model.process_latent_in(latents).square().mean(dim=1, keepdim=True)
        return 1.0 + float((squares * inside).sum() / inside.sum())


def measure(stage, variants, *, rounds, steps, warm_up=WARM_UP):
    """By variant, one list a round: the seconds of its steps."""
    found = {name: [] for name in variants}
    for number in range(rounds):
        for name in list(variants)[:: -1 if number % 2 else 1]:
            found[name].append(stage.train(variants[name], steps=steps, warm_up=warm_up))
            sys.stderr.write(f"round {number + 1}: {name}: {statistics.mean(found[name][-1]):.3f} s a step\n")
    return found


def ratio(found, above, below, of=statistics.median):
    """Median over the rounds of one variant's step time over another's."""
    return statistics.median(of(a) / of(b) for a, b in zip(found[above], found[below], strict=True))


def figures(seconds):
    """What follows from the times: steps a second of routing over none, and the cost of the attention mask."""
    kinds = {"medians": statistics.median, "minima": min}
    return {
        "routed, steps per second / without": {k: ratio(seconds, "without", "routed", of) for k, of in kinds.items()},
        "attention mask, step / without": {
            k: ratio(seconds, "attention mask", "without", of) for k, of in kinds.items()
        },
    }


def learn(stage, *, steps):
    """The unrouted held-out losses before training, after training without and with routing."""
    losses = {
        "before": stage.held_out(LOSSES["without"], steps=1, rate=1e-30),
        "without": stage.held_out(LOSSES["without"], steps=steps),
        "routed": stage.held_out(LOSSES["routed"], steps=steps),
    }
    for name, found in losses.items():
        sys.stderr.write(f"{name}: {found}\n")
    return {"steps": steps, "loss of predicting nothing": stage.loss_of_nothing(), **losses}


def table(results):
    """The results as Markdown."""
    speed, mask = (results["ratios"][name] for name in results["ratios"])
    losses = {name: results["learning"][name]["held-out loss"] for name in ("before", "without", "routed")}
    change = losses["routed"] / losses["without"] - 1
    return "\n".join(
        [
            f"| small Flux, {results['setting']['tokens']} tokens | figure | bar |",
            "|---|---|---|",
            f"| steps per second, routed / without: medians (minima) | {speed['medians']:.2f} ({speed['minima']:.2f}) "
            f"| ≥ {SPEED_BAR} |",
            f"| held-out loss before training, of predicting nothing | {losses['before']:.3f}, "
            f"{results['learning']['loss of predicting nothing']:.3f} | |",
            f"| held-out loss after {results['learning']['steps']} steps without, with routing "
            f"| {losses['without']:.3f}, {losses['routed']:.3f} | |",
            f"| held-out loss, routed / without − 1 | {100 * change:+.1f} % | ≤ {100 * LOSS_BAR:.0f} % |",
            f"| a step with the attention mask / without: medians (minima) | {mask['medians']:.2f} "
            f"({mask['minima']:.2f}) | |",
        ]
    )


def main():
    """Measure, store, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2, help="0 keeps the stored times")
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--learning-steps", type=int, default=250)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        stage = RoutingStage(Path(folder))
        if options.rounds:
            seconds = measure(stage, VARIANTS, rounds=options.rounds, steps=options.steps)
        else:
            seconds = json.loads(options.output.read_text(encoding="utf-8"))["seconds"]
        learning = learn(RoutingStage(Path(folder), latent=LEARNING_LATENT), steps=options.learning_steps)
    setting = {
        **SIZES,
        "parameters": stage.parameters,
        "tokens": (LATENT // 2) ** 2,
        "tokens while learning": (LEARNING_LATENT // 2) ** 2,
        "text tokens": 77,
        "routes": ROUTES,
        "rank": RANK,
        "rank while learning": LEARNING_RANK,
        "batch": 1,
        "checkpointing": "per block",
        "dtype": "float32",
        "threads": 1,
        "torch": torch.__version__,
        "machine": platform.machine(),
        "steps a round": options.steps,
    }
    results = {"setting": setting, "seconds": seconds, "ratios": figures(seconds), "learning": learning}
    options.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(table(results) + "\n")


if __name__ == "__main__":
    main()
