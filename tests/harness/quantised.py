"""Small models in every layout of ComfyUI's quantisation table, and the same models with the weights it stands for."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import comfy.sd
import torch
from comfy.quant_ops import QUANT_ALGOS, QuantizedTensor
from torch import Tensor, nn

from masklora.host.model.trainable import TrainableModel

from .models import small_model, small_of

# Rotations act on groups of so many features; the largest that divides a layer's.
_GROUPS = (256, 64, 16, 4)


@dataclass(frozen=True)
class Layout:
    """How one kind of file stores its linear layers.

    Attributes:
        algorithm: Its name in ComfyUI's table.
        quantise: What ComfyUI's own function is told beside the weight.
        told: What the file tells of a layer beside the algorithm.
        rotated: Whether weights are rotated, in groups of features.
        smoothed: Whether the input is scaled, feature by feature, before the weight.
    """

    algorithm: str
    quantise: dict[str, Any] = field(default_factory=dict)
    told: dict[str, Any] = field(default_factory=dict)
    rotated: bool = False
    smoothed: bool = False


LAYOUTS = {
    "fp8 e4m3": Layout("float8_e4m3fn", {"scale": "recalculate"}),
    "fp8 e5m2": Layout("float8_e5m2", {"scale": "recalculate"}),
    "nvfp4": Layout("nvfp4"),
    "nvfp4 smoothed": Layout("nvfp4", smoothed=True),
    "mxfp8": Layout("mxfp8"),
    "int8": Layout("int8_tensorwise"),
    "int8 rows": Layout("int8_tensorwise", {"per_channel": True}),
    "int8 convrot": Layout("int8_tensorwise", {"per_channel": True, "convrot": True}, {"convrot": True}, rotated=True),
    "w4a4 convrot": Layout("convrot_w4a4", rotated=True),
    "w4a8 convrot": Layout("convrot_w4a4", {"linear_dtype": "int8"}, {"linear_dtype": "int8"}, rotated=True),
}


def quantised(weight: Tensor, layout: Layout) -> tuple[QuantizedTensor, dict[str, Any]]:
    """A weight (out, in) as ComfyUI's own function quantises it, and what a file tells of it."""
    options, told = dict(layout.quantise), {"format": layout.algorithm, **layout.told}
    if layout.rotated:
        group = next(n for n in _GROUPS if weight.shape[1] % n == 0)
        options["convrot_groupsize"] = told["convrot_groupsize"] = group
    name = QUANT_ALGOS[layout.algorithm]["comfy_tensor_layout"]
    return QuantizedTensor.from_float(weight, name, **options), told


def quantised_model(family: str, layout: Layout | dict[str, Layout]) -> Any:
    """A small MODEL of `family`, loaded by ComfyUI from a file whose blocks are stored in `layout`.

    All else is stored in bfloat16, as such files have it.

    Args:
        family: Of one of the small models.
        layout: Of all linear layers in blocks that it can store; or of those whose path contains a key, in that order.
    """
    model = small_model(family)
    plain, inside = model.model.diffusion_model, _in_blocks(model)
    given = layout if isinstance(layout, dict) else {"": layout}
    state = {name: value.to(torch.bfloat16) for name, value in plain.state_dict().items()}
    for path, module in plain.named_modules():
        chosen = next((one for part, one in given.items() if part in path), None)
        if chosen is not None and module in inside and _fits(module, chosen):
            state |= _stored(path, module.weight.detach(), chosen)
    return _loaded(family, state)


def with_kernels(model: Any) -> Any:
    """The same MODEL as on a card with a kernel for every format; on a CPU ComfyUI forbids some, and rounds alike."""
    for layer in quantised_layers(model.model.diffusion_model).values():
        layer._full_precision_mm = False
    return model


def _in_blocks(model: Any) -> set[nn.Module]:
    return {module for block, _ in TrainableModel(model).blocks for module in block.modules()}


def _fits(module: nn.Module, layout: Layout) -> bool:
    group = 64 if layout.algorithm == "convrot_w4a4" else 16
    return isinstance(module, nn.Linear) and module.in_features % group == 0


def _stored(path: str, weight: Tensor, layout: Layout) -> dict[str, Tensor]:
    extra = {}
    if layout.smoothed:
        generator = torch.Generator().manual_seed(weight.shape[1])
        scale = torch.rand(weight.shape[1], generator=generator) + 0.5
        weight, extra = weight / scale, {"pre_quant_scale": scale}
    made, told = quantised(weight, layout)
    text = torch.tensor(list(json.dumps(told).encode()), dtype=torch.uint8)
    parts = {**made.state_dict("weight"), **extra, "comfy_quant": text}
    return {f"{path}.{name}": value for name, value in parts.items()}


def _loaded(family: str, state: dict[str, Tensor]) -> Any:
    small = small_of(family)
    if small.build is not None:
        return comfy.sd.load_diffusion_model_state_dict(state)
    model = small.shrunk(torch.float32, quantised=True)
    model.model.diffusion_model.load_state_dict(state)
    return model


def meant(layer: Any) -> Tensor:
    """The matrix (out, in) in float32 by which a quantised layer multiplies its input, whatever its file stores."""
    weight = layer.weight.to(torch.float32).dequantize()
    smoothing = getattr(layer, "pre_quant_scale", None)
    return weight if smoothing is None else weight * smoothing.float()


def quantised_layers(network: nn.Module) -> dict[str, Any]:
    """The layers of a network whose weight is quantised, by path."""
    return {path: m for path, m in network.named_modules() if isinstance(getattr(m, "weight", None), QuantizedTensor)}


def dequantised_model(family: str, model: Any) -> Any:
    """A small MODEL of `family` with plain float32 weights that mean what those of the quantised `model` mean."""
    network = model.model.diffusion_model
    layers = quantised_layers(network)
    plain = small_model(family)
    stored = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    state = {}
    for name in plain.model.diffusion_model.state_dict():
        layer = layers.get(name.removesuffix(".weight"))
        state[name] = stored[name].float() if layer is None else meant(layer)
    plain.model.diffusion_model.load_state_dict(state)
    return plain
