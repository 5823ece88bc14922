"""Krea 2, small; a token of its text is twelve layers of its encoder."""

from .encoder import Encoder, llama
from .small import Small

SMALL = {
    "krea2": Small(
        family="krea2",
        encoder=Encoder("krea2", "Krea2Tokenizer", {"qwen3vl_4b": llama(32, 36)}),
        text=12 * 32,
        vae="clip 16",
        gain=0.0,
        keys={
            "txtfusion.projector.weight": (1, 12),
            "txtfusion.layerwise_blocks.0.prenorm.scale": (2560,),
            "first.weight": (6144, 64),
            "blocks.0.attn.wq.weight": (6144, 6144),
            "blocks.0.attn.wk.weight": (1536, 6144),
        },
        config={
            "features": 64,
            "heads": 2,
            "kvheads": 1,
            "layers": 3,
            "txtdim": 32,
            "txtheads": 1,
            "txtkvheads": 1,
        },
        full={"layers": 28},
    ),
}
