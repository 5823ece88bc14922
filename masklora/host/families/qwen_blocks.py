"""The blocks that Qwen-Image and its relatives share: one kind, with a way for the image and one for the text."""

from .family import Blocks, Slot, attention_and_mlp

_BLOCK = r"transformer_blocks\.\d+\."

QWEN_BLOCKS = (
    Blocks(
        path=r"transformer_blocks\.\d+",
        image=Slot("hidden_states"),
        result=Slot(1),
        rotary=(Slot("image_rotary_emb", axis=2, joined=True),),
        bounds=(Slot("timestep_zero_index"),),
        order=("text", "image", "references"),
        tails=("img_mlp.net.2", "txt_mlp.net.2"),
        gates=(Slot("temb"),),
        gate_layers=("img_mod", "txt_mod"),
    ),
)
QWEN_TARGETS = attention_and_mlp(
    _BLOCK + r"attn\.(to_(q|k|v|out\.0)|add_(q|k|v)_proj|to_add_out)", _BLOCK + r"(img|txt)_mlp\.net\.(0\.proj|2)"
)
