"""The blocks that Cosmos-Predict2 and Anima share: tokens of the picture alone, which look at the text besides."""

from .family import Blocks, Slot, attention_and_mlp

_PATH = r"blocks\.\d+"

COSMOS_BLOCKS = (
    Blocks(
        path=_PATH,
        image=Slot("x_B_T_H_W_D"),
        rotary=(Slot("rope_emb_L_1_1_D"),),
        order=("image",),
        cross=("cross_attn",),
        tails=("mlp.layer2",),
        gates=(Slot("emb_B_T_D"), Slot("adaln_lora_B_T_3D")),
        gate_layers=("adaln_modulation_mlp",),
    ),
)
COSMOS_TARGETS = attention_and_mlp(_PATH + r"\.(self|cross)_attn\.(q|k|v|output)_proj", _PATH + r"\.mlp\.layer[12]")
