"""The two sides of the speed comparison: our training loop and ComfyUI's Train LoRA node, on the same inputs.

Both run whole, as a user runs them; only the ends of their steps are noted, in process CPU time unless told otherwise.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.sd
import comfy.utils
import comfy_extras.nodes_train as nodes_train
import numpy as np
import safetensors.torch
import torch

from harness.models import HashedText, small_model, small_of
from masklora.cache.cache import Cache, build_cache
from masklora.cache.shots import ClipRule
from masklora.dataset.loading import from_images
from masklora.host.model.encoders import TEXT_MASK
from masklora.host.training import Request, train_lora
from masklora.settings import (
    AdapterSettings,
    CacheSettings,
    CaptionSettings,
    DatasetSettings,
    LossSettings,
    OptimizerSettings,
    TrainSettings,
)
from masklora.training.job import Hooks
from masklora.training.metrics import StepReport

RANK = 8
# At 24 × 24 each weight of the U-Net is used as often in a step as SD 1.5's are at 512²: about 370 times.
LATENT = 24
STRIDE = 8
PICTURES = 8
RATE = 1e-4
TRIGGER = "thing"
WARM_UP = 3
Clock = Callable[[], float]
NETWORKS: dict[str, tuple[str, dict[str, int]]] = {
    "U-Net": ("sd15", {}),
    "Flux": ("flux", {"hidden": 512, "double": 2, "single": 3}),
}
# Compared in a step's time alone.
MORE_NETWORKS: dict[str, tuple[str, dict[str, int]]] = {
    "Z-Image": ("z_image", {"dim": 512, "n_heads": 4, "n_kv_heads": 4, "n_layers": 4}),
    "Wan": ("wan", {"dim": 512, "ffn_dim": 1536, "num_heads": 4, "num_layers": 6}),
}
CHANNELS = {"sd15": 4, "flux": 16, "z_image": 16, "wan": 16}


@dataclass(frozen=True)
class Variant:
    """One way to train: whose loop, and what its user chose.

    Attributes:
        side: "ours" or "core".
        batch: Pictures a step.
        checkpointing: Ours: a mode; core: the depth, "0" for none.
        targets: Ours only: the preset; "all" takes the convolutions too.
        compile: Ours only.
        loss: Ours only; without a prior unless asked, because core has none.
    """

    side: str
    batch: int = 1
    checkpointing: str = "per block"
    targets: str = "all"
    compile: bool = False
    loss: LossSettings = field(default_factory=lambda: LossSettings(prior_weight=0.0))


@dataclass
class Trial:
    """What one training showed: seconds of CPU of each measured step, what was trained, where the prior ran."""

    seconds: list[float]
    counts: dict[str, int] = field(default_factory=dict)
    asked: list[bool] = field(default_factory=list)


class RandomLatents:
    """A VAE of the cache's protocol whose latents are noise."""

    stride = STRIDE

    def __init__(self, channels: int, *, clips: bool) -> None:
        self.channels, self.rule = channels, ClipRule(clips)
        self.identity = f"random latents {channels}"
        self._generator = torch.Generator().manual_seed(5)

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        shape = (len(images), self.channels, images.shape[1] // STRIDE, images.shape[2] // STRIDE)
        return torch.randn(shape, generator=self._generator)


class Stage:
    """A network in a file, as a loader node would open it, and the data that both sides train on."""

    def __init__(self, network: str, folder: Path, *, latent: int = LATENT, clock: Clock = time.process_time) -> None:
        self.network, self.folder, self.latent, self.clock = network, folder, latent, clock
        self.family, self._sizes = (NETWORKS | MORE_NETWORKS)[network]
        self.file = folder / f"{self.family}.safetensors"
        weights = small_model(self.family, **self._sizes).model.diffusion_model.state_dict()
        safetensors.torch.save_file({k: v.contiguous() for k, v in weights.items()}, self.file)
        self.parameters = sum(v.numel() for v in weights.values())
        self.cache = self._make_cache()
        self._model: Any = None

    def _make_cache(self) -> Cache:
        side, rng = self.latent * STRIDE, np.random.default_rng(0)
        masks = [np.zeros((side, side), np.float32) for _ in range(PICTURES)]
        for i, mask in enumerate(masks):
            mask[32:192, 16 * i : 16 * i + 96] = 1.0
        pictures = [rng.random((side, side, 3), dtype=np.float32) for _ in masks]
        captions = [f"a {TRIGGER} {i}" for i in range(PICTURES)]
        return build_cache(
            from_images(pictures, masks, captions, DatasetSettings(caption=CaptionSettings(trigger=TRIGGER))),
            CacheSettings(resolution=side, storage="memory"),
            encoder=RandomLatents(CHANNELS[self.family], clips=self.family == "wan"),
            text=HashedText(self.family),
        )

    @property
    def model(self) -> Any:
        """The MODEL, loaded once, in inference mode as ComfyUI's executor does."""
        if self._model is None:
            with torch.inference_mode():
                self._model = self._open()
        return self._model

    def _open(self, *, disable_dynamic: bool = False) -> Any:
        if small_of(self.family).build is not None:
            return comfy.sd.load_diffusion_model(str(self.file), disable_dynamic=disable_dynamic)
        # Of these ComfyUI knows no small sizes by the file. Core's node opens its own copy of the model.
        model = small_model(self.family, **self._sizes)
        model.model.diffusion_model.load_state_dict(comfy.utils.load_torch_file(str(self.file)))
        model.cached_patcher_init = self._open, ()
        return model

    def train(self, variant: Variant, *, steps: int, warm_up: int = WARM_UP) -> Trial:
        """Train as `variant` says; `steps` are measured after the warm-up."""
        with tidy():
            run = train_ours if variant.side == "ours" else train_core
            return run(self, variant, steps=steps, warm_up=warm_up)


@contextlib.contextmanager
def tidy() -> Iterator[None]:
    """Nothing of one training is left in memory when the next begins."""
    gc.collect()
    try:
        yield
    finally:
        comfy.model_management.unload_all_models()
        gc.collect()


class StepClock(Hooks):
    """Notes the time at the end of every step, and whether the base model was asked in it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.marks: list[float] = []
        self.asked: list[bool] = []

    def on_step(self, report: StepReport) -> None:
        self.asked.append(report.prior is not None)

    def after_step(self, step: int) -> None:
        self.marks.append(self._clock())


def train_ours(stage: Stage, variant: Variant, *, steps: int, warm_up: int) -> Trial:
    """Our loop with everything that belongs to it: masks, metrics file, clipping, checkpoint at the end."""
    clock = StepClock(stage.clock)
    # The last step is not measured: it contains the checkpoint, which core has none of.
    total = warm_up + steps + 1
    with tempfile.TemporaryDirectory(dir=stage.folder) as runs, torch.inference_mode():
        request = Request(
            model=stage.model,
            cache=stage.cache,
            loss=variant.loss,
            adapter=AdapterSettings(
                rank=RANK, alpha=RANK, targets=variant.targets, convolutions=variant.targets == "all"
            ),
            optimizer=OptimizerSettings(learning_rate=RATE),
            train=TrainSettings(
                steps=total,
                batch_size=variant.batch,
                checkpointing=variant.checkpointing,
                compile=variant.compile,
            ),
        )
        trained = train_lora(request, runs=Path(runs), hooks=clock, report=lambda text: None)
    factors = trained.factors.values()
    counts = {
        "weight matrices": len(trained.factors),
        "numbers in matrices": sum(f.down.numel() + f.up.numel() for f in factors),
        "biases, norms and scales": 0,
        "numbers in biases, norms and scales": 0,
    }
    return Trial(differences(clock.marks)[warm_up - 1 : -1], counts, clock.asked[warm_up:-1])


def _conditioning(text: dict[str, Any]) -> list[Any]:
    """ComfyUI's CONDITIONING of a text in the cache."""
    return [[text["cond"], {name: value for name, value in text.items() if name not in ("cond", TEXT_MASK)}]]


def train_core(stage: Stage, variant: Variant, *, steps: int, warm_up: int) -> Trial:
    """ComfyUI's Train LoRA node, called as its executor calls it."""
    depth = int(variant.checkpointing)
    entries = stage.cache.entries
    latents = torch.stack([stage.cache.latent(e) for e in entries])
    # Core gives the network what it is given; a clip's VAE would have kept the frame.
    latents = latents[:, :, None] if stage.family == "wan" else latents
    conditioning = [_conditioning(stage.cache.text(e.captions[0].key)) for e in entries]
    given: dict[str, Any] = {
        "model": stage.model,
        "batch_size": variant.batch,
        "grad_accumulation_steps": 1,
        "steps": warm_up + steps,
        "learning_rate": RATE,
        "rank": RANK,
        "optimizer": "AdamW",
        "loss_function": "MSE",
        "seed": 0,
        "training_dtype": "fp32",
        "lora_dtype": "fp32",
        "quantized_backward": False,
        "algorithm": "LoRA",
        "gradient_checkpointing": depth > 0,
        "checkpoint_depth": max(depth, 1),
        "offloading": False,
        "existing_lora": "[None]",
        "bucket_mode": False,
        "bypass_mode": False,
    }
    with noted_progress(stage.clock) as marks, torch.inference_mode():
        listed = {name: [value] for name, value in given.items()}
        output = nodes_train.TrainLoraNode.execute(latents=[{"samples": latents}], positive=conditioning, **listed)
    tensors = output.args[0]
    matrices = {k: v for k, v in tensors.items() if "lora_" in k}
    others = {k: v for k, v in tensors.items() if "lora_" not in k}
    counts = {
        "weight matrices": len(matrices) // 2,
        "numbers in matrices": sum(v.numel() for v in matrices.values()),
        "biases, norms and scales": len(others),
        "numbers in biases, norms and scales": sum(v.numel() for v in others.values()),
    }
    return Trial(differences(marks)[warm_up - 1 :], counts)


@contextlib.contextmanager
def noted_progress(clock: Clock) -> Iterator[list[float]]:
    """The times at which core's loop ends its steps; its code is as shipped."""
    marks: list[float] = []

    class NotedProgress(comfy.utils.ProgressBar):
        def update(self, value: int) -> None:
            marks.append(clock())

    before, shown = nodes_train.ProgressBar, comfy.utils.PROGRESS_BAR_ENABLED
    nodes_train.ProgressBar = NotedProgress
    comfy.utils.set_progress_bar_enabled(False)
    try:
        yield marks
    finally:
        nodes_train.ProgressBar = before
        comfy.utils.set_progress_bar_enabled(shown)


def differences(marks: Sequence[float]) -> list[float]:
    """Each mark less the one before it."""
    return [b - a for a, b in itertools.pairwise(marks)]
