"""Stable Diffusion 1.5, 2 and XL."""

from __future__ import annotations

import functools
from typing import Any

import comfy.utils
import diffusers
import torch
from torch import nn

from .renaming import by_table
from .theirs import Batch, Config, Outcome, Theirs


def _unet(config: Config, **more: Any) -> nn.Module:
    levels = len(config["channel_mult"])
    return diffusers.UNet2DConditionModel(
        block_out_channels=(config["model_channels"],) * levels,
        layers_per_block=config["num_res_blocks"][0],
        cross_attention_dim=config["context_dim"],
        **more,
    )


def _sd15(config: Config) -> nn.Module:
    return _unet(
        config,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        # Its count of heads, by the name that diffusers keeps for old files.
        attention_head_dim=config["num_heads"],
    )


def _sd2(config: Config) -> nn.Module:
    return _unet(
        config,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=config["model_channels"] // config["num_head_channels"],
        use_linear_projection=True,
    )


def _sdxl(config: Config) -> nn.Module:
    return _unet(
        config,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=config["model_channels"] // config["num_head_channels"],
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=config["adm_in_channels"],
    )


def by_table_of_noise(batch: Batch, *, v: bool = False, **more: Any) -> Outcome:
    """The scheduler's own noise at whole timesteps, and noise or v as the target."""
    scheduler = diffusers.DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    steps = (batch.u * 1000).long()
    noisy = scheduler.add_noise(batch.latent, batch.noise, steps)
    out = batch.theirs(noisy, steps, encoder_hidden_states=batch.cond, **more).sample
    return Outcome(noisy, out, scheduler.get_velocity(batch.latent, batch.noise, steps) if v else batch.noise)


def _told_sizes(batch: Batch) -> Outcome:
    """Its sizes are (original height and width, crop's top and left, height and width)."""
    ids = torch.tensor([[150, 200, 16, 24, 64, 96]] * 2)
    return by_table_of_noise(batch, added_cond_kwargs={"text_embeds": batch.pooled, "time_ids": ids})


_STATE = by_table(comfy.utils.unet_to_diffusers)
_SD2 = functools.partial(Theirs, _sd2, _STATE, pipeline="StableDiffusionPipeline")
THEIRS = {
    "sd15": Theirs(_sd15, _STATE, by_table_of_noise, pipeline="StableDiffusionPipeline"),
    "sd2": _SD2(by_table_of_noise),
    "sd2_v": _SD2(functools.partial(by_table_of_noise, v=True)),
    "sdxl": Theirs(
        _sdxl, _STATE, _told_sizes, pipeline="StableDiffusionXLPipeline", lacks=r".*\.transformer_blocks\.[1-9].*"
    ),
}
