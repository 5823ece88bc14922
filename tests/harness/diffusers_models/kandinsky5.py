"""Kandinsky 5 for video, at one frame, and for pictures."""

from __future__ import annotations

from unittest import mock

import diffusers
import torch
from torch import Tensor, nn

from .theirs import Batch, Config, Theirs, by_flow


def _video(config: Config) -> nn.Module:
    channels = 16
    return diffusers.Kandinsky5Transformer3DModel(
        in_visual_dim=channels,
        out_visual_dim=channels,
        time_dim=config["time_dim"],
        model_dim=config["model_dim"],
        ff_dim=config["ff_dim"],
        num_text_blocks=config["num_text_blocks"],
        num_visual_blocks=config["num_visual_blocks"],
        axes_dims=config["axes_dims"],
        visual_cond=config["visual_embed_dim"] > 4 * channels,
    )


def _predict(batch: Batch, noisy: Tensor, scale: tuple[float, float, float]) -> Tensor:
    """Channels last; zeros beside the noise where it could be shown a picture to begin with.

    It rounds turned queries and keys to 16 bits whatever it computes in (4e-4 of the answer), but not here.
    """
    rows, columns = (side // 2 for side in noisy.shape[2:])
    beside = 17 if batch.theirs.visual_cond else 0
    with mock.patch.object(torch, "bfloat16", torch.float32):
        out = batch.theirs(
            torch.nn.functional.pad(noisy[:, :, None].movedim(1, -1), (0, beside)),
            encoder_hidden_states=batch.cond,
            pooled_projections=batch.pooled,
            timestep=batch.u * 1000,
            visual_rope_pos=[torch.arange(1), torch.arange(rows), torch.arange(columns)],
            text_rope_pos=torch.arange(batch.cond.shape[1]),
            scale_factor=scale,
        ).sample
    return out.movedim(-1, 1)[:, :, 0]


@by_flow
def _as_video(batch: Batch, noisy: Tensor) -> Tensor:
    """The scale of its usual size."""
    return _predict(batch, noisy, (1.0, 2.0, 2.0))


@by_flow
def _as_picture(batch: Batch, noisy: Tensor) -> Tensor:
    return _predict(batch, noisy, (1.0, 1.0, 1.0))


THEIRS = {
    "kandinsky5": Theirs(_video, lambda state, config: state, _as_video, pipeline="Kandinsky5T2VPipeline"),
    "kandinsky5_image": Theirs(_video, lambda state, config: state, _as_picture, pipeline="Kandinsky5T2IPipeline"),
}
