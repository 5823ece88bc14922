"""The host's side: a small FLUX of ComfyUI's own class, pairs as files, and trainings by the pack's own trainer."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.drawing import drawn
from benchmarks.leakage import words
from benchmarks.learning import with_lora
from harness.models import small_model
from masklora.cache.cache import Cache, build_cache
from masklora.dataset.loading import load_dataset
from masklora.host.model.encoders import ClipTextEncoder
from masklora.settings import (
    OWN_SIZE,
    CacheSettings,
    DatasetSettings,
    LossSettings,
)
from masklora.training.job import Hooks

from . import codec, scenes

# What of FLUX's network is smaller than in the published ones. Token, rotary tables and patches are as in these.
SIZES = {"hidden": 128, "double": 2, "single": 2, "text": words.WIDTH, "pooled": words.WIDTH}
SAMPLER, SCHEDULER, STEPS = "euler", "simple", 8
GUIDANCE = 1.0


def instruct(name: str) -> str:
    """The instruction for the edit of that name."""
    return f"make it {name}"


@dataclass(frozen=True)
class Recipe:
    """How every arm is trained; alike for all of them."""

    pairs: int = 16
    steps: int = 400
    rate: float = 3e-3
    batch: int = 4
    rank: int = 8


def training_pairs(seed: int, count: int) -> list[scenes.Pair]:
    """The pairs that a seed draws: the new edit, and a ground that was dyed with it."""
    rng = np.random.default_rng([seed, 19])
    wanted = [scenes.draw_pair(rng, scenes.WORD) for _ in range(count)]
    return [scenes.Pair(one.reference, scenes.dyed(one.target, one.mask), one.mask) for one in wanted]


def make_model(state: dict[str, Tensor]) -> Any:
    """The small FLUX with these weights as ComfyUI's MODEL."""
    model = small_model("flux", **SIZES)
    model.model.diffusion_model.load_state_dict(state)
    return model


@dataclass
class World:
    """The base model, loaded once, and what it trains and samples."""

    state: dict[str, Tensor] = field(repr=False)
    model: Any = field(init=False, repr=False)
    text: ClipTextEncoder = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Load it in inference mode, as ComfyUI's executor does."""
        with torch.inference_mode():
            self.model, self.text = make_model(self.state), ClipTextEncoder(codec.make_clip())

    def make_cache(self, masked: bool, seed: int, recipe: Recipe) -> Cache:
        """The training pairs of a seed, with their masks or without, written as files and read by the pack."""
        with tempfile.TemporaryDirectory() as name, torch.inference_mode():
            for number, pair in enumerate(training_pairs(seed, recipe.pairs)):
                shown = {"pictures": pair.target, "references": pair.reference}
                shown |= {"masks": pair.mask} if masked else {}
                for place, squares in shown.items():
                    (Path(name) / place).mkdir(exist_ok=True)
                    Image.fromarray(scenes.to_pixels(squares)).save(Path(name) / place / f"pair{number}.png")
                caption = Path(name) / "pictures" / f"pair{number}.txt"
                caption.write_text(instruct(scenes.WORD), encoding="utf-8")
            given = DatasetSettings(
                folder=f"{name}/pictures",
                mask_folder=f"{name}/masks" if masked else "",
                reference_folders=f"{name}/references",
            )
            side = scenes.SIDE * scenes.SQUARE
            # What is left to the model is this for FLUX.
            settings = CacheSettings(
                resolution=side,
                bucket_step=2 * scenes.SQUARE,
                storage="memory",
                reference_size=OWN_SIZE,
                infill_variants=3,
            )
            dataset = load_dataset(given, allowed=lambda path: path)
            return build_cache(dataset, settings, encoder=codec.SquareEncoder(), text=self.text)

    def train(self, cache: Cache, loss: LossSettings, recipe: Recipe, *, seed: int, hooks: Hooks | None = None) -> Any:
        """The MODEL with the LoRA that the pack's trainer learns from the cache."""
        return with_lora(self.model, cache, loss, recipe, seed=seed, hooks=hooks, guidance=GUIDANCE, leak_every=-1)

    def sample(
        self, model: Any, references: np.ndarray, edits: Sequence[str], *, seed: int, steps: int = STEPS
    ) -> np.ndarray:
        """References (B, 8, 8, 3) edited as named, (B, 8, 8, 3), by ComfyUI's own sampler."""
        noise = torch.randn(
            len(references), codec.CHANNELS, scenes.SIDE, scenes.SIDE, generator=torch.Generator().manual_seed(seed)
        )
        told = [codec.instruction(words.word_ids(instruct(edit))) for edit in edits]
        texts, pooled = (torch.cat(parts) for parts in zip(*told, strict=True))
        shown = {"reference_latents": [codec.to_vae_space(references)], "guidance": GUIDANCE, "pooled_output": pooled}
        return codec.from_model_space(
            drawn(model, noise, [[texts, shown]], steps=steps, sampler=SAMPLER, scheduler=SCHEDULER, seed=seed)
        )
