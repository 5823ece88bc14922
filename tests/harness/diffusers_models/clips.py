"""Wan, LTX-Video, LTX-2 and MiniMax H3, at one frame and without sound."""

from __future__ import annotations

import diffusers
import torch
from diffusers.loaders.single_file_utils import (
    convert_ltx2_transformer_to_diffusers,
    convert_ltx_transformer_checkpoint_to_diffusers,
    convert_wan_transformer_to_diffusers,
)
from torch import Tensor, nn

from .renaming import by_rules
from .theirs import GEOMETRY, Batch, Config, State, Theirs, by_flow, packed, unpacked


def _wan(config: Config) -> nn.Module:
    shown = {"image_dim": 1280, "added_kv_proj_dim": config["dim"]} if config["model_type"] == "i2v" else {}
    return diffusers.WanTransformer3DModel(
        **shown,
        in_channels=config["in_dim"],
        out_channels=config["out_dim"],
        num_attention_heads=config["num_heads"],
        attention_head_dim=config["dim"] // config["num_heads"],
        ffn_dim=config["ffn_dim"],
        num_layers=config["num_layers"],
    )


def _ltxv(config: Config) -> nn.Module:
    return diffusers.LTXVideoTransformer3DModel(
        num_attention_heads=config["num_attention_heads"],
        attention_head_dim=config["attention_head_dim"],
        cross_attention_dim=config["cross_attention_dim"],
        num_layers=config["num_layers"],
    )


def _ltx2(config: Config) -> nn.Module:
    given = "num_attention_heads attention_head_dim cross_attention_dim caption_channels num_layers "
    given += "audio_num_attention_heads audio_attention_head_dim audio_cross_attention_dim"
    return diffusers.LTX2VideoTransformer3DModel(
        **{name: config[name] for name in given.split()}, use_prompt_adaln_single=False
    )


def _minimax(config: Config) -> nn.Module:
    given = "num_attention_heads attention_head_dim hidden_size num_layers text_dim"
    return diffusers.MiniMaxH3Transformer3DModel(
        **{name: config[name] for name in given.split()},
        num_refiner_layers=config["token_refiner_num_layers"],
        ffn_dim=config["ffn_hidden_size"],
        time_embed_hidden_dim=config.get("time_embed_hidden_size", 64),
        time_embed_dim=config["time_embed_dim"],
        rope_freq_dim=config["rope_inv_freq_len"],
    )


# Its network wants what passes through to be given before what gates it.
_MINIMAX = by_rules(
    (r"attn\.qkv_proj", "attn.{to_q,to_k,to_v}"),
    (r"attn\.out_proj", "attn.to_out.0"),
    (r"mlp\.fc1", "ff.net.0.proj"),
    (r"mlp\.fc2", "ff.net.2"),
    (r"^blocks", "transformer_blocks"),
    swapped=r".*ff\.net\.0\.proj\.weight",
)


def _wan_state(state: State, config: Config) -> State:
    return convert_wan_transformer_to_diffusers(state)


def _ltx2_state(state: State, config: Config) -> State:
    return convert_ltx2_transformer_to_diffusers(state)


@by_flow
def _as_wan(batch: Batch, noisy: Tensor) -> Tensor:
    return batch.theirs(noisy[:, :, None], timestep=batch.u * 1000, encoder_hidden_states=batch.cond).sample[:, :, 0]


@by_flow
def _as_wan_from_a_picture(batch: Batch, noisy: Tensor) -> Tensor:
    """Of a picture that it is not shown."""
    given = torch.cat([noisy[:, :, None], batch.beside], dim=1)
    return batch.theirs(given, timestep=batch.u * 1000, encoder_hidden_states=batch.cond).sample[:, :, 0]


@by_flow
def _as_ltxv(batch: Batch, noisy: Tensor) -> Tensor:
    """Eight frames and 32 pixels a latent cell, at 25 frames a second."""
    rows, columns = noisy.shape[2:]
    out = batch.theirs(
        packed(noisy, 1),
        encoder_hidden_states=batch.cond,
        timestep=batch.u * 1000,
        encoder_attention_mask=torch.ones(batch.cond.shape[:2]),
        num_frames=1,
        height=rows,
        width=columns,
        rope_interpolation_scale=(8 / 25, 32, 32),
    ).sample
    return unpacked(out, noisy, 1)


@by_flow
def _as_ltx2(batch: Batch, noisy: Tensor) -> Tensor:
    """Given the texts of ComfyUI's connectors, of picture and of sound, and no sound."""
    conds = batch.trainable.collate(batch.texts, [GEOMETRY] * 2, noisy.shape[1:])
    text, sound = torch.cat([cond["c_crossattn"] for cond in conds]).chunk(2, dim=-1)
    rows, columns = noisy.shape[2:]
    out = batch.theirs(
        packed(noisy, 1),
        torch.zeros(2, 0, 128),
        encoder_hidden_states=text,
        audio_encoder_hidden_states=sound,
        timestep=batch.u * 1000,
        num_frames=1,
        height=rows,
        width=columns,
        fps=25.0,
        audio_num_frames=0,
        isolate_modalities=True,
    ).sample
    return unpacked(out, noisy, 1)


# Its parts lie in an order of its own, which is not ours.
_LOADED_ONLY = Theirs(_minimax, lambda state, config: _MINIMAX(state), None, pipeline="MiniMaxH3ModularPipeline")
THEIRS = {
    "ltxav": Theirs(_ltx2, _ltx2_state, _as_ltx2, pipeline="LTX2Pipeline"),
    "minimax_h3": _LOADED_ONLY,
    "minimax_h3_pruned": _LOADED_ONLY,
    "wan": Theirs(_wan, _wan_state, _as_wan, pipeline="WanPipeline"),
    "wan22_5b": Theirs(_wan, _wan_state, _as_wan, pipeline="WanPipeline"),
    "wan22_i2v": Theirs(_wan, _wan_state, _as_wan_from_a_picture, pipeline="WanImageToVideoPipeline"),
    # It wants features of the picture, without which ComfyUI's looks at the text a second time.
    "wan21_i2v": Theirs(_wan, _wan_state, None, pipeline="WanImageToVideoPipeline"),
    "ltxv": Theirs(
        _ltxv,
        lambda state, config: convert_ltx_transformer_checkpoint_to_diffusers(state),
        _as_ltxv,
        pipeline="LTXPipeline",
    ),
}
