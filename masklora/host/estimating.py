"""Whether a training fits into a card, and what would make it fit: told, or refused, before it starts."""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ..adapters import AdapterSet
from ..cache.cache import Cache
from ..cache.crops import MASKED
from ..cache.plan import Entry
from ..dataset.geometry import Geometry
from ..errors import ConfigError
from ..findings import Finding, note, warning
from ..settings import OVER_MEMORY, OWN_GOAL, AdapterSettings, LossSettings, OptimizerSettings, TrainSettings
from .experts import second_of
from .families import Resolved
from .memory.cards import in_bytes
from .memory.plan import NEARLY, MemoryPlan, Training, plan_memory
from .memory.remedies import Remedy, passing, remedies_for
from .memory.step import StepShape
from .model.first_frame import settle_first_frame
from .model.fitting import check_cache_fits, size_fault
from .model.trainable import KEPT_CONDITIONINGS, TrainableModel
from .resolving import settle
from .texts.memory import text_memory
from .texts.parts import TextRequest

# How many captions are read to find the longest.
_CAPTIONS_READ = 16
# What masks are taken to cover where no data set tells.
_USUAL_MASK = 0.2
# From this share on, a change of a step's operations is told.
_NOTED = 0.02


@dataclass(frozen=True)
class Question:
    """A training whose memory is asked for.

    Attributes:
        model: ComfyUI's MODEL.
        cache: Gives sizes, captions and masks; None for pictures of `size` with masks of a fifth and captions of
            `tokens`.
        size: Width and height in pixels.
        tokens: Of a caption.
        card: All memory of the card in bytes; None for that of the model's device.
        model_low: A second MODEL that is trained by turns with it; None for none.
        texts: Text encoders that are trained beside it; None for none.
    """

    model: Any
    cache: Cache | None = None
    loss: LossSettings = field(default_factory=LossSettings)
    adapter: AdapterSettings = field(default_factory=AdapterSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    size: tuple[int, int] = (1024, 1024)
    tokens: int = 512
    card: int | None = None
    model_low: Any = None
    texts: TextRequest | None = None


def estimated(asked: Question) -> tuple[MemoryPlan, list[Finding]]:
    """The memory of a training that is not begun, and what a person should know of it; nothing is loaded.

    Raises:
        FamilyError: The model cannot be trained.
        ConfigError: A setting is out of range or not for this model, or the model reads what only a cache has.
        AdapterError: No layer matches.
    """
    trainable, settings = settle(
        asked.model,
        loss=asked.loss,
        adapter=asked.adapter,
        optimizer=asked.optimizer,
        train=asked.train,
        goal_name=OWN_GOAL if asked.cache is None else asked.cache.goal,
    )
    low, settings = second_of(asked.model_low, trainable, settings)
    models = 1 if low is None else 2
    if asked.cache is not None:
        check_cache_fits(asked.cache, trainable)
    elif fault := size_fault(trainable, *asked.size):
        raise ConfigError(f"width, height: {fault}. Choose another size.")
    adapters = _sketched(trainable, settings.adapter)
    if asked.cache is not None:
        begins = bool(settle_first_frame(trainable, asked.cache, settings.loss))
        training = training_of(trainable, adapters, settings, asked.cache, models=models, begins=begins)
    else:
        text = made_up_text(trainable, tokens=asked.tokens)
        step = step_of(trainable, settings, text, size=asked.size, masks=_USUAL_MASK)
        training = Training(trainable, adapters, settings, step, masks=_USUAL_MASK, models=models)
    training = with_texts_counted(dataclasses.replace(training, card=asked.card), asked.texts)
    plan = plan_memory(training)
    remedies = remedies_for(training, plan)
    found = judged(plan, remedies, refuse=False)
    if remedies and not (plan.too_large or plan.close):
        found.append(note(f"What would save memory: {'; '.join(map(_told, remedies))}."))
    return plan, found


def _sketched(trainable: TrainableModel, settings: AdapterSettings) -> AdapterSet:
    """Adapters of the right shapes without memory; DoRA's, which read the weights, are real."""
    shadow = copy.copy(trainable)
    shadow.device = torch.device("cpu" if settings.algorithm == "dora" else "meta")
    with shadow.device:
        return shadow.make_adapters(settings, seed=0)


def training_of(
    trainable: TrainableModel,
    adapters: AdapterSet,
    settings: Resolved,
    cache: Cache,
    *,
    models: int = 1,
    begins: bool = False,
) -> Training:
    """What is to be planned of a training: its largest micro-batch, of the largest bucket and the longest caption.

    `models` is how many models like this one are trained by turns, `begins` whether they are given the first frames
    of clips.

    Raises:
        CacheError: An entry is gone.
    """
    entry = max(cache.entries, key=_shown)
    keys = dict.fromkeys(caption.key for each in cache.entries for caption in each.captions if caption.key)
    texts = [cache.empty_text(), *map(cache.text, itertools.islice(keys, _CAPTIONS_READ))]
    longest = max(texts, key=lambda text: text["cond"].numel())
    masks = _largest_mask(cache)
    step = step_of(trainable, settings, longest, size=entry.bucket, frames=entry.latent_frames, masks=masks)
    begins = begins and bool(entry.latent_frames)
    beside = tuple((height // trainable.stride, width // trainable.stride) for width, height in entry.reference_sizes)
    step = dataclasses.replace(step, captions=min(len(keys), KEPT_CONDITIONINGS), begins=begins, references=beside)
    return Training(trainable, adapters, settings, step, masks, cropped=cache.settings.crop == MASKED, models=models)


def with_texts_counted(training: Training, texts: TextRequest | None) -> Training:
    """The training with what text encoders take that are trained beside the model."""
    taken = text_memory(texts, training.settings.adapter, captions=len(training.step.texts))
    return dataclasses.replace(training, texts=taken)


def _shown(entry: Entry) -> int:
    """Pixels that the network is shown of an entry, with its references."""
    sizes = [entry.bucket] * max(1, entry.latent_frames) + list(entry.reference_sizes)
    return sum(width * height for width, height in sizes)


def _largest_mask(cache: Cache) -> float | None:
    """The largest share of a picture that its mask covers; None where no picture has one."""
    if not any(entry.has_mask for entry in cache.entries):
        return None
    return max(e.facts.mean if e.has_mask and e.facts else 1.0 for e in cache.entries)


def step_of(
    trainable: TrainableModel,
    settings: Resolved,
    text: dict[str, Any],
    *,
    size: tuple[int, int],
    masks: float | None,
    frames: int = 0,
) -> StepShape:
    """The micro-batch of pictures of a size (width, height) in pixels, with equal captions and masks of that share.

    Of clips where `frames`, the latent's, is not 0.
    """
    loss, train = settings.loss, settings.train
    rows, columns = size[1] // trainable.stride, size[0] // trainable.stride
    grid = (frames, rows, columns) if frames else (rows, columns)
    return StepShape(
        texts=(text,) * train.batch_size,
        geometry=Geometry(source=size, resized=size, crop=(0, 0, *size)),
        grid=grid,
        checkpointing=train.checkpointing,
        accumulates=train.gradient_accumulation > 1 or loss.preservation_weight > 0,
        routes=passing(trainable, loss, grid=grid, masks=masks),
    )


def made_up_text(trainable: TrainableModel, *, tokens: int) -> dict[str, Any]:
    """A caption's conditioning of so many tokens in the widths that the model reads, as no text encoder gave it.

    Raises:
        ConfigError: The model reads what only its text encoder gives; a cache has that.
    """
    family = trainable.family
    width, pooled = trainable.text_widths()
    if not width or family.text_extras:
        raise ConfigError(
            f"cache: {family.title} is told more of a text than its features, which only a text encoder makes. Connect "
            "a Cache Dataset."
        )
    # ComfyUI asks for it where no layer reads it, too.
    text: dict[str, Any] = {"cond": torch.zeros(1, tokens, width), "pooled_output": torch.zeros(1, max(1, pooled))}
    if pooled:
        # Some networks read sizes in the same layer.
        whole = Geometry(source=(64, 64), resized=(64, 64), crop=(0, 0, 64, 64))
        (made,) = trainable.collate([text], [whole], (trainable.channels, 8, 8))
        text["pooled_output"] = torch.zeros(1, 2 * pooled - made["y"].shape[-1])
    return text


def judged(
    plan: MemoryPlan, remedies: Sequence[Remedy], *, over_memory: str = OVER_MEMORY[0], refuse: bool = True
) -> list[Finding]:
    """What a person should know of a plan: its figures, and where it does not fit easily, what would make it.

    Raises:
        ConfigError: It needs more than the card has, `over_memory` does not say to go on, and `refuse`.
    """
    text = plan.to_text()
    if plan.fault:
        return [warning(text)]
    if not (plan.too_large or plan.close):
        return [note(text)]
    goal = plan.card if plan.too_large else int(NEARLY * plan.card)
    advice = _advice(plan.total - goal, remedies)
    if plan.close:
        return [warning(_together(text, "Other programs on the card may leave too little.", advice))]
    if refuse and over_memory == OVER_MEMORY[0]:
        widgets = ", ".join(dict.fromkeys(r.widget for r in remedies)) or "model"
        raise ConfigError(
            _together(
                f"{widgets}: this training needs more than the card has.",
                text,
                advice,
                f"To train all the same, set over_memory to {OVER_MEMORY[1]}: ComfyUI then keeps a part of the weights "
                "in main memory, which is slow, or the card runs out.",
            )
        )
    return [warning(_together(text, advice))]


def _together(*sentences: str) -> str:
    return " ".join(filter(None, sentences))


def _advice(lacking: int, remedies: Sequence[Remedy]) -> str:
    """The cheapest changes that save what is lacking: those that do so alone, else as many as it takes."""
    if not remedies:
        return ""
    alone = [r for r in remedies if r.saving >= lacking][:3]
    if alone:
        return f"One of these is enough: {'; '.join(map(_told, alone))}."
    together, saved = [], 0
    for remedy in remedies:
        together.append(remedy)
        saved += remedy.saving
        if saved >= lacking:
            return f"Together these may be enough: {'; '.join(map(_told, together))}."
    return f"All of these together are not enough: {'; '.join(map(_told, together))}. Choose a smaller model."


def _told(remedy: Remedy) -> str:
    """What it saves, and where that is much, by how many operations a step is shorter or longer."""
    text, change = f"{remedy.text} saves {in_bytes(remedy.saving)}", remedy.work - 1
    if abs(change) < _NOTED:
        return text
    return f"{text} and {-change:.0%} of the work" if change < 0 else f"{text} for {change:.0%} more work"
