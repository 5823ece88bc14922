"""HunyuanVideo, HunyuanVideo 1.5 and HunyuanImage 2.1."""

from __future__ import annotations

from typing import Any

import diffusers
import torch
from torch import Tensor, nn

from .renaming import by_rules, parts_of
from .theirs import GUIDANCE, Batch, Config, State, Theirs, by_flow

_RULES = by_rules(
    (r"^img_in", "x_embedder"),
    (r"^txt_in\.input_embedder", "context_embedder.proj_in"),
    (r"^txt_in\.individual_token_refiner\.blocks", "context_embedder.token_refiner.refiner_blocks"),
    (r"^txt_in\.t_embedder\.in_layer", "context_embedder.time_text_embed.timestep_embedder.linear_1"),
    (r"^txt_in\.t_embedder\.out_layer", "context_embedder.time_text_embed.timestep_embedder.linear_2"),
    (r"^txt_in\.c_embedder\.in_layer", "context_embedder.time_text_embed.text_embedder.linear_1"),
    (r"^txt_in\.c_embedder\.out_layer", "context_embedder.time_text_embed.text_embedder.linear_2"),
    (r"self_attn\.qkv", "attn.{to_q,to_k,to_v}"),
    (r"self_attn\.proj", "attn.to_out.0"),
    (r"(refiner_blocks.*)adaLN_modulation\.1", r"\1norm_out.linear"),
    (r"(refiner_blocks.*)mlp", r"\1ff"),
    (r"^time_in\.in_layer", "time.timestep_embedder.linear_1"),
    (r"^time_in\.out_layer", "time.timestep_embedder.linear_2"),
    (r"^guidance_in\.in_layer", "time.guidance_embedder.linear_1"),
    (r"^guidance_in\.out_layer", "time.guidance_embedder.linear_2"),
    (r"^vector_in\.in_layer", "time.text_embedder.linear_1"),
    (r"^vector_in\.out_layer", "time.text_embedder.linear_2"),
    (r"^double_blocks", "transformer_blocks"),
    (r"^single_blocks", "single_transformer_blocks"),
    (r"img_mod\.lin", "norm1.linear"),
    (r"txt_mod\.lin", "norm1_context.linear"),
    (r"modulation\.lin\.", "norm.linear."),
    (r"img_attn\.qkv", "attn.{to_q,to_k,to_v}"),
    (r"txt_attn\.qkv", "attn.{add_q_proj,add_k_proj,add_v_proj}"),
    (r"img_attn\.proj", "attn.to_out.0"),
    (r"txt_attn\.proj", "attn.to_add_out"),
    (r"(?:img_attn\.)?(?<!txt_attn\.)norm\.query_norm", "attn.norm_q"),
    (r"(?:img_attn\.)?(?<!txt_attn\.)norm\.key_norm", "attn.norm_k"),
    (r"txt_attn\.norm\.query_norm", "attn.norm_added_q"),
    (r"txt_attn\.norm\.key_norm", "attn.norm_added_k"),
    (r"img_mlp", "ff"),
    (r"txt_mlp", "ff_context"),
    (r"(ff(?:_context)?)\.0", r"\1.net.0.proj"),
    (r"(ff(?:_context)?)\.2", r"\1.net.2"),
    (r"linear2", "proj_out"),
    (r"^final_layer\.linear", "proj_out"),
    (r"^final_layer\.adaLN_modulation\.1", "norm_out.linear"),
    (r"^byt5_in\.layernorm", "context_embedder_2.norm"),
    (r"^byt5_in\.fc", "context_embedder_2.linear_"),
    (r"^vision_in\.proj\.0", "image_embedder.norm_in"),
    (r"^vision_in\.proj\.1", "image_embedder.linear_1"),
    (r"^vision_in\.proj\.3", "image_embedder.linear_2"),
    (r"^vision_in\.proj\.4", "image_embedder.norm_out"),
    (r"^cond_type_embedding", "cond_type_embed"),
)


