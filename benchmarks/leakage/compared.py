"""A base MODEL and the same with a LoRA as what the pack's own measure of leaks asks: `training.job.Trainable`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from masklora.host.model.trainable import TrainableModel


class Compared:
    """With the LoRA it is one MODEL, without it the other; nothing can be trained."""

    tokens = None
    inpaints = False

    def __init__(self, base: Any, adapted: Any) -> None:
        """Of two MODELs of ComfyUI."""
        self._base, self._adapted = TrainableModel(base), TrainableModel(adapted)
        self._off = False
        self.device: torch.device = self._base.device
        self.schedule = self._base.schedule
        self.latent_in = self._base.latent_in

    def grid_of(self, bucket: tuple[int, int]) -> tuple[int, int]:
        """The latent grid (h, w) of a bucket (width, height)."""
        return bucket[1] // self._base.stride, bucket[0] // self._base.stride

    def collate(self, texts: Sequence[dict[str, Any]], geometries: Sequence[Any], shape: Any, *, keys: Any) -> Any:
        """See `TrainableModel.collate`."""
        return self._base.collate(texts, geometries, shape, keys=keys)

    def denoise(self, noisy: Tensor, u: Tensor, conditioning: Any) -> Tensor:
        """What the one or the other predicts."""
        model = self._base if self._off else self._adapted
        with torch.inference_mode():
            model.load(activation_bytes=0)
            return model.denoise(noisy, u, conditioning)

    @contextlib.contextmanager
    def without_adapter(self) -> Iterator[None]:
        """The context in which it is the base."""
        self._off = True
        try:
            yield
        finally:
            self._off = False

    def set_training(self, on: bool) -> None:
        """Nothing drops out here."""
