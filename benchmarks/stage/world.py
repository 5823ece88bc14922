"""The host's side: the demo's checkpoint as ComfyUI loads it, data sets, trainings and samples of the stage."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import comfy.sample
import comfy.sd
import numpy as np
import torch

from benchmarks.learning import with_lora
from demo import paint_check, scenes
from demo.assemble import build_checkpoint
from masked_lora_pack.nodes.cache import CacheDataset
from masked_lora_pack.nodes.dataset import DatasetFromImages
from masked_lora_pack.nodes.masks import TransformMasks
from masklora.cache.cache import Cache
from masklora.settings import LossSettings

from .scenes import Backdrop, Subject, training_pictures

CHANNELS, SIDE = 16, 16
# Small batches stay in the processor's cache.
CHUNK = 8


@dataclass(frozen=True)
class Recipe:
    """How every arm is trained; alike for all of them."""

    pictures: int = 10
    shrink: int = 4
    steps: int = 400
    rate: float = 6e-3
    batch: int = 2
    rank: int = 8


@dataclass
class World:
    """The demo's models, loaded once."""

    models: tuple[Any, Any, Any] = field(init=False, repr=False)
    _texts: dict[str, torch.Tensor] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        """Load them as ComfyUI's loader does, in its executor's inference mode."""
        with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
            path = str(build_checkpoint(Path(folder)))
            self.models = comfy.sd.load_checkpoint_guess_config(path, output_vae=True, output_clip=True)[:3]

    @property
    def model(self) -> Any:
        """ComfyUI's MODEL of the demo."""
        return self.models[0]

    def text(self, prompt: str) -> torch.Tensor:
        """A prompt's conditioning, (1, tokens, features)."""
        if prompt not in self._texts:
            clip = self.models[1]
            self._texts[prompt] = clip.encode_from_tokens(clip.tokenize(prompt))
        return self._texts[prompt]

    def make_cache(self, subject: Subject, backdrop: Backdrop, *, seed: int, masked: bool, recipe: Recipe) -> Cache:
        """The subject's pictures on the backdrop, drawn by `seed`, with their replaced backgrounds."""
        drawn = training_pictures(subject, backdrop, seed=seed, count=recipe.pictures)
        pictures = [torch.from_numpy(picture).float()[None] / 255 for picture, _ in drawn]
        masks = [torch.from_numpy(mask)[None] for _, mask in drawn] if masked else []
        with torch.inference_mode():
            made = DatasetFromImages.execute(
                images=pictures, masks=masks, captions=[f"a {subject.word}"], trigger_word=[subject.word]
            ).args[0]
            if masked and recipe.shrink:
                made = TransformMasks.execute(made, grow=-recipe.shrink).args[0]
            _, clip, vae = self.models
            settings = {"resolution": scenes.SIZE, "bucket_step": 16, "storage": "memory", "infill_variants": 3}
            return CacheDataset.execute(made, vae, clip, seed=seed, **settings).args[0]

    def train(self, cache: Cache, loss: LossSettings, recipe: Recipe, *, seed: int) -> Any:
        """The MODEL with the LoRA that the pack's trainer learns from the cache."""
        return with_lora(self.model, cache, loss, recipe, seed=seed, leak_every=-1)

    def paint(self, model: Any, prompts: Sequence[str], *, seed: int, steps: int) -> np.ndarray:
        """One picture a prompt, (B, 128, 128, 3) uint8, by ComfyUI's own sampler as the demo is sampled."""
        noise = torch.randn(len(prompts), CHANNELS, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
        with torch.inference_mode():
            parts = [
                self._paint(model, noise[i : i + CHUNK], prompts[i : i + CHUNK], seed, steps)
                for i in range(0, len(prompts), CHUNK)
            ]
        return np.concatenate(parts)

    def _paint(self, model: Any, noise: torch.Tensor, prompts: Sequence[str], seed: int, steps: int) -> np.ndarray:
        wanted = [[torch.cat([self.text(prompt) for prompt in prompts]), {"pooled_output": None}]]
        empty = [[self.text("").expand(len(prompts), -1, -1), {"pooled_output": None}]]
        latents = comfy.sample.sample(
            model,
            noise,
            steps,
            paint_check.GUIDANCE,
            paint_check.SAMPLER,
            paint_check.SCHEDULER,
            wanted,
            empty,
            torch.zeros_like(noise),
            seed=seed,
            disable_pbar=True,
        )
        return np.rint(self.models[2].decode(latents).clamp(0, 1).numpy() * 255).astype(np.uint8)
