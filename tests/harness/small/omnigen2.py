"""OmniGen 2, small; its text comes with a mask, by which the network knows how long the text is."""

from __future__ import annotations

import torch

from .encoder import Encoder, llama
from .small import Small


def unpadded(tokens: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """The mask of a text without padding."""
    return {"attention_mask": torch.ones(1, tokens, dtype=torch.long)}


SMALL = {
    "omnigen2": Small(
        family="omnigen2",
        encoder=Encoder("omnigen2", "Omnigen2Tokenizer", {"qwen25_3b": llama(40, 2)}),
        text=40,
        extras=unpadded,
        keys={"time_caption_embed.timestep_embedder.linear_1.bias": (1024,)},
        config={
            "hidden_size": 64,
            "num_attention_heads": 2,
            "num_kv_heads": 1,
            "num_layers": 3,
            "num_refiner_layers": 1,
            "axes_dim_rope": [8, 12, 12],
            "multiple_of": 32,
            "text_feat_dim": 40,
        },
    ),
}
