"""Mage-Flow, small."""

from .encoder import Encoder, llama
from .small import Small

SMALL = {
    "mage_flow": Small(
        family="mage_flow",
        encoder=Encoder("mage_flow", "MageFlowTokenizer", {"qwen3vl_4b": llama(48, 2)}),
        text=48,
        vae="picture 128",
        keys={"txt_norm.weight": (2560,), "proj_out.weight": (128, 3072)},
        config={
            "num_layers": 3,
            "attention_head_dim": 32,
            "num_attention_heads": 2,
            "joint_attention_dim": 48,
            "axes_dims_rope": (8, 12, 12),
        },
        full={"num_layers": 12},
    ),
}
