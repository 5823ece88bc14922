"""Stable Diffusion 1.5, small."""

import torch

from .small import Small
from .unet import small_unet


def _sd15(full: bool = False, given: int = 4) -> torch.nn.Module:
    if full:
        return small_unet(
            num_res_blocks=[2] * 4,
            channel_mult=[1, 2, 4, 4],
            num_heads=8,
            context_dim=768,
            transformer_depth=[1] * 6 + [0] * 2,
            transformer_depth_middle=1,
            transformer_depth_output=[1] * 9 + [0] * 3,
        )
    return small_unet(
        in_channels=given,
        num_res_blocks=[1, 1],
        channel_mult=[1, 1],
        num_heads=8,
        context_dim=768,
        transformer_depth=[1, 0],
        transformer_depth_middle=1,
        transformer_depth_output=[1, 1, 0, 0],
    )


SMALL = {"sd15": Small(family="sd15", text=768, pooled=768, vae="picture 4", build=_sd15, full={"full": True})}
