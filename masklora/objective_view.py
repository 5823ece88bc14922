"""What the loss saw of a sample, kept by reference: it costs a step nothing, and is drawn when a person looks."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


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
