"""Which text encoders can be trained, and what their layers are called in LoRA files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn

from ...errors import ConfigError, FamilyError
from ...findings import counted
from ...settings import TEXT_ENCODERS, TextEncoderSettings, check
from ..model.blocks import refuse_foreign_layers

ALL, *_, NONE = TEXT_ENCODERS
# ComfyUI's class of the tokenizer by our name of the family.
FAMILIES = {
    "sd15": "SD1Tokenizer",
    "sd2": "SD2Tokenizer",
    "sdxl": "SDXLTokenizer",
    "sd3": "SD3Tokenizer",
    "flux": "FluxTokenizer",
}
# What kohya's tools put before a layer's name: of a family with one encoder it has no number.
_ALONE, _NUMBERED = ("SD1Tokenizer", "SD2Tokenizer"), {"clip_l": "lora_te1_", "clip_g": "lora_te2_"}
_ENCODERS = ("clip_l", "clip_g", "clip_h")
_LAYERS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj", "mlp.fc1", "mlp.fc2")
_INSIDE = ".transformer."


@dataclass(frozen=True)
class TextRequest:
    """What the node Train Text Encoder gives: ComfyUI's CLIP, and how it is trained."""

    clip: Any
    settings: TextEncoderSettings


def text_request(clip: Any, settings: TextEncoderSettings) -> TextRequest:
    """The request, if that CLIP can be trained so.

    Raises:
        FamilyError: It holds no encoder that is trained here.
        ConfigError: A setting is out of range, or asks for nothing or for what this CLIP has not.
    """
    check(settings)
    encoders = encoders_of(clip)
    if settings.encoders == NONE and not settings.new_word:
        raise ConfigError("encoders, new_word: nothing is left to train. Choose encoders, or switch new_word on.")
    if settings.encoders not in (ALL, NONE, *encoders):
        raise ConfigError(
            f"encoders: this CLIP has {', '.join(encoders)}, got {settings.encoders}. Choose one of these, or {ALL}."
        )
    if settings.new_word and has_language_model(clip):
        raise ConfigError(
            "new_word: beside CLIP this model reads the caption with T5, which knows no such word and would not see it "
            "in a prompt. Switch it off; the trigger word is learned by the encoders and the model."
        )
    return TextRequest(clip, settings)


def encoders_of(clip: Any) -> tuple[str, ...]:
    """Names of the encoders of a CLIP that can be trained.

    Raises:
        FamilyError: It has none.
    """
    if clip is None:
        raise FamilyError(
            "clip: there is none; the checkpoint holds no text encoder. Connect a Load CLIP node instead."
        )
    kind = type(clip.tokenizer).__qualname__
    found = [name for name in _ENCODERS if getattr(clip.cond_stage_model, name, None) is not None]
    if kind not in FAMILIES.values() or not found:
        raise FamilyError(
            f"clip: this text encoder ({kind}) is no CLIP-L, CLIP-G or CLIP-H of Stable Diffusion 1.5, 2, XL, 3 or "
            "FLUX.1. Language models such as T5, Qwen, Gemma and Llama are not trained: they are as large as the "
            "model that they serve, and few programs read a LoRA for them. Take Train Text Encoder away; the model "
            "learns the captions as well."
        )
    if found == ["clip_g"]:
        raise FamilyError("clip: it has CLIP-G without CLIP-L, for which LoRA files have no names. Load both.")
    for name in found:
        refuse_foreign_layers(getattr(clip.cond_stage_model, name), widget="clip")
    return tuple(found)


def has_language_model(clip: Any) -> bool:
    """Whether another encoder than those of CLIP reads the captions too."""
    return getattr(clip.cond_stage_model, "t5xxl", None) is not None


def with_lora(settings: TextEncoderSettings, found: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the encoders found that get a LoRA."""
    return {ALL: found, NONE: ()}.get(settings.encoders, (settings.encoders,))


def trained_layers(module: nn.Module, encoders: Iterable[str]) -> list[str]:
    """Paths of the layers that get a LoRA: all of attention and feed-forward, as kohya's tools choose them."""
    chosen = tuple(f"{name}{_INSIDE}text_model.encoder.layers." for name in encoders)
    names = (name for name, _ in module.named_modules())
    return [name for name in names if name.startswith(chosen) and name.endswith(_LAYERS)]


def stems(paths: Iterable[str], kind: str) -> dict[str, str]:
    """Kohya's name of each layer in LoRA files, under which ComfyUI knows it too.

    Args:
        paths: Of layers, below the text encoders' module.
        kind: ComfyUI's class of the tokenizer.
    """
    found = {}
    for path in paths:
        encoder, _, layer = path.partition(_INSIDE)
        found[path] = ("lora_te_" if kind in _ALONE else _NUMBERED[encoder]) + layer.replace(".", "_")
    return found


def aliases(paths: Iterable[str], kind: str) -> dict[str, str]:
    """Every name under which a LoRA file may have one of these layers, and its path."""
    found = {}
    for path, stem in stems(paths, kind).items():
        encoder, _, layer = path.partition(_INSIDE)
        second = encoder == "clip_g"
        spelled = layer.replace(".", "_")
        names = [stem, f"lora_te{2 if second else 1}_{spelled}", f"text_encoders.{path}"]
        names += [f"text_encoder{'_2' if second else ''}.{layer}"]
        found |= dict.fromkeys(names, path)
    return found


def told(encoders: Iterable[str], layers: int, *, word: str) -> str:
    """A line on what of the text encoders is trained."""
    names = " and ".join({"clip_l": "CLIP-L", "clip_g": "CLIP-G", "clip_h": "CLIP-H"}[name] for name in encoders)
    parts = [f"a LoRA of {counted(layers, '[layer|layers]')} of {names}"] if layers else []
    parts += [f"the word embedding:{word}"] if word else []
    return f"Text encoder: captions are encoded at every step; trained is {' and '.join(parts)}."
