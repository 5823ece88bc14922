"""MiniMax H3, small: with an embedding of time, and with a table in its place."""

import dataclasses

import torch

from .encoder import Encoder, llama
from .small import Small

_SHAPES = {
    "video_patch_proj.weight": (5376, 96),
    "audio_patch_proj.weight": (5376, 32),
    "condition_proj.weight": (5376, 5120),
    "final_layer.video_out.weight": (96, 5376),
    "final_layer.audio_out.weight": (32, 5376),
    "blocks.0.attn.q_norm.weight": (128,),
    "blocks.0.attn.qkv_proj.weight": (3 * 7168, 5376),
    "blocks.0.mlp.fc1.weight": (2 * 14336, 5376),
    "rope.inv_freq": (16,),
}
_EMBEDDED = {"time_embedder.proj_in.weight": (5376, 256), "time_embedder.proj_out.weight": (2688, 5376)}
_SMALL = Small(
    family="minimax_h3",
    encoder=Encoder("minimax", "MiniMaxH3Tokenizer", {"qwen3vl_32b": llama(32, 2)}),
    page={"text_dim": 32},
    text=48,
    extras=lambda tokens, generator: {"minimax_token_tags": torch.ones(tokens, dtype=torch.int64)},
    vae="clip 24",
    slow=True,
    keys=_SHAPES | _EMBEDDED,
    config={
        "hidden_size": 64,
        "num_layers": 3,
        "token_refiner_num_layers": 1,
        "num_attention_heads": 2,
        "attention_head_dim": 32,
        "ffn_hidden_size": 96,
        "rope_inv_freq_len": 4,
        "text_dim": 48,
        "time_embed_hidden_size": 32,
        "time_embed_dim": 16,
    },
    full={"num_layers": 50, "token_refiner_num_layers": 2},
)
SMALL = {
    "minimax_h3": _SMALL,
    "minimax_h3_pruned": dataclasses.replace(
        _SMALL, keys=_SHAPES | {"adaln_t_table": (1024, 64)}, config=_SMALL.config | {"adaln_curve_grid": 32}
    ),
}
