"""Small models of ComfyUI's classes for which this pack has no family: it trains them on request, or refuses them."""

from __future__ import annotations

import torch

from .small.encoder import Encoder, t5
from .small.small import Shapes, Small
from .small.unet import small_unet

_RADIANCE_PATCH, _PIXEL_PATCH = 8, 8
_PATCH_NUMBERS = 3 * _PIXEL_PATCH**2


def _mask(tokens: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
    return {"attention_mask": torch.ones(1, tokens, dtype=torch.long)}


def _two_texts(tokens: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
    second = torch.randn(1, 256, 32, generator=generator)
    return {
        **_mask(tokens, generator),
        "conditioning_mt5xl": second,
        "attention_mask_mt5xl": torch.ones(1, 256, dtype=torch.long),
    }


# Of ComfyUI's full-size networks that are SDXL's in other depths, and of its refiner; widths are not looked at.
_XL = {"model_channels": 320, "context_dim": 2048, "adm_in_channels": 2816}
_UNETS = {
    "ssd1b": {
        **_XL,
        "num_res_blocks": [2] * 3,
        "transformer_depth": [0, 0, 2, 2, 4, 4],
        "transformer_depth_middle": -1,
        "transformer_depth_output": [0, 0, 0, 1, 1, 2, 4, 4, 10],
    },
    "vega": {
        **_XL,
        "num_res_blocks": [2] * 3,
        "transformer_depth": [0, 0, 1, 1, 2, 2],
        "transformer_depth_middle": -1,
        "transformer_depth_output": [0, 0, 0, 1, 1, 1, 2, 2, 2],
    },
    "koala": {
        **_XL,
        "num_res_blocks": [1] * 3,
        "transformer_depth": [0, 2, 5],
        "transformer_depth_middle": -2,
        "transformer_depth_output": [0, 0, 2, 2, 5, 5],
    },
    "sdxl_refiner": {
        "model_channels": 384,
        "context_dim": 1280,
        "adm_in_channels": 2560,
        "num_res_blocks": [2] * 4,
        "transformer_depth": [0, 0, 4, 4, 4, 4, 0, 0],
        "transformer_depth_middle": 4,
        "transformer_depth_output": [0, 0, 0, 4, 4, 4, 4, 4, 4, 0, 0, 0],
    },
}


def _unet(name: str) -> Small:
    settings = _UNETS[name]

    def keys() -> Shapes:
        with torch.device("meta"):
            network = small_unet(
                channel_mult=[1] * len(settings["num_res_blocks"]),
                num_head_channels=64,
                num_classes="sequential",
                use_linear_in_transformer=True,
                **settings,
            )
        return {key: tuple(value.shape) for key, value in network.state_dict().items()}

    narrow = {"model_channels": 64, "context_dim": 32}
    return Small(family="unknown", text=32, pooled=1280, vae="picture 4", keys=keys, config=narrow)


UNKNOWN = {
    "lens": Small(
        family="unknown",
        text=64,
        extras=_mask,
        vae="picture 128",
        keys={
            "transformer_blocks.0.attn.norm_added_q.weight": (64,),
            "transformer_blocks.0.img_mlp.w1.weight": (4096, 1536),
            "img_in.weight": (1536, 128),
            "proj_out.weight": (128, 1536),
            **{f"txt_norm.{i}.weight": (2880,) for i in range(4)},
        },
        config={"num_attention_heads": 2, "enc_hidden_dim": 16, "num_layers": 3},
    ),
    "cogvideox": Small(
        family="unknown",
        encoder=Encoder("cogvideo", "CogVideoXTokenizer", {"t5xxl": t5(32)}, model="cogvideo_te"),
        text=32,
        vae="clip 16 in twos",
        keys={
            "blocks.0.norm1.linear.weight": (6 * 1920, 512),
            "patch_embed.proj.weight": (1920, 16, 2, 2),
            "patch_embed.text_proj.weight": (1920, 4096),
        },
        config={"num_attention_heads": 2, "num_layers": 2, "text_embed_dim": 32, "time_embed_dim": 32},
    ),
    "mochi": Small(
        family="unknown",
        encoder=Encoder("genmo", "MochiT5Tokenizer", {"t5xxl": t5(32)}, model="mochi_te"),
        text=32,
        extras=_mask,
        vae="clip 12",
        keys={"t5_yproj.weight": (1536, 4096)},
        config={
            "depth": 2,
            "num_heads": 1,
            "hidden_size_x": 128,
            "hidden_size_y": 64,
            # ComfyUI asks for the hidden features of the real model.
            "mlp_ratio_x": 96.0,
            "t5_feat_dim": 32,
        },
    ),
    "hunyuan_dit": Small(
        family="unknown",
        text=32,
        extras=_two_texts,
        vae="picture 4",
        keys={
            "mlp_t5.0.weight": (8192, 2048),
            "x_embedder.proj.weight": (1408, 4, 2, 2),
            "extra_embedder.0.weight": (5632, 1024),
        },
        config={"hidden_size": 64, "num_heads": 2, "depth": 4, "text_states_dim": 32, "text_states_dim_t5": 32},
    ),
    "pixeldit": Small(
        family="unknown",
        text=32,
        extras=_mask,
        vae="pixels",
        keys={"core.pixel_embedder.proj.weight": (16, 3)},
        config={
            "num_groups": 2,
            "hidden_size": 64,
            "pixel_hidden_size": 4,
            "pixel_attn_hidden_size": 32,
            "pixel_num_groups": 2,
            "patch_depth": 2,
            "pixel_depth": 2,
            "txt_embed_dim": 32,
        },
    ),
    "chroma_radiance": Small(
        family="unknown",
        text=32,
        vae="pixels",
        keys={
            "distilled_guidance_layer.norms.0.scale": (5120,),
            "double_blocks.0.img_attn.norm.key_norm.scale": (128,),
            "nerf_blocks.0.norm.scale": (64,),
            "img_in_patch.weight": (3072, 3, _RADIANCE_PATCH, _RADIANCE_PATCH),
            "txt_in.weight": (3072, 4096),
        },
        config={
            "context_in_dim": 32,
            "hidden_size": 128,
            "num_heads": 1,
            "out_dim": 128,
            "hidden_dim": 64,
            "n_layers": 2,
            "depth": 2,
            "depth_single_blocks": 2,
            "nerf_hidden_size": 16,
            "nerf_depth": 2,
        },
    ),
    "z_image_pixel": Small(
        family="unknown",
        text=32,
        vae="pixels",
        keys={
            "cap_embedder.1.weight": (3840, 2560),
            "noise_refiner.0.attention.k_norm.weight": (128,),
            "cap_pad_token": (1, 3840),
            "x_embedder.weight": (3840, _PATCH_NUMBERS),
            "dec_net.cond_embed.weight": (3840, 3840),
            "dec_net.final_layer.linear.weight": (_PATCH_NUMBERS, 3840),
            "dec_net.input_embedder.embedder.0.weight": (3840, _PATCH_NUMBERS + 64),
        },
        config={
            "dim": 256,
            "cap_feat_dim": 32,
            "n_heads": 2,
            "n_kv_heads": 2,
            "n_layers": 2,
            "n_refiner_layers": 1,
            "decoder_hidden_size": 32,
            "decoder_num_res_blocks": 2,
        },
    ),
    **{name: _unet(name) for name in _UNETS},
    "hidream_o1": Small(
        family="unknown",
        text=32,
        vae="pixels",
        keys={"t_embedder1.mlp.0.weight": (4096, 256), "x_embedder.proj1.weight": (1024, 3072)},
        config={
            "text_config_overrides": {"hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 64},
            "vision_config_overrides": {"hidden_size": 32, "depth": 1, "num_heads": 2, "intermediate_size": 32},
        },
    ),
}
# With unknown_model too; what the error says.
REFUSED = {
    "hidream_o1": "HiDreamO1 cannot be trained: its noise is 8 times as strong.*Use another model",
}
