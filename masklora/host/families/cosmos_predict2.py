"""Cosmos-Predict2, for pictures and for clips that continue one; a picture is a clip of one frame."""

from .cosmos_blocks import COSMOS_BLOCKS, COSMOS_TARGETS
from .family import IN_PLACE, Defaults, Family

FAMILY = Family(
    name="cosmos_predict2",
    title="Cosmos-Predict2",
    configs={"CosmosT2IPredict2": 16.0, "CosmosI2VPredict2": 16.0},
    blocks=COSMOS_BLOCKS,
    targets=COSMOS_TARGETS,
    architecture="cosmos-predict2",
    base_model_version="cosmos_predict2",
    first_frame={"CosmosI2VPredict2": IN_PLACE},
    text_layer=r"blocks\.\d+\.cross_attn\.k_proj",
    defaults=Defaults(
        learning_rate=6e-5,
        rank=16,
        alpha=16.0,
        steps=2000,
        timestep_sampling="shifted by resolution",
        source="SimpleTuner, COSMOS2IMAGE.md (6e-5, shifted by resolution); rank 16 and 2000 steps as for FLUX.1; "
        "NVIDIA's Cosmos-Predict2, Video2World as it is downloaded, for 16 frames a second",
    ),
)
