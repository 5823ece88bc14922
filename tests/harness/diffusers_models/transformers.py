"""Stable Diffusion 3, AuraFlow and Qwen-Image: text and picture in streams of their own."""

from __future__ import annotations

import comfy.utils
import diffusers
from torch import Tensor, nn

from .renaming import by_table
from .theirs import Batch, Config, Theirs, by_flow, packed, unpacked


def _sd3(config: Config) -> nn.Module:
    return diffusers.SD3Transformer2DModel(
        num_layers=config["depth"],
        num_attention_heads=config["depth"],
        caption_projection_dim=64 * config["depth"],
        joint_attention_dim=config["context_embedder_config"]["params"]["in_features"],
        pos_embed_max_size=config["pos_embed_max_size"],
        qk_norm="rms_norm",
    )


def _auraflow(config: Config) -> nn.Module:
    return diffusers.AuraFlowTransformer2DModel(
        num_mmdit_layers=config["n_double_layers"],
        num_single_dit_layers=config["n_layers"] - config["n_double_layers"],
        attention_head_dim=config["dim"] // config["n_heads"],
        num_attention_heads=config["n_heads"],
        joint_attention_dim=config["cond_seq_dim"],
        caption_projection_dim=config["dim"],
        pos_embed_max_size=config["max_seq"],
    )


def _qwen_image(config: Config) -> nn.Module:
    return diffusers.QwenImageTransformer2DModel(
        num_layers=config["num_layers"], num_attention_heads=config["num_attention_heads"]
    )


@by_flow
def _as_sd3(batch: Batch, noisy: Tensor) -> Tensor:
    return batch.theirs(
        noisy, timestep=batch.u * 1000, encoder_hidden_states=batch.cond, pooled_projections=batch.pooled
    ).sample


@by_flow
def _as_auraflow(batch: Batch, noisy: Tensor) -> Tensor:
    return batch.theirs(noisy, encoder_hidden_states=batch.cond, timestep=batch.u.to(noisy.dtype)).sample


@by_flow
def _as_qwen_image(batch: Batch, noisy: Tensor) -> Tensor:
    rows, columns = (side // 2 for side in noisy.shape[2:])
    out = batch.theirs(
        packed(noisy),
        encoder_hidden_states=batch.cond,
        timestep=batch.u.to(noisy.dtype),
        img_shapes=[[(1, rows, columns)]] * 2,
    ).sample
    return unpacked(out, noisy)


THEIRS = {
    "sd3": Theirs(_sd3, by_table(comfy.utils.mmdit_to_diffusers), _as_sd3, pipeline="StableDiffusion3Pipeline"),
    "auraflow": Theirs(
        _auraflow, by_table(comfy.utils.auraflow_to_diffusers), _as_auraflow, pipeline="AuraFlowPipeline"
    ),
    "qwen_image": Theirs(_qwen_image, lambda state, config: state, _as_qwen_image, pipeline="QwenImagePipeline"),
}
