"""The host's side: the base MODEL, VAE and CLIP of a variant, data sets and trainings through the pack's own nodes."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import comfy.sd
import numpy as np
import torch
from torch import Tensor

from benchmarks.drawing import drawn as drawn_latents
from masked_lora_pack.nodes.cache import CacheDataset
from masked_lora_pack.nodes.dataset import DatasetFromImages
from masked_lora_pack.nodes.settings import Adapter, Optimizer
from masklora.cache.cache import Cache
from masklora.dataset.geometry import Geometry
from masklora.host.exporting import LoraTensors, apply_lora
from masklora.host.model.trainable import TrainableModel
from masklora.host.training import Request, TrainedLora, train_lora
from masklora.settings import LossSettings, TrainSettings
from masklora.training.job import Hooks

from . import codec, scenes, words
from .base import base_tensors

PICTURES = 6
RANK = 4
CAPTION = scenes.CLASS
SAMPLER, SCHEDULER = "euler", "simple"
# Small batches stay in the processor's cache.
CHUNK = 40


_SQUARE = Geometry(source=(64, 64), resized=(64, 64), crop=(0, 0, 64, 64))


@dataclass(frozen=True)
class Recipe:
    """How long and how fast every condition is trained; alike for all of them."""

    steps: int = 120
    rate: float = 1.2e-2
    batch: int = 3


@dataclass
class World:
    """A variant's models, loaded once."""

    variant: str
    model: Any = field(init=False, repr=False)
    vae: Any = field(init=False, repr=False)
    clip: Any = field(init=False, repr=False)
    _texts: dict[str, dict[str, Any]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        """Load them as ComfyUI's loaders do, in its executor's inference mode."""
        with torch.inference_mode():
            self.model = comfy.sd.load_diffusion_model_state_dict(base_tensors(self.variant))
            self.vae = comfy.sd.VAE(sd=codec.vae_tensors(self.variant))
            self.clip = words.make_clip()

    def text(self, prompt: str) -> dict[str, Any]:
        """A prompt's conditioning, as the cache keeps it."""
        if prompt not in self._texts:
            self._texts[prompt] = {"cond": words.features(words.word_ids(prompt))[None], "pooled_output": None}
        return self._texts[prompt]

    def make_cache(self, coverage: int, seed: int, *, masks: str = "exact") -> Cache:
        """Six pictures of the subject on the training background, drawn by `seed`, with their replaced backgrounds.

        Args:
            coverage: the subject's size.
            seed: of the pictures and of the replaced backgrounds.
            masks: "exact", "none", or how they are perturbed.
        """
        drawn = training_scenes(coverage, seed)
        given = [] if masks == "none" else [scenes.perturb_mask(s.mask, masks) for s in drawn]
        with torch.inference_mode():
            dataset = DatasetFromImages.execute(
                images=[torch.from_numpy(scenes.to_pixels(s.picture))[None] for s in drawn],
                masks=[torch.from_numpy(scenes.to_pixels(m))[None] for m in given],
                captions=[CAPTION],
                trigger_word=[scenes.TRIGGER],
            ).args[0]
            return CacheDataset.execute(
                dataset,
                self.vae,
                self.clip,
                resolution=scenes.PIXELS,
                bucket_step=16,
                storage="memory",
                infill_variants=3,
                seed=seed,
            ).args[0]

    def train(self, cache: Cache, loss: LossSettings, recipe: Recipe, *, seed: int, **adapter: Any) -> Any:
        """The MODEL with the LoRA that these settings train; `adapter` are widgets of the Adapter node."""
        with tempfile.TemporaryDirectory() as runs:
            return self.trained(cache, loss, recipe, seed=seed, runs=Path(runs), **adapter)[1]

    def trained(
        self, cache: Cache, loss: LossSettings, recipe: Recipe, *, seed: int, runs: Path, **adapter: Any
    ) -> tuple[TrainedLora, Any]:
        """What came out of a training whose run lies in `runs`, and the MODEL with its LoRA."""
        with torch.inference_mode():
            request = Request(
                model=self.model,
                cache=cache,
                loss=loss,
                adapter=Adapter.execute(start_from="none", rank=RANK, alpha=float(RANK), **adapter).args[0],
                optimizer=Optimizer.execute(learning_rate=recipe.rate, schedule="cosine").args[0],
                train=TrainSettings(
                    steps=recipe.steps, batch_size=recipe.batch, seed=seed, checkpointing="off", save_every=0
                ),
            )
            trained = train_lora(request, runs=runs, hooks=Hooks(), report=lambda text: None)
            return trained, apply_lora(self.model, LoraTensors(trained))

    def sample(self, model: Any, prompts: Sequence[str], *, seed: int, steps: int) -> np.ndarray:
        """One picture a prompt, (B, 16, 16, 3), by ComfyUI's own sampler."""
        noise = torch.randn(len(prompts), 16, scenes.SIDE, scenes.SIDE, generator=torch.Generator().manual_seed(seed))
        parts = [
            self._sample(model, noise[i : i + CHUNK], prompts[i : i + CHUNK], seed, steps)
            for i in range(0, len(noise), CHUNK)
        ]
        return codec.from_model_space(torch.cat(parts), self.variant)

    def _sample(self, model: Any, noise: Tensor, prompts: Sequence[str], seed: int, steps: int) -> Tensor:
        """Latents in the model's own space."""
        cond = [[torch.cat([self.text(p)["cond"] for p in prompts]), {"pooled_output": None}]]
        return drawn_latents(model, noise, cond, steps=steps, sampler=SAMPLER, scheduler=SCHEDULER, seed=seed)

    def predict(self, model: Any, noisy: Tensor, u: Tensor, prompts: Sequence[str]) -> Tensor:
        """The velocity that a MODEL predicts for noisy latents in its own space."""
        with torch.inference_mode():
            trainable = TrainableModel(model)
            trainable.load(activation_bytes=0)
            conditioning = trainable.collate([self.text(p) for p in prompts], [_SQUARE] * len(prompts), noisy.shape[1:])
            return trainable.denoise(noisy, u, conditioning)


def training_scenes(coverage: int, seed: int) -> list[scenes.Scene]:
    """The six pictures that a seed draws."""
    rng = np.random.default_rng([seed, coverage])
    return [scenes.draw_subject(rng, coverage) for _ in range(PICTURES)]
