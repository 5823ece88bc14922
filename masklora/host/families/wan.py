"""Wan 2.1 and 2.2, from text or from a picture, of which none is shown; a picture is a clip of one frame."""

from .family import Blocks, Defaults, DiffusersNames, Family, Note, Slot, attention_and_mlp

_BLOCK = r"blocks\.\d+"

FAMILY = Family(
    name="wan",
    title="Wan",
    configs=("WAN21_T2V", "WAN21_I2V", "WAN22_T2V"),
    blocks=(
        Blocks(
            path=_BLOCK,
            image=Slot("x"),
            rotary=(Slot("freqs"),),
            order=("image",),
            cross=("cross_attn",),
            tails=("ffn.2",),
            gates=(Slot("e"),),
        ),
    ),
    targets=attention_and_mlp(_BLOCK + r"\.(self|cross)_attn\.(q|k|v|o)", _BLOCK + r"\.ffn\.[02]"),
    architecture="wan",
    base_model_version="wan",
    text_layer=r"text_embedding\.0",
    diffusers=DiffusersNames("diffusion_model"),
    defaults=Defaults(
        learning_rate=2e-4,
        rank=32,
        alpha=32.0,
        steps=2000,
        timestep_sampling="shifted",
        timestep_shift=3.0,
        source="musubi-tuner, docs/wan.md (2e-4, rank 32, shift 3.0); ai-toolkit's example for 2000 steps",
    ),
    notes=(Note("Wan 2.2 14B is two models: set timestep_min to 0.875 for high noise, timestep_max for low noise."),),
)
