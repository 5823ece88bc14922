"""Z-Image, small."""

from .encoder import Encoder, llama
from .small import Small

SMALL = {
    "z_image": Small(
        family="z_image",
        encoder=Encoder("z_image", "ZImageTokenizer", {"qwen3_4b": llama(32, 3)}),
        page={"cap_feat_dim": 32},
        text=2560,
        text_multiple=32,
        keys={
            "cap_embedder.1.weight": (3840, 2560),
            "noise_refiner.0.attention.k_norm.weight": (128,),
            "cap_pad_token": (1, 3840),
        },
        config={"dim": 256, "n_heads": 2, "n_kv_heads": 2, "n_layers": 3, "n_refiner_layers": 1},
        full={"n_layers": 30},
    ),
}
