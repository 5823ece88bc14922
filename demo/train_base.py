"""Trains the demo's base model from nothing and writes `demo/base.safetensors`.

Run in order, from the repository's root: `python -m demo.train_codec`, `demo.train_decoder`,
`demo.train_base` and `demo.train_classifier`. One CPU core is enough. The decoder may also be polished later
and this run once more: a finished training only writes the weights again.
 Checkpoints go to the ignored `demo/.work/`;
running again after an interruption continues there, and a longer `--minutes` trains on. The learning rate
follows the processor time spent, not the step count, so a slow machine still finishes.
"""

from __future__ import annotations

import argparse
import logging
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from . import scenes, text
from .captions import WORDS, caption_ids
from .nets import SceneCodec, SceneDiT

HERE = Path(__file__).resolve().parent
WORK = HERE / ".work"
SHIFT = 3.0
POOL_LIMIT = 10000
log = logging.getLogger("demo.base")


def vary_caption(rng: np.random.Generator, scene: scenes.Scene) -> str:
    """The scene's caption, whole, shortened or empty, or with an unknown word in place of the object.

    The unknown word teaches that a word never seen means *some* object, so that a prompt with the demo's
    trigger word still gets the background it asks for.
    """
    draw = rng.random()
    if draw < 0.10:
        return ""
    if draw < 0.62:
        return scene.caption
    if draw < 0.72:
        return f"a {scene.thing} on {scene.background}"
    if draw < 0.80:
        return f"a {scene.colour} {scene.thing}"
    if draw < 0.84:
        return f"a {scene.thing}"
    if draw < 0.88:
        return scene.background
    unknown = " ".join(f"<{rng.integers(1000, 40000)}>" for _ in range(rng.integers(1, 4)))
    return f"a {unknown} on {scene.background}" if draw < 0.97 else f"a {unknown}"


