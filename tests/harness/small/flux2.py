"""FLUX.2 klein and dev, small; their text is the joined features of three layers of its encoder."""

from .small import Small


def _small(text: int, **more: bool) -> Small:
    keys = {
        "double_stream_modulation_img.lin.weight": (18432, 3072),
        "double_blocks.0.img_attn.norm.key_norm.scale": (128,),
        "img_in.weight": (3072, 128),
        "txt_in.weight": (3072, text),
    }
    config = {"hidden_size": 128, "num_heads": 1, "depth": 2, "depth_single_blocks": 3}
    return Small(family="flux2", text=text, text_multiple=512, vae="picture 128", keys=keys, config={**config, **more})


SMALL = {"flux2": _small(7680), "flux2_dev": _small(15360, guidance_embed=True)}
