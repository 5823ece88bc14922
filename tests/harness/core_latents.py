"""Latents of pictures as ComfyUI's samplers hold them: clips of one frame, beside the sound where it is taken."""

from __future__ import annotations

from typing import Any

import comfy.nested_tensor
import comfy.sample
import comfy.utils
import torch
from torch import Tensor

from masklora.host.model.trainable import TrainableModel

Shapes = list[torch.Size]


def answer_of(pictures: Tensor, trainable: TrainableModel) -> Any:
    """What the network gives back that answers with these pictures (B, C, h, w)."""
    clips = pictures[:, :, None] if trainable.has_frames and pictures.ndim == 4 else pictures
    sound = trainable.family.sound
    return [clips, torch.zeros(len(clips), *sound)] if sound else clips


def to_core(pictures: Tensor, trainable: TrainableModel) -> tuple[Tensor, Shapes]:
    """What samplers make of pictures (B, C, h, w), and the shapes of its parts."""
    parts = answer_of(pictures, trainable)
    return (parts, [parts.shape]) if isinstance(parts, Tensor) else comfy.utils.pack_latents(parts)


def from_core(latents: Tensor, shapes: Shapes) -> Tensor:
    """The pictures in what samplers hold, (B, C, h, w)."""
    pictures = comfy.utils.unpack_latents(latents, shapes)[0]
    return pictures[:, :, 0] if pictures.ndim == 5 else pictures


def empty_latent(model: Any, *, width: int, height: int) -> Any:
    """What ComfyUI's sampler is given to draw one picture of this size with a MODEL."""
    trainable = TrainableModel(model)
    empty = torch.zeros(1, trainable.channels, height // trainable.stride, width // trainable.stride)
    if trainable.family.sound:
        return comfy.nested_tensor.NestedTensor(answer_of(empty, trainable))
    return comfy.sample.fix_empty_latent_channels(model, empty)


def for_vae(drawn: Any, model: Any) -> Tensor:
    """What is decoded of a drawn latent."""
    pictures = drawn.unbind()[0] if drawn.is_nested else drawn
    frames = TrainableModel(model).family.decoded
    return torch.cat([pictures] * frames, dim=2) if frames > 1 else pictures
