"""A training adapter: a LoRA that a training stands on, and that nothing which comes out of it contains."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import comfy.lora
import comfy.lora_convert
import safetensors.torch
import torch
from safetensors import SafetensorError

from ...errors import AdapterError

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher


def with_assistant(patcher: ModelPatcher, path: Path) -> ModelPatcher:
    """A clone of `patcher` that carries the LoRA of the file at strength 1; any form that ComfyUI loads.

    Raises:
        AdapterError: The file cannot be read, holds numbers that are not finite, or something that is no part of a
            LoRA for this model: a LoRA that is put on in part would be taken off in part only.
    """
    tensors = comfy.lora_convert.convert_lora(_read(path))
    known = comfy.lora.model_lora_keys_unet(patcher.model, {})
    foreign = next((key for key in tensors if not _is_for(key, known)), None)
    if foreign is not None:
        raise AdapterError(
            f"assistant_lora: {path.name} changes {foreign}, which this model has not. Choose the training adapter "
            "that was made for this model, or none."
        )
    patches = comfy.lora.load_lora(tensors, known, log_missing=False)
    clone = patcher.clone()
    taken = clone.add_patches(patches, 1.0)
    if not patches or set(taken) != set(patches):
        raise AdapterError(f"assistant_lora: {path.name} changes no layer of this model. Choose another file, or none.")
    return clone


def _is_for(key: str, known: Mapping[str, object]) -> bool:
    """Whether a layer of the model begins the name of a tensor."""
    return any(key[:i] in known for i, letter in enumerate(key) if letter == ".")


def _read(path: Path) -> dict[str, torch.Tensor]:
    try:
        tensors = safetensors.torch.load_file(path)
    except (OSError, SafetensorError) as error:
        raise AdapterError(
            f"assistant_lora: {path.name} cannot be read as safetensors ({error}). Choose another file, or none."
        ) from error
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
        raise AdapterError(
            f"assistant_lora: {path.name} holds numbers that are not finite (NaN or infinite). Choose another file, "
            "or none."
        )
    return tensors
