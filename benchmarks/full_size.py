"""Models of full size without data, and one step of the project's own training on them."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import comfy.model_detection
import comfy.model_patcher
import torch
from torch import Tensor

from benchmarks.counting import Counted
from benchmarks.fake_device import CopiesAtOnce, as_on_a_gpu, fake_device, made_in_place, without_data
from harness.small import small_models
from masklora.autograd.compiled import Compiler
from masklora.dataset.geometry import Geometry
from masklora.host.families import with_defaults
from masklora.host.model.adapted import AdaptedModel
from masklora.host.model.trainable import TrainableModel
from masklora.host.swap.block_swap import BlockSwap
from masklora.host.swap.choosing import in_order, spread
from masklora.host.swap.kept_inputs import KeptInputs
from masklora.settings import AdapterSettings, LossSettings, OptimizerSettings, TrainSettings
from masklora.training.metrics import micro_row, step_row
from masklora.training.microbatch import MicroBatch
from masklora.training.objective import Objective
from masklora.training.seeds import chance_of
from masklora.training.weights import Weights

# Share of the picture that the mask covers.
MASK = 0.2


@dataclass(frozen=True)
class Case:
    """What is trained, and how.

    Attributes:
        model: name of a small model, whose full size is meant.
        checkpointing: as in Train.
        loss: settings of the loss.
        side: pixels of the picture's sides.
        batch: samples of a micro-batch.
        dtype: of the computation, and of the weights.
        rank: of the adapters.
        targets: preset of targets.
        plain: whether captions have a trigger word, so that preservation has something to hold.
        stored: dtype of the weights where it is another one.
        small: whether the small model itself is meant.
        tokens: of a caption, where a text encoder does not make all equally long.
        swapped: share of the blocks whose weights wait in main memory.
        size: (width, height) where the picture is no square of `side`.
        frames: of a clip's latent; 0 for a picture.
    """

    model: str
    checkpointing: str = "per block"
    loss: LossSettings = dataclasses.field(default_factory=lambda: LossSettings(prior_weight=0.0))
    side: int = 1024
    batch: int = 1
    dtype: torch.dtype = torch.bfloat16
    rank: int = 16
    targets: str = "default"
    plain: bool = False
    stored: torch.dtype | None = None
    small: bool = False
    tokens: int = 512
    swapped: float = 0.0
    size: tuple[int, int] | None = None
    frames: int = 0


class _Masks:
    """What a feed tells of all masks of a size."""

    def __init__(self, share: float) -> None:
        self.share = share

    def most_mask_tokens(self, grid: tuple[int, ...], *, patch: int) -> int:
        *frames, rows, columns = grid
        return round(self.share * math.prod(frames) * (rows // patch) * (columns // patch))


class Counting:
    """A training within whose `running` context steps are counted; without any data unless a `device` has some."""

    def __init__(self, case: Case, device: torch.device | None = None) -> None:
        self.case, self.small = case, small_models()[case.model]
        self.device = device or fake_device()
        self.counted = Counted(self.device)
        self._context = as_on_a_gpu if device else without_data

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """The model is built and its adapters are in; its weights, adapters and inputs are counted apart."""
        case, counted = self.case, self.counted
        config = configuration(case)
        model = config.get_model({}, "", device=torch.device("meta"))
        with self._context(counted):
            counted.making = "weights"
            model.diffusion_model = config.get_model({}, "", device=self.device).diffusion_model
            for part in (*model.diffusion_model.parameters(), *model.diffusion_model.buffers()):
                part.requires_grad_(False)
                counted.hold(part)
            self._give_values(model.diffusion_model)
        patcher = comfy.model_patcher.CoreModelPatcher(model, load_device=self.device, offload_device=self.device)
        self.trainable = TrainableModel(patcher, dtype=case.dtype)
        settings = with_defaults(
            self.trainable.family,
            loss=case.loss,
            adapter=AdapterSettings(rank=case.rank, alpha=float(case.rank), targets=case.targets),
            optimizer=OptimizerSettings(),
            train=TrainSettings(),
        )
        with self._context(counted):
            counted.making = "adapters"
            with made_in_place(self.device):
                adapters = self.trainable.make_adapters(settings.adapter, seed=0)
                for parameter in adapters.parameters().values():
                    counted.hold(parameter)
            self.trainable.swap = self._swap()
            self.trainable.inputs = KeptInputs(self.device, self._copies())
            counted.making = "weights"
            with self.trainable.session(adapters, checkpointing=case.checkpointing, compiler=self._compiler()):
                counted.making = "inputs"
                self.loss, self.optimizer = settings.loss, settings.optimizer
                self.model = AdaptedModel(self.trainable, adapters)
                self.batch = self._batch()
                self.objective = Objective(self.model, seed=0, feed=_Masks(MASK))  # type: ignore[arg-type]
                counted.making = "optimizer"
                counted.gradients = list(self.model.params.values())
                self.weights = Weights(self.model, self.optimizer)
                self._make_optimizer_state()
                yield

    def _give_values(self, network: torch.nn.Module) -> None:
        """Nothing where only shapes count."""

    def _swap(self) -> BlockSwap:
        if not self.case.swapped:
            return BlockSwap()
        blocks = in_order(self.trainable.network, self.trainable.blocks)
        chosen = [blocks[i] for i in spread(round(self.case.swapped * len(blocks)), len(blocks))]
        return BlockSwap(chosen, device=self.device, copies=self._copies())

    def _copies(self) -> Any:
        return CopiesAtOnce()

    def _compiler(self) -> Compiler | None:
        return None

    def _make_optimizer_state(self) -> None:
        """As the first step does, at its end."""
        for parameter in self.model.params.values():
            parameter.grad = torch.zeros_like(parameter)
        self.weights.update(100)
        self.weights.settle()

    def step(self) -> dict[str, Any]:
        """One optimizer step, as the trainer takes it: the figures of it.

        Returns:
            Bytes at the peak by kind, launches, FLOPs of the step and of its first forward, and reads that wait.
        """
        counted, weights = self.counted, self.weights
        losses, parts, first_forward = [], [], 0
        counted.restart()
        counted.making = "forward"
        chance = chance_of(self.batch.latents.device, 0, 0)
        terms = self.objective.terms(self.batch, self.loss, chance, number=0, progress=0.0)
        for term in terms:
            with self.model.autograd_scope():
                counted.making = "forward"
                value, seen = term()
                first_forward = first_forward or counted.flops
                counted.making = "backward"
                weights.backward(value)
            losses.append(value.detach())
            parts.append(seen)
        counted.making, before = "optimizer", counted.launches.total()
        norm = weights.clip()
        seen = {name: value for part in parts for name, value in part.items()}
        row = step_row(micro_row(torch.stack(losses).sum(), seen)[None], norm)
        weights.observe(row[0], norm)
        weights.update(100)
        weights.settle()
        return {
            "bytes": dict(counted.at_peak),
            "launches": counted.launches.total(),
            "launches before the optimizer": before,
            "flops": counted.flops,
            "flops of the forward": first_forward,
            "most launched": dict(counted.launches.most_common(8)),
            "reads": list(counted.reads),
        }

    def _batch(self) -> MicroBatch:
        case, t = self.case, self.trainable
        size = case.size or (case.side, case.side)
        grid = (*([case.frames] if case.frames else []), size[1] // t.stride, size[0] // t.stride)
        shape = (t.channels, *grid)
        geometry = Geometry(source=size, resized=size, crop=(0, 0, *size))
        texts = [self._text() for _ in range(case.batch)]
        keys = [str(i) for i in range(case.batch)]
        conditioning = self.model.collate(texts, [geometry] * case.batch, shape, keys=keys)
        plain = self.model.collate(texts, [geometry] * case.batch, shape, keys=[f"plain {key}" for key in keys])
        return MicroBatch(
            latents=torch.zeros(case.batch, *shape, device=self.device),
            masks=torch.zeros(case.batch, 1, *grid, device=self.device),
            grid=grid,
            conditioning=conditioning,
            multiplier=torch.ones(case.batch, device=self.device),
            names=tuple(keys),
            plain=plain if case.plain else None,
            triggered=torch.ones(case.batch, device=self.device) if case.plain else None,
        )

    def _text(self) -> dict[str, Any]:
        """A caption's conditioning in the widths of the full-size model."""
        t = self.trainable
        text = self.small.texts(tokens=self.case.tokens, seed=0)
        width, pooled = t.text_widths()
        width = width or self.small.full_text
        if width and not self.case.small:
            text["cond"] = torch.zeros(1, text["cond"].shape[1], width)
        # What is built as it is has the widths of its text encoder already, and may read sizes in the same layer.
        if pooled and "pooled_output" in text and self.small.build is None and not self.case.small:
            text["pooled_output"] = torch.zeros(1, pooled)
        return {k: v.to(self.device) if isinstance(v, Tensor) else v for k, v in text.items()}


def configuration(case: Case) -> Any:
    """ComfyUI's configuration of the model."""
    small = small_models()[case.model]
    with torch.device("meta"):
        if small.build is not None:
            keys = small.build(**({} if case.small else small.full)).state_dict()
        else:
            shapes = small.keys() if callable(small.keys) else small.keys
            keys = {name: torch.empty(shape) for name, shape in shapes.items()}
    config = comfy.model_detection.model_config_from_unet(keys, "")
    if small.build is None:
        config.unet_config |= small.config if case.small else small.full
    config.set_inference_dtype(case.stored or case.dtype, case.dtype if case.stored else None)
    return config
