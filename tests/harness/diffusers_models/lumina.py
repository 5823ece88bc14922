"""Z-Image and Lumina 2: one stream, text before the picture, times that run the other way."""

from __future__ import annotations

import comfy.utils
import diffusers
import torch
from diffusers.models.transformers.transformer_z_image import (
    ADALN_EMBED_DIM,
    FeedForward,
    TimestepEmbedder,
    ZImageTransformerBlock,
)
from torch import Tensor, nn

from .renaming import by_rules, by_table, parts_of
from .theirs import Batch, Config, State, Theirs, by_flow


def _z_image(config: Config) -> nn.Module:
    network = diffusers.ZImageTransformer2DModel(
        dim=config["dim"],
        n_layers=config["n_layers"],
        n_refiner_layers=config["n_refiner_layers"],
        n_heads=config["n_heads"],
        n_kv_heads=config["n_kv_heads"],
        cap_feat_dim=config["cap_feat_dim"],
    )
    # ComfyUI makes these two widths from the model's, diffusers knows those of the published size.
    width = min(config["dim"], ADALN_EMBED_DIM)
    network.t_embedder = TimestepEmbedder(width, mid_size=min(config["dim"], 1024))
    hidden = -(-int(config["dim"] * config["ffn_dim_multiplier"]) // 256) * 256
    for block in network.modules():
        if isinstance(block, ZImageTransformerBlock):
            block.feed_forward = FeedForward(config["dim"], hidden)
    return network


def _lumina2(config: Config) -> nn.Module:
    return diffusers.Lumina2Transformer2DModel(
        hidden_size=config["dim"],
        num_layers=config["n_layers"],
        num_refiner_layers=config["n_refiner_layers"],
        num_attention_heads=config["n_heads"],
        num_kv_heads=config["n_kv_heads"],
        multiple_of=config.get("multiple_of", 256),
        axes_dim_rope=config["axes_dims"],
        axes_lens=config["axes_lens"],
        cap_feat_dim=config["cap_feat_dim"],
    )


_LUMINA2_RULES = by_rules(
    (r"attention\.qkv", "attn.{to_q,to_k,to_v}"),
    (r"attention\.out", "attn.to_out.0"),
    (r"attention\.([qk])_norm", r"attn.norm_\1"),
    (r"feed_forward\.w(\d)", r"feed_forward.linear_\1"),
    (r"((?:noise_refiner|^layers)\.\d+)\.attention_norm1", r"\1.norm1.norm"),
    (r"attention_norm(\d)", r"norm\1"),
    (r"adaLN_modulation\.1", "norm1.linear"),
    (r"^final_layer\.norm1\.linear", "norm_out.linear_1"),
    (r"^final_layer\.linear", "norm_out.linear_2"),
    (r"^t_embedder\.mlp\.0", "time_caption_embed.timestep_embedder.linear_1"),
    (r"^t_embedder\.mlp\.2", "time_caption_embed.timestep_embedder.linear_2"),
    (r"^cap_embedder", "time_caption_embed.caption_embedder"),
)


def _lumina2_state(state: State, config: Config) -> State:
    """Queries have more heads than keys and values."""
    head = config["dim"] // config["n_heads"]
    rows = [head * config["n_heads"], head * config["n_kv_heads"], head * config["n_kv_heads"]]
    fused = {name: value for name, value in state.items() if ".qkv." in name}
    made = _LUMINA2_RULES({name: value for name, value in state.items() if name not in fused})
    for name, value in fused.items():
        made |= parts_of(name.replace("attention.qkv", "attn.{to_q,to_k,to_v}"), value, rows)
    return made


@by_flow
def _as_z_image(batch: Batch, noisy: Tensor) -> Tensor:
    """Its pipeline turns the sign."""
    out = batch.theirs(list(noisy[:, :, None]), 1 - batch.u, list(batch.cond)).sample
    return -torch.stack(out)[:, :, 0]


@by_flow
def _as_lumina2(batch: Batch, noisy: Tensor) -> Tensor:
    """And so does this one."""
    mask = torch.ones(batch.cond.shape[:2], dtype=torch.bool)
    return -batch.theirs(
        noisy, timestep=1 - batch.u, encoder_hidden_states=batch.cond, encoder_attention_mask=mask
    ).sample


THEIRS = {
    "z_image": Theirs(_z_image, by_table(comfy.utils.z_image_to_diffusers), _as_z_image, pipeline="ZImagePipeline"),
    "lumina2": Theirs(
        _lumina2, _lumina2_state, _as_lumina2, pipeline="Lumina2Pipeline", wide={"n_layers": 2, "n_refiner_layers": 1}
    ),
}
