"""Qwen-Image, small."""

from .encoder import Encoder, llama
from .small import Small

SMALL = {
    "qwen_image": Small(
        family="qwen_image",
        encoder=Encoder(
            "qwen_image",
            "QwenImageTokenizer",
            {"qwen25_7b": llama(32, 2)},
            eyes={"hidden_size": 64, "intermediate_size": 64, "num_heads": 2, "num_layers": 2},
        ),
        page={"joint_attention_dim": 32},
        text=3584,
        vae="clip 16",
        keys={"txt_norm.weight": (3584,), "img_in.weight": (3072, 64)},
        config={"num_layers": 3, "num_attention_heads": 1},
        full={"num_layers": 60},
    ),
}
