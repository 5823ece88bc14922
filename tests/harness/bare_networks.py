"""Small networks of ComfyUI's own classes with random weights, without a MODEL around them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.ops
import torch
from comfy.ldm.chroma.model import Chroma
from comfy.ldm.cosmos.predict2 import MiniTrainDIT
from comfy.ldm.ernie.model import ErnieImageModel
from comfy.ldm.flux.model import Flux
from comfy.ldm.joyimage.model import JoyImageTransformer3DModel
from torch import Tensor, nn

_HIDDEN = 64
_FLUX = dict(
    hidden_size=_HIDDEN, num_heads=2, mlp_ratio=2.0, depth=2, depth_single_blocks=2, theta=10000, qkv_bias=False
)


def _chroma(**made: Any) -> tuple[nn.Module, dict[str, Any]]:
    widths = dict(in_channels=16, out_channels=16, in_dim=64, out_dim=_HIDDEN, hidden_dim=32, n_layers=1)
    network = Chroma(
        **{**_FLUX, **widths, "qkv_bias": True},
        patch_size=2,
        context_in_dim=24,
        axes_dim=[8, 12, 12],
        txt_ids_dims=[],
        vec_in_dim=None,
        **made,
    )
    return network, dict(x=(2, 4, 8, 8), timestep=(2,), context=(2, 5, 24), guidance=(2,))


def _flux2(**made: Any) -> tuple[nn.Module, dict[str, Any]]:
    network = Flux(
        **_FLUX,
        in_channels=16,
        out_channels=16,
        patch_size=1,
        vec_in_dim=None,
        context_in_dim=24,
        axes_dim=[8, 8, 8, 8],
        guidance_embed=True,
        txt_ids_dims=[3],
        global_modulation=True,
        mlp_silu_act=True,
        ops_bias=False,
        **made,
    )
    return network, dict(x=(2, 16, 4, 4), timestep=(2,), context=(2, 5, 24), guidance=(2,))


def _cosmos(**made: Any) -> tuple[nn.Module, dict[str, Any]]:
    network = MiniTrainDIT(
        max_img_h=16,
        max_img_w=16,
        max_frames=4,
        in_channels=4,
        out_channels=4,
        patch_spatial=2,
        patch_temporal=1,
        model_channels=_HIDDEN,
        num_blocks=2,
        num_heads=2,
        crossattn_emb_channels=24,
        pos_emb_cls="rope3d",
        use_adaln_lora=True,
        adaln_lora_dim=8,
        rope_enable_fps_modulation=False,
        **made,
    )
    return network, dict(x=(2, 4, 1, 8, 8), timesteps=(2,), context=(2, 5, 24))


def _ernie(**made: Any) -> tuple[nn.Module, dict[str, Any]]:
    network = ErnieImageModel(
        hidden_size=_HIDDEN,
        num_attention_heads=2,
        num_layers=2,
        ffn_hidden_size=96,
        in_channels=8,
        out_channels=8,
        text_in_dim=24,
        rope_axes_dim=(8, 12, 12),
        **made,
    )
    return network, dict(x=(2, 8, 4, 4), timesteps=(2,), context=(2, 5, 24))


def _joyimage(**made: Any) -> tuple[nn.Module, dict[str, Any]]:
    network = JoyImageTransformer3DModel(
        in_channels=4,
        hidden_size=_HIDDEN,
        num_attention_heads=2,
        text_dim=24,
        mlp_width_ratio=2.0,
        num_layers=2,
        rope_dim_list=[8, 12, 12],
        **made,
    )
    return network, dict(hidden_states=(2, 4, 1, 8, 8), timestep=(2,), context=(2, 5, 24))


_BUILDERS: dict[str, Callable[..., tuple[nn.Module, dict[str, Any]]]] = {
    "chroma": _chroma,
    "flux2": _flux2,
    "cosmos-predict2": _cosmos,
    "ernie-image": _ernie,
    "joyimage": _joyimage,
}


class BareNetwork:
    """A network, and what it is called with, all drawn from one seed; none of it requires a gradient yet."""

    def __init__(self, name: str, *, dtype: torch.dtype = torch.float64) -> None:
        made = dict(dtype=dtype, device="cpu", operations=comfy.ops.disable_weight_init)
        self.network, shapes = _BUILDERS[name](**made)
        generator = torch.Generator().manual_seed(11)
        with torch.no_grad():
            for p in self.network.parameters():
                p.copy_(
                    torch.randn(p.shape, generator=generator) * (max(1, p[0].numel()) ** -0.5 if p.ndim > 1 else 0.3)
                )
        self.network.to(dtype).requires_grad_(False)
        self.inputs = {k: torch.rand(s, generator=generator, dtype=torch.float64).to(dtype) for k, s in shapes.items()}
        self.blocks = [b for m in self.network.children() if isinstance(m, nn.ModuleList) for b in m]

    def __call__(self) -> Tensor:
        return self.network(**self.inputs, transformer_options={})

    def loss(self) -> Tensor:
        """A scalar that depends on the whole output unevenly."""
        out = self()
        weights = torch.linspace(0.5, 1.5, out.numel(), dtype=out.dtype).view(out.shape)
        return (out * weights).square().mean()
