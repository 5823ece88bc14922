"""ERNIE-Image, small."""

from .small import Small

SMALL = {
    "ernie_image": Small(
        family="ernie_image",
        text=48,
        vae="picture 128",
        keys={"layers.0.mlp.linear_fc2.weight": (4096, 12288)},
        config={
            "hidden_size": 64,
            "num_attention_heads": 2,
            "num_layers": 3,
            "ffn_hidden_size": 96,
            "text_in_dim": 48,
            "rope_axes_dim": (8, 12, 12),
        },
    ),
}
