"""JoyImage, small."""

from .encoder import Encoder, llama
from .small import Small

SMALL = {
    "joyimage": Small(
        family="joyimage",
        encoder=Encoder("joyimage", "JoyImageTokenizer", {"qwen3vl_8b": llama(32, 2)}),
        text=32,
        vae="clip 16",
        keys={
            "double_blocks.0.attn.img_attn_qkv.weight": (9216, 3072),
            "double_blocks.0.attn.img_attn_q_norm.weight": (128,),
            "condition_embedder.time_embedder.linear_1.weight": (3072, 256),
            "img_in.weight": (3072, 16, 1, 2, 2),
        },
        config={"num_layers": 3, "hidden_size": 128, "num_attention_heads": 1, "text_dim": 32},
        full={"num_layers": 20},
    ),
}
