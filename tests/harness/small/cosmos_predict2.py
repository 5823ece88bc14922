"""Cosmos-Predict2, small."""

from .encoder import Encoder, t5
from .small import Small

SMALL = {
    "cosmos_predict2": Small(
        family="cosmos_predict2",
        encoder=Encoder("cosmos", "CosmosT5Tokenizer", {"t5xxl": t5(32)}),
        page={"crossattn_emb_channels": 32},
        text=1024,
        vae="clip 16",
        keys={"blocks.0.mlp.layer1.weight": (8192, 2048), "x_embedder.proj.1.weight": (2048, 68)},
        config={"model_channels": 128, "num_blocks": 3, "num_heads": 1, "adaln_lora_dim": 16},
    ),
}
