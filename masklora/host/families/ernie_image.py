"""ERNIE-Image: one stream of blocks, the picture in front of its text, one modulation for all of them."""

from .family import Blocks, Defaults, DiffusersNames, Family, Slot, attention_and_mlp

_BLOCK = r"layers\.\d+\."

FAMILY = Family(
    name="ernie_image",
    title="ERNIE-Image",
    configs=("ErnieImage",),
    blocks=(
        Blocks(
            path=r"layers\.\d+",
            image=Slot("x", joined=True),
            result=Slot(joined=True),
            rotary=(Slot("rotary_pos_emb", joined=True),),
            order=("image", "text"),
            mask="attention_mask",
            tails=("mlp.linear_fc2",),
            gates=(Slot("temb"),),
        ),
    ),
    targets=attention_and_mlp(
        _BLOCK + r"self_attention\.to_(q|k|v|out\.0)", _BLOCK + r"mlp\.(gate_proj|up_proj|linear_fc2)"
    ),
    architecture="ernie-image",
    base_model_version="ernie_image",
    patch=(1, 1, 1),
    text_layer="text_proj",
    diffusers=DiffusersNames("transformer"),
    defaults=Defaults(
        learning_rate=1e-4,
        rank=32,
        alpha=32.0,
        steps=3000,
        timestep_sampling="shifted",
        timestep_shift=3.0,
        source="ai-toolkit's defaults (1e-4, rank 32, 3000 steps); OneTrainer's preset for logit-normal with shift 3",
    ),
)
