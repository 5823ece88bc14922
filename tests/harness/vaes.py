"""Small VAEs with random weights, of ComfyUI's own classes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import comfy.sd
import torch
from comfy.ldm.models.autoencoder import AutoencoderKL
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


def _flux2() -> State:
    """AutoencoderKL over cells of four; ComfyUI knows the encoder's width by heart, the decoder's by its weights."""
    usual = dict(double_z=True, z_channels=32, resolution=256, in_channels=3, out_ch=3, num_res_blocks=2, dropout=0.0)
    widths = dict(ch=128, ch_mult=[1, 2, 4, 4], attn_resolutions=[], batch_norm_latent=True)
    network = AutoencoderKL(ddconfig={**usual, **widths}, embed_dim=32, decoder_ddconfig={**usual, **widths, "ch": 32})
    state = random_state(network)
    ones = {name: torch.ones_like(value) for name, value in state.items() if name.endswith("running_var")}
    return {**state, **ones}


# By what they encode and how many channels they give.
_STATES: dict[str, Callable[[], State]] = {
    "picture 4": lambda: _taesd(4),
    "picture 16": lambda: _taesd(16),
    "picture 128": _flux2,
    "clip 16": _wan21,
}


@functools.cache
def vae_state(kind: str) -> State:
    """What a file of such a VAE holds."""
    return _STATES[kind]()


def small_vae(name: str) -> Any:
    """The VAE that belongs to the small model of this name."""
    return comfy.sd.VAE(sd=dict(vae_state(small_models()[name].vae)))
