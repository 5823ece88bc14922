"""Boogu: OmniGen 2's blocks, in front of them double ones with one attention more for the image alone."""

from .family import Blocks, Defaults, Family, References, Slot
from .omnigen_blocks import REFINERS, joined_blocks, omnigen_targets

FAMILY = Family(
    name="boogu",
    title="Boogu",
    configs=("Boogu",),
    blocks=(
        *REFINERS,
        Blocks(
            path=r"double_stream_layers\.\d+",
            image=Slot("img_hidden_states"),
            result=Slot(0),
            rotary=(Slot("joint_rotary_emb", joined=True), Slot("img_rotary_emb")),
            order=("text", "references", "image"),
        ),
        joined_blocks(r"single_stream_layers\.\d+"),
    ),
    targets=omnigen_targets(r"(double|single)_stream_layers\.\d+\."),
    architecture="boogu-image",
    base_model_version="boogu",
    text_layer=r"time_caption_embed\.caption_embedder\.1",
    text_extras=("attention_mask",),
    references=References(pictures="boogu", most=5),
    defaults=Defaults(
        learning_rate=1e-4,
        rank=32,
        alpha=32.0,
        steps=3000,
        timestep_sampling="uniform",
        source="ai-toolkit's defaults for Boogu (1e-4, rank 32, 3000 steps, levels evenly)",
    ),
)