def _state(state: State, config: Config) -> State:
    """Single blocks have what comes before and beside attention in one layer."""
    width = config["hidden_size"]
    made: State = {}
    for name, value in _RULES(state).items():
        name = name.replace("linear1", "{attn.to_q,attn.to_k,attn.to_v,proj_mlp}")
        rows = [width] * 3 + [value.shape[0] - 3 * width] if "proj_mlp" in name else ()
        made |= parts_of(name, value, rows)
    embedder = {"hunyuan_video": "time_text_embed", "hunyuan_image": "time_guidance_embed"}
    kind = "" if config["meanflow_sum"] else embedder["hunyuan_video" if config["vec_in_dim"] else "hunyuan_image"]
    return {name.replace("time.", f"{kind or 'time_embed'}.", name.startswith("time.")): v for name, v in made.items()}


def _common(config: Config) -> dict[str, Any]:
    return {
        "num_layers": config["depth"],
        "num_attention_heads": config["num_heads"],
        "text_embed_dim": config["context_in_dim"],
    }


def _video(config: Config) -> nn.Module:
    return diffusers.HunyuanVideoTransformer3DModel(
        **_common(config), num_single_layers=config["depth_single_blocks"], pooled_projection_dim=config["vec_in_dim"]
    )


def _video15(config: Config) -> nn.Module:
    return diffusers.HunyuanVideo15Transformer3DModel(**_common(config), image_embed_dim=config["vision_in_dim"])


def _image(config: Config) -> nn.Module:
    return diffusers.HunyuanImageTransformer2DModel(
        **_common(config), num_single_layers=config["depth_single_blocks"], text_embed_2_dim=1472
    )


def _all_seen(text: Tensor) -> Tensor:
    return torch.ones(text.shape[:2], dtype=torch.int64)


def _texts(batch: Batch) -> dict[str, Tensor]:
    return {"encoder_hidden_states": batch.cond, "encoder_attention_mask": _all_seen(batch.cond)}


def _both_texts(batch: Batch, quoted: Tensor, seen: Tensor) -> dict[str, Tensor]:
    return _texts(batch) | {"encoder_hidden_states_2": quoted, "encoder_attention_mask_2": seen}


@by_flow
def _as_video(batch: Batch, noisy: Tensor) -> Tensor:
    return batch.theirs(
        noisy[:, :, None],
        timestep=batch.u * 1000,
        **_texts(batch),
        pooled_projections=batch.pooled,
        guidance=torch.full((2,), GUIDANCE * 1000),
    ).sample[:, :, 0]


@by_flow
def _as_video15(batch: Batch, noisy: Tensor) -> Tensor:
    """Without a picture to begin with: zeros beside the noise, and as its features."""
    quoted = batch.joined("conditioning_byt5small")
    shown = torch.nn.functional.pad(noisy[:, :, None], (0, 0, 0, 0, 0, 0, 0, 33))
    return batch.theirs(
        shown,
        timestep=batch.u * 1000,
        **_both_texts(batch, quoted, _all_seen(quoted)),
        image_embeds=torch.zeros(2, 3, 1152),
    ).sample[:, :, 0]


@by_flow
def _as_image(batch: Batch, noisy: Tensor) -> Tensor:
    """With nothing to be drawn as text: zeros that nothing sees."""
    quoted = torch.zeros(2, 3, 1472)
    texts = _both_texts(batch, quoted, torch.zeros(2, 3, dtype=torch.int64))
    return batch.theirs(noisy, timestep=batch.u * 1000, **texts).sample


THEIRS = {
    "hunyuan_video": Theirs(
        _video, _state, _as_video, pipeline="HunyuanVideoPipeline", wide={"depth": 1, "depth_single_blocks": 1}
    ),
    "hunyuan_video15": Theirs(_video15, _state, _as_video15),
    "hunyuan_image": Theirs(_image, _state, _as_image),
}
