"""What the loss saw of a sample, kept by reference: it costs a step nothing, and is drawn when a person looks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .views import BACKGROUND, GAP, latent_grid

# Smaller ones would be all rules.
SMALLEST_CELL = 4


@dataclass(frozen=True, eq=False)
class Seen:
    """One sample of a step.

    Attributes:
        name: of the picture.
        latent: (C, [F,] h, w), in the model's space, without noise.
        weights: ([F,] h, w), the weight of every latent cell in the loss, 0 to 1.
    """

    name: str
    latent: Tensor
    weights: Tensor

    @property
    def frames(self) -> int:
        """Latent frames of a clip; 0 of a picture."""
        return self.latent.shape[1] if self.latent.ndim == 4 else 0


def false_colours(latent: Tensor) -> Tensor:
    """The first three channels of a latent (C, [F,] h, w), each stretched over its range: (h, w, 3) in 0..1."""
    flat = latent if latent.ndim == 3 else latent[:, 0]
    three = flat[torch.arange(3) % flat.shape[0]].float().movedim(0, -1)
    low, high = three.amin(dim=(0, 1)), three.amax(dim=(0, 1))
    return (three - low) / (high - low).clamp(min=1e-6)


def about_colours(latent: Tensor, latent_format: Any) -> Tensor:
    """A latent (C, [F,] h, w) in about the colours of its picture, as previews do it: (h, w, 3) in 0..1.

    Args:
        latent: In the network's space.
        latent_format: ComfyUI's; one without factors for red, green and blue gives false colours.
    """
    factors = latent_format.latent_rgb_factors
    if factors is None:
        return false_colours(latent)
    if latent_format.latent_rgb_factors_reshape is not None:
        latent = latent_format.latent_rgb_factors_reshape(latent[None])[0]
    flat = latent if latent.ndim == 3 else latent[:, 0]
    rgb = flat.movedim(0, -1).float() @ torch.tensor(factors)
    bias = latent_format.latent_rgb_factors_bias
    return ((rgb if bias is None else rgb + torch.tensor(bias)) * 0.5 + 0.5).clamp(0, 1)


def draw_seen(seen: Seen, preview: Callable[[Tensor], Tensor], *, side: int = 256, frame: int = 0) -> np.ndarray:
    """The sample as the loss saw it: uint8 (h', w', 3), its colours on the left, darkened by their weight on the right.

    Args:
        seen: its tensors may be on any device.
        preview: of the job.
        frame: which of a clip's latent frames; the last one beyond it.
        side: of the longer side of each of the two, px; a cell has at least `SMALLEST_CELL` whole pixels.
    """
    with torch.no_grad():
        frame = min(frame, max(1, seen.frames) - 1)
        latent = seen.latent[:, frame : frame + 1] if seen.latent.ndim == 4 else seen.latent
        weights = seen.weights if seen.weights.ndim == 2 else seen.weights[frame]
        colours = preview(latent.detach().to("cpu", torch.float32)).numpy()
        weights = weights.detach().to("cpu", torch.float32).numpy()
    cell = max(SMALLEST_CELL, side // max(weights.shape))
    pixels = np.rint(colours * 255).clip(0, 255).astype(np.uint8)
    large = pixels.repeat(cell, axis=0).repeat(cell, axis=1)
    gap = np.full((large.shape[0], GAP, 3), BACKGROUND, np.uint8)
    return np.concatenate([large, gap, latent_grid(large, weights.clip(0, 1))], axis=1)
