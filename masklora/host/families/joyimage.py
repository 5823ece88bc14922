"""JoyImage, which edits pictures: blocks with a way for the image and one for the text, which has no positions."""

from .family import Blocks, Defaults, Family, References, Slot, attention_and_mlp

_BLOCK = r"double_blocks\.\d+\."

FAMILY = Family(
    name="joyimage",
    title="JoyImage",
    configs=("JoyImage",),
    blocks=(
        Blocks(
            path=r"double_blocks\.\d+",
            image=Slot("hidden_states"),
            result=Slot(0),
            rotary=(Slot("image_rotary_emb"),),
            order=("image", "references", "text"),
            tails=("img_mlp.net.2", "txt_mlp.net.2"),
            gates=(Slot("temb"),),
            gate_layers=("img_mod", "txt_mod"),
        ),
    ),
    targets=attention_and_mlp(_BLOCK + r"attn\.(img|txt)_attn_(qkv|proj)", _BLOCK + r"(img|txt)_mlp\.net\.(0\.proj|2)"),
    architecture="joyimage",
    base_model_version="joyimage",
    text_layer=r"condition_embedder\.text_embedder\.linear_1",
    text_fills=True,
    references=References(pictures="joyimage", most=6, needed=True),
    defaults=Defaults(
        learning_rate=5e-5,
        rank=16,
        alpha=16.0,
        steps=2000,
        timestep_sampling="shifted",
        timestep_shift=2.2,
        source="none published: as for Qwen-Image, which is built alike",
    ),
)
