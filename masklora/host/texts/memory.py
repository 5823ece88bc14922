"""What text encoders take beside the model while they are trained."""

from __future__ import annotations

from dataclasses import dataclass

import comfy.model_management

from ...settings import AdapterSettings
from .parts import TextRequest, encoders_of, trained_layers, with_lora

# Tokens of a section of a caption, and what a layer keeps of each for backward, in features: inputs of two norms, of
# the products and of the activation, which has four times as many, and what attention reads.
_TOKENS, _FEATURES = 77, 20


@dataclass(frozen=True)
class TextMemory:
    """Bytes and numbers of text encoders in training.

    Attributes:
        weights: Bytes of the encoders as they are stored.
        numbers: How many numbers are trained, in float32.
        kept: Bytes that backward needs of a micro-batch's captions.
    """

    weights: int = 0
    numbers: int = 0
    kept: int = 0


def text_memory(request: TextRequest | None, adapter: AdapterSettings, *, captions: int) -> TextMemory:
    """What they take; nothing where none is trained.

    Args:
        request: From the node.
        adapter: The model's, without open defaults.
        captions: Of a micro-batch, of a section each.
    """
    if request is None:
        return TextMemory()
    module, settings, found = request.clip.cond_stage_model, request.settings, encoders_of(request.clip)
    chosen = with_lora(settings, found)
    used = [getattr(module, name).transformer for name in found]
    rank = settings.rank or adapter.rank
    shapes = [module.get_submodule(path).weight.shape for path in trained_layers(module, chosen)]
    words = settings.word_vectors if settings.new_word else 0
    numbers = sum(rank * (out + into) for out, into in shapes)
    kept = 0
    for name, encoder in zip(found, used, strict=True):
        width = encoder.get_input_embeddings().weight.shape[1]
        numbers += words * width
        if words or name in chosen:
            kept += 4 * _FEATURES * _TOKENS * width * encoder.num_layers * captions
    weights = sum(int(comfy.model_management.module_size(encoder)) for encoder in used)
    return TextMemory(weights, numbers, kept)
