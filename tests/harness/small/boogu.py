"""Boogu, small; its text comes with a mask as OmniGen 2's does."""

from .encoder import Encoder, llama
from .omnigen2 import unpadded
from .small import Small

SMALL = {
    "boogu": Small(
        family="boogu",
        encoder=Encoder("boogu", "BooguTokenizer", {"qwen3vl_8b": llama(40, 2)}),
        text=40,
        extras=unpadded,
        keys={
            "double_stream_layers.0.img_instruct_attn.processor.img_to_q.weight": (3360, 3360),
            "x_embedder.weight": (3360, 64),
            "time_caption_embed.caption_embedder.0.weight": (4096,),
        },
        config={
            "hidden_size": 64,
            "num_attention_heads": 2,
            "num_kv_heads": 1,
            "num_layers": 2,
            "num_double_stream_layers": 2,
            "num_refiner_layers": 1,
            "axes_dim_rope": [8, 12, 12],
            "multiple_of": 32,
            "instruction_feat_dim": 40,
        },
        full={"num_layers": 32, "num_double_stream_layers": 8, "num_refiner_layers": 2},
    ),
}
