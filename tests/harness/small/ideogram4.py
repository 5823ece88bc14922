"""Ideogram 4, small."""

from .encoder import Encoder, llama
from .small import Small

SMALL = {
    "ideogram4": Small(
        family="ideogram4",
        encoder=Encoder("ideogram4", "Ideogram4Tokenizer", {"qwen3vl_8b": llama(32, 37)}),
        page={"llm_features_dim": 13 * 32},
        text=48,
        vae="picture 128",
        keys={"embed_image_indicator.weight": (2, 4608), "input_proj.weight": (4608, 128)},
        config={
            "num_layers": 3,
            "num_attention_heads": 2,
            "attention_head_dim": 32,
            "intermediate_size": 96,
            "adaln_dim": 16,
            "llm_features_dim": 48,
            "mrope_section": [6, 5, 5],
        },
        full={"num_layers": 34},
    ),
}
