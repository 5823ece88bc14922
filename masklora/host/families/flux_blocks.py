"""The blocks that FLUX.1 and its relatives share: double ones for image and text, single ones for both joined."""

import dataclasses

from .family import Blocks, Slot, attention_and_mlp

_TABLE = Slot("pe", axis=2, joined=True)
_GATE = Slot("vec")

FLUX_BLOCKS = (
    Blocks(
        path=r"double_blocks\.\d+",
        image=Slot("img"),
        result=Slot(0),
        rotary=(_TABLE,),
        bounds=(Slot("modulation_dims_img"),),
        order=("text", "image", "references"),
        tails=("img_mlp.2", "txt_mlp.2"),
        gates=(_GATE,),
        gate_layers=("img_mod", "txt_mod"),
    ),
    Blocks(
        path=r"single_blocks\.\d+",
        image=Slot(0, joined=True),
        result=Slot(joined=True),
        rotary=(_TABLE,),
        bounds=(Slot("modulation_dims"),),
        order=("text", "image", "references"),
        tails=("linear2",),
        gates=(_GATE,),
        gate_layers=("modulation",),
    ),
)
# Their modulation is made outside.
PLAIN_FLUX_BLOCKS = tuple(dataclasses.replace(blocks, gate_layers=()) for blocks in FLUX_BLOCKS)
# HunyuanVideo and its relatives send their texts through these first.
TEXT_REFINER = Blocks(path=r"txt_in\.individual_token_refiner\.blocks\.\d+")
DOUBLE_ATTENTION = r"double_blocks\.\d+\.(img|txt)_attn\.(qkv|proj)"
DOUBLE_MLP = r"double_blocks\.\d+\.(img|txt)_mlp\.[02]"
FLUX_TARGETS = attention_and_mlp(rf"{DOUBLE_ATTENTION}|single_blocks\.\d+\.linear[12]", DOUBLE_MLP)
