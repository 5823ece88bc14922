"""Layers with a change that is no product of two factors: LoKr and LoHa, made by PEFT, and a full difference.

PEFT makes the factors and their first values. What is computed with them is here: its own layers take no quantised
base, make the whole of each product anew in float32, and multiply by that.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from peft import LoHaConfig, LoKrConfig
from peft.tuners.loha import layer as loha
from peft.tuners.lokr import layer as lokr
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..autograd.traced import is_tracing
from ..errors import AdapterError
from .changes import FULL, LOHA, LOKR, Change
from .layers import is_linear
from .lora_keys import ADAPTER, Learned

# A whole weight wants about a tenth of the learning rate of a LoRA; with it in the product any optimizer's steps are
# so. Source: Schulman and Thinking Machines Lab 2025, LoRA Without Regret.
_FULL_SCALE = 0.1


class _Learned(nn.Module):
    """What is learned of one layer.

    Attributes:
        kind: As in `Change`.
        scale: Likewise.
        shape: Of the layer's weight.
    """

    kind = ""

    def __init__(self, parts: dict[str, nn.Parameter], *, scale: float, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.scale, self.shape = scale, shape
        for name, parameter in parts.items():
            self.register_parameter(name, parameter)

    def weight(self) -> Tensor:
        """What is added to the layer's weight, of its shape, float32."""
        raise NotImplementedError

    def bias(self, dtype: torch.dtype) -> Tensor | None:
        """What is added to its bias, if that is learned."""
        return None

    def of(self, x: Tensor) -> Tensor:
        """What a linear layer adds for x (…, in), (…, out) in the dtype of x."""
        return F.linear(x, self.weight().to(x.dtype), self.bias(x.dtype))


class _LoKr(_Learned):
    """scale · w1 ⊗ w2; the product is never made for a linear layer."""

    kind = LOKR
    lokr_w1: nn.Parameter

    def second(self) -> Tensor:
        """w2, (out₂, in₂) or (out₂, in₂, kh, kw) where it is whole, (out₂, in₂·kh·kw) where not."""
        own = self._parameters
        return own["lokr_w2"] if "lokr_w2" in own else own["lokr_w2_a"] @ own["lokr_w2_b"]  # type: ignore

    def weight(self) -> Tensor:
        return torch.kron(self.lokr_w1 * self.scale, self.second().flatten(1)).reshape(self.shape)

    def of(self, x: Tensor) -> Tensor:
        first, second = (self.lokr_w1 * self.scale).to(x.dtype), self.second().to(x.dtype)
        rows = F.linear(x.reshape(-1, first.shape[1], second.shape[1]), second)
        return first.matmul(rows).reshape(*x.shape[:-1], self.shape[0])


class _LoHa(_Learned):
    """scale · (w1_a·w1_b) ∘ (w2_a·w2_b)."""

    kind = LOHA

    def weight(self) -> Tensor:
        a, b, c, d = (self._parameters[f"hada_{name}"] for name in ("w1_a", "w1_b", "w2_a", "w2_b"))
        found = _hadamard(a, b, c, d, self.scale) if is_tracing() else _Hadamard.apply(a, b, c, d, self.scale)
        return found.reshape(self.shape)


class _Full(_Learned):
    """scale · diff, and likewise for the bias."""

    kind = FULL
    diff: nn.Parameter

    def weight(self) -> Tensor:
        return self.diff * self.scale

    def bias(self, dtype: torch.dtype) -> Tensor | None:
        learned = self._parameters.get("diff_b")
        return None if learned is None else (learned * self.scale).to(dtype)


def _hadamard(a: Tensor, b: Tensor, c: Tensor, d: Tensor, scale: float) -> Tensor:
    return (a @ b) * (c @ d) * scale


