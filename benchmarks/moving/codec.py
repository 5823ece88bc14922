"""A clip as the network sees it, by hand: of every square the colours that it has in a latent frame's four frames.

Wan's rule of frames: the first alone, then four as one. Twelve of the sixteen channels carry four frames' colours, the
others are 0. Linear and exact, and a latent cell reads nothing but its own square: what leaks, leaks through the
network or through a mask that is too large.
"""

from __future__ import annotations

import comfy.latent_formats
import numpy as np
import torch
from torch import Tensor

from masklora.cache.shots import ClipRule

from .scenes import SQUARE

STEP, CHANNELS = 4, 16
USED = 3 * STEP
# The network sees (colour − MIDDLE) · STRETCH.
MIDDLE, STRETCH = 0.6, 4.0


def to_model_space(clips: np.ndarray | Tensor) -> Tensor:
    """Clips (B, 4n + 1, h, w, 3) as the network sees their latents, (B, 16, n + 1, h, w) float32."""
    frames = torch.as_tensor(clips)
    frames = torch.cat([frames[:, :1].expand(-1, STEP, -1, -1, -1), frames[:, 1:]], 1)
    grouped = frames.unflatten(1, (-1, STEP)).permute(0, 2, 5, 1, 3, 4).flatten(1, 2)
    latents = torch.zeros(len(grouped), CHANNELS, *grouped.shape[2:])
    latents[:, :USED] = (grouped - MIDDLE) * STRETCH
    return latents


def from_model_space(latents: Tensor) -> np.ndarray:
    """The clips whose latents these are, exactly: (B, 4n + 1, h, w, 3), clipped to [0, 1]."""
    grouped = (latents[:, :USED] / STRETCH + MIDDLE).unflatten(1, (STEP, 3)).permute(0, 3, 1, 4, 5, 2)
    return torch.cat([grouped[:, 0].mean(1, keepdim=True), grouped[:, 1:].flatten(1, 2)], 1).clamp(0, 1).numpy()


class SquareEncoder:
    """The same as the encoder of a cache: from pixels to the latents of Wan's VAE space."""

    identity = "moving toy: squares"
    channels, stride = CHANNELS, SQUARE
    rule = ClipRule(True, STEP)

    def encode(self, images: Tensor) -> Tensor:
        """Latents (B, 16, h, w) of pictures (B, H, W, 3), each a clip of one frame."""
        return torch.cat([self.encode_clip(image[None])[None, :, 0] for image in images])

    def encode_clip(self, frames: Tensor) -> Tensor:
        """The latent (16, f, h, w) of frames (F, H, W, 3) in 0..1."""
        squares = frames.unflatten(1, (-1, SQUARE)).unflatten(3, (-1, SQUARE)).mean((2, 4))
        return comfy.latent_formats.Wan21().process_out(to_model_space(squares[None]))[0]
