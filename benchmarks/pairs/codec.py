"""A picture and an instruction as the network is given them, by hand, exact and with nothing learned.

Three of the sixteen channels of a latent are a square's colour, the others are 0; a latent cell reads nothing but its
own square. An instruction is the words of the still benchmark's table, and as its pooled features the last word's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import comfy.latent_formats
import comfy.sd
import numpy as np
import torch
from comfy.supported_models_base import ClipTarget
from torch import Tensor

from benchmarks.leakage import words
from masklora.cache.shots import ClipRule

from .scenes import SQUARE

CHANNELS, USED = 16, 3
# The network sees (colour − MIDDLE) · STRETCH.
MIDDLE, STRETCH = 0.5, 4.0


def to_model_space(pictures: np.ndarray | Tensor) -> Tensor:
    """Pictures (B, h, w, 3) as the network sees their latents, (B, 16, h, w) float32."""
    colours = torch.as_tensor(pictures).movedim(-1, 1)
    latents = torch.zeros(len(colours), CHANNELS, *colours.shape[2:])
    latents[:, :USED] = (colours - MIDDLE) * STRETCH
    return latents


def from_model_space(latents: Tensor) -> np.ndarray:
    """The pictures whose latents these are, exactly: (B, h, w, 3), clipped to [0, 1]."""
    return (latents[:, :USED] / STRETCH + MIDDLE).clamp(0, 1).movedim(1, -1).numpy()


def to_vae_space(pictures: np.ndarray | Tensor) -> Tensor:
    """The same latents before ComfyUI scales and shifts them for the network."""
    return comfy.latent_formats.Flux().process_out(to_model_space(pictures))


class SquareEncoder:
    """The same as the encoder of a cache: from pixels to the latents of FLUX's VAE space."""

    identity = "pairs toy: squares"
    channels, stride = CHANNELS, SQUARE
    rule = ClipRule(False, 1)

    def encode(self, images: Tensor) -> Tensor:
        """Latents (B, 16, h, w) of pictures (B, H, W, 3) in 0..1."""
        return to_vae_space(images.unflatten(1, (-1, SQUARE)).unflatten(3, (-1, SQUARE)).mean((2, 4)))


def instruction(ids: Sequence[int]) -> tuple[Tensor, Tensor]:
    """What a text of these words, at least one, is encoded as: features (1, 5, 64) and pooled ones (1, 64)."""
    return words.features(list(ids))[None], words.features([ids[-1]])[:1]


class InstructionTable(words.WordTable):
    """What ComfyUI asks of a text encoder."""

    def encode_token_weights(self, tokens: dict[str, list[int]]) -> tuple[Tensor, Tensor]:
        """See `instruction`; of the empty text all is 0."""
        if not tokens["words"]:
            return words.features([])[None], torch.zeros(1, words.WIDTH)
        return instruction(tokens["words"])


def make_clip() -> Any:
    """The table as ComfyUI's CLIP."""
    return comfy.sd.CLIP(ClipTarget(words.WordTokenizer, InstructionTable))
