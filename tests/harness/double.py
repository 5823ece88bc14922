"""ComfyUI's networks in float64, also where they ask for float32."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn


@contextlib.contextmanager
def no_float32() -> Iterator[None]:
    """While it lasts whoever asks torch for float32 gets float64: tables, norms and outputs of ComfyUI keep all digits.

    For differences so small that float32 would drown them. It holds in backward too, whatever runs it: torch's own
    modes for functions do not.
    """
    before = torch.float32
    torch.float32 = torch.float = torch.float64  # type: ignore[misc]
    Tensor.float = Tensor.double  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.float32 = torch.float = before  # type: ignore[misc]
        del Tensor.float


def in_double(network: nn.Module) -> None:
    """Makes a network of ComfyUI one of float64, to be called within `no_float32`."""
    network.double()
    network.dtype = torch.float64
