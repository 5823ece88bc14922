"""HunyuanVideo; a picture is a clip of one frame."""

from .family import Defaults, DiffusersNames, Family
from .flux_blocks import FLUX_BLOCKS, FLUX_TARGETS, TEXT_REFINER

FAMILY = Family(
    name="hunyuan_video",
    title="HunyuanVideo",
    configs={"HunyuanVideo": 24.0},
    blocks=(TEXT_REFINER, *FLUX_BLOCKS),
    targets=FLUX_TARGETS,
    architecture="hunyuan-video",
    base_model_version="hunyuan_video",
    divides=True,
    mutates=True,
    text_layer=r"txt_in\.input_embedder",
    pooled_layer=r"vector_in\.in_layer",
    diffusers=DiffusersNames("transformer", layers=r"(double|single)_blocks\..*"),
    defaults=Defaults(
        learning_rate=2e-4,
        rank=32,
        alpha=32.0,
        steps=2000,
        timestep_sampling="shifted",
        timestep_shift=7.0,
        source="musubi-tuner, docs/hunyuan_video.md (2e-4, rank 32, shift 7.0, guidance 1.0); 2000 steps as for Wan",
    ),
)
