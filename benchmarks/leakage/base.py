"""Trains the benchmark's two base models from nothing: `python dev.py run benchmarks/leakage/base.py`.

Writes base_pixel.safetensors and base_conv.safetensors beside this file, float16, in SD 3's layout: the demo's small
diffusion transformer with 128 features and two blocks, on this benchmark's scenes. About twelve minutes of one thread
together: `conv` goes on from `pixel`, whose pictures it shares. An unknown word in place of the shape teaches that a
word never seen means *some* shape, so that a prompt with the trigger still gets the background it asks for.
"""

from __future__ import annotations

import argparse
import copy
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from benchmarks.leakage import codec, scenes, words
from demo.nets import POSITION_GRID, SceneDiT

HERE = Path(__file__).resolve().parent
FEATURES = 128
SHIFT = 3.0
POOL = 12_000
# Variant, how far figures stand from the middle, share of the minutes. Places first: a net that knows them learns the
# shapes in the middle faster.
PHASES = (("pixel", 1, 0.6), ("pixel", 0, 0.2), ("conv", 0, 0.2))
log = logging.getLogger("leakage.base")
Net = TypeVar("Net", bound=nn.Module)


def network() -> SceneDiT:
    """The diffusion model, untrained, for the word table's features."""
    net = SceneDiT(width=FEATURES)
    net.context_embedder = nn.Linear(words.WIDTH, FEATURES)
    return net


def file_of(variant: str) -> Path:
    """The base of a variant."""
    return HERE / f"base_{variant}.safetensors"


def base_tensors(variant: str) -> dict[str, Tensor]:
    """The base under ComfyUI's names, float32."""
    return {name: value.float() for name, value in load_file(file_of(variant)).items()}


def vary_caption(rng: np.random.Generator, scene: scenes.Scene) -> list[int]:
    """The words' numbers of a scene's caption: whole, shortened, empty, or with an unknown word or the class."""
    shape, colour, background = scene.shape, scene.colour, scene.background
    texts = {
        "": 0.06,
        f"{colour} {shape} on {background}": 0.44,
        f"{shape} on {background}": 0.08,
        f"{colour} {scenes.CLASS} on {background}": 0.05,
        f"{scenes.CLASS} on {background}": 0.06,
        f"{colour} {shape}": 0.06,
        shape: 0.03,
        scenes.CLASS: 0.04,
        background: 0.02,
        f"? on {background}": 0.08,
        f"? {scenes.CLASS} on {background}": 0.04,
        "?": 0.02,
        f"? {scenes.CLASS}": 0.02,
    }
    text = str(rng.choice(list(texts), p=list(texts.values())))
    unknown = int(rng.integers(2**32))
    known = words.word_ids(text.replace("?", "unknown"))
    return [unknown if "?" in text and place == 0 else word for place, word in enumerate(known)]


class Pool:
    """Encoded scenes; captions are drawn anew each time."""

    def __init__(self, variant: str, *, reach: int, seed: int, count: int = POOL) -> None:
        """Draws and encodes all scenes."""
        self.rng, combos = np.random.default_rng(seed), scenes.combinations()
        chosen = [combos[i] for i in self.rng.integers(len(combos), size=count)]
        self.drawn = [scenes.draw_scene(self.rng, *combo, reach=reach) for combo in chosen]
        parts = [np.stack([s.picture for s in self.drawn[i : i + 100]]) for i in range(0, count, 100)]
        self.latents = torch.cat([codec.to_model_space(part, variant) for part in parts])
        self._rows: dict[tuple[int, ...], Tensor] = {}

    def batch(self, size: int) -> tuple[Tensor, Tensor]:
        """Latents (B, 16, 16, 16) and text features (B, 5, 64) of random scenes."""
        chosen = self.rng.integers(len(self.drawn), size=size)
        texts = torch.stack([self._features(vary_caption(self.rng, self.drawn[i])) for i in chosen])
        return self.latents[torch.from_numpy(chosen)], texts

    def _features(self, ids: list[int]) -> Tensor:
        key = tuple(ids)
        if len(self._rows) > 20_000:
            self._rows.clear()
        if key not in self._rows:
            self._rows[key] = words.features(ids)
        return self._rows[key]


