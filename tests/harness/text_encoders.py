"""Small text encoders of ComfyUI's own classes for the families in which they are trained, in the models' widths."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import comfy.sd
import comfy.sd1_clip
import comfy.sdxl_clip
import comfy.text_encoders.flux
import comfy.text_encoders.sd2_clip
import comfy.text_encoders.sd3_clip
import torch
from comfy.supported_models_base import ClipTarget

from masklora.cache.cache import build_cache
from masklora.host.model.encoders import ClipTextEncoder, VaeEncoder
from masklora.host.texts.parts import text_request
from masklora.settings import CacheSettings, CaptionSettings, DatasetSettings, TextEncoderSettings

from .models import small_model
from .small_models_pack.networks import UNET_TEXT
from .training import make_request, pictures
from .vaes import small_vae

TRAINED = ("sd15", "sd2", "sdxl", "sd3", "flux")
# What the small FLUX.1 is built with for the texts of its encoders.
_FLUX = {"text": 64, "pooled": 32}
_FLAT = {"num_attention_heads": 2, "num_hidden_layers": 3, "intermediate_size": 16}
_T5 = {"d_ff": 16, "d_kv": 8, "num_heads": 1, "num_layers": 1}


def _target(family: str, t5: bool) -> tuple[ClipTarget, dict[str, Any]]:
    encoders = comfy.text_encoders
    wide = {"d_model": 4096, "vocab_size": 8192}
    return {
        "sd15": (ClipTarget(comfy.sd1_clip.SD1Tokenizer, comfy.sd1_clip.SD1ClipModel), UNET_TEXT),
        "sd2": (
            ClipTarget(encoders.sd2_clip.SD2Tokenizer, encoders.sd2_clip.SD2ClipModel),
            {"clip_h_model_config": {**_FLAT, "hidden_size": 1024}},
        ),
        "sdxl": (ClipTarget(comfy.sdxl_clip.SDXLTokenizer, comfy.sdxl_clip.SDXLClipModel), UNET_TEXT),
        "sd3": (
            ClipTarget(encoders.sd3_clip.SD3Tokenizer, encoders.sd3_clip.sd3_clip(t5=t5)),
            {**UNET_TEXT, "t5xxl_model_config": {**_T5, **wide}},
        ),
        "flux": (
            ClipTarget(encoders.flux.FluxTokenizer, encoders.flux.flux_clip()),
            {
                "clip_l_model_config": {**_FLAT, "hidden_size": _FLUX["pooled"]},
                "t5xxl_model_config": {**_T5, "d_model": _FLUX["text"]},
            },
        ),
    }[family]


@functools.cache
def trained_clip(family: str, *, dtype: torch.dtype = torch.float32, t5: bool = False) -> Any:
    """A CLIP of `family` with random weights stored in `dtype`; Stable Diffusion 3's has a T5 where it is asked for."""
    target, sizes = _target(family, t5)
    clip = comfy.sd.CLIP(target, model_options={**sizes, "dtype": dtype})
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, p in clip.cond_stage_model.named_parameters():
            scale = max(1, p[0].numel()) ** -0.5 if p.ndim > 1 else 0.1
            p.copy_(torch.randn(p.shape, generator=generator) * scale + (p.ndim == 1 and "norm.weight" in name))
    return clip


def model_for(family: str) -> Any:
    """The small MODEL that reads the texts of `trained_clip`."""
    return small_model(family, **(_FLUX if family == "flux" else {}))


def text_cache(family: str, clip: Any = None, *, trigger: str = "zwx", dropout: float = 0.0) -> Any:
    """A cache of small pictures whose captions a CLIP has encoded: the trigger word, and what else is in each."""
    settings = DatasetSettings(caption=CaptionSettings(trigger=trigger, dropout=dropout))
    return build_cache(
        pictures(n=3, settings=settings),
        CacheSettings(resolution=64, bucket_step=32, storage="memory", infill_variants=0),
        encoder=VaeEncoder(small_vae(family)),
        text=ClipTextEncoder(clip or trained_clip(family)),
    )


def text_training(family: str, cache: Any, clip: Any = None, *, texts: dict | None = None, **train: Any) -> Any:
    """A request of a short training of its text encoders beside the model; see `training.make_request`."""
    asked = text_request(clip or trained_clip(family), TextEncoderSettings(**{"learning_rate": 1e-3, **(texts or {})}))
    return dataclasses.replace(make_request(family, cache, **train), model=model_for(family), texts=asked)
