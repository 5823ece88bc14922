"""Stable Diffusion 3, small."""

import comfy.ops
import torch
from comfy.ldm.modules.diffusionmodules.mmdit import OpenAISignatureMMDITWrapper

from .small import Small


def _sd3(depth: int = 2, self_attention: int = 0) -> torch.nn.Module:
    """Its first `self_attention` blocks have a second attention over the image tokens alone, as in SD 3.5 Medium."""
    hidden = 64 * depth
    return OpenAISignatureMMDITWrapper(
        input_size=None,
        patch_size=2,
        in_channels=16,
        depth=depth,
        adm_in_channels=2048,
        context_embedder_config={
            "target": "torch.nn.Linear",
            "params": {"in_features": 4096, "out_features": hidden},
        },
        num_patches=1024,
        pos_embed_max_size=32,
        pos_embed_scaling_factor=None,
        qk_norm="rms",
        x_block_self_attn_layers=list(range(self_attention)),
        dtype=torch.float32,
        operations=comfy.ops.disable_weight_init,
    )


SMALL = {"sd3": Small(family="sd3", text=4096, pooled=2048, vae="picture 16", build=_sd3, full={"depth": 24})}
