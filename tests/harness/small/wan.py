"""Wan 2.1 and 2.2, small."""

from .encoder import Encoder, t5
from .small import Small

SMALL = {
    "wan": Small(
        family="wan",
        encoder=Encoder("wan", "WanT5Tokenizer", {"umt5xxl": t5(32, vocab_size=300)}, words=True),
        page={"text_dim": 32},
        text=4096,
        vae="clip 16",
        keys={
            "head.modulation": (1, 2, 5120),
            "head.head.weight": (64, 5120),
            "blocks.0.ffn.0.weight": (13824, 5120),
            "patch_embedding.weight": (5120, 16, 1, 2, 2),
        },
        config={"dim": 128, "ffn_dim": 256, "num_heads": 1, "num_layers": 3},
        full={"num_layers": 40},
    ),
}
