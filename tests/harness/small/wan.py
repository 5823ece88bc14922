"""Wan 2.1 and 2.2, small; those that begin with a picture are shown none."""

import dataclasses

from .encoder import Encoder, t5
from .small import Small


def _small(*, channels: int = 16, given: int = 16, width: int = 5120, inner: int = 13824, layers: int = 40) -> Small:
    """One with so many channels in its latents, and so many that its network is given."""
    return Small(
        family="wan",
        encoder=Encoder("wan", "WanT5Tokenizer", {"umt5xxl": t5(32, vocab_size=300)}, words=True),
        page={"text_dim": 32},
        text=4096,
        vae=f"clip {channels}",
        keys={
            "head.modulation": (1, 2, width),
            "head.head.weight": (4 * channels, width),
            "blocks.0.ffn.0.weight": (inner, width),
            "patch_embedding.weight": (width, given, 1, 2, 2),
        },
        config={"dim": 128, "ffn_dim": 256, "num_heads": 1, "num_layers": 3},
        full={"num_layers": layers},
    )


_PICTURE = _small(given=36)
SMALL = {
    "wan": _small(),
    "wan22_i2v": _PICTURE,
    "wan21_i2v": dataclasses.replace(_PICTURE, keys={**_PICTURE.keys, "img_emb.proj.0.bias": (1280,)}),
    "wan22_5b": _small(channels=48, given=48, width=3072, inner=14336, layers=30),
}
