"""Stable Diffusion 1.x."""

from .family import Defaults, Family
from .unet import UNET_BLOCKS, UNET_TARGETS, UNET_TEXT

FAMILY = Family(
    name="sd15",
    title="Stable Diffusion 1.5",
    configs=("SD15",),
    blocks=UNET_BLOCKS,
    targets=UNET_TARGETS,
    architecture="stable-diffusion-v1",
    base_model_version="sd_v1",
    predictions=("epsilon", "v"),
    patch=(1, 1, 1),
    text_layer=UNET_TEXT,
    text_repeats=True,
    inpainting=("SD15",),
    kohya_as_diffusers=True,
    defaults=Defaults(
        learning_rate=1e-4,
        rank=16,
        alpha=16.0,
        steps=1500,
        timestep_sampling="uniform",
        source="Hu et al. 2021 (arXiv 2106.09685) for alpha = rank; diffusers' LoRA example for 1e-4",
    ),
)
