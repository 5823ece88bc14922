"""Trains the benchmark's base model from nothing: `python dev.py run benchmarks/moving/base.py`.

Writes base.safetensors beside this file, float16, in Wan's layout, which ComfyUI's own class learns in five minutes of
one thread. What is stored then went on for four more, with `--go-on --seed 4 --minutes 4 --rate 1.5e-3`, because things
that cross still dissolved on their way. As in the still benchmark an unknown word in place of the shape teaches that a
word never seen means *some* shape; and a caption that tells no motion, any.
"""

from __future__ import annotations

import argparse
import functools
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from benchmarks.leakage import scenes as still
from benchmarks.leakage import words
from benchmarks.leakage.base import fit, flow_loss, log
from benchmarks.moving import codec, scenes, world
from harness.models import small_model
from masklora.host.model.patches import training_kernels

FILE = Path(__file__).resolve().parent / "base.safetensors"
UNKNOWN = "?"


def stored() -> dict[str, Tensor]:
    """The base's weights, float32."""
    return {name: value.float() for name, value in load_file(FILE).items()}


def vary_caption(rng: np.random.Generator, clip: scenes.Clip) -> list[int]:
    """The words' numbers of a clip's caption: whole, shortened, empty, or with an unknown word or the class."""
    shape, colour, motion, ground, some = clip.shape, clip.colour, clip.motion, clip.background, still.CLASS
    texts = {
        "": 0.05,
        f"{colour} {shape} {motion} on {ground}": 0.38,
        f"{colour} {shape} on {ground}": 0.10,
        f"{shape} {motion} on {ground}": 0.05,
        f"{colour} {some} {motion} on {ground}": 0.05,
        f"{some} on {ground}": 0.06,
        f"{colour} {shape}": 0.04,
        some: 0.03,
        f"{UNKNOWN} on {ground}": 0.06,
        f"{UNKNOWN} {some} on {ground}": 0.12,
        UNKNOWN: 0.02,
        f"{UNKNOWN} {some}": 0.04,
    }
    text = str(rng.choice(list(texts), p=list(texts.values())))
    unknown = int(rng.integers(2**32))
    known = words.word_ids(text.replace(UNKNOWN, "unknown"))
    return [unknown if UNKNOWN in text and place == 0 else word for place, word in enumerate(known)]


@functools.lru_cache(4096)
def features(ids: tuple[int, ...]) -> Tensor:
    """`words.features`, remembered: most captions come again."""
    return words.features(list(ids))


class Batches:
    """Clips and captions, all drawn anew."""

    def __init__(self, seed: int) -> None:
        """Draws from `seed`."""
        self.rng, self.combos = np.random.default_rng(seed), scenes.combinations()

    def draw(self, size: int) -> tuple[Tensor, Tensor]:
        """Latents (B, 16, 5, 8, 12) and text features (B, 5, 64)."""
        clips = [self._clip() for _ in range(size)]
        texts = torch.stack([features(tuple(vary_caption(self.rng, clip))) for clip in clips])
        return codec.to_model_space(np.stack([clip.frames for clip in clips])), texts

    def _clip(self) -> scenes.Clip:
        shape, colour, ground = self.combos[self.rng.integers(len(self.combos))]
        motion = scenes.MOTIONS[self.rng.integers(len(scenes.MOTIONS))]
        return scenes.draw_clip(self.rng, shape, colour, motion, ground)


def network() -> nn.Module:
    """ComfyUI's Wan, small, with weights to begin from and to be trained."""
    torch.manual_seed(2)
    net = small_model("wan", **world.SIZES).model.diffusion_model.requires_grad_(True)
    for name, value in net.named_parameters():
        if value.ndim > 1:
            nn.init.normal_(value, std=0.02 if "modulation" in name else 0.7 / value[0].numel() ** 0.5)
        else:
            nn.init.constant_(value, float("norm" in name and name.endswith("weight")))
    for last in (net.head.head, *[part for b in net.blocks for part in (b.self_attn.o, b.cross_attn.o, b.ffn[2])]):
        nn.init.normal_(last.weight, std=0.02)
    return net


def plain_attention(function: Any, q: Tensor, k: Tensor, v: Tensor, heads: int, **options: Any) -> Tensor:
    """Attention written out: on a processor torch's fused one takes four times as long backwards in bfloat16."""
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    return (scores.softmax(-1, dtype=v.dtype) @ v).transpose(1, 2).flatten(2)


def velocity_of(net: nn.Module) -> Callable[..., Tensor]:
    """The network as a function of noisy latents, 1000 · noise level and text features."""

    def velocity(noisy: Tensor, t: Tensor, texts: Tensor) -> Tensor:
        return net(noisy, t, texts, transformer_options={"optimized_attention_override": plain_attention})

    return velocity


def train(batches: Batches, *, minutes: float, batch: int, rate: float, start: nn.Module | None = None) -> nn.Module:
    """The averaged weights after so many minutes of processor time, from `start` or from nothing."""
    net = start or network()
    weight = torch.tensor([2.0] * codec.USED + [0.25] * (codec.CHANNELS - codec.USED)).view(-1, 1, 1, 1)
    with training_kernels():
        return fit(net, lambda: flow_loss(velocity_of(net), *batches.draw(batch), weight), minutes=minutes, rate=rate)


def main() -> None:
    """Train and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=3, help="of the clips")
    parser.add_argument("--go-on", action="store_true", help="from the stored base instead of from nothing")
    parser.add_argument("--output", type=Path, default=FILE)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    log.setLevel(logging.INFO)
    torch.set_num_threads(1)
    start = network() if options.go_on else None
    if start is not None:
        start.load_state_dict(stored())
    batches = Batches(options.seed)
    net = train(batches, minutes=options.minutes, batch=options.batch, rate=options.rate, start=start)
    save_file({name: value.detach().half().contiguous() for name, value in net.state_dict().items()}, options.output)


if __name__ == "__main__":
    main()
