"""Polishes the decoder on whole pictures while the encoder stays as it is.

`python -m demo.train_decoder --minutes 6`, from the repository's root, after `demo.train_codec`. The
latents do not change, so that it may run beside the diffusion training; it writes
`demo/.work/decoder.pt`.
"""

from __future__ import annotations

import argparse
import logging
import time

import numpy as np
import torch

from . import scenes
from .nets import SceneCodec
from .train_codec import WORK, codec_picture, decibels, reconstruction_loss

log = logging.getLogger("demo.decoder")
POOL = 1500


def train(minutes: float, *, batch: int = 4, rate: float = 2e-3) -> SceneCodec:
    """The codec with its decoder trained for so many minutes of processor time on frozen latents."""
    rng = np.random.default_rng(3)
    torch.manual_seed(3)
    codec = SceneCodec().eval()
    codec.load_state_dict(torch.load(WORK / "codec.pt", weights_only=True))
    codec.to(memory_format=torch.channels_last)
    combos = scenes.combinations()
    pictures = np.stack([codec_picture(rng, combos).astype(np.uint8) for _ in range(POOL)])
    pictures = torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous()
    with torch.no_grad():
        latents = torch.cat([codec.encode(part.float() / 255) for part in pictures.split(50)])
    drawn = [scenes.draw_scene(rng, *combos[rng.integers(len(combos))]).image for _ in range(24)]
    probe = torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2)
    optimizer = torch.optim.AdamW(codec.taesd_decoder.parameters(), lr=rate, betas=(0.9, 0.98), fused=True)
    start, step = time.process_time(), 0
    while (done := (time.process_time() - start) / (60 * minutes)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 50) * max(0.01, 1 - done)
        chosen = torch.from_numpy(rng.integers(POOL, size=batch))
        wanted = pictures[chosen].float() / 255
        noisy = latents[chosen] + torch.randn(batch, *latents.shape[1:]) * torch.rand(batch, 1, 1, 1) * 0.12
        with torch.autocast("cpu", torch.bfloat16):
            made = codec.decode(noisy.contiguous(memory_format=torch.channels_last))
        loss = reconstruction_loss(made.float(), wanted)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(codec.taesd_decoder.parameters(), 1.0)
        optimizer.step()
        step += 1
        if step % 100 == 0:
            log.info("decoder %3.0f %% step %d loss %.4f %.1f dB", 100 * done, step, loss.item(),
                     decibels(codec, probe))  # fmt: skip
    return codec


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=6.0)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    torch.save(train(arguments.minutes).state_dict(), WORK / "decoder.pt")


if __name__ == "__main__":
    main()
