"""HiDream-I1, Krea 2, ERNIE-Image, Ideogram 4 and PixArt."""

from __future__ import annotations

import comfy.utils
import diffusers
import torch
from diffusers.loaders.single_file_utils import convert_krea2_transformer_checkpoint_to_diffusers
from diffusers.models.transformers.transformer_ideogram4 import (
    IMAGE_POSITION_OFFSET,
    LLM_TOKEN_INDICATOR,
    OUTPUT_IMAGE_INDICATOR,
)
from torch import Tensor, nn

from .renaming import by_rules, by_table
from .theirs import GEOMETRY, Batch, Config, Outcome, State, Theirs, by_flow, packed, places, unpacked


def _hidream(config: Config) -> nn.Module:
    given = "attention_head_dim axes_dims_rope caption_channels in_channels llama_layers num_attention_heads "
    given += "num_routed_experts num_activated_experts num_layers num_single_layers patch_size text_emb_dim"
    return diffusers.HiDreamImageTransformer2DModel(
        **{name: config[name] for name in given.split()},
        # As many places as there are, for otherwise it fills them up.
        max_resolution=(8, 12),
    )


def _krea2(config: Config) -> nn.Module:
    head = config["features"] // config["heads"]
    return diffusers.Krea2Transformer2DModel(
        num_layers=config["layers"],
        attention_head_dim=head,
        num_attention_heads=config["heads"],
        num_key_value_heads=config["kvheads"],
        intermediate_size=4 * config["features"],
        text_hidden_dim=config["txtdim"],
        num_text_layers=config["txtlayers"],
        text_num_attention_heads=config["txtheads"],
        text_num_key_value_heads=config["txtkvheads"],
        text_intermediate_size=4 * config["txtdim"],
        axes_dims_rope=(head - 2 * 12, 12, 12),
    )


def _ernie(config: Config) -> nn.Module:
    given = "hidden_size num_attention_heads num_layers ffn_hidden_size text_in_dim rope_axes_dim"
    return diffusers.ErnieImageTransformer2DModel(**{name: config[name] for name in given.split()})


def _ideogram4(config: Config) -> nn.Module:
    given = "in_channels num_layers num_attention_heads attention_head_dim intermediate_size adaln_dim "
    given += "llm_features_dim rope_theta mrope_section norm_eps"
    return diffusers.Ideogram4Transformer2DModel(**{name: config[name] for name in given.split()})


def _pixart(config: Config) -> nn.Module:
    width, heads = config["hidden_size"], config["num_heads"]
    return diffusers.PixArtTransformer2DModel(
        num_attention_heads=heads,
        attention_head_dim=width // heads,
        num_layers=config["depth"],
        cross_attention_dim=width,
        caption_channels=config["caption_channels"],
        # Of pictures of 512 pixels a side, to which the small ones belong.
        sample_size=64,
        use_additional_conditions=config["micro_condition"],
    )


@by_flow
def _as_hidream(batch: Batch, noisy: Tensor) -> Tensor:
    """Its pipeline turns the sign."""
    return -batch.theirs(
        noisy,
        timesteps=batch.u * 1000,
        encoder_hidden_states_t5=batch.cond,
        encoder_hidden_states_llama3=batch.joined("conditioning_llama3").movedim(1, 0),
        pooled_embeds=batch.pooled,
    ).sample


@by_flow
def _as_krea2(batch: Batch, noisy: Tensor) -> Tensor:
    """A token of the text is several layers of its encoder."""
    rows, columns = (side // 2 for side in noisy.shape[2:])
    tokens = batch.cond.shape[1]
    out = batch.theirs(
        packed(noisy),
        encoder_hidden_states=batch.cond.view(2, tokens, 12, -1),
        timestep=batch.u,
        position_ids=torch.nn.functional.pad(places(rows, columns), (1, 0, tokens, 0)),
    ).sample
    return unpacked(out, noisy)


@by_flow
def _as_ernie(batch: Batch, noisy: Tensor) -> Tensor:
    lengths = torch.full((2,), batch.cond.shape[1])
    return batch.theirs(noisy, timestep=batch.u * 1000, text_bth=batch.cond, text_lens=lengths).sample


@by_flow
def _as_ideogram4(batch: Batch, noisy: Tensor) -> Tensor:
    """One sequence, text first; its time runs the other way, and its pipeline turns the sign.

    The four cells that a token joins are the outer part of its features, and the inner part of ComfyUI's channels.
    """
    tokens = batch.cond.shape[1]
    grid = places(*noisy.shape[2:])
    cells = grid.shape[0]
    text = torch.arange(tokens)[:, None].expand(-1, 3)
    image = torch.nn.functional.pad(grid, (1, 0)).long() + IMAGE_POSITION_OFFSET
    role = torch.tensor([LLM_TOKEN_INDICATOR] * tokens + [OUTPUT_IMAGE_INDICATOR] * cells)
    out = batch.theirs(
        torch.nn.functional.pad(packed(_cells_first(noisy), 1), (0, 0, tokens, 0)),
        timestep=1 - batch.u,
        encoder_hidden_states=torch.nn.functional.pad(batch.cond, (0, 0, 0, cells)),
        position_ids=torch.cat([text, image]).expand(2, -1, -1),
        segment_ids=torch.ones(2, tokens + cells, dtype=torch.int64),
        indicator=role.expand(2, -1),
    ).sample
    return -unpacked(out[:, tokens:], noisy, 1).unflatten(1, (4, -1)).transpose(1, 2).flatten(1, 2)


def _cells_first(latents: Tensor) -> Tensor:
    return latents.unflatten(1, (-1, 4)).transpose(1, 2).flatten(1, 2)


def _as_pixart(batch: Batch) -> Outcome:
    """The first half of what it answers is the noise; Alpha is told the picture's first size."""
    scheduler = diffusers.DDPMScheduler(beta_start=0.0001, beta_end=0.02, beta_schedule="linear")
    steps = (batch.u * 1000).long()
    noisy = scheduler.add_noise(batch.latent, batch.noise, steps)
    width, height = GEOMETRY.source
    sizes = {
        "resolution": torch.tensor([[height, width]] * 2).float(),
        "aspect_ratio": torch.tensor([[height / width]] * 2),
    }
    out = batch.theirs(noisy, encoder_hidden_states=batch.cond, timestep=steps, added_cond_kwargs=sizes).sample
    return Outcome(noisy, out.chunk(2, dim=1)[0], batch.noise)


_IDEOGRAM4 = by_rules((r"attention\.qkv", "attention.{to_q,to_k,to_v}"), (r"attention\.o\b", "attention.to_out.0"))
_PIXART = Theirs(_pixart, by_table(comfy.utils.pixart_to_diffusers), _as_pixart, sides=(32, 36))


def _same(state: State, config: Config) -> State:
    return state


THEIRS = {
    "hidream": Theirs(_hidream, _same, _as_hidream, pipeline="HiDreamImagePipeline"),
    "krea2": Theirs(
        _krea2,
        lambda state, config: convert_krea2_transformer_checkpoint_to_diffusers(state),
        _as_krea2,
        pipeline="Krea2Pipeline",
    ),
    "ernie_image": Theirs(_ernie, _same, _as_ernie, pipeline="ErnieImagePipeline"),
    "ideogram4": Theirs(
        _ideogram4, lambda state, config: _IDEOGRAM4(state), _as_ideogram4, pipeline="Ideogram4Pipeline"
    ),
    "pixart": _PIXART,
    "pixart_alpha": _PIXART,
}
