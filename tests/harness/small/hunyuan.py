"""HunyuanVideo, HunyuanVideo 1.5 and HunyuanImage 2.1, small."""

import dataclasses

import torch

from .encoder import Encoder, clip, llama
from .small import Small

_REFINER = "txt_in.individual_token_refiner.blocks.0.norm1.weight"


def _small(
    family: str, *, width: int, text: int, given: tuple[int, ...], out: int, double: int, single: int, vae: str
) -> Small:
    """One that is given so many channels in patches of such sides, and gives as many for a token."""
    few = 3 if single else 0
    return Small(
        family=family,
        text=text,
        vae=vae,
        page={"context_in_dim": 32},
        keys={
            _REFINER: (width,),
            "img_in.proj.weight": (width, *given),
            "final_layer.linear.weight": (out, width),
            "txt_in.input_embedder.weight": (width, text),
        },
        config={"hidden_size": 128, "num_heads": 1, "depth": 2 if single else 3, "depth_single_blocks": few},
        full={"depth": double, "depth_single_blocks": single},
    )


def _quoted(tokens: int, generator: torch.Generator) -> dict[str, torch.Tensor | None]:
    """What a caption has whose quotation marks hold a text to be drawn; its encoder pools nothing, and says so."""
    return {"pooled_output": None, "conditioning_byt5small": torch.randn(1, 5, 1472, generator=generator)}


def _with(small: Small, keys: dict[str, tuple[int, ...]], **more: object) -> Small:
    return dataclasses.replace(small, keys={**small.keys, **keys}, **more)


_VIDEO = _small(
    "hunyuan_video", width=3072, text=4096, given=(16, 1, 2, 2), out=64, double=20, single=40, vae="clip 16"
)
_VIDEO15 = _small(
    "hunyuan_video15", width=2048, text=3584, given=(65, 1, 1, 1), out=32, double=54, single=0, vae="clip 32"
)
_IMAGE = _small(
    "hunyuan_image", width=3584, text=3584, given=(64, 1, 1), out=64, double=20, single=40, vae="picture 64"
)
_QWEN = {"qwen25_7b": llama(32, 4)}
# Without the encoder of texts to be drawn, which cannot be small.
_PLAIN = {"byt5": False}
_GUIDANCE = {"guidance_in.in_layer.weight": (1,)}
_QUOTED = {"byt5_in.fc1.weight": (2048, 1472)}
SMALL = {
    "hunyuan_video": _with(
        _VIDEO,
        _GUIDANCE | {"vector_in.in_layer.weight": (3072, 768)},
        pooled=768,
        encoder=Encoder(
            "hunyuan_video",
            "HunyuanVideoTokenizer",
            {"clip_l": clip(768), "llama": llama(32, 4)},
            model="hunyuan_video_clip",
        ),
    ),
    "hunyuan_video15": _with(
        _VIDEO15,
        _QUOTED | {"cond_type_embedding.weight": (3, 2048), "vision_in.proj.0.weight": (1152,)},
        extras=_quoted,
        encoder=Encoder("hunyuan_video", "HunyuanVideo15Tokenizer", _QWEN, model="hunyuan_image.te", arguments=_PLAIN),
    ),
    "hunyuan_image": _with(
        _IMAGE, _QUOTED, encoder=Encoder("hunyuan_image", "HunyuanImageTokenizer", _QWEN, arguments=_PLAIN)
    ),
}
