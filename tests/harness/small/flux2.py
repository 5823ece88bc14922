"""FLUX.2 klein and dev, small; their text is the joined features of three layers of its encoder."""

from .encoder import Encoder, llama
from .small import Small


def _small(text: int, width: int, double: int, single: int, **more: bool) -> Small:
    return Small(
        family="flux2",
        text=text,
        encoder=Encoder("flux", "KleinTokenizer", {"qwen3_4b": llama(32, 28)}, model="klein_te"),
        page={"context_in_dim": 3 * 32},
        text_multiple=512,
        vae="picture 128",
        keys={
            "double_stream_modulation_img.lin.weight": (6 * width, width),
            "double_blocks.0.img_attn.norm.key_norm.scale": (128,),
            "img_in.weight": (width, 128),
            "txt_in.weight": (width, text),
        },
        config={"hidden_size": 128, "num_heads": 1, "depth": 2, "depth_single_blocks": 3, **more},
        full={"depth": double, "depth_single_blocks": single, **more},
    )


SMALL = {
    "flux2": _small(7680, 3072, 5, 20),
    "flux2_dev": _small(15360, 6144, 8, 48, guidance_embed=True),
}
