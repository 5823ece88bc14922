"""Small models with random weights in ComfyUI's own layouts, loaded as its real classes."""

from __future__ import annotations

import functools
import zlib
from pathlib import Path
from typing import Any

import comfy.ops
import comfy.sd
import comfy.text_encoders.flux
import comfy.text_encoders.sd3_clip
import torch
from comfy.ldm.flux.model import Flux
from comfy.ldm.modules.diffusionmodules.mmdit import OpenAISignatureMMDITWrapper
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.ldm.wan.vae import WanVAE
from comfy.supported_models_base import ClipTarget
from comfy.taesd.taesd import TAESD
from safetensors.torch import save_file

from .shrunk_models import SHRUNK
from .small_models_pack.networks import SDXL_DEPTH, SMALL_TEXT, SmallSDXLText

TEXT_WIDTH = {
    "sd15": 768,
    "sdxl": 2048,
    "sd3": 4096,
    "flux": 4096,
    "chroma": 4096,
    "qwen_image": 3584,
    "z_image": 2560,
    "wan": 4096,
}
POOLED_WIDTH = {"sd15": 768, "sdxl": 1280, "sd3": 2048, "flux": 768}
# Their VAE is one for clips.
CLIPS = ("qwen_image", "wan")


def _unet(**extra: Any) -> torch.nn.Module:
    settings = dict(
        image_size=32,
        in_channels=4,
        out_channels=4,
        model_channels=320,
        use_spatial_transformer=True,
        legacy=False,
        dtype=torch.float32,
        operations=comfy.ops.disable_weight_init,
        use_checkpoint=False,
    )
    return UNetModel(**{**settings, **extra})


def _sd15() -> torch.nn.Module:
    return _unet(
        num_res_blocks=[1, 1],
        channel_mult=[1, 1],
        num_heads=8,
        context_dim=768,
        transformer_depth=[1, 0],
        transformer_depth_middle=1,
        transformer_depth_output=[1, 1, 0, 0],
    )


def _sdxl(deep: int = 10, shallow: int = 2) -> torch.nn.Module:
    a, b = shallow, deep
    return _unet(
        num_res_blocks=[2, 2, 2],
        channel_mult=[1, 1, 1],
        num_head_channels=64,
        context_dim=2048,
        adm_in_channels=2816,
        num_classes="sequential",
        use_linear_in_transformer=True,
        transformer_depth=[0, 0, a, a, b, b],
        transformer_depth_middle=b,
        transformer_depth_output=[0, 0, 0, a, a, a, b, b, b],
    )


def _sd3(depth: int = 2, self_attention: int = 0) -> torch.nn.Module:
    """Its first `self_attention` blocks have a second attention over the image tokens alone, as in SD 3.5 Medium."""
    hidden = 64 * depth
    return OpenAISignatureMMDITWrapper(
        input_size=None,
        patch_size=2,
        in_channels=16,
        depth=depth,
        adm_in_channels=2048,
        context_embedder_config={
            "target": "torch.nn.Linear",
            "params": {"in_features": 4096, "out_features": hidden},
        },
        num_patches=1024,
        pos_embed_max_size=32,
        pos_embed_scaling_factor=None,
        qk_norm="rms",
        x_block_self_attn_layers=list(range(self_attention)),
        dtype=torch.float32,
        device="cpu",
        operations=comfy.ops.disable_weight_init,
    )


def _flux(hidden: int = 128, double: int = 2, single: int = 2, text: int = 4096, pooled: int = 768) -> torch.nn.Module:
    return Flux(
        in_channels=16,
        out_channels=16,
        patch_size=2,
        vec_in_dim=pooled,
        context_in_dim=text,
        hidden_size=hidden,
        mlp_ratio=4.0,
        num_heads=hidden // 128,
        depth=double,
        depth_single_blocks=single,
        axes_dim=[16, 56, 56],
        theta=10000,
        qkv_bias=True,
        guidance_embed=True,
        image_model="flux",
        txt_ids_dims=[],
        dtype=torch.float32,
        device="cpu",
        operations=comfy.ops.disable_weight_init,
    )


_BUILDERS = {"sd15": _sd15, "sdxl": _sdxl, "sd3": _sd3, "flux": _flux}


@functools.cache
def _state(family: str, sizes: tuple) -> dict[str, torch.Tensor]:
    return _random_state(_BUILDERS[family](**dict(sizes)))


def _random_state(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(17)
    state = {}
    for name, value in network.state_dict().items():
        scale = 0.02 if value.ndim < 2 else 1.0 / max(1, value[0].numel()) ** 0.5
        noise = torch.randn(value.shape, generator=generator) * scale
        is_gain = value.ndim == 1 and ("norm" in name or "ln_" in name or name.endswith("scale"))
        state[name] = noise + 1.0 if is_gain and not name.endswith("bias") else noise
    return state


def small_model(family: str, *, dtype: torch.dtype = torch.float32, options: dict | None = None, **sizes: int) -> Any:
    """A MODEL (ModelPatcher) of `family` with weights stored in `dtype`."""
    if family in SHRUNK:
        model = SHRUNK[family].model(dtype)
        state = {k: v.to(dtype) for k, v in _random_state(model.model.diffusion_model).items()}
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


def small_text(family: str, *, tokens: int = 8, seed: int = 0) -> dict[str, torch.Tensor]:
    """Conditioning of one text in the widths that `family` expects."""
    generator = torch.Generator().manual_seed(seed)
    text = {"cond": torch.randn(1, tokens, TEXT_WIDTH[family], generator=generator)}
    if family in POOLED_WIDTH:
        text["pooled_output"] = torch.randn(1, POOLED_WIDTH[family], generator=generator)
    return text


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


def small_vae(family: str) -> Any:
    """A VAE with random weights, of the family's channels and stride: in TAESD's layout, or for clips in Wan's."""
    return comfy.sd.VAE(sd=_clip_vae_state() if family in CLIPS else _vae_state(family))


def _clip_vae_state() -> dict[str, torch.Tensor]:
    network = WanVAE(dim=8, z_dim=16, temperal_downsample=[False, True, True])
    return {name: value + ("gamma" in name) for name, value in _random_state(network).items()}


def _vae_state(family: str) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    channels = 4 if family in ("sd15", "sdxl") else 16
    state = {}
    for name, value in TAESD(latent_channels=channels).state_dict().items():
        scale = 1.0 / max(1, value[0].numel()) ** 0.5 if value.ndim > 1 else 0.02
        state[name] = torch.randn(value.shape, generator=generator) * scale
    state["vae_scale"], state["vae_shift"] = torch.tensor(1.0), torch.tensor(0.0)
    return state


def offer_small_flux(models: Path) -> dict[str, str]:
    """Writes a small Flux for ComfyUI's loader nodes into a `models` folder: names of its files by kind.

    Its text encoders load where `small_models_pack` is installed.
    """
    text = small_clip("flux").cond_stage_model
    states = {
        "diffusion_models": _state("flux", (("double", 2), ("pooled", 32), ("single", 3), ("text", 64))),
        "vae": _vae_state("flux"),
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
    states = {"vae": _vae_state("sd15")}
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

    def __init__(self, family: str) -> None:
        self.family = self.pooled = family
        self.identity = f"hashed text {family}"

    def encode(self, texts: list[str]) -> list[dict[str, torch.Tensor]]:
        out = [small_text(self.family, tokens=77, seed=zlib.crc32(t.encode())) for t in texts]
        pooled = {k: v for k, v in small_text(self.pooled).items() if k != "cond"}
        return [{**t, **pooled} for t in out]
