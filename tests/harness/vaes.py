"""Small VAEs with random weights, of ComfyUI's own classes."""

from __future__ import annotations

import contextlib
import functools
import json
import re
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import comfy.ldm.minimax.vae
import comfy.sd
import torch
from comfy.ldm.cogvideo.vae import AutoencoderKLCogVideoX
from comfy.ldm.genmo.vae import model as mochi
from comfy.ldm.lightricks.vae.audio_vae import AudioVAE
from comfy.ldm.lightricks.vae.causal_video_autoencoder import VideoVAE
from comfy.ldm.models.autoencoder import AutoencoderKL, AutoencodingEngine
from comfy.ldm.wan.vae import WanVAE
from comfy.taesd.taehv import TAEHV
from comfy.taesd.taesd import TAESD

from .random_state import random_state
from .small import small_models
from .small_unknown import UNKNOWN

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


def _taehv(channels: int) -> State:
    return random_state(TAEHV(latent_channels=channels))


_LTX = {
    "dims": 3,
    "latent_channels": 128,
    "blocks": [["compress_all", 1]] * 3 + [["res_x", 1]],
    "norm_layer": "pixel_norm",
    "patch_size": 4,
    "latent_log_var": "uniform",
    "encoder_base_channels": 8,
    "decoder_base_channels": 8,
}


def _ltx() -> State:
    return random_state(VideoVAE(config=_LTX))


# Of the sound of LTX-2: its autoencoder, and what makes a wave of it.
_SOUND = {
    "audio_vae": {
        "model": {
            "params": {
                "sampling_rate": 16000,
                "ddconfig": {
                    **{"double_z": True, "mel_bins": 64, "z_channels": 8, "resolution": 256, "in_channels": 2},
                    **{"out_ch": 2, "ch": 8, "ch_mult": [1, 1, 1], "num_res_blocks": 1, "attn_resolutions": []},
                    **{"mid_block_add_attention": False, "norm_type": "pixel", "causality_axis": "height"},
                },
            }
        }
    },
    "vocoder": {
        **{"resblock_kernel_sizes": [3], "resblock_dilation_sizes": [[1, 3, 5]], "upsample_rates": [16, 10]},
        **{"upsample_kernel_sizes": [32, 20], "upsample_initial_channel": 16, "resblock": "1"},
    },
}


def ltx_sound() -> tuple[State, dict[str, str]]:
    """What a checkpoint of LTX-2 holds of its VAE for sound, and what it tells of it."""
    told = {"config": json.dumps(_SOUND)}
    state = random_state(AudioVAE(told))
    state = {name: torch.ones_like(value) if "std-of" in name else value for name, value in state.items()}
    return {name.replace("autoencoder.", "audio_vae.", 1): value for name, value in state.items()}, told


def _narrow(**settings: Any) -> Any:
    """ComfyUI's engine with few features where ComfyUI knows a VAE's widths by heart."""
    for part in ("encoder_config", "decoder_config"):
        params = settings[part]["params"]
        # The innermost are twice as many as the latent's, so that these can be groups of them.
        widths = [32] * (len(params["block_out_channels"]) - 1) + [2 * params["z_channels"]]
        params = {**params, "block_out_channels": widths, "num_res_blocks": 1}
        settings[part] = {**settings[part], "params": params}
    return AutoencodingEngine(**settings)


def _hunyuan_image() -> State:
    with _small("picture 64"):
        vae = comfy.sd.VAE(sd={"decoder.conv_in.weight": torch.zeros(128, 64, 3, 3)})
    return random_state(vae.first_stage_model)


def _flux2() -> State:
    """AutoencoderKL over cells of four; ComfyUI knows the encoder's width by heart, the decoder's by its weights."""
    usual = dict(double_z=True, z_channels=32, resolution=256, in_channels=3, out_ch=3, num_res_blocks=2, dropout=0.0)
    widths = dict(ch=128, ch_mult=[1, 2, 4, 4], attn_resolutions=[], batch_norm_latent=True)
    network = AutoencoderKL(ddconfig={**usual, **widths}, embed_dim=32, decoder_ddconfig={**usual, **widths, "ch": 32})
    state = random_state(network)
    ones = {name: torch.ones_like(value) for name, value in state.items() if name.endswith("running_var")}
    return {**state, **ones}


