"""Cosmos-Predict2, small: from text, and continuing a picture."""

import dataclasses

from .encoder import Encoder, t5
from .small import Small

_INNER, _GIVEN = "blocks.0.mlp.layer1.weight", "x_embedder.proj.1.weight"
_TEXT = Small(
    family="cosmos_predict2",
    encoder=Encoder("cosmos", "CosmosT5Tokenizer", {"t5xxl": t5(32)}),
    page={"crossattn_emb_channels": 32},
    text=1024,
    vae="clip 16",
    keys={_INNER: (8192, 2048), _GIVEN: (2048, 68)},
    config={"model_channels": 128, "num_blocks": 3, "num_heads": 1, "adaln_lora_dim": 16},
)
SMALL = {
    "cosmos_predict2": _TEXT,
    "cosmos_predict2_i2v": dataclasses.replace(_TEXT, keys={_INNER: (8192, 2048), _GIVEN: (2048, 72)}),
}
