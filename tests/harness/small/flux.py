"""FLUX.1, small, and Fill, whose network is given a picture and a mask beside the noise."""

import functools

import comfy.ops
import torch
from comfy.ldm.flux.model import Flux

from .small import Small


def _flux(
    hidden: int = 128, double: int = 2, single: int = 2, text: int = 4096, pooled: int = 768, given: int = 16
) -> torch.nn.Module:
    return Flux(
        in_channels=given,
        out_channels=16,
        patch_size=2,
        vec_in_dim=pooled,
        context_in_dim=text,
        hidden_size=hidden,
        mlp_ratio=4.0,
        num_heads=hidden // 128,
        depth=double,
        depth_single_blocks=single,
        axes_dim=[16, 56, 56],
        theta=10000,
        qkv_bias=True,
        guidance_embed=True,
        image_model="flux",
        txt_ids_dims=[],
        dtype=torch.float32,
        operations=comfy.ops.disable_weight_init,
    )


_FULL = {"hidden": 3072, "double": 19, "single": 38}
_COMMON = dict(family="flux", text=4096, pooled=768, vae="picture 16")
_GIVEN = {"given": 16 + 16 + 64}
SMALL = {
    "flux": Small(**_COMMON, build=_flux, full=_FULL),
    "flux_fill": Small(**_COMMON, build=functools.partial(_flux, **_GIVEN), full=_FULL),
}
