"""A MODEL and its adapters as the one thing that the training loop knows: `training.job.Trainable`."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ...adapters import AdapterSet
from ...loss.noise import Schedule
from ...loss.tokens import TokenModel, TokenPlan
from ..references.conditions import is_inpainting, with_references
from ..references.inpainting import with_cut_outs
from .first_frame import in_place, with_first_frames
from .trainable import TrainableModel

# Where the conditions of a sample hold from what its text's conditioning is made again at every step.
_CAPTION = "masked_lora_caption"


class LiveTexts(Protocol):
    """Text encoders that are trained beside the model."""

    @property
    def params(self) -> Mapping[str, nn.Parameter]:
        """What is trained of them, by names that are none of the model's."""
        ...

    def live(self, key: str, text: dict[str, Any]) -> dict[str, Any]:
        """The conditioning of the text with this key by the encoders as they are now; `text` is what it was before."""
        ...

    def set_training(self, on: bool) -> None:
        """Switch dropout."""
        ...


class AdaptedModel:
    """What is computed is the model's, what is learned is the adapters'; to be used within the model's session."""

    def __init__(self, model: TrainableModel, adapters: AdapterSet, texts: LiveTexts | None = None) -> None:
        """Of a model, whose schedule is settled, of adapters made for it, and of text encoders that learn too."""
        self.model, self.adapters, self.texts = model, adapters, texts
        self.device: torch.device = model.device
        self.schedule: Schedule = model.schedule
        self.params: Mapping[str, nn.Parameter] = {**adapters.parameters(), **(texts.params if texts else {})}
        self.tokens: TokenModel | None = model.token_model() if model.family.has_tokens else None
        self.grad_scaling: bool = model.dtype == torch.float16
        self.inpaints: bool = is_inpainting(model)

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
        made = self.model.collate(texts, geometries, shape, keys=keys)
        if self.texts is None:
            return made
        given = zip(made, keys, texts, geometries, strict=True)
        return [{**conds, _CAPTION: (key, text, geometry, tuple(shape))} for conds, key, text, geometry in given]

    def with_first_frames(self, conditioning: list[dict[str, Any]], starts: Tensor) -> list[dict[str, Any]]:
        """See `first_frame.with_first_frames`."""
        return with_first_frames(self.model, conditioning, starts)

    def with_references(self, conditioning: list[dict[str, Any]], references: Sequence[Tensor]) -> list[dict[str, Any]]:
        """See `references.conditions.with_references`."""
        return with_references(self.model, conditioning, references)

    def with_cut_outs(
        self, conditioning: list[dict[str, Any]], cut_outs: Tensor, masks: Tensor
    ) -> list[dict[str, Any]]:
        """See `references.inpainting.with_cut_outs`."""
        return with_cut_outs(self.model, conditioning, cut_outs, masks)

    def denoise(self, noisy: Tensor, u: Tensor, conditioning: Any, **planned: TokenPlan) -> Tensor:
        """See `TrainableModel.denoise`."""
        noisy, conditioning = in_place(noisy, self._with_live_texts(conditioning))
        return self.model.denoise(noisy, u, conditioning, **planned)

    def _with_live_texts(self, conditioning: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The conditions with their texts by the trained encoders; the base model's pass keeps those of the cache."""
        if self.texts is None:
            return conditioning
        asked = [conds[_CAPTION] for conds in conditioning]
        plain = [{name: value for name, value in conds.items() if name != _CAPTION} for conds in conditioning]
        if not self.adapters.enabled:
            return plain
        live = {key: self.texts.live(key, text) for key, text in {key: text for key, text, *_ in asked}.items()}
        made = [self.model.text_conditions(live[key], geometry, shape) for key, _, geometry, shape in asked]
        return [conds | new for conds, new in zip(plain, made, strict=True)]

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
        if self.texts is not None:
            self.texts.set_training(on)
