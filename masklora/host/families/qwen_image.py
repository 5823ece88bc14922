"""Qwen-Image."""

from .family import Defaults, DiffusersNames, Family, References
from .qwen_blocks import QWEN_BLOCKS, QWEN_TARGETS

FAMILY = Family(
    name="qwen_image",
    title="Qwen-Image",
    configs=("QwenImage",),
    blocks=QWEN_BLOCKS,
    targets=QWEN_TARGETS,
    architecture="qwen-image",
    base_model_version="qwen_image",
    text_layer="txt_in",
    text_fills=True,
    references=References(pictures="qwen edit plus", most=3),
    diffusers=DiffusersNames("transformer"),
    defaults=Defaults(
        learning_rate=5e-5,
        rank=16,
        alpha=16.0,
        steps=2000,
        timestep_sampling="shifted",
        timestep_shift=2.2,
        source="musubi-tuner, docs/qwen_image.md (5e-5, rank 16, shift 2.2); ai-toolkit's example for 2000 steps",
    ),
)