class _Hadamard(torch.autograd.Function):
    """`_hadamard` that keeps its four factors, and not the two products, which are as large as the weight."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, c: Tensor, d: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(a, b, c, d)
        ctx.scale = scale
        return a.mm(b).mul_(c.mm(d)).mul_(scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        a, b, c, d = ctx.saved_tensors
        first = c.mm(d).mul_(grad).mul_(ctx.scale)
        second = a.mm(b).mul_(grad).mul_(ctx.scale)
        return first.mm(b.t()), a.t().mm(first), second.mm(d.t()), c.t().mm(second), None


class _Whole(nn.Module, BaseTunerLayer):
    """A layer, and what is learned of it beside it."""

    def __init__(self, base_layer: nn.Module, learned: _Learned, *, dropout: float) -> None:
        nn.Module.__init__(self)
        self.base_layer, self.learned = base_layer, learned
        self.drop = nn.Dropout(dropout) if dropout else nn.Identity()
        # Where all that reads adapters looks for it.
        self.scaling = {ADAPTER: learned.scale}

    def trained(self) -> dict[str, nn.Parameter]:
        """What is learned, by its name in files."""
        return {name: p for name, p in self.learned._parameters.items() if p is not None}

    @torch.no_grad()
    def load(self, found: Learned, name: str) -> None:
        """Continue from what a file has of this layer; the scale is folded in, so the applied change is the same.

        Raises:
            AdapterError: It is of another kind, for which the whole weight is not learned here, or of other sizes.
        """
        own, kind = self.trained(), self.learned.kind
        if kind == FULL:
            values = _in_full(found, name, self.learned.shape)
            values = {part: tensor / self.learned.scale for part, tensor in values.items()}
        elif isinstance(found, Change) and found.kind == kind:
            whole = [part for part in ("lokr_w1", "lokr_w2") if part in own]
            parts = found.with_whole(*whole).parts
            first = next(part for part in own if part in ("lokr_w1", "hada_w1_a"))
            values = {**parts, first: parts[first] * (found.scale / self.learned.scale)} if first in parts else parts
            values = {part: t.reshape(own[part].shape) if _alike(t, own.get(part)) else t for part, t in values.items()}
        else:
            other = found.kind if isinstance(found, Change) else "LoRA"
            raise AdapterError(
                f"start_from: {name} has {other} weights in the file, and algorithm is {kind}. Choose the file's."
            )
        there = {part: tuple(tensor.shape) for part, tensor in values.items()}
        wanted = {part: tuple(parameter.shape) for part, parameter in own.items()}
        if there != wanted and not (kind == FULL and there == {"diff": wanted["diff"]}):
            raise AdapterError(
                f"start_from: {name} has {kind} weights of the sizes {_told(there)} in the file, and here they are "
                f"{_told(wanted)}. Set rank and lokr_factor to those of the file, and use a LoRA of this model."
            )
        for part, parameter in own.items():
            parameter.copy_(values.get(part, torch.zeros(())))

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """As the layer, in the dtype of x; without what is learned while adapters are disabled."""
        out = self.base_layer(x)
        return out if self.disable_adapters else out + self._added(self.drop(x))

    def _added(self, x: Tensor) -> Tensor:
        raise NotImplementedError


class WholeLinear(_Whole):
    """Of a linear layer: (…, in) to (…, out)."""

    def _added(self, x: Tensor) -> Tensor:
        return self.learned.of(x)


class WholeConv2d(_Whole):
    """Of a 2-D convolution: (B, in, H, W) to (B, out, H', W')."""

    def _added(self, x: Tensor) -> Tensor:
        # The layer's own way with strides and borders, whatever its forward is for now.
        return self.base_layer._conv_forward(x, self.learned.weight().to(x.dtype), self.learned.bias(x.dtype))


def whole_layer(layer: nn.Module, kind: str, *, rank: int, alpha: float, factor: int = 0, dropout: float = 0) -> _Whole:
    """`layer` with a change that is zero yet.

    Args:
        layer: Linear, quantised or not, or a 2-D convolution.
        kind: As in `Change`.
        rank: Of the LoHa; of a LoKr that of its second factor, which is whole where the rank is half its side or more.
        alpha: The change is multiplied by alpha / rank.
        factor: Of a LoKr: the sides of its first factor, at most; 0 for two factors that are as alike as they can be.
        dropout: Share of x that the change is not given while it is trained.
    """
    parts, scale = _MAKERS[kind](layer, rank, alpha, factor)
    learned = _LEARNED[kind](parts, scale=scale, shape=_shape(layer))
    return (WholeLinear if is_linear(layer) else WholeConv2d)(layer, learned, dropout=dropout)


def _in_full(found: Learned, name: str, shape: tuple[int, ...]) -> dict[str, Tensor]:
    """What a file changes of a layer as the difference itself."""
    if isinstance(found, Change):
        bias = {"diff_b": found.parts["diff_b"] * found.scale} if "diff_b" in found.parts else {}
    elif found.dora_scale is not None:
        raise AdapterError(
            f"start_from: {name} has DoRA magnitudes in the file, which would be lost. Take it out of full_layers."
        )
    else:
        bias = {}
    delta = found.delta()
    return {"diff": delta.reshape(shape) if delta.numel() == math.prod(shape) else delta, **bias}


def _alike(tensor: Tensor, own: Tensor | None) -> bool:
    """Whether they are the same numbers in another shape, as the factors of a convolution may be."""
    return own is not None and len(tensor) == len(own) and tensor.numel() == own.numel()


def _told(shapes: dict[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{part} {'×'.join(map(str, shape))}" for part, shape in shapes.items())


def _shape(layer: Any) -> tuple[int, ...]:
    if is_linear(layer):
        return layer.out_features, layer.in_features
    return layer.out_channels, layer.in_channels // layer.groups, *layer.kernel_size


def _stand_in(layer: Any) -> nn.Module:
    """One of torch's that PEFT makes factors for: it takes no layer of another class, as quantised ones are."""
    if is_linear(layer):
        return nn.Linear(layer.in_features, layer.out_features, bias=False, device="meta")
    sizes = layer.in_channels, layer.out_channels, layer.kernel_size
    return nn.Conv2d(*sizes, groups=layer.groups, bias=False, device="meta")


