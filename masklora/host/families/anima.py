"""Anima: Cosmos-Predict2's blocks with an adapter in front that joins the text encoder's features to T5's tokens."""

from .cosmos_blocks import COSMOS_BLOCKS, COSMOS_TARGETS
from .family import Blocks, Defaults, DiffusersNames, Family

FAMILY = Family(
    name="anima",
    title="Anima",
    configs={"Anima": 16.0},
    blocks=(
        Blocks(path=r"llm_adapter\.blocks\.\d+", tails=("mlp.2",)),
        *COSMOS_BLOCKS,
    ),
    targets=COSMOS_TARGETS,
    architecture="anima",
    base_model_version="anima",
    text_layer=r"llm_adapter\.blocks\.0\.cross_attn\.k_proj",
    text_extras=("t5xxl_ids", "t5xxl_weights"),
    text_adapter=r"llm_adapter\..*",
    diffusers=DiffusersNames("diffusion_model"),
    defaults=Defaults(
        learning_rate=3e-5,
        rank=32,
        alpha=32.0,
        steps=3000,
        timestep_sampling="logit-normal",
        source="OneTrainer's Anima preset (3e-5, logit-normal); ai-toolkit's defaults for rank 32 and 3000 steps; "
        "16 frames a second as Cosmos-Predict2",
    ),
)
