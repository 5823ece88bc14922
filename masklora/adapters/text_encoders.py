"""What a run keeps of text encoders that were trained with it: their LoRA and a new word, out of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..documents import fits
from .lora_keys import Factors, to_comfyui

# Before the names of what is trained of them, beside the model's own layers.
ENCODER_PREFIX, WORD_PREFIX = "text_encoder.", "new_word."


@dataclass(frozen=True)
class NewWord:
    """A word of its own.

    Attributes:
        name: By which prompts call it, `embedding:name`.
        trigger: The trigger word for which it stands.
        vectors: float32 (count, width) by encoder, as in the files that ComfyUI reads.
    """

    name: str
    trigger: str
    vectors: dict[str, Tensor]


def about_texts(
    scalings: Mapping[str, float], stems: Mapping[str, str], *, word: str = "", trigger: str = ""
) -> dict[str, Any]:
    """What `kept_texts` and `kept_word` need besides a checkpoint, JSON-able.

    Args:
        scalings: Factor before B·A by the path of each layer with an adapter.
        stems: kohya's names of these.
        word: Name of the new word; empty for none.
        trigger: For which it stands.
    """
    return {"scalings": dict(scalings), "stems": dict(stems), "word": word, "trigger": trigger}


def is_whole(about: Mapping[str, Any]) -> bool:
    """Whether this is what `about_texts` gives, or nothing."""
    if not about:
        return True
    scalings, names = about.get("scalings"), about.get("stems")
    whole = fits(scalings, dict) and fits(names, dict) and all(fits(about.get(key), str) for key in ("word", "trigger"))
    return whole and scalings.keys() == names.keys() and all(fits(value, float) for value in scalings.values())


def kept_texts(adapter: Mapping[str, Tensor], about: Mapping[str, Any]) -> dict[str, Tensor]:
    """The text encoders' LoRA out of a checkpoint's weights, by kohya's names, float32; nothing where there is none.

    Raises:
        KeyError: The checkpoint lacks a layer.
    """
    factors = {}
    for path, scaling in about["scalings"].items() if about else ():
        down = adapter[f"{ENCODER_PREFIX}{path}.lora_A"].cpu()
        factors[path] = Factors(down, adapter[f"{ENCODER_PREFIX}{path}.lora_B"].cpu(), scaling * down.shape[0])
    return to_comfyui(factors, names=about["stems"], prefix="") if factors else {}


def kept_word(adapter: Mapping[str, Tensor], about: Mapping[str, Any]) -> NewWord | None:
    """The new word out of a checkpoint's weights; None where there is none."""
    if not about or not about["word"]:
        return None
    named = {name: value for name, value in adapter.items() if name.startswith(WORD_PREFIX)}
    vectors = {name.removeprefix(WORD_PREFIX): v.detach().to("cpu", torch.float32) for name, v in named.items()}
    return NewWord(about["word"], about["trigger"], vectors)


def is_of_texts(key: str) -> bool:
    """Whether a tensor of a LoRA file changes a text encoder."""
    return key.startswith("lora_te")
