"""The two VAEs in TAESD's layout: one that keeps squares apart, and one whose convolutions mix neighbours.

`pixel`: every latent cell is one square's colour, exactly, and reads nothing else: what leaks, leaks through the
diffusion model alone. `conv`: 30 % of every cell come from its four neighbours, as a VAE's receptive field does it, so
that cells at the mask's edge carry the background's colours. Both are linear in the colours and made by hand.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

from demo.nets import LATENT_CHANNELS, LATENT_SCALE, SceneCodec

from .scenes import SIDE

VARIANTS = ("pixel", "conv")
# Of each of the four neighbours.
MIXED = {"pixel": 0.0, "conv": 0.075}
# The diffusion model sees (colour − MIDDLE) · STRETCH.
MIDDLE, STRETCH = 0.6, 6.0
# The layout's decoder starts with 3·tanh(x/3): small values pass it unchanged.
_SMALL = 1e-3


def _kernel(neighbour: float) -> Tensor:
    kernel = torch.zeros(3, 3)
    kernel[1, :] = kernel[:, 1] = neighbour
    kernel[1, 1] = 1 - 4 * neighbour
    return kernel


def _unmixing(neighbour: float) -> Tensor:
    """Nearly the inverse of `_kernel`: exact on flat colours, to second order at the middle."""
    own = 1 - 4 * neighbour
    kernel = torch.zeros(3, 3)
    middle = (1 + 4 * (neighbour / own) ** 2) / own
    kernel[1, :] = kernel[:, 1] = (1 - middle) / 4
    kernel[1, 1] = middle
    return kernel


@torch.no_grad()
def vae_tensors(variant: str) -> dict[str, Tensor]:
    """The VAE's tensors, float32, as ComfyUI loads them.

    Convolutions read their own place only, so that stride 2 picks one pixel of four alike; the last of the encoder
    mixes, the first of the decoder undoes it, nearly.
    """
    codec, eye = SceneCodec(), torch.eye(3)[:, :, None, None]
    for module in codec.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.weight.zero_()
            if module.bias is not None:
                module.bias.zero_()
    for half in (codec.taesd_encoder, codec.taesd_decoder):
        for module in half:
            if isinstance(module, torch.nn.Conv2d):
                module.weight[:3, :3, 1, 1] = torch.eye(3)
    first, last = codec.taesd_decoder[1], codec.taesd_encoder[-1]
    last.weight[:3, :3] = _SMALL * STRETCH * eye * _kernel(MIXED[variant])
    last.bias[:3] = -_SMALL * STRETCH * MIDDLE
    unmixing = _unmixing(MIXED[variant])
    first.weight[:3, :3] = eye * unmixing / (_SMALL * STRETCH)
    first.bias[:3] = MIDDLE * unmixing.sum()
    codec.whiten.running_var.fill_(1 - codec.whiten.eps)
    return codec.layout_tensors() | {"vae_scale": torch.tensor(LATENT_SCALE * _SMALL)}


@functools.cache
def _mixing(variant: str) -> np.ndarray:
    """(256, 256): what share of every square is in every cell; beyond the edge there is black."""
    matrix, kernel = np.zeros((SIDE * SIDE, SIDE * SIDE)), _kernel(MIXED[variant]).numpy()
    for row in range(SIDE):
        for column in range(SIDE):
            for dr in (-1, 0, 1):
                for dc in (-1, 0, 1):
                    if 0 <= row + dr < SIDE and 0 <= column + dc < SIDE:
                        matrix[row * SIDE + column, (row + dr) * SIDE + column + dc] = kernel[dr + 1, dc + 1]
    return matrix


@functools.cache
def _reading(variant: str) -> np.ndarray:
    return np.linalg.inv(_mixing(variant)).astype(np.float32)


def _apply(matrix: np.ndarray, squares: np.ndarray) -> np.ndarray:
    flat = squares.reshape(len(squares), SIDE * SIDE, 3)
    return np.matmul(matrix.astype(np.float32), flat).reshape(squares.shape)


def to_model_space(squares: np.ndarray, variant: str) -> Tensor:
    """Pictures (B, 16, 16, 3) as the diffusion model sees their latents, (B, 16, 16, 16) float32."""
    latents = torch.zeros(len(squares), LATENT_CHANNELS, SIDE, SIDE)
    mixed = _apply(_mixing(variant), squares)
    latents[:, :3] = torch.from_numpy((mixed - MIDDLE) * STRETCH).movedim(-1, 1)
    return latents


def from_model_space(latents: Tensor, variant: str) -> np.ndarray:
    """The pictures whose latents these are, exactly: (B, 16, 16, 3), clipped to [0, 1]."""
    mixed = (latents[:, :3] / STRETCH + MIDDLE).movedim(1, -1).numpy()
    return _apply(_reading(variant), mixed).clip(0, 1)
