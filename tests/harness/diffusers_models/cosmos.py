"""Cosmos-Predict2, and Anima's network, which is the same and reads an adapted text."""

from __future__ import annotations

from typing import Any

import diffusers
import torch
from diffusers.loaders.single_file_utils import convert_cosmos_transformer_checkpoint_to_diffusers
from diffusers.models.condition_embedders.condition_embedder_anima import AnimaTextConditioner
from torch import Tensor, nn

from .theirs import Batch, Config, State, Theirs, by_flow


def _network(config: Config) -> nn.Module:
    return diffusers.CosmosTransformer3DModel(
        num_attention_heads=config["num_heads"],
        attention_head_dim=config["model_channels"] // config["num_heads"],
        num_layers=config["num_blocks"],
        text_embed_dim=config["crossattn_emb_channels"],
        adaln_lora_dim=config["adaln_lora_dim"],
        rope_scale=tuple(config[f"rope_{axis}_extrapolation_ratio"] for axis in "thw"),
        extra_pos_embed_type=None,
    )


def _state(state: State, config: Config) -> State:
    return convert_cosmos_transformer_checkpoint_to_diffusers(state)


def _answer(network: Any, batch: Batch, noisy: Tensor, text: Tensor) -> Tensor:
    return network(
        noisy[:, :, None], timestep=batch.u, encoder_hidden_states=text, padding_mask=torch.zeros(1, 1, 64, 96)
    ).sample[:, :, 0]


@by_flow
def _as_cosmos(batch: Batch, noisy: Tensor) -> Tensor:
    return _answer(batch.theirs, batch, noisy, batch.cond)


_ADAPTER = "llm_adapter."


class _Anima(nn.Module):
    """The parts of its pipeline: the network, and what makes its text of two encoders' views of the caption."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width = config["crossattn_emb_channels"]
        self.transformer = _network(config)
        # ComfyUI's adapter has one size, and our small model a small one: no configuration tells.
        sizes = {} if width == 1024 else {"num_layers": 2, "num_attention_heads": 2}
        self.text_conditioner = AnimaTextConditioner(width, width, width, **sizes)


def _anima_state(state: State, config: Config) -> State:
    adapter = {name: value for name, value in state.items() if name.startswith(_ADAPTER)}
    made = _state({name: value for name, value in state.items() if name not in adapter}, config)
    text = {f"text_conditioner.{name.removeprefix(_ADAPTER)}": value for name, value in adapter.items()}
    return {f"transformer.{name}": value for name, value in made.items()} | text


@by_flow
def _as_anima(batch: Batch, noisy: Tensor) -> Tensor:
    ids = torch.stack([text["t5xxl_ids"] for text in batch.texts])
    text = batch.theirs.text_conditioner(batch.cond, ids)
    return _answer(batch.theirs.transformer, batch, noisy, text)


THEIRS = {
    "cosmos_predict2": Theirs(_network, _state, _as_cosmos),
    "anima": Theirs(_Anima, _anima_state, _as_anima, pipeline="AnimaModularPipeline", wide={"num_blocks": 1}),
}
