"""A MODEL and its adapters as the one thing that the training loop knows: `training.job.Trainable`."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...adapters import AdapterSet
from ...loss.noise import Schedule
from ...loss.tokens import TokenModel, TokenPlan
from .trainable import TrainableModel


class AdaptedModel:
    """What is computed is the model's, what is learned is the adapters'; to be used within the model's session."""

    def __init__(self, model: TrainableModel, adapters: AdapterSet) -> None:
        """Of a model, whose schedule is settled, and of adapters made for it."""
        self.model, self.adapters = model, adapters
        self.device: torch.device = model.device
        self.schedule: Schedule = model.schedule
        self.params: Mapping[str, nn.Parameter] = adapters.parameters()
        self.tokens: TokenModel | None = model.token_model() if model.family.has_tokens else None
        self.grad_scaling: bool = model.dtype == torch.float16

    def grid_of(self, bucket: tuple[int, int]) -> tuple[int, int]:
        """The latent grid (h, w) of a bucket (width, height)."""
        return bucket[1] // self.model.stride, bucket[0] // self.model.stride

    def latent_in(self, latent: Tensor) -> Tensor:
        """See `TrainableModel.latent_in`."""
        return self.model.latent_in(latent)

    def collate(
        self, texts: Sequence[dict[str, Any]], geometries: Sequence[Any], shape: Sequence[int], *, keys: Sequence[str]
    ) -> Any:
        """See `TrainableModel.collate`."""
        return self.model.collate(texts, geometries, shape, keys=keys)

    def denoise(self, noisy: Tensor, u: Tensor, conditioning: Any, **planned: TokenPlan) -> Tensor:
        """See `TrainableModel.denoise`."""
        return self.model.denoise(noisy, u, conditioning, **planned)

    def preview(self, latent: Tensor) -> Tensor:
        """See `TrainableModel.preview`."""
        return self.model.preview(latent)

    def autograd_scope(self) -> contextlib.AbstractContextManager:
        """See `TrainableModel.autograd_scope`."""
        return self.model.autograd_scope()

    def without_adapter(self) -> contextlib.AbstractContextManager:
        """The context in which `denoise` is the base model's."""
        return self.adapters.disabled()

    def set_training(self, on: bool) -> None:
        """Switch the adapters' dropout."""
        self.adapters.set_training(on)
