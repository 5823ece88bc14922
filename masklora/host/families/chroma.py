"""Chroma1: FLUX.1's blocks, their modulation made outside by one small network."""

from .family import Defaults, DiffusersNames, Family
from .flux_blocks import FLUX_TARGETS, PLAIN_FLUX_BLOCKS

FAMILY = Family(
    name="chroma",
    title="Chroma",
    configs=("Chroma",),
    blocks=PLAIN_FLUX_BLOCKS,
    targets=FLUX_TARGETS,
    architecture="chroma",
    base_model_version="chroma",
    mutates=True,
    text_layer="txt_in",
    text_fills=True,
    diffusers=DiffusersNames("transformer"),
    defaults=Defaults(
        learning_rate=1e-4,
        rank=16,
        alpha=16.0,
        steps=2000,
        timestep_sampling="sigmoid",
        guidance=0.0,
        source="ai-toolkit's published Chroma example (rank 16, 1e-4, 2000 steps); guidance as ComfyUI's own default",
    ),
)
