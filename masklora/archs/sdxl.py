"""Stable Diffusion XL."""

from .family import Defaults, Family
from .unet import UNET_BLOCKS, UNET_TAILS, UNET_TARGETS

SDXL = Family(
    name="sdxl",
    title="Stable Diffusion XL",
    configs=("SDXL",),
    latent_channels=4,
    latent_stride=8,
    patch=1,
    predictions=("epsilon", "v"),
    blocks=UNET_BLOCKS,
    tails=UNET_TAILS,
    gate_arguments=(),
    gate_layers=(),
    mutates=False,
    tokens=None,
    targets=UNET_TARGETS,
    text_repeats=True,
    size_conditioning=True,
    kohya_as_diffusers=False,
    base_model_version="sdxl_base_v1-0",
    architecture="stable-diffusion-xl-v1-base",
    defaults=Defaults(
        learning_rate=1e-4,
        rank=16,
        alpha=16.0,
        steps=2000,
        timestep_sampling="uniform",
        source="diffusers' DreamBooth LoRA SDXL example (1e-4); sizes: arXiv 2307.01952",
    ),
)
