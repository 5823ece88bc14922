"""How much memory a training will take and how much it computes, told before it starts."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ...adapters import AdapterSet
from ...loss.tokens import parse_routes
from ...optimizers.library import state_numbers
from ...settings import OFFLOADED, PER_BLOCK, LossSettings, OptimizerSettings
from ..families import Resolved
from ..model.trainable import TrainableModel
from ..swap.copies import copies_aside
from ..texts.memory import TextMemory
from .cards import card_memory, card_name, in_bytes, nominal_tflops
from .step import StepCount, StepShape, count_step

_STATE_BYTES = {"adamw8bit": 2, "adafactor": 1, "lion": 4, "prodigy": 16, "schedule-free adamw": 8}
# A repeated run, and one with another number of steps, waits for no count.
_KEPT_COUNTS = 64
_COUNTS: OrderedDict[Any, StepCount] = OrderedDict()
# From this share of a card on, what others have on it may be too much.
NEARLY = 0.9

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Training:
    """A training that is planned.

    Attributes:
        trainable: The model.
        adapters: Its adapters, ejected.
        settings: Without open defaults.
        step: The largest micro-batch.
        masks: Largest share of a picture that its mask covers; None where no picture has one.
        cropped: Whether pictures are cropped to their masks already.
        card: All memory of the card in bytes; None for that of the model's device.
        models: How many models alike are trained by turns: the weights of one are on the card, what is trained of all.
        texts: What text encoders take that are trained beside it.
    """

    trainable: TrainableModel
    adapters: AdapterSet
    settings: Resolved
    step: StepShape
    masks: float | None = None
    cropped: bool = False
    card: int | None = None
    models: int = 1
    texts: TextMemory = field(default_factory=TextMemory)

    @property
    def copies(self) -> bool:
        """Whether the card copies while it computes; another one than that at hand is taken to."""
        return self.card is not None or copies_aside(self.trainable.device)


@dataclass(frozen=True)
class MemoryPlan:
    """The memory of a training when most is in use, in bytes.

    Attributes:
        weights: Of the model, as they are stored.
        adapters: What is trained, float32.
        gradients: Theirs, as far as they are there at that moment.
        optimizer: Its state, and the moving average's.
        captions: Those that are kept on the device.
        kept: What backward needs: inputs of blocks or all that is in them, copies of the adapters, the batch.
        work: What one block takes beside that while it is computed.
        card: All memory of the card; 0 where there is none to fit into.
        device: For people.
        flops: Of one step with all its passes; 0 where they differ from step to step or are not known.
        tflops: Nominal speed of the card; 0 where it is not known.
        fault: Why the step could not be counted, "" where it was; `kept` is then ComfyUI's estimate for sampling.
    """

    weights: int
    adapters: int
    gradients: int
    optimizer: int
    captions: int
    kept: int
    work: int
    card: int
    device: str
    flops: int = 0
    tflops: int = 0
    fault: str = ""

    @property
    def trained(self) -> int:
        """What is trained, with gradients and state."""
        return self.adapters + self.gradients + self.optimizer

    @property
    def activations(self) -> int:
        """What a step takes beside weights and adapters."""
        return self.captions + self.kept + self.work

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.trained + self.activations

    @property
    def too_large(self) -> bool:
        """Whether it is known not to fit into the card."""
        return 0 < self.card < self.total and not self.fault

    @property
    def close(self) -> bool:
        """Whether it fits into the card, and others may have too much there."""
        return not self.too_large and self.card > 0 and self.total >= NEARLY * self.card

    def to_text(self) -> str:
        """What the peak is made of, whether it fits, and what a step takes at least, for people."""
        text = (
            f"Memory for {self.device}: {in_bytes(self.total)} at the peak, of which weights {in_bytes(self.weights)}, "
            f"adapters {in_bytes(self.adapters)}, gradients {in_bytes(self.gradients)}, optimizer "
            f"{in_bytes(self.optimizer)}, captions {in_bytes(self.captions)}, kept for backward {in_bytes(self.kept)}, "
            f"work {in_bytes(self.work)}."
        )
        if self.fault:
            text += (
                f" This model's step could not be counted ({self.fault}); what is kept is ComfyUI's estimate for "
                "sampling, and training takes more."
            )
        if self.card:
            fits = "is more than" if self.total > self.card else f"is {self.total / self.card:.0%} of"
            text += f" That {fits} the card's {in_bytes(self.card)}."
        return f"{text} {self._speed()}".rstrip()

    def _speed(self) -> str:
        """The least time of a step; nothing where the card is not known."""
        if not self.flops or not self.tflops:
            return ""
        seconds = self.flops / self.tflops / 1e12
        return (
            f"A step takes {seconds:.2g} s or more: it has {self.flops / 1e12:.3g} TFLOP, and the card nominally does "
            f"{self.tflops} of them a second, of which trainings reach a half or less."
        )


def plan_memory(training: Training) -> MemoryPlan:
    """The plan for one training: counted for its step, see `count_step`, and kept for others like it."""
    trainable, settings, step = training.trainable, training.settings, training.step
    if step.checkpointing == OFFLOADED and not training.copies:
        step = dataclasses.replace(step, checkpointing=PER_BLOCK[0])
    numbers, texts = sum(p.numel() for p in training.adapters.parameters().values()), training.texts
    state = optimizer_bytes(settings.optimizer, [p.shape for p in training.adapters.parameters().values()])
    fault = ""
    try:
        found = _counted(trainable, training.adapters, step)
    # Whatever others have put into a network may not run without data; a training must not fail for its estimate.
    except Exception as error:
        logger.debug("masked lora: the step could not be counted", exc_info=True)
        fault = f"{type(error).__name__}: {str(error).splitlines()[0][:120]}" if str(error) else type(error).__name__
        shape = (len(step.texts), trainable.channels, *step.grid)
        found = StepCount(4 * numbers, 4 * numbers, 0, int(trainable.model.memory_required(shape)), 0)
    here, half = training.card is None, trainable.dtype in (torch.bfloat16, torch.float16)
    name = card_name(trainable.device)
    return MemoryPlan(
        weights=trainable.patcher.model_size() - _narrower(trainable, step.stored) + texts.weights,
        adapters=found.adapters * training.models + 4 * texts.numbers,
        gradients=found.gradients + 4 * texts.numbers,
        # That of text encoders by its share: their factors are much like the model's.
        optimizer=state * training.models + texts.numbers * state // max(1, numbers),
        captions=found.captions,
        kept=found.kept + texts.kept,
        work=found.work,
        card=card_memory(trainable.device) if training.card is None else training.card,
        device=name if here else f"a card of {in_bytes(training.card or 0)}",
        flops=_flops(found, settings, masked=training.masks is not None),
        tflops=nominal_tflops(name) if here and half else 0,
        fault=fault,
    )


def optimizer_bytes(settings: OptimizerSettings, shapes: Sequence[Sequence[int]]) -> int:
    """What an optimizer keeps of parameters of these shapes, and their moving average where there is one."""
    numbers, average = sum(map(math.prod, shapes)), 4 if settings.ema_decay > 0 else 0
    own = state_numbers(settings.optimizer, shapes)
    state = numbers * _STATE_BYTES.get(settings.optimizer, 8) if own is None else 4 * own
    return state + numbers * average


def _flops(count: StepCount, settings: Resolved, *, masked: bool) -> int:
    """Of one step, on average: its micro-batches, with their passes of the base model and for preservation."""
    loss = settings.loss
    if parse_routes(loss.routes) and 0 < loss.route_until < 1:
        return 0
    forwards, backwards = _passes(loss, masked=masked)
    return int(
        settings.train.gradient_accumulation * (forwards * count.forward_flops + backwards * count.backward_flops)
    )


def _passes(loss: LossSettings, *, masked: bool) -> tuple[float, float]:
    prior = loss.prior_probability if loss.prior_weight > 0 and masked else 0.0
    held = loss.preservation_probability if loss.preservation_weight > 0 else 0.0
    return 1 + prior + 2 * held, 1 + held


def _narrower(trainable: TrainableModel, stored: torch.dtype | None) -> int:
    """Bytes that the weights take less where layers store theirs in another dtype."""
    if stored is None:
        return 0
    return sum(w.numel() * (w.dtype.itemsize - stored.itemsize) for w in wide_weights(trainable))


def wide_weights(trainable: TrainableModel) -> list[Tensor]:
    """Weights in 16 or 32 bits, of layers that ComfyUI can hold in eight."""
    layers = (m for m in trainable.network.modules() if hasattr(m, "comfy_cast_weights"))
    found = (t for layer in layers for t in layer.parameters(recurse=False))
    return [t for t in found if t.dtype in (torch.float32, torch.bfloat16, torch.float16)]


def _counted(trainable: TrainableModel, adapters: AdapterSet, step: StepShape) -> StepCount:
    key = _key(trainable, adapters, step)
    if key not in _COUNTS:
        _COUNTS[key] = count_step(trainable, adapters, step)
        if len(_COUNTS) > _KEPT_COUNTS:
            _COUNTS.popitem(last=False)
    _COUNTS.move_to_end(key)
    return _COUNTS[key]


def _key(trainable: TrainableModel, adapters: AdapterSet, step: StepShape) -> Any:
    """Equal where the count is."""
    patcher, options = trainable.patcher, trainable.patcher.model_options["transformer_options"]
    layers = [(name, type(module).__name__) for name, module in trainable.network.named_modules()]
    weights = [(name, tuple(p.shape), str(p.dtype)) for name, p in trainable.network.named_parameters()]
    trained = [(name, tuple(p.shape)) for name, p in adapters.parameters().items()]
    others = sorted(options), sorted(patcher.object_patches), sorted(patcher.wrappers), sorted(patcher.attachments)
    texts = [sorted((k, _shape(v)) for k, v in text.items()) for text in step.texts]
    rest = dataclasses.replace(step, texts=())
    model = type(trainable.model).__name__, trainable.dtype, trainable.guidance, adapters.dropout
    return hash((repr((layers, weights, trained, others)), repr(texts), repr(rest), repr(model)))


def _shape(value: Any) -> str:
    return f"{tuple(value.shape)} {value.dtype}" if isinstance(value, Tensor) else repr(type(value))
