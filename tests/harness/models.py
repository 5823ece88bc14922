"""Small models with random weights in ComfyUI's own layouts, loaded as its real classes."""

from __future__ import annotations

import dataclasses
import functools
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import comfy.sd
import comfy.text_encoders.flux
import comfy.text_encoders.sd3_clip
import torch
from comfy.supported_models_base import ClipTarget
from safetensors.torch import save_file

from .random_state import random_state
from .small import Small, small_models
from .small_models_pack.networks import SDXL_DEPTH, SMALL_TEXT, SmallSDXLText
from .small_unknown import UNKNOWN
from .vaes import vae_state

if TYPE_CHECKING:
    from masklora.host.families import Family


def small_of(name: str) -> Small:
    """The small model of this name, be it of a family or of none."""
    return UNKNOWN[name] if name in UNKNOWN else small_models()[name]


@functools.cache
def _state(family: str, sizes: tuple) -> dict[str, torch.Tensor]:
    return random_state(small_models()[family].build(**dict(sizes)))


def small_model(
    family: str, *, dtype: torch.dtype = torch.float32, options: dict | None = None, page: bool = False, **sizes: int
) -> Any:
    """A MODEL (ModelPatcher) of `family` with weights stored in `dtype`; with `page` it reads its `encoder`'s texts."""
    small = small_of(family)
    if sizes and small.build is None:
        small = dataclasses.replace(small, config=small.config | sizes)
    if page:
        small = dataclasses.replace(small, config=small.config | small.page)
    if small.build is None:
        model = small.shrunk(dtype)
        state = {k: v.to(dtype) for k, v in random_state(model.model.diffusion_model, gain=small.gain).items()}
        model.model.diffusion_model.load_state_dict(state)
        return model
    state = {k: v.to(dtype) for k, v in _state(family, tuple(sorted(sizes.items()))).items()}
    model = comfy.sd.load_diffusion_model_state_dict(state, model_options=options or {})
    assert model is not None, f"ComfyUI did not recognise the small {family}"
    if family == "sdxl":
        # ComfyUI knows SDXL by its 70 transformer blocks; one of each group is enough to test with.
        for module in model.model.diffusion_model.modules():
            if hasattr(module, "transformer_blocks"):
                module.transformer_blocks = module.transformer_blocks[:1]
    return model


def small_side(family: Family) -> int:
    """Rows and columns of a small latent that models of this family take."""
    return max(8, family.least + family.least % 2, 2 * max(family.patch[1:]))


def small_text(family: str, *, tokens: int = 8, seed: int = 0) -> dict[str, torch.Tensor]:
    """Conditioning of one text in the widths that `family` expects."""
    return small_of(family).texts(tokens=tokens, seed=seed)


def small_clip(kind: str, *, without: tuple[str, ...] = ()) -> Any:
    """A CLIP of `kind` (flux or sd3) with small encoders of random weights; sd3 may lack clip_l, clip_g or t5."""
    if kind == "flux":
        target = ClipTarget(comfy.text_encoders.flux.FluxTokenizer, comfy.text_encoders.flux.flux_clip())
    else:
        there = {name: name not in without for name in ("clip_l", "clip_g", "t5")}
        target = ClipTarget(comfy.text_encoders.sd3_clip.SD3Tokenizer, comfy.text_encoders.sd3_clip.sd3_clip(**there))
    clip = comfy.sd.CLIP(target, model_options=dict(SMALL_TEXT))
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for p in clip.cond_stage_model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * (max(1, p[0].numel()) ** -0.5 if p.ndim > 1 else 0.1))
    return clip


def with_padding(text: dict[str, torch.Tensor], *, real: int) -> dict[str, torch.Tensor]:
    """The same text whose tokens from `real` on are padding."""
    return {**text, "text_mask": torch.arange(text["cond"].shape[1])[None] < real}


def offer_small_flux(models: Path) -> dict[str, str]:
    """Writes a small Flux for ComfyUI's loader nodes into a `models` folder: names of its files by kind.

    Its text encoders load where `small_models_pack` is installed.
    """
    text = small_clip("flux").cond_stage_model
    states = {
        "diffusion_models": _state("flux", (("double", 2), ("pooled", 32), ("single", 3), ("text", 64))),
        "vae": vae_state("picture 16"),
        "clip_l": text.clip_l.transformer.state_dict(),
        "t5": text.t5xxl.transformer.state_dict(),
    }
    return {kind: _offer(models, kind, "small flux", state) for kind, state in states.items()}


def offer_small_unet(models: Path, family: str = "sd15") -> str:
    """Writes a small Stable Diffusion 1.5 or SDXL network for Load Diffusion Model: its file's name.

    SDXL loads where `small_models_pack` is installed.
    """
    sizes = (("deep", SDXL_DEPTH[-1]), ("shallow", SDXL_DEPTH[2])) if family == "sdxl" else ()
    state = {name: value.half() for name, value in _state(family, sizes).items()}
    return _offer(models, "diffusion_models", f"small {family}", state)


def offer_unet_companions(models: Path) -> dict[str, str]:
    """Writes the VAE and the text encoders of the small U-Nets: names of their files by kind, clip_l and clip_g."""
    encoder = SmallSDXLText(dtype=torch.float16)
    states = {"vae": vae_state("picture 4")}
    generator = torch.Generator().manual_seed(6)
    for kind in ("clip_l", "clip_g"):
        state = getattr(encoder, kind).transformer.state_dict()
        states[kind] = {}
        for name, value in state.items():
            scale = max(1, value[0].numel()) ** -0.5 if value.ndim > 1 else 0.1
            states[kind][name] = (scale * torch.randn(value.shape, generator=generator)).half()
    return {kind: _offer(models, kind, "small unet", state) for kind, state in states.items()}


def _offer(models: Path, kind: str, name: str, state: dict[str, torch.Tensor]) -> str:
    folder = models / ("text_encoders" if kind in ("clip_l", "clip_g", "t5") else kind)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name} {kind}.safetensors"
    save_file({key: value.contiguous().clone() for key, value in state.items()}, file)
    return file.name


class HashedText:
    """A text encoder of the cache's protocol whose features depend on the caption and on nothing else."""

    pictures = ""

    def __init__(self, family: str) -> None:
        self.family = self.pooled = family
        self.identity = f"hashed text {family}"

    def encode(self, texts: list[str]) -> list[dict[str, torch.Tensor]]:
        out = [small_text(self.family, tokens=77, seed=zlib.crc32(t.encode())) for t in texts]
        pooled = {k: v for k, v in small_text(self.pooled).items() if k == "pooled_output"}
        return [{**t, **pooled} for t in out]


class SeeingText(HashedText):
    """One whose features depend on the reference pictures too, as those of models do that are shown them."""

    def __init__(self, family: str, pictures: str) -> None:
        super().__init__(family)
        self.pictures = pictures

    def encode_with(self, texts: list[str], pictures: list[list[torch.Tensor]]) -> list[dict[str, torch.Tensor]]:
        marks = [
            f"{text}|{sum(float(one.sum()) for one in shown):.3f}" for text, shown in zip(texts, pictures, strict=True)
        ]
        return self.encode(marks)