class Pool:
    """Encoded scenes with ready-made caption features, grown while training runs."""

    def __init__(self, codec: SceneCodec, *, seed: int) -> None:
        self.codec, self.rng = codec, np.random.default_rng(seed)
        self.combos = scenes.combinations()
        self.latents: list[torch.Tensor] = []
        self.drawn: list[scenes.Scene] = []
        self.tokens, self.places = text.token_table().float(), text.place_table().float()

    @torch.no_grad()
    def grow(self, count: int) -> None:
        """Draws and encodes `count` more scenes, round robin over the combinations."""
        drawn = [scenes.draw_scene(self.rng, *self.combos[self.rng.integers(len(self.combos))]) for _ in range(count)]
        pictures = torch.from_numpy(np.stack([scene.image for scene in drawn])).permute(0, 3, 1, 2).float() / 255
        with torch.autocast("cpu", torch.bfloat16):
            latents = self.codec.encode(pictures.contiguous(memory_format=torch.channels_last))
        self.latents += list(latents.float())
        self.drawn += [scenes.Scene(None, None, s.caption, s.thing, s.colour, s.background) for s in drawn]

    def batch(self, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents (B, 16, 16, 16) and text features (B, 13, 768) of random scenes."""
        chosen = self.rng.integers(len(self.latents), size=size)
        ids = torch.tensor([caption_ids(vary_caption(self.rng, self.drawn[i])) for i in chosen])
        features = text.prompt_features(ids, tokens=self.tokens, places=self.places)
        return torch.stack([self.latents[i] for i in chosen]), features


def sample_times(count: int) -> torch.Tensor:
    """(count,) noise levels in (0, 1): mostly logit-normal, some uniform, moved by the sampling shift."""
    u = torch.where(torch.rand(count) < 0.75, torch.sigmoid(torch.randn(count)), torch.rand(count))
    return SHIFT * u / (1 + (SHIFT - 1) * u)


def flow_loss(model: SceneDiT, latents: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """The mean squared error of the predicted velocity."""
    t = sample_times(len(latents))
    level = t[:, None, None, None]
    noise = torch.randn_like(latents)
    bias = torch.zeros(WORDS)
    bias[-1] = math.log(text.PLACES - WORDS + 1)
    with torch.autocast("cpu", torch.bfloat16):
        velocity = model((1 - level) * latents + level * noise, 1000 * t, features, bias)
    return F.mse_loss(velocity.float(), noise - latents)


def rate_at(done: float, step: int, *, rate: float) -> float:
    """Warm-up, a plateau until 55 % of the time, then a linear fall to nothing."""
    return rate * min(1.0, (step + 1) / 150) * min(1.0, max(0.004, (1 - done) / 0.45))


def export(ema: SceneDiT, codec: SceneCodec, path: Path) -> None:
    """Writes the shipped weights in float16 under their checkpoint names, without the text encoder."""
    tensors = {f"model.diffusion_model.{name}": value for name, value in ema.layout_tensors().items()}
    tensors |= {f"first_stage_model.{name}": value for name, value in codec.layout_tensors().items()}
    halves = {name: value.half().contiguous() for name, value in tensors.items()}
    for name in ("vae_scale", "vae_shift"):
        halves[f"first_stage_model.{name}"] = tensors[f"first_stage_model.{name}"]
    save_file(halves, path)


class Progress:
    """Model, its average, optimizer and time spent: what a checkpoint in `demo/.work/` holds."""

    def __init__(self, rate: float) -> None:
        self.model, self.ema = SceneDiT(), SceneDiT()
        self.ema.load_state_dict(self.model.state_dict())
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True
        )
        self.spent, self.step = 0.0, 0

    def save(self, path: Path) -> None:
        """Writes the state beside the old one, then puts it in its place."""
        parts = {name: getattr(self, name).state_dict() for name in ("model", "ema", "optimizer")}
        torch.save(parts | {"spent": self.spent, "step": self.step}, path.with_suffix(".tmp"))
        path.with_suffix(".tmp").replace(path)

    def load(self, path: Path) -> None:
        """Continues from a saved state."""
        state = torch.load(path, weights_only=True)
        for name in ("model", "ema", "optimizer"):
            getattr(self, name).load_state_dict(state[name])
        self.spent, self.step = state["spent"], state["step"]

    def update_average(self) -> None:
        """Moves the averaged weights towards the trained ones."""
        share = 1 - min(0.998, self.step / (self.step + 20))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.ema.parameters()), list(self.model.parameters()), share)


def load_codec() -> SceneCodec:
    """The trained codec, with the polished decoder if there is one."""
    codec = SceneCodec().eval()
    polished = WORK / "decoder.pt"
    path = polished if polished.exists() else WORK / "codec.pt"
    codec.load_state_dict(torch.load(path, weights_only=True))
    return codec.to(memory_format=torch.channels_last)


def train(minutes: float, *, batch: int, rate: float) -> None:
    """Trains until so many minutes in total have been spent, saving every two, then exports."""
    torch.manual_seed(2)
    codec, state, path = load_codec(), Progress(rate), WORK / "base.pt"
    if path.exists():
        state.load(path)
    pool = Pool(codec, seed=100 + state.step)
    last, saved, average = time.process_time(), time.process_time(), 1.0
    while state.spent < 60 * minutes:
        if len(pool.latents) < POOL_LIMIT:
            pool.grow(32 if len(pool.latents) < 4000 else 8)
        for group in state.optimizer.param_groups:
            group["lr"] = rate_at(state.spent / (60 * minutes), state.step, rate=rate)
        loss = flow_loss(state.model, *pool.batch(batch))
        state.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(state.model.parameters(), 1.0)
        state.optimizer.step()
        state.step += 1
        state.update_average()
        average += 0.02 * (loss.item() - average)
        now = time.process_time()
        state.spent, last = state.spent + now - last, now
        if state.step % 50 == 0:
            log.info("base %4.1f min step %d loss %.4f", state.spent / 60, state.step, average)
        if now - saved > 120:
            saved = now
            state.save(path)
            export(state.ema, codec, WORK / "preview.safetensors")
    state.save(path)
    export(state.ema, codec, HERE / "base.safetensors")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=32.0)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=1e-3)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    train(arguments.minutes, batch=arguments.batch, rate=arguments.rate)


if __name__ == "__main__":
    main()
