"""Small VAEs with random weights, of ComfyUI's own classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.sd
import torch
from comfy.ldm.wan.vae import WanVAE
from comfy.taesd.taesd import TAESD

from .random_state import random_state
from .small import small_models

State = dict[str, torch.Tensor]


def _taesd(channels: int) -> State:
    generator = torch.Generator().manual_seed(3)
    state = {}
    for name, value in TAESD(latent_channels=channels).state_dict().items():
        scale = 1.0 / max(1, value[0].numel()) ** 0.5 if value.ndim > 1 else 0.02
        state[name] = torch.randn(value.shape, generator=generator) * scale
    state["vae_scale"], state["vae_shift"] = torch.tensor(1.0), torch.tensor(0.0)
    return state


def _wan21() -> State:
    network = WanVAE(dim=8, z_dim=16, temperal_downsample=[False, True, True])
    return {name: value + ("gamma" in name) for name, value in random_state(network).items()}


# By what they encode and how many channels they give.
_STATES: dict[str, Callable[[], State]] = {
    "picture 4": lambda: _taesd(4),
    "picture 16": lambda: _taesd(16),
    "clip 16": _wan21,
}


def vae_state(kind: str) -> State:
    """What a file of such a VAE holds."""
    return _STATES[kind]()


def small_vae(name: str) -> Any:
    """The VAE that belongs to the small model of this name."""
    return comfy.sd.VAE(sd=vae_state(small_models()[name].vae))