class _Mochi(mochi.VideoVAE):
    """Mochi's with few features; its class takes no sizes."""

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)
        # ComfyUI knows the file by a fourth part of the third block.
        sizes = {"channel_multipliers": [1, 2, 3, 4], "num_res_blocks": [1, 1, 4, 1, 1], "base_channels": 32}
        usual = {**sizes, "latent_dim": 12, "padding_mode": "replicate"}
        strides = {"temporal": [1, 2, 3], "spatial": [2, 2, 2]}
        self.encoder = mochi.Encoder(
            in_channels=15,
            prune_bottlenecks=[False] * 5,
            has_attentions=[False, True, True, True, True],
            input_is_conv_1x1=True,
            **{f"{name}_reductions": by for name, by in strides.items()},
            **usual,
        )
        self.decoder = mochi.Decoder(
            has_attention=[False] * 5,
            output_norm=False,
            **{f"{name}_expansions": by for name, by in strides.items()},
            **usual,
        )


def _mochi() -> State:
    # Its norms are numbered, not named.
    is_gain = re.compile(r".*stack\.[03]\.weight").fullmatch
    return {name: value + bool(is_gain(name)) for name, value in random_state(_Mochi()).items()}


_COGVIDEOX = functools.partial(AutoencoderKLCogVideoX, block_out_channels=(32, 32, 32, 32), layers_per_block=1)


def _minimax() -> State:
    with _small("clip 24"):
        network = comfy.ldm.minimax.vae.MiniMaxH3VideoVAE()
    # Part of every file, and not random.
    known = {"latents_mean": network.latents_mean, "latents_std": network.latents_std}
    return {
        name: value + (".norm" in name and value.ndim == 1) for name, value in random_state(network).items()
    } | known


@contextlib.contextmanager
def _small(kind: str) -> Iterator[None]:
    """While it lasts ComfyUI makes small the VAEs of this kind whose sizes no file tells it."""
    with contextlib.ExitStack() as stack:
        for place, small in _SMALL.get(kind, {}).items():
            stack.enter_context(mock.patch(place, small))
        yield


_MINIMAX = "comfy.ldm.minimax.vae"
_SMALL: dict[str, dict[str, Any]] = {
    "picture 64": {"comfy.sd.AutoencodingEngine": _narrow},
    "clip 12": {"comfy.ldm.genmo.vae.model.VideoVAE": _Mochi},
    "clip 16 in twos": {"comfy.ldm.cogvideo.vae.AutoencoderKLCogVideoX": _COGVIDEOX},
    "clip 24": {
        f"{_MINIMAX}.ViT3DDecoder": functools.partial(
            comfy.ldm.minimax.vae.ViT3DDecoder, num_layers=1, heads=1, dim_head=32
        ),
        f"{_MINIMAX}.MiniMaxH3VideoVAE": functools.partial(
            comfy.ldm.minimax.vae.MiniMaxH3VideoVAE, ch=32, ch_mult=(1,) * 6, num_res_blocks=1
        ),
    },
}
# By what they encode and how many channels they give.
_STATES: dict[str, Callable[[], State]] = {
    "picture 4": lambda: _taesd(4),
    "picture 16": lambda: _taesd(16),
    "picture 128": _flux2,
    "picture 64": _hunyuan_image,
    "pixels": lambda: {"pixel_space_vae": torch.tensor(1.0)},
    "clip 12": _mochi,
    "clip 16": _wan21,
    "clip 16 in twos": lambda: random_state(_COGVIDEOX(latent_channels=16)),
    "clip 24": _minimax,
    "clip 32": lambda: _taehv(32),
    "clip 48": lambda: _taehv(48),
    "clip 128": _ltx,
}
_METADATA = {"clip 128": {"config": json.dumps({"vae": _LTX})}}


@functools.cache
def vae_state(kind: str) -> State:
    """What a file of such a VAE holds."""
    return _STATES[kind]()


def small_vae(name: str) -> Any:
    """The VAE that belongs to the small model of this name."""
    kind = UNKNOWN[name].vae if name in UNKNOWN else small_models()[name].vae
    with _small(kind):
        return comfy.sd.VAE(sd=dict(vae_state(kind)), metadata=_METADATA.get(kind))
