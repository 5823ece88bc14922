"""Wan 2.1 and 2.2, from text or from a first frame; a picture is a clip of one frame."""

from .family import BEFORE_GREY, IN_PLACE, Blocks, Defaults, DiffusersNames, Family, Note, Slot, attention_and_mlp

_BLOCK = r"blocks\.\d+"

FAMILY = Family(
    name="wan",
    title="Wan",
    configs={"WAN21_T2V": 16.0, "WAN21_I2V": 16.0, "WAN22_T2V": 24.0},
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
    first_frame={"WAN21_T2V": BEFORE_GREY, "WAN21_I2V": BEFORE_GREY, "WAN22_T2V": IN_PLACE},
    defaults=Defaults(
        learning_rate=2e-4,
        rank=32,
        alpha=32.0,
        steps=2000,
        timestep_sampling="shifted",
        timestep_shift=3.0,
        source="musubi-tuner, docs/wan.md (2e-4, rank 32, shift 3.0); ai-toolkit's example for 2000 steps",
    ),
    experts={("WAN21_T2V", 16): 0.875, ("WAN21_T2V", 36): 0.9},
    notes=(Note("Wan 2.2 14B is two models, and this trains one: connect the low noise one to model_low for both."),),
)
