"""Stable Diffusion XL, small."""

import torch

from .small import Small
from .unet import small_unet


def _sdxl(deep: int = 10, shallow: int = 2, wide: bool = False) -> torch.nn.Module:
    a, b = shallow, deep
    return small_unet(
        num_res_blocks=[2, 2, 2],
        channel_mult=[1, 2, 4] if wide else [1, 1, 1],
        num_head_channels=64,
        context_dim=2048,
        adm_in_channels=2816,
        num_classes="sequential",
        use_linear_in_transformer=True,
        transformer_depth=[0, 0, a, a, b, b],
        transformer_depth_middle=b,
        transformer_depth_output=[0, 0, 0, a, a, a, b, b, b],
    )


SMALL = {"sdxl": Small(family="sdxl", text=2048, pooled=1280, vae="picture 4", build=_sdxl, full={"wide": True})}
