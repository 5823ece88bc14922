"""LTX-Video, small."""

import torch

from .encoder import Encoder, t5
from .small import Small

SMALL = {
    "ltxv": Small(
        family="ltxv",
        encoder=Encoder("lt", "LTXVT5Tokenizer", {"t5xxl": t5(32)}, model="ltxv_te"),
        page={"caption_channels": 32},
        text=4096,
        extras=lambda tokens, generator: {"attention_mask": torch.ones(1, tokens, dtype=torch.int64)},
        vae="clip 128",
        keys={
            "adaln_single.emb.timestep_embedder.linear_1.bias": (2048,),
            "transformer_blocks.0.attn2.to_k.weight": (2048, 2048),
        },
        config={"cross_attention_dim": 128, "num_attention_heads": 2, "num_layers": 3},
        full={"num_layers": 28},
    ),
}
