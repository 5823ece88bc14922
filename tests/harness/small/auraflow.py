"""AuraFlow, small."""

from .encoder import Encoder, t5
from .small import Small

SMALL = {
    "auraflow": Small(
        family="auraflow",
        encoder=Encoder("aura_t5", "AuraT5Tokenizer", {"pile_t5xl": t5(56)}, model="AuraT5Model"),
        text=56,
        text_front=8,
        vae="picture 4",
        keys={
            "double_layers.0.attn.w1q.weight": (3072, 3072),
            "positional_encoding": (1, 4096, 3072),
            "cond_seq_linear.weight": (3072, 2048),
        },
        config={
            "dim": 64,
            "n_heads": 2,
            "n_layers": 4,
            "n_double_layers": 2,
            "global_conddim": 64,
            "cond_seq_dim": 56,
            "max_seq": 64,
        },
        full={"n_layers": 36, "n_double_layers": 4},
    ),
}
