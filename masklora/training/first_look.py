"""Whether the base model knows what it is shown: told in the first steps, before hours are spent.

A VAE or a text encoder of another model, or v taken for ε, has the right shapes and trains without an error; the base
model then predicts no better than nothing at all.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

SAMPLES = 16
# Share of the error of predicting nothing from which a model does not know what it sees; see `FirstLook`.
LOST = 0.9


class FirstLook:
    """Compares the first predictions of a run with predicting nothing, and tells once if they are no better.

    On whole pictures, mask or not, because a model knows backgrounds as well. Nothing waits for the device before
    enough samples were seen.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        """`tell` receives the sentence for a person."""
        self._tell = tell
        self._sums: Tensor | None = None
        self._seen = 0
        self.share: float | None = None

    def observe(self, prediction: Tensor, target: Tensor) -> None:
        """Take in a prediction and what it should be, (B, C, [F,] H, W), until `SAMPLES` were seen."""
        if self._seen >= SAMPLES:
            return
        p, t = prediction.detach().float(), target.detach().float()
        sums = torch.stack([(p - t).square().mean(), t.square().mean()]) * len(t)
        self._sums = sums if self._sums is None else self._sums + sums
        self._seen += len(t)
        if self._seen >= SAMPLES:
            error, nothing = self._sums.tolist()
            self.share = error / nothing if nothing > 0 else 0.0
            if self.share >= LOST:
                self._tell(
                    f"The base model predicts these pictures no better than nothing (error {error / self._seen:.3g}, "
                    f"of nothing {nothing / self._seen:.3g}). Look whether VAE and CLIP are those of the MODEL, and "
                    "whether a ModelSampling node changes what it predicts. Stop the training if in doubt."
                )
