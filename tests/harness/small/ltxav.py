"""LTX-2, small."""

from .small import Small

_CONNECTORS = {"connector_attention_head_dim": 32, "connector_num_attention_heads": 2, "connector_num_layers": 1}
SMALL = {
    "ltxav": Small(
        family="ltxav",
        text=64,
        vae="clip 128",
        keys={
            "adaln_single.emb.timestep_embedder.linear_1.bias": (4096,),
            "audio_adaln_single.linear.weight": (12288, 2048),
            "transformer_blocks.0.attn2.to_k.weight": (4096, 4096),
        },
        config={
            "caption_channels": 64,
            "cross_attention_dim": 128,
            "attention_head_dim": 64,
            "num_attention_heads": 2,
            "audio_cross_attention_dim": 64,
            "audio_attention_head_dim": 32,
            "audio_num_attention_heads": 2,
            "num_layers": 3,
            **_CONNECTORS,
        },
        full={"num_layers": 48, "caption_channels": 3840},
    ),
}
