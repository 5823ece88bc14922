"""Ideogram 4: one stream of blocks over the text's features and the picture."""

from .family import Blocks, Defaults, DiffusersNames, Family, Slot, attention_and_mlp

_BLOCK = r"layers\.\d+\."

FAMILY = Family(
    name="ideogram4",
    title="Ideogram 4",
    configs=("Ideogram4",),
    blocks=(
        # A norm reads each layer's result before it is added, so there are no tails.
        Blocks(
            path=r"layers\.\d+",
            image=Slot("x", joined=True),
            result=Slot(joined=True),
            rotary=(Slot("freqs_cis", joined=True),),
            order=("text", "image"),
        ),
    ),
    targets=attention_and_mlp(_BLOCK + r"attention\.(qkv|o)", _BLOCK + r"feed_forward\.w[123]"),
    architecture="ideogram-4",
    base_model_version="ideogram4",
    patch=(1, 1, 1),
    text_layer="llm_cond_proj",
    text_fills=True,
    diffusers=DiffusersNames("diffusion_model", layers=r"layers\..*"),
    defaults=Defaults(
        learning_rate=1e-4,
        rank=32,
        alpha=32.0,
        steps=2000,
        timestep_sampling="shifted by resolution",
        source="ai-toolkit's defaults (1e-4, rank 32); OneTrainer's preset for levels by resolution; steps as FLUX.1's",
    ),
)
