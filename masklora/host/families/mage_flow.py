"""Mage-Flow: Qwen-Image's blocks over tokens of one latent cell."""

from .family import Defaults, Family, References
from .qwen_blocks import QWEN_BLOCKS, QWEN_TARGETS

FAMILY = Family(
    name="mage_flow",
    title="Mage-Flow",
    configs=("MageFlow",),
    blocks=QWEN_BLOCKS,
    targets=QWEN_TARGETS,
    architecture="mage-flow",
    base_model_version="mage_flow",
    patch=(1, 1, 1),
    text_layer="txt_in",
    text_fills=True,
    references=References(own_size=False, pictures="mage"),
    defaults=Defaults(
        learning_rate=1e-4,
        rank=32,
        alpha=32.0,
        steps=3000,
        timestep_sampling="uniform",
        source="ai-toolkit's defaults for Mage-Flow (1e-4, rank 32, 3000 steps, levels evenly)",
    ),
)
