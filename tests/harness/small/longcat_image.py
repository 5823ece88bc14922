"""LongCat-Image, small; ComfyUI knows it by the width of its text."""

from .encoder import Encoder, llama
from .small import Small

SMALL = {
    "longcat_image": Small(
        family="longcat_image",
        encoder=Encoder("longcat_image", "LongCatImageTokenizer", {"qwen25_7b": llama(32, 2)}),
        page={"context_in_dim": 32},
        text=3584,
        keys={
            "double_blocks.0.img_attn.norm.key_norm.scale": (128,),
            "img_in.weight": (3072, 64),
            "txt_in.weight": (3072, 3584),
        },
        config={"hidden_size": 128, "num_heads": 1, "depth": 2, "depth_single_blocks": 2},
        full={"depth": 10, "depth_single_blocks": 20},
    ),
}