class _InPlace:
    """Keeps PEFT from moving what it makes to where the stand-in's weight is: nowhere."""

    def _move_adapter_to_device_of_base_layer(self, adapter_name: str, device: torch.device | None = None) -> None: ...


class _LoKrLinear(_InPlace, lokr.Linear): ...


class _LoKrConv2d(_InPlace, lokr.Conv2d): ...


class _LoHaLinear(_InPlace, loha.Linear): ...


class _LoHaConv2d(_InPlace, loha.Conv2d): ...


_Made = tuple[dict[str, nn.Parameter], float]


def _lokr(layer: nn.Module, rank: int, alpha: float, factor: int) -> _Made:
    config = LoKrConfig(r=rank, alpha=alpha, decompose_factor=factor or -1, init_weights="lycoris")  # type: ignore
    cls = _LoKrLinear if is_linear(layer) else _LoKrConv2d
    return _taken(cls(_stand_in(layer), ADAPTER, config=config, r=rank, alpha=alpha))


def _loha(layer: nn.Module, rank: int, alpha: float, factor: int) -> _Made:
    config = LoHaConfig(r=rank, alpha=alpha)  # type: ignore[arg-type]
    cls = _LoHaLinear if is_linear(layer) else _LoHaConv2d
    return _taken(cls(_stand_in(layer), ADAPTER, config=config, r=rank, alpha=alpha))


def _taken(made: Any) -> _Made:
    stores = {name: getattr(made, name) for name in made.adapter_layer_names}
    return {name: store[ADAPTER] for name, store in stores.items() if ADAPTER in store}, made.scaling[ADAPTER]


def _full(layer: Any, rank: int, alpha: float, factor: int) -> _Made:
    shapes = {"diff": _shape(layer)} | ({"diff_b": _shape(layer)[:1]} if layer.bias is not None else {})
    return {name: nn.Parameter(torch.zeros(shape)) for name, shape in shapes.items()}, _FULL_SCALE


_MAKERS: dict[str, Callable[[nn.Module, int, float, int], _Made]] = {LOKR: _lokr, LOHA: _loha, FULL: _full}
_LEARNED: dict[str, type[_Learned]] = {LOKR: _LoKr, LOHA: _LoHa, FULL: _Full}
