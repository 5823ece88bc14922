"""Chroma1, small."""

from .encoder import Encoder, t5
from .small import Small

SMALL = {
    "chroma": Small(
        family="chroma",
        encoder=Encoder("pixart_t5", "PixArtTokenizer", {"t5xxl": t5(32)}, model="pixart_te"),
        page={"context_in_dim": 32},
        text=4096,
        keys={
            "distilled_guidance_layer.0.norms.0.scale": (5120,),
            "double_blocks.0.img_attn.norm.key_norm.scale": (128,),
            "img_in.weight": (3072, 64),
            "txt_in.weight": (3072, 4096),
        },
        config={
            "hidden_size": 128,
            "num_heads": 1,
            "out_dim": 128,
            "hidden_dim": 64,
            "n_layers": 2,
            "depth": 2,
            "depth_single_blocks": 2,
        },
        full={"depth": 19, "depth_single_blocks": 38},
    ),
}
