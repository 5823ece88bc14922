"""Stable Diffusion 1.x."""

from .family import Defaults, Family
from .unet import UNET_BLOCKS, UNET_TAILS, UNET_TARGETS

SD15 = Family(
    name="sd15",
    title="Stable Diffusion 1.5",
    configs=("SD15",),
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
    size_conditioning=False,
    kohya_as_diffusers=True,
    base_model_version="sd_v1",
    architecture="stable-diffusion-v1",
    defaults=Defaults(
        learning_rate=1e-4,
        rank=16,
        alpha=16.0,
        steps=1500,
        timestep_sampling="uniform",
        source="Hu et al. 2021 (arXiv 2106.09685) for alpha = rank; diffusers' LoRA example for 1e-4",
    ),
)
