"""Stable Diffusion 2, small, of ε and of v, which ComfyUI tells apart by a norm in the last block."""

from __future__ import annotations

import functools

import torch
from torch import nn

from .encoder import Encoder, clip
from .small import Small
from .unet import small_unet


def _sd2(full: bool = False, v: bool = False) -> nn.Module:
    common = dict(num_head_channels=64, context_dim=1024, use_linear_in_transformer=True)
    if full:
        return small_unet(
            **common,
            num_res_blocks=[2] * 4,
            channel_mult=[1, 2, 4, 4],
            transformer_depth=[1] * 6 + [0] * 2,
            transformer_depth_middle=1,
            transformer_depth_output=[1] * 9 + [0] * 3,
        )
    network = small_unet(
        **common,
        num_res_blocks=[1, 1],
        channel_mult=[1, 1],
        transformer_depth=[1, 0],
        transformer_depth_middle=1,
        transformer_depth_output=[1, 1, 0, 0],
    )
    if v:
        network.output_blocks.add_module("11", _told_as_v())
    return network


def _told_as_v() -> nn.Module:
    """Where a real model's last block has the norm whose bias is wide in models of v; it is not loaded."""
    block = nn.Module()
    block.register_buffer("bias", torch.zeros(1024, 1))
    for name in ("norm1", "0", "transformer_blocks", "1"):
        outer = nn.Module()
        outer.add_module(name, block)
        block = outer
    return block


_ENCODER = Encoder("sd2_clip", "SD2Tokenizer", {"clip_h": clip(1024)}, model="SD2ClipModel")
_COMMON = dict(family="sd2", text=1024, vae="picture 4", encoder=_ENCODER)
SMALL = {
    "sd2": Small(**_COMMON, build=_sd2, full={"full": True}),
    "sd2_v": Small(**_COMMON, build=functools.partial(_sd2, v=True), full={"full": True}),
}
