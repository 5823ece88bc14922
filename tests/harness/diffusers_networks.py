"""diffusers' own networks at the sizes of our small models, with the weights of ComfyUI's.

Names are those of ComfyUI's own tables where it has one, else of diffusers' conversion of published files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import comfy.utils
import diffusers
import torch
from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers
from diffusers.models.embeddings import get_timestep_embedding
from diffusers.models.transformers.transformer_z_image import (
    ADALN_EMBED_DIM,
    FeedForward,
    TimestepEmbedder,
    ZImageTransformerBlock,
)
from torch import Tensor, nn

State = dict[str, Tensor]
# Chroma's last modulation is made at the last of 344 places, however few blocks there are.
_CHROMA_PLACES = 344


def _unet(config: dict[str, Any], **more: Any) -> nn.Module:
    levels = len(config["channel_mult"])
    return diffusers.UNet2DConditionModel(
        block_out_channels=(config["model_channels"],) * levels,
        layers_per_block=config["num_res_blocks"][0],
        cross_attention_dim=config["context_dim"],
        **more,
    )


def _sd15(config: dict[str, Any]) -> nn.Module:
    return _unet(
        config,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        # Its count of heads, by the name that diffusers keeps for old files.
        attention_head_dim=config["num_heads"],
    )


def _sdxl(config: dict[str, Any]) -> nn.Module:
    return _unet(
        config,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=config["model_channels"] // config["num_head_channels"],
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=config["adm_in_channels"],
    )


def _sd3(config: dict[str, Any]) -> nn.Module:
    return diffusers.SD3Transformer2DModel(
        num_layers=config["depth"],
        num_attention_heads=config["depth"],
        caption_projection_dim=64 * config["depth"],
        joint_attention_dim=config["context_embedder_config"]["params"]["in_features"],
        pos_embed_max_size=config["pos_embed_max_size"],
        qk_norm="rms_norm",
    )


def _flux(config: dict[str, Any]) -> nn.Module:
    return diffusers.FluxTransformer2DModel(
        num_layers=config["depth"],
        num_single_layers=config["depth_single_blocks"],
        num_attention_heads=config["num_heads"],
        joint_attention_dim=config["context_in_dim"],
        pooled_projection_dim=config["vec_in_dim"],
        guidance_embeds=config["guidance_embed"],
    )


def _chroma(config: dict[str, Any]) -> nn.Module:
    network = diffusers.ChromaTransformer2DModel(
        num_layers=config["depth"],
        num_single_layers=config["depth_single_blocks"],
        num_attention_heads=config["num_heads"],
        joint_attention_dim=config["context_in_dim"],
        approximator_num_channels=config["in_dim"],
        approximator_hidden_dim=config["hidden_dim"],
        approximator_layers=config["n_layers"],
    )
    places = torch.arange(_CHROMA_PLACES - 2, _CHROMA_PLACES) * 1000
    table = network.time_text_embed.mod_proj
    table[-2:] = get_timestep_embedding(places, table.shape[1], flip_sin_to_cos=True, downscale_freq_shift=0)
    return network


def _qwen_image(config: dict[str, Any]) -> nn.Module:
    return diffusers.QwenImageTransformer2DModel(
        num_layers=config["num_layers"], num_attention_heads=config["num_attention_heads"]
    )


def _z_image(config: dict[str, Any]) -> nn.Module:
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


def _wan(config: dict[str, Any]) -> nn.Module:
    return diffusers.WanTransformer3DModel(
        num_attention_heads=config["num_heads"],
        attention_head_dim=config["dim"] // config["num_heads"],
        ffn_dim=config["ffn_dim"],
        num_layers=config["num_layers"],
    )


def _by_table(names: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[State, dict[str, Any]], State]:
    return lambda state, config: dict(_renamed(state, names(config)))


def _renamed(state: State, names: dict[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """By a table of ComfyUI's: diffusers' name to ComfyUI's, to a part of its rows, or to what it is made from."""
    for name, source in names.items():
        path, part, change = (*source, None, None)[:3] if isinstance(source, tuple) else (source, None, None)
        if path in state:
            value = state[path] if part is None else state[path].narrow(*part)
            yield name, value if change is None else change(value)


_CHROMA_NAMES = {"in_layer": "linear_1", "out_layer": "linear_2"}


def _chroma_state(state: State, config: dict[str, Any]) -> State:
    """FLUX.1's names; those of the network that makes the modulation are its own but for the two layers of a step."""
    made = dict(_renamed(state, comfy.utils.flux_to_diffusers(config)))
    for name in [name for name in state if name.startswith("distilled_guidance_layer.")]:
        made[".".join(_CHROMA_NAMES.get(part, part) for part in name.split("."))] = state[name]
    return made


_CLASSES = {
    "sd15": _sd15,
    "sdxl": _sdxl,
    "sd3": _sd3,
    "flux": _flux,
    "chroma": _chroma,
    "qwen_image": _qwen_image,
    "z_image": _z_image,
    "wan": _wan,
}
_STATES: dict[str, Callable[[State, dict[str, Any]], State]] = {
    "sd15": _by_table(comfy.utils.unet_to_diffusers),
    "sdxl": _by_table(comfy.utils.unet_to_diffusers),
    "sd3": _by_table(comfy.utils.mmdit_to_diffusers),
    "flux": _by_table(comfy.utils.flux_to_diffusers),
    "chroma": _chroma_state,
    "qwen_image": lambda state, config: dict(state),
    "z_image": _by_table(comfy.utils.z_image_to_diffusers),
    "wan": lambda state, config: convert_wan_transformer_to_diffusers(dict(state)),
}
# Those that can be compared.
FAMILIES = list(_CLASSES)


def diffusers_network(family: str, model: Any, dtype: torch.dtype) -> nn.Module:
    """diffusers' network of `family` with the weights of ComfyUI's BaseModel `model`, computing in `dtype`."""
    config, state = model.model_config.unet_config, model.diffusion_model.state_dict()
    network = _CLASSES[family](config)
    made = _STATES[family](state, config)
    needed = network.state_dict().keys()
    network.load_state_dict({name: made[name].clone() for name in needed if name in made})
    # Its own `to` leaves parts in float32 by name.
    return nn.Module.to(network, dtype).eval().requires_grad_(False)
