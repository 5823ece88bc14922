"""The host's side: a small Wan of ComfyUI's own class, clips as files, and trainings by the pack's own trainer."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from comfy_extras.nodes_model_advanced import ModelSamplingSD3
from PIL import Image
from torch import Tensor

from benchmarks.drawing import drawn
from benchmarks.leakage import words
from benchmarks.leakage.scenes import CLASS, TRIGGER
from benchmarks.learning import with_lora
from harness.clips import write_clip
from harness.models import small_model
from masklora.cache.cache import Cache, build_cache
from masklora.dataset.loading import load_dataset
from masklora.host.model.encoders import ClipTextEncoder
from masklora.settings import (
    CacheSettings,
    CaptionSettings,
    DatasetSettings,
    LossSettings,
)

from . import codec, scenes

# What of Wan's network is smaller than in the published ones.
SIZES = {"dim": 128, "ffn_dim": 256, "num_heads": 4, "num_layers": 3, "text_dim": words.WIDTH}
SHIFT = 3.0
NO_MASK, UNION, MOVING = "no mask", "still union mask", "mask per frame"
ARMS = (NO_MASK, UNION, MOVING)
TRIGGERED = f"{TRIGGER} {CLASS}"
SAMPLER, SCHEDULER, STEPS = "euler", "simple", 12
CHUNK = 16


@dataclass(frozen=True)
class Recipe:
    """How every arm is trained; alike for all of them."""

    clips: int = 6
    steps: int = 300
    rate: float = 6e-3
    batch: int = 3
    rank: int = 8


def make_model(state: dict[str, Tensor]) -> Any:
    """The small Wan with these weights as ComfyUI's MODEL, its sampling shifted less than the large ones'."""
    model = small_model("wan", **SIZES)
    model.model.diffusion_model.load_state_dict(state)
    return ModelSamplingSD3().patch(model, SHIFT)[0]


def training_clips(seed: int, count: int) -> list[scenes.Clip]:
    """The clips that a seed draws: the subject crosses the training background."""
    rng = np.random.default_rng([seed, 17])
    return [scenes.draw_subject(rng) for _ in range(count)]


@dataclass
class World:
    """The base model, loaded once, and what it trains and samples."""

    state: dict[str, Tensor] = field(repr=False)
    model: Any = field(init=False, repr=False)
    text: ClipTextEncoder = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Load it in inference mode, as ComfyUI's executor does."""
        with torch.inference_mode():
            self.model, self.text = make_model(self.state), ClipTextEncoder(words.make_clip())

    def make_cache(self, arm: str, seed: int, recipe: Recipe) -> Cache:
        """The training clips of a seed with the masks of an arm, written as files and read by the pack."""
        with tempfile.TemporaryDirectory() as name, torch.inference_mode():
            folder = Path(name)
            for number, clip in enumerate(training_clips(seed, recipe.clips)):
                write_clip(folder / f"clip{number}.mkv", scenes.to_pixels(clip.frames))
                (folder / f"clip{number}.txt").write_text(CLASS, encoding="utf-8")
                if arm == UNION:
                    (folder / "masks").mkdir(exist_ok=True)
                    Image.fromarray(scenes.to_pixels(clip.union)).save(folder / "masks" / f"clip{number}.png")
                elif arm == MOVING:
                    write_clip(folder / "masks" / f"clip{number}.mkv", scenes.to_pixels(clip.masks))
            given = DatasetSettings(folder=name, caption=CaptionSettings(trigger=TRIGGER))
            settings = CacheSettings(
                resolution=80,
                bucket_step=2 * scenes.SQUARE,
                storage="memory",
                clip_frames=scenes.FRAMES,
                infill_variants=3,
            )
            dataset = load_dataset(given, allowed=lambda path: path)
            return build_cache(dataset, settings, encoder=codec.SquareEncoder(), text=self.text)

    def train(self, cache: Cache, loss: LossSettings, recipe: Recipe, *, seed: int) -> Any:
        """The MODEL with the LoRA that the pack's trainer learns from the cache."""
        return with_lora(self.model, cache, loss, recipe, seed=seed)

    def sample(self, model: Any, prompts: Sequence[str], *, seed: int, steps: int = STEPS) -> np.ndarray:
        """One clip a prompt, (B, 17, 8, 12, 3), by ComfyUI's own sampler."""
        shape = (codec.CHANNELS, 1 + (scenes.FRAMES - 1) // codec.STEP, scenes.ROWS, scenes.COLUMNS)
        noise = torch.randn(len(prompts), *shape, generator=torch.Generator().manual_seed(seed))
        parts = [
            self._sample(model, noise[i : i + CHUNK], prompts[i : i + CHUNK], seed, steps)
            for i in range(0, len(noise), CHUNK)
        ]
        return codec.from_model_space(torch.cat(parts))

    def _sample(self, model: Any, noise: Tensor, prompts: Sequence[str], seed: int, steps: int) -> Tensor:
        cond = [[torch.stack([words.features(words.word_ids(p)) for p in prompts]), {"pooled_output": None}]]
        return drawn(model, noise, cond, steps=steps, sampler=SAMPLER, scheduler=SCHEDULER, seed=seed)
