"""FLUX.1 and 2, and what came of the first: Chroma and LongCat-Image."""

from __future__ import annotations

from typing import Any

import comfy.utils
import diffusers
import torch
from diffusers.loaders.single_file_utils import convert_flux2_transformer_checkpoint_to_diffusers
from diffusers.models.embeddings import get_timestep_embedding
from diffusers.pipelines.longcat_image.pipeline_longcat_image import prepare_pos_ids
from torch import Tensor, nn

from .renaming import by_table, renamed
from .theirs import FAMILY_GUIDANCE, GUIDANCE, Batch, Config, State, Theirs, by_flow, packed, places, unpacked

# Chroma's last modulation is made at the last of 344 places, however few blocks there are.
_CHROMA_PLACES = 344
_CHROMA_NAMES = {"in_layer": "linear_1", "out_layer": "linear_2"}


def _common(config: Config) -> dict[str, Any]:
    return {
        "num_layers": config["depth"],
        "num_single_layers": config["depth_single_blocks"],
        "num_attention_heads": config["num_heads"],
        "joint_attention_dim": config["context_in_dim"],
    }


def _flux(config: Config) -> nn.Module:
    return diffusers.FluxTransformer2DModel(
        **_common(config),
        in_channels=4 * config["in_channels"],
        out_channels=4 * config["out_channels"],
        pooled_projection_dim=config["vec_in_dim"],
        guidance_embeds=config["guidance_embed"],
    )


def _flux2(config: Config) -> nn.Module:
    return diffusers.Flux2Transformer2DModel(**_common(config), guidance_embeds=config["guidance_embed"])


def _longcat(config: Config) -> nn.Module:
    return diffusers.LongCatImageTransformer2DModel(**_common(config))


def _chroma(config: Config) -> nn.Module:
    network = diffusers.ChromaTransformer2DModel(
        **_common(config),
        approximator_num_channels=config["in_dim"],
        approximator_hidden_dim=config["hidden_dim"],
        approximator_layers=config["n_layers"],
    )
    last = torch.arange(_CHROMA_PLACES - 2, _CHROMA_PLACES) * 1000
    table = network.time_text_embed.mod_proj
    table[-2:] = get_timestep_embedding(last, table.shape[1], flip_sin_to_cos=True, downscale_freq_shift=0)
    return network


def _chroma_state(state: State, config: Config) -> State:
    """FLUX.1's names; those of the network that makes the modulation are its own but for the two layers of a step."""
    made = dict(renamed(state, comfy.utils.flux_to_diffusers(config)))
    for name in [name for name in state if name.startswith("distilled_guidance_layer.")]:
        made[".".join(_CHROMA_NAMES.get(part, part) for part in name.split("."))] = state[name]
    return made


def _longcat_state(state: State, config: Config) -> State:
    made = dict(renamed(state, comfy.utils.flux_to_diffusers(config)))
    return {name.replace("time_text_embed", "time_embed"): value for name, value in made.items()}


def _of_packed(batch: Batch, noisy: Tensor, **more: Any) -> Tensor:
    """Tokens of four cells."""
    return unpacked(batch.theirs(packed(noisy), **_given(batch, noisy) | more).sample, noisy)


def _given(batch: Batch, noisy: Tensor) -> dict[str, Tensor]:
    """Places as (0, row, column), the text at (0, 0, 0)."""
    grid = places(noisy.shape[2] // 2, noisy.shape[3] // 2)
    return {
        "img_ids": torch.nn.functional.pad(grid, (1, 0)),
        "txt_ids": torch.zeros(batch.cond.shape[1], 3),
        "encoder_hidden_states": batch.cond,
        "timestep": batch.u.to(noisy.dtype),
    }


def _told(batch: Batch) -> dict[str, Tensor]:
    return {"guidance": torch.full((2,), GUIDANCE), "pooled_projections": batch.pooled}


@by_flow
def _as_flux(batch: Batch, noisy: Tensor) -> Tensor:
    return _of_packed(batch, noisy, **_told(batch))


@by_flow
def _as_fill(batch: Batch, noisy: Tensor) -> Tensor:
    """Of a picture and a mask that it is not shown."""
    out = batch.theirs(packed(torch.cat([noisy, batch.beside], dim=1)), **_given(batch, noisy), **_told(batch)).sample
    return unpacked(out, noisy)


@by_flow
def _as_flux2(batch: Batch, noisy: Tensor) -> Tensor:
    """A token for a cell; the text, filled up in front to 512 tokens, has its places on an axis of its own."""
    text = torch.nn.functional.pad(batch.cond, (0, 0, 512 - batch.cond.shape[1], 0))
    out = batch.theirs(
        packed(noisy, 1),
        encoder_hidden_states=text,
        timestep=batch.u.to(noisy.dtype),
        img_ids=torch.nn.functional.pad(places(*noisy.shape[2:]), (1, 1)),
        txt_ids=torch.nn.functional.pad(torch.arange(512.0)[:, None], (3, 0)),
        guidance=torch.full((2,), GUIDANCE) if batch.theirs.config.guidance_embeds else None,
    ).sample
    return unpacked(out, noisy, 1)


@by_flow
def _as_longcat(batch: Batch, noisy: Tensor) -> Tensor:
    """The picture's places begin where those of the text end."""
    tokens = batch.cond.shape[1]
    rows, columns = (side // 2 for side in noisy.shape[2:])
    return _of_packed(
        batch,
        noisy,
        txt_ids=prepare_pos_ids(0, "text", num_token=tokens),
        img_ids=prepare_pos_ids(1, "image", start=(tokens, tokens), height=rows, width=columns),
    )


def _flux2_state(state: State, config: Config) -> State:
    return convert_flux2_transformer_checkpoint_to_diffusers(state)


_TABLE = by_table(comfy.utils.flux_to_diffusers)
THEIRS = {
    "flux": Theirs(_flux, _TABLE, _as_flux, pipeline="FluxPipeline", wide={"hidden": 3072, "double": 1, "single": 1}),
    "flux_fill": Theirs(
        _flux,
        _TABLE,
        _as_fill,
        pipeline="FluxFillPipeline",
        wide={"hidden": 3072, "double": 1, "single": 1, "given": 96},
    ),
    # Chroma is always told 0, which is its own guidance here and the only one there.
    "chroma": Theirs(_chroma, _chroma_state, by_flow(_of_packed), pipeline="ChromaPipeline", guidance=FAMILY_GUIDANCE),
    "flux2": Theirs(_flux2, _flux2_state, _as_flux2, pipeline="Flux2KleinPipeline"),
    "flux2_dev": Theirs(_flux2, _flux2_state, _as_flux2, pipeline="Flux2Pipeline"),
    "longcat_image": Theirs(_longcat, _longcat_state, _as_longcat),
}
