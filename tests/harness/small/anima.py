"""Anima, small; its text comes with T5's tokens of the same caption, for an adapter whose sizes ComfyUI has fixed."""

from __future__ import annotations

from typing import Any

import comfy.ops
import torch
from comfy.ldm.anima.model import LLMAdapter

from .encoder import Encoder, llama
from .small import Small

_TEXT = 32


class _SmallAnima(Small):
    def shrunk(self, dtype: torch.dtype) -> Any:
        """Also the adapter, whose 136 million weights would take longer than the rest of a test."""
        patcher = super().shrunk(dtype)
        network = patcher.model.diffusion_model
        operations = getattr(comfy.ops, type(network.llm_adapter.out_proj).__qualname__.split(".")[0])
        made = dict(device="cpu", dtype=dtype, operations=operations)
        network.llm_adapter = LLMAdapter(_TEXT, _TEXT, _TEXT, num_layers=2, num_heads=2, **made)
        return patcher


def _t5(tokens: int, generator: torch.Generator) -> dict[str, Any]:
    count = tokens // 2 + 1
    ids = torch.randint(1, 32000, (count,), generator=generator, dtype=torch.int)
    return {"t5xxl_ids": ids, "t5xxl_weights": torch.ones(count)}


SMALL = {
    "anima": _SmallAnima(
        family="anima",
        encoder=Encoder("anima", "AnimaTokenizer", {"qwen3_06b": llama(_TEXT, 2)}),
        text=_TEXT,
        extras=_t5,
        vae="clip 16",
        keys={
            "blocks.0.mlp.layer1.weight": (8192, 2048),
            "llm_adapter.blocks.0.cross_attn.q_proj.weight": (1024, 1024),
            "x_embedder.proj.1.weight": (2048, 68),
        },
        config={
            "model_channels": 64,
            "num_heads": 2,
            "num_blocks": 3,
            "adaln_lora_dim": 8,
            "crossattn_emb_channels": _TEXT,
        },
    ),
}
