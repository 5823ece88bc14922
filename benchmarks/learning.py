"""A LoRA that the pack's own trainer learns on a toy's small model."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Protocol

import torch

from masklora.cache.cache import Cache
from masklora.host.exporting import LoraTensors, apply_lora
from masklora.host.training import Request, train_lora
from masklora.settings import AdapterSettings, LossSettings, OptimizerSettings, TrainSettings
from masklora.training.job import Hooks


class Recipe(Protocol):
    """How long a toy learns, and what it learns with."""

    steps: int
    batch: int
    rank: int
    rate: float


def with_lora(
    model: Any, cache: Cache, loss: LossSettings, recipe: Recipe, *, seed: int, hooks: Hooks | None = None, **train: Any
) -> Any:
    """The MODEL with the LoRA that is learned from the cache; `train` are further settings of the training."""
    with tempfile.TemporaryDirectory() as runs, torch.inference_mode():
        request = Request(
            model=model,
            cache=cache,
            loss=loss,
            adapter=AdapterSettings(rank=recipe.rank, alpha=float(recipe.rank)),
            optimizer=OptimizerSettings(learning_rate=recipe.rate, schedule="cosine"),
            train=TrainSettings(
                steps=recipe.steps, batch_size=recipe.batch, seed=seed, checkpointing="off", save_every=0, **train
            ),
        )
        trained = train_lora(request, runs=Path(runs), hooks=hooks or Hooks(), report=lambda text: None)
        return apply_lora(model, LoraTensors(trained))
