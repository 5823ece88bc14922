"""Qwen-Image."""

from .family import Blocks, Defaults, Family, Slot, attention_and_mlp

_BLOCK = r"transformer_blocks\.\d+\."

FAMILY = Family(
    name="qwen_image",
    title="Qwen-Image",
    configs=("QwenImage",),
    blocks=(
        Blocks(
            path=r"transformer_blocks\.\d+",
            image=Slot("hidden_states"),
            result=Slot(1),
            rotary=(Slot("image_rotary_emb", axis=2, joined=True),),
            order=("text", "image"),
            tails=("img_mlp.net.2", "txt_mlp.net.2"),
            gates=(Slot("temb"),),
            gate_layers=("img_mod", "txt_mod"),
        ),
    ),
    targets=attention_and_mlp(
        _BLOCK + r"attn\.(to_(q|k|v|out\.0)|add_(q|k|v)_proj|to_add_out)", _BLOCK + r"(img|txt)_mlp\.net\.(0\.proj|2)"
    ),
    architecture="qwen-image",
    base_model_version="qwen_image",
    text_layer="txt_in",
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
