"""PixArt Sigma, and Alpha, which is told the size of its pictures; small."""

import dataclasses

from .encoder import Encoder, t5
from .small import Small

_WIDTH = 1152
_SIGMA = Small(
    family="pixart",
    encoder=Encoder("pixart_t5", "PixArtTokenizer", {"t5xxl": t5(56)}, model="pixart_te"),
    text=56,
    vae="picture 4",
    slow=True,
    keys={"t_block.1.weight": (6 * _WIDTH, _WIDTH), "y_embedder.y_embedding": (300, 4096)},
    config={"hidden_size": 48, "num_heads": 2, "depth": 3, "caption_channels": 56},
    full={"depth": 28},
)
SMALL = {
    "pixart": _SIGMA,
    "pixart_alpha": dataclasses.replace(_SIGMA, keys={**_SIGMA.keys, "ar_embedder.mlp.0.weight": (_WIDTH // 3, 256)}),
}
