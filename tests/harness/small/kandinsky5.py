"""Kandinsky 5 for video and for pictures, small."""

from .encoder import Encoder, clip, llama
from .small import Small


def _small(*, width: int, inner: int, channels: int, head: int, blocks: int, vae: str, ending: str = "") -> Small:
    """One of so many channels in a patch."""
    return Small(
        family="kandinsky5",
        text=3584,
        pooled=768,
        vae=vae,
        encoder=Encoder("kandinsky5", f"Kandinsky5Tokenizer{ending}", {"qwen25_7b": llama(32, 2), "clip_l": clip(768)}),
        page={"in_text_dim": 32},
        keys={
            "visual_transformer_blocks.0.cross_attention.key_norm.weight": (head,),
            "visual_embeddings.in_layer.bias": (width,),
            "visual_embeddings.in_layer.weight": (width, channels),
            "time_embeddings.in_layer.bias": (512,),
            "visual_transformer_blocks.0.feed_forward.in_layer.weight": (inner, width),
        },
        config={"model_dim": head, "time_dim": 32, "ff_dim": 128, "num_text_blocks": 1, "num_visual_blocks": 3},
        full={"num_text_blocks": 2, "num_visual_blocks": blocks},
    )


SMALL = {
    "kandinsky5": _small(width=1792, inner=7168, channels=132, head=64, blocks=32, vae="clip 16"),
    "kandinsky5_image": _small(
        width=2560,
        inner=10240,
        channels=64,
        head=128,
        blocks=50,
        vae="picture 16",
        ending="Image",
    ),
}
