"""OmniGen 2."""

from .family import Defaults, Family, References
from .omnigen_blocks import REFINERS, joined_blocks, omnigen_targets

FAMILY = Family(
    name="omnigen2",
    title="OmniGen 2",
    configs=("Omnigen2",),
    blocks=(*REFINERS, joined_blocks(r"layers\.\d+")),
    targets=omnigen_targets(r"layers\.\d+\."),
    architecture="omnigen-2",
    base_model_version="omnigen2",
    text_layer=r"time_caption_embed\.caption_embedder\.1",
    text_extras=("attention_mask",),
    references=References(most=5),
    defaults=Defaults(
        learning_rate=1e-4,
        rank=16,
        alpha=16.0,
        steps=3000,
        timestep_sampling="sigmoid",
        source="ai-toolkit's example for OmniGen 2 (1e-4, rank 16, 3000 steps, sigmoid)",
    ),
)
