"""Lumina Image 2, small."""

from .encoder import Encoder, llama
from .small import Small

SMALL = {
    "lumina2": Small(
        family="lumina2",
        encoder=Encoder("lumina2", "LuminaTokenizer", {"gemma2_2b": llama(48, 3, vocab_size=300)}, words=True),
        text=48,
        keys={"cap_embedder.1.weight": (2304, 2304), "noise_refiner.0.attention.k_norm.weight": (96,)},
        config={
            "dim": 64,
            "cap_feat_dim": 48,
            "n_heads": 2,
            "n_kv_heads": 1,
            "n_layers": 3,
            "n_refiner_layers": 1,
            "axes_dims": [8, 12, 12],
            "multiple_of": 32,
        },
        full={"n_layers": 26},
    ),
}
