"""Stable Diffusion XL."""

from .family import Defaults, Family
from .unet import UNET_BLOCKS, UNET_TARGETS, UNET_TEXT

FAMILY = Family(
    name="sdxl",
    title="Stable Diffusion XL",
    configs=("SDXL",),
    blocks=UNET_BLOCKS,
    targets=UNET_TARGETS,
    architecture="stable-diffusion-xl-v1-base",
    base_model_version="sdxl_base_v1-0",
    predictions=("epsilon", "v"),
    patch=(1, 1, 1),
    text_layer=UNET_TEXT,
    pooled_layer=r"label_emb\.0\.0",
    text_repeats=True,
    inpainting=("SDXL",),
    defaults=Defaults(
        learning_rate=1e-4,
        rank=16,
        alpha=16.0,
        steps=2000,
        timestep_sampling="uniform",
        source="diffusers' DreamBooth LoRA SDXL example (1e-4); sizes: arXiv 2307.01952",
    ),
)
