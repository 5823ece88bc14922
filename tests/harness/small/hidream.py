"""HiDream-I1, small; its text comes with several layers of a second encoder, of another length."""

from __future__ import annotations

import torch

from .encoder import Encoder, clip, llama, t5
from .small import Small

_TEXT = 56


def _llama(tokens: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
    return {"conditioning_llama3": torch.randn(1, 3, tokens // 2 + 1, _TEXT, generator=generator)}


SMALL = {
    "hidream": Small(
        family="hidream",
        text=_TEXT,
        pooled=40,
        jumps=True,
        encoder=Encoder(
            "hidream",
            "HiDreamTokenizer",
            {"clip_l": clip(20), "clip_g": clip(20), "t5xxl": t5(_TEXT), "llama": llama(_TEXT, 3)},
            model="hidream_clip",
        ),
        extras=_llama,
        keys={"caption_projection.0.linear.weight": (2560, 4096)},
        config={
            "attention_head_dim": 32,
            "axes_dims_rope": [8, 12, 12],
            "num_attention_heads": 2,
            "num_layers": 3,
            "num_single_layers": 2,
            "caption_channels": [_TEXT, _TEXT],
            "text_emb_dim": 40,
            "llama_layers": [0, 1, 2, 2, 2],
        },
    ),
}
