"""ComfyUI's networks in float64, also where they ask for float32."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class _InDouble(nn.Module):
    """A layer in float64 where ComfyUI's networks ask for float32, which would drown small differences."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    @property
    def weight(self) -> Tensor:
        """The layer's, which ComfyUI looks at."""
        return self.layer.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.double()).double()


def in_double(network: nn.Module) -> None:
    """Makes a network of ComfyUI compute in float64; its tables of rotary positions stay of float32's exactness."""
    network.double()
    network.dtype = torch.float64
    for name in ("pe_embedder", "rope_embedder", "patch_embedding"):
        if hasattr(network, name):
            setattr(network, name, _InDouble(getattr(network, name)))
