"""The U-Net that Stable Diffusion's small models are made of."""

from typing import Any

import comfy.ops
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel


def small_unet(**extra: Any) -> torch.nn.Module:
    """One of ComfyUI's own class."""
    settings = dict(
        image_size=32,
        in_channels=4,
        out_channels=4,
        model_channels=320,
        use_spatial_transformer=True,
        legacy=False,
        dtype=torch.float32,
        operations=comfy.ops.disable_weight_init,
        use_checkpoint=False,
    )
    return UNetModel(**{**settings, **extra})
