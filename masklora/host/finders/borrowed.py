"""Models of ComfyUI's own nodes, borrowed for a generator: a picture in, the memory back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import comfy.model_management
import comfy.utils
import cv2
import numpy as np
import torch


def as_image(rgb: np.ndarray, *, longest: int | None = None) -> torch.Tensor:
    """A picture as ComfyUI's IMAGE: float32 (1, H, W, 3) in 0..1.

    Args:
        rgb: uint8 (H, W, 3).
        longest: Scale down, never up, so that no side is longer; None keeps the size.
    """
    height, width = rgb.shape[:2]
    factor = 1.0 if longest is None else min(1.0, longest / max(height, width))
    if factor < 1:
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        rgb = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    # Decoded pictures may be read-only, of which torch warns.
    return torch.from_numpy(np.require(rgb, requirements=("C", "W"))).float().div_(255)[None]


@contextlib.contextmanager
def silent_progress() -> Iterator[None]:
    """While it lasts, bars that ComfyUI's nodes make reach nobody: they would move the running node's own."""
    hook = comfy.utils.PROGRESS_BAR_HOOK
    comfy.utils.set_progress_bar_global_hook(None)
    try:
        yield
    finally:
        comfy.utils.set_progress_bar_global_hook(hook)


def unload(*patchers: Any) -> None:
    """Take models off the compute device; ComfyUI loads them again where a later node needs them."""
    for patcher in patchers:
        comfy.model_management.unload_model_and_clones(patcher, all_devices=True)
    comfy.model_management.soft_empty_cache()
