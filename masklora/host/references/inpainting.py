"""The picture to fill in, and the mask of what is to be filled, as ComfyUI's InpaintModelConditioning gives them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...errors import ConfigError
from ...findings import Finding, note
from .conditions import is_inpainting

if TYPE_CHECKING:
    from ...cache.plan import Entry
    from ..model.trainable import TrainableModel


def with_cut_outs(
    trainable: TrainableModel, conditioning: list[dict[str, Any]], cut_outs: Tensor, masks: Tensor
) -> list[dict[str, Any]]:
    """The conditions of pictures, from `TrainableModel.collate`, with what each is to be filled in from.

    Args:
        trainable: A model for inpainting.
        conditioning: One entry a sample.
        cut_outs: Latents (B, C, h, w) in the VAE's space, of the pictures whose masked part is grey.
        masks: (B, 1, H, W) in 0..1 in pixels, 1 where the picture is to be filled in.
    """
    noise = torch.zeros_like(cut_outs[:1])

    def beside(number: int) -> Tensor:
        one = slice(number, number + 1)
        made = trainable.model.concat_cond(
            noise=noise, concat_latent_image=cut_outs[one], concat_mask=masks[one], device=cut_outs.device
        )
        return made.to(trainable.device, trainable.dtype, copy=True)

    return [{**conds, "c_concat": beside(number)} for number, conds in enumerate(conditioning)]


def check_cut_outs(trainable: TrainableModel, entries: Sequence[Entry]) -> None:
    """Nothing if a cache holds what a model for inpainting is shown of each picture, or the model is none.

    Raises:
        ConfigError: It does not, or a clip is among the entries.
    """
    if not is_inpainting(trainable):
        return
    title = trainable.family.title
    for entry in entries:
        if entry.latent_frames:
            raise ConfigError(
                f"clip_frames: {entry.name} is a clip, and this {title} model fills in pictures. Set clip_frames in "
                "Cache Dataset to 1."
            )
        if not all(variant.start for variant in entry.variants):
            raise ConfigError(
                f"cache: this {title} model fills in what a mask covers, and the cache was made without the pictures "
                "that it is shown. Connect the MODEL to Cache Dataset."
            )


def inpainting_notes(trainable: TrainableModel, entries: Sequence[Entry]) -> list[Finding]:
    """What a person should know of a training of a model for inpainting."""
    if not is_inpainting(trainable):
        return []
    whole = any(not entry.has_mask for entry in entries)
    told = " Of a picture without a mask it is shown nothing." if whole else ""
    return [
        note(
            f"model: this {trainable.family.title} model is shown each picture without what its mask covers, and the "
            f"mask, as ComfyUI's InpaintModelConditioning shows them.{told}"
        )
    ]
