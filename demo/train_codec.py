"""Trains the demo's autoencoder on drawn scenes and recoloured clutter.

`python -m demo.train_codec --minutes 5`, from the repository's root, writes `demo/.work/codec.pt`;
`train_base.py` uses it.
"""

from __future__ import annotations

import argparse
import logging
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from . import scenes
from .nets import SceneCodec

WORK = Path(__file__).resolve().parent / ".work"
log = logging.getLogger("demo.codec")


def codec_picture(rng: np.random.Generator, combos: list[tuple[str, str, str]]) -> np.ndarray:
    """A picture for the codec: most are base scenes, the rest recoloured ones with random clutter."""
    picture = scenes.draw_scene(rng, *combos[rng.integers(len(combos))]).image.astype(np.float32)
    if rng.random() < 0.65:
        return picture
    mix = np.eye(3)[rng.permutation(3)] * rng.choice((-1, 1), 3) * rng.uniform(0.7, 1.2, 3)
    picture = (picture - 128) @ mix.astype(np.float32) + 128
    for _ in range(rng.integers(1, 7)):
        parts = scenes.outlines(scenes.OBJECTS[rng.integers(len(scenes.OBJECTS))])
        x, y = rng.uniform(0, scenes.SIZE, 2)
        mask = scenes.coverage(parts, scenes.Pose(x, y, rng.uniform(4, 26), rng.uniform(0, 6)))
        picture += mask[..., None] * (rng.uniform(0, 255, 3).astype(np.float32) - picture)
    return np.clip(picture, 0, 255)


def crops(rng: np.random.Generator, pictures: torch.Tensor, batch: int, size: int) -> torch.Tensor:
    """(batch, 3, size, size) float32 in [0, 1]: random crops, randomly mirrored."""
    chosen = []
    for i in rng.integers(len(pictures), size=batch):
        y, x = rng.integers(0, scenes.SIZE - size + 1, 2)
        crop = pictures[i, :, y : y + size, x : x + size]
        chosen.append(crop.flip(2) if rng.random() < 0.5 else crop)
    return torch.stack(chosen).float() / 255


def reconstruction_loss(made: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Absolute error of the pixels and of their differences, which keeps edges sharp."""
    error = made - wanted
    edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    return error.abs().mean() + 0.5 * edges + 2 * error.square().mean()


def train(minutes: float, *, batch: int = 8, size: int = 64, rate: float = 2e-3) -> SceneCodec:
    """A codec trained for so many minutes of processor time, whitened over the base's own scenes."""
    rng = np.random.default_rng(1)
    torch.manual_seed(1)
    combos = scenes.combinations()
    pictures = np.stack([codec_picture(rng, combos).astype(np.uint8) for _ in range(4000)])
    pictures = torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous()
    drawn = [scenes.draw_scene(rng, *combos[rng.integers(len(combos))]).image for _ in range(24)]
    probe = torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2)
    codec = SceneCodec().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(codec.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=1e-4, fused=True)
    start, step = time.process_time(), 0
    while (done := (time.process_time() - start) / (60 * minutes)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 100) * max(0.02, 0.5 + 0.5 * np.cos(np.pi * done))
        wanted = crops(rng, pictures, batch, size).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            latents = codec.encode(wanted)
            noise = torch.randn_like(latents) * torch.rand(batch, 1, 1, 1) * 0.15
            made = codec.decode(latents + noise)
        loss = reconstruction_loss(made.float(), wanted)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(codec.parameters(), 1.0)
        optimizer.step()
        step += 1
        if step % 200 == 0:
            codec.eval()
            log.info("codec %3.0f %% step %d loss %.4f %.1f dB", 100 * done, step, loss.item(),
                     decibels(codec, probe))  # fmt: skip
            codec.train()
    whiten(codec, pictures[:512])
    log.info("codec: %.1f dB on base scenes", decibels(codec, probe))
    return codec


@torch.no_grad()
def whiten(codec: SceneCodec, pictures: torch.Tensor) -> None:
    """Sets the normalisation to the mean and variance over these pictures (the kind the codec trained on)."""
    codec.eval()
    raw = torch.cat([codec.taesd_encoder(part.float() / 255) for part in pictures.split(32)])
    codec.whiten.running_mean.copy_(raw.mean((0, 2, 3)))
    codec.whiten.running_var.copy_(raw.var((0, 2, 3)))


@torch.no_grad()
def decibels(codec: SceneCodec, pictures: torch.Tensor) -> float:
    """The reconstruction's peak signal-to-noise ratio over uint8 pictures."""
    wanted = pictures.float() / 255
    made = codec.decode(codec.encode(wanted)).clamp(0, 1)
    return -10 * torch.log10(F.mse_loss(made, wanted)).item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    WORK.mkdir(exist_ok=True)
    codec = train(arguments.minutes)
    torch.save(codec.state_dict(), WORK / "codec.pt")


if __name__ == "__main__":
    main()