def sample_times(count: int) -> Tensor:
    """(count,) noise levels in (0, 1): mostly logit-normal, some uniform, moved by the sampling shift."""
    u = torch.where(torch.rand(count) < 0.75, torch.sigmoid(torch.randn(count)), torch.rand(count))
    return SHIFT * u / (1 + (SHIFT - 1) * u)


def flow_loss(net: Callable[..., Tensor], latents: Tensor, texts: Tensor, weight: Tensor) -> Tensor:
    """The mean squared error of the velocity of latents (B, C, [F,] h, w), weighted by channel."""
    t = sample_times(len(latents))
    level = t.view(-1, *[1] * (latents.ndim - 1))
    noise = torch.randn_like(latents)
    with torch.autocast("cpu", torch.bfloat16):
        velocity = net((1 - level) * latents + level * noise, 1000 * t, texts)
    return ((velocity.float() - (noise - latents)).square() * weight).mean()


def train(pool: Pool, *, minutes: float, batch: int, rate: float, start: SceneDiT | None = None) -> SceneDiT:
    """The averaged weights after so many minutes of processor time, from `start` or from nothing."""
    torch.manual_seed(2)
    net = start or network()
    # Of the sixteen channels three carry the picture.
    weight = torch.tensor([4.0] * 3 + [0.25] * 13)[:, None, None]
    return fit(net, lambda: flow_loss(net, *pool.batch(batch), weight), minutes=minutes, rate=rate)


def fit(net: Net, step_loss: Callable[[], Tensor], *, minutes: float, rate: float) -> Net:
    """A network's averaged weights after so many minutes of processor time; `step_loss` is the loss of a new batch."""
    average = copy.deepcopy(net)
    optimizer = torch.optim.AdamW(net.parameters(), lr=rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    began, step, shown = time.process_time(), 0, 1.0
    while (done := (time.process_time() - began) / (60 * minutes)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 100) * min(1.0, max(0.004, (1 - done) / 0.45))
        loss = step_loss()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        step += 1
        with torch.no_grad():
            share = 1 - min(0.998, step / (step + 20))
            torch._foreach_lerp_(list(average.parameters()), list(net.parameters()), share)
        shown += 0.02 * (loss.item() - shown)
        if step % 100 == 0:
            log.info("%3.0f %% step %d loss %.4f", 100 * done, step, shown)
    return average


def main() -> None:
    """Train and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=12.0)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--skip", type=int, default=0, help="go on from the stored pixel base after so many phases")
    parser.add_argument("--output", type=Path, default=HERE)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    log.setLevel(logging.INFO)
    torch.set_num_threads(1)
    net = stored("pixel") if options.skip else None
    for number, (variant, reach, share) in list(enumerate(PHASES))[options.skip :]:
        log.info("phase %d: %s, figures up to %d tokens from the middle", number, variant, reach)
        pool = Pool(variant, reach=reach, seed=3 + number)
        net = train(pool, minutes=share * options.minutes, batch=options.batch, rate=options.rate, start=net)
        tensors = {name: value.half().contiguous() for name, value in layout(net).items()}
        save_file(tensors, options.output / file_of(variant).name)


def layout(net: SceneDiT) -> dict[str, Tensor]:
    """The tensors under SD 3's names, with the word table's own width."""
    tensors = net.layout_tensors()
    tensors["context_embedder.weight"] = net.context_embedder.weight.detach().clone()
    return tensors


def stored(variant: str) -> SceneDiT:
    """The network of a base that was written."""
    net, tensors = network(), base_tensors(variant)
    table = tensors.pop("pos_embed").unflatten(1, (POSITION_GRID, POSITION_GRID))
    first = (POSITION_GRID - net.grid) // 2
    centre = slice(first, first + net.grid)
    tensors["position"] = table[:, centre, centre].flatten(1, 2)
    net.load_state_dict(tensors)
    return net


if __name__ == "__main__":
    main()
