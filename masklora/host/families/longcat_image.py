"""LongCat-Image: FLUX.1's blocks without a guidance and a pooled text."""

from .family import Defaults, DiffusersNames, Family, References
from .flux_blocks import FLUX_BLOCKS, FLUX_TARGETS

FAMILY = Family(
    name="longcat_image",
    title="LongCat-Image",
    configs=("LongCatImage",),
    blocks=FLUX_BLOCKS,
    targets=FLUX_TARGETS,
    architecture="longcat-image",
    base_model_version="longcat_image",
    mutates=True,
    text_layer="txt_in",
    references=References(method="index", pictures="qwen edit", most=1),
    diffusers=DiffusersNames("transformer"),
    defaults=Defaults(
        learning_rate=1e-4,
        rank=16,
        alpha=16.0,
        steps=2000,
        timestep_sampling="sigmoid",
        source="none published: as for FLUX.1, whose blocks it has",
    ),
)
