"""The models of a run: one, or two experts that take turns, of which one is on the device at a time."""

from __future__ import annotations

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ..autograd.compiled import Compiler
from ..cache.cache import Cache
from ..errors import AdapterError, ConfigError, FamilyError
from ..experts import EXPERTS, HIGH, LOW, levels_of
from ..settings import TrainSettings
from ..training.job import Pair
from .families import Resolved
from .memory.plan import NEARLY, MemoryPlan
from .model.adapted import AdaptedModel
from .model.encoders import patcher_identity
from .model.fitting import check_cache_fits, check_samples_fit
from .model.trainable import TrainableModel
from .resolving import Request, settle, triggers_of
from .swap.block_swap import unload_models
from .swap.copies import is_main_memory
from .texts.trained import TrainedTexts, captions_of

_REMEDY = "Connect the two files of one model, as wan2.2 t2v high_noise and low_noise."
_SAME = "model_low: it is the same model as model. Load the file for low noise with a second loader."


class Models:
    """What a run trains, with its adapters; of two the first is the one for high noise.

    Attributes:
        trainables: One or two.
        adapters: Of each.
        switch: The noise level from which on it is the first one's; 0 of one.
        texts: The text encoders that are trained with it; None for none.
        rank: Of their adapters.
    """

    def __init__(self, trainables: list[TrainableModel], settings: Resolved, texts: TrainedTexts | None = None) -> None:
        """With new adapters for each, ejected."""
        self.trainables, self._train, self.rank = trainables, settings.train, settings.adapter.rank
        self.adapters = [one.make_adapters(settings.adapter, seed=settings.train.seed) for one in trainables]
        self.switch = settings.train.expert_switch if len(trainables) > 1 else 0.0
        self.texts = texts
        self.adapted = [
            AdaptedModel(one, adapters, texts) for one, adapters in zip(trainables, self.adapters, strict=True)
        ]
        if texts is not None:
            trainables[0].companions.append(texts.patcher)
        self._at, self._apart, self._room = 0, False, 0
        # Room that an optimizer's state will need that is not there yet.
        self._coming = [0] * len(trainables)

    def __len__(self) -> int:
        """One or two."""
        return len(self.trainables)

    def pair(self) -> Pair | None:
        """For the training loop; None of one."""
        if len(self) == 1:
            return None
        return Pair(self.adapted[1], self.switch, self._train.switch_experts_every, self.show)

    def load(self, plan: MemoryPlan) -> None:
        """Bring the first one's weights to the device, and every other model off it."""
        first, weights = self.trainables[0], [one.patcher.model_size() for one in self.trainables]
        self._apart = not is_main_memory(first.device) and plan.total + sum(weights[1:]) > NEARLY * plan.card
        self._room = plan.activations + plan.gradients
        self._coming = [0] + [plan.optimizer // len(self)] * (len(self) - 1)
        first.load(activation_bytes=plan.activations + plan.trained)

    @contextlib.contextmanager
    def loaded(self, plan: MemoryPlan, cache: Cache) -> Iterator[None]:
        """While it lasts what a session needs is on the device; `cache` is what is trained on."""
        with contextlib.nullcontext() if self.texts is None else self.texts.alone(cache):
            self.load(plan)
            yield

    @contextlib.contextmanager
    def session(self, *, tell: Callable[[str], None]) -> Iterator[None]:
        """While it lasts they can be trained: the first at once, the other when it was shown."""
        with contextlib.ExitStack() as stack:
            for one, adapters in zip(self.trainables, self.adapters, strict=True):
                compiler = Compiler(tell=tell) if self._train.compile else None
                one.inputs.tell = tell
                resting, checkpointing = one is not self.trainables[0], self._train.checkpointing
                stack.enter_context(
                    one.session(adapters, checkpointing=checkpointing, compiler=compiler, resting=resting)
                )
            if self.texts is not None:
                stack.enter_context(self.texts.session())
            self._at = 0
            yield

    def show(self, number: int) -> None:
        """Within a session: this one is used from here on; the other's weights wait in main memory."""
        if number == self._at:
            return
        resting, self._at = self.trainables[self._at], number
        resting.rest()
        # What the two keep in its place in main memory would add up.
        resting.swap.release()
        resting.inputs.release()
        if self._apart:
            unload_models()
        room, self._coming[number] = self._room + self._coming[number], 0
        self.trainables[number].wake(activation_bytes=room)

    @contextlib.contextmanager
    def suspended(self, *, activation_bytes: int) -> Iterator[None]:
        """Within a session: see `TrainableModel.suspended`; both can be drawn with."""
        with self._texts_at_rest(), self.trainables[self._at].suspended(activation_bytes=activation_bytes):
            try:
                yield
            finally:
                if self._apart and len(self) > 1:
                    unload_models()

    @contextlib.contextmanager
    def _texts_at_rest(self) -> Iterator[None]:
        if self.texts is None:
            yield
            return
        self.texts.rest()
        try:
            yield
        finally:
            self.texts.wake()


def models_of(request: Request, trainable: TrainableModel, settings: Resolved) -> tuple[Models, Resolved]:
    """The models of a request whose first one and settings are resolved, and the settings as they are for them.

    Raises:
        ConfigError, FamilyError: The second one does not go with the first.
        AdapterError: No layer matches.
    """
    low, settings = second_of(request.model_low, trainable, settings)
    if low is None:
        return Models([trainable], settings, _texts_of(request, settings)), settings
    if patcher_identity(low.patcher) == patcher_identity(trainable.patcher):
        raise ConfigError(_SAME)
    check_cache_fits(request.cache, low)
    if request.samples is not None:
        check_samples_fit(request.samples, low)
    return Models([trainable, low], settings), settings


def _texts_of(request: Request, settings: Resolved) -> TrainedTexts | None:
    if request.texts is None:
        return None
    return TrainedTexts(
        request.texts,
        settings.adapter,
        seed=settings.train.seed,
        captions=captions_of(request.cache),
        trigger=next(iter(triggers_of(request.cache)), ""),
    )


def second_of(model: Any, trainable: TrainableModel, settings: Resolved) -> tuple[TrainableModel | None, Resolved]:
    """The model for low noise that goes with `trainable`, None where none is given, and the settings for both.

    Raises:
        ConfigError, FamilyError: It does not go with it, or there are no levels for one of them.
    """
    train, usual = settings.train, TrainSettings()
    if model is None:
        # What two would do is no part of what one learns.
        alone = {name: getattr(usual, name) for name in ("expert_switch", "switch_experts_every")}
        return None, dataclasses.replace(settings, train=dataclasses.replace(train, **alone))
    switch = train.expert_switch or usual_switch(trainable)
    if not switch:
        raise FamilyError(
            f"model_low: this {trainable.family.title} model is not one of two for high and for low noise, as those of "
            "Wan 2.2 14B are. Disconnect it."
        )
    if model.model is trainable.model:
        raise ConfigError(_SAME)
    # Of another family first, whose own errors would be told as those of `model`.
    kinds = [type(one.model.model_config).__name__ for one in (trainable.patcher, model)]
    if kinds[0] != kinds[1]:
        raise FamilyError(f"model_low: it is of the kind {kinds[1]}, and model of {kinds[0]}. {_REMEDY}")
    options = {"loss": settings.loss, "adapter": settings.adapter, "optimizer": settings.optimizer}
    low, _ = settle(model, **options, train=train)
    _check_alike(low, trainable)
    for expert in EXPERTS:
        levels_of(expert, settings.loss, switch)
    return low, dataclasses.replace(settings, train=dataclasses.replace(train, expert_switch=switch))


def usual_switch(trainable: TrainableModel) -> float:
    """The noise level at which such models change over when they draw; 0 of those that are not two."""
    return trainable.family.switch_for(trainable.model.model_config)


def _check_alike(low: TrainableModel, high: TrainableModel) -> None:
    """Nothing if the two are of one size and storage; else an error that says in what they differ."""
    shapes = [{name: tuple(p.shape) for name, p in one.network.named_parameters()} for one in (high, low)]
    unlike = [name for name in {**shapes[0], **shapes[1]} if shapes[0].get(name) != shapes[1].get(name)]
    if unlike:
        raise FamilyError(
            f"model_low: it is of another size or variant than model, as its layer {unlike[0]} tells. {_REMEDY}"
        )
    stored = [_stored(one.network) for one in (high, low)]
    if stored[0] != stored[1] or low.dtype != high.dtype:
        raise ConfigError(
            f"model_low: its weights are stored as {stored[1]} and computed in {low.dtype}, those of model as "
            f"{stored[0]} and in {high.dtype}. Load both in one format."
        )


def _stored(network: torch.nn.Module) -> str:
    """The dtype that most numbers of a network are stored in."""
    counted: Counter[str] = Counter()
    for parameter in network.parameters():
        counted[str(parameter.dtype).removeprefix("torch.")] += parameter.numel()
    return counted.most_common(1)[0][0]


def starts_of(start: Path | None, models: Models) -> list[Path]:
    """The LoRA files that each one's training begins with, none where it begins anew.

    Raises:
        AdapterError: There are two models, and the file is not one of two that are named after them.
    """
    if start is None:
        return []
    if len(models) == 1:
        return [start]
    # What is added to the name of a run stands last in it.
    found = max(EXPERTS, key=start.name.rfind)
    before, _, after = start.name.rpartition(found)
    files = [start.with_name(f"{before}{one}{after}") for one in (HIGH, LOW)]
    if found not in start.name or not all(one.is_file() for one in files):
        raise AdapterError(
            f"start_from: two models begin with two files in one folder whose names differ in {HIGH} and {LOW} only, "
            f"and {start.name} has no such partner. Choose a file of such a pair."
        )
    started = {_started(one) for one in files} - {""}
    if len(started) > 1:
        raise AdapterError(
            f"start_from: {files[0].name} and {files[1].name} are of two trainings, so that they do not go together. "
            "Give the two files of one training names that differ in nothing else."
        )
    return files


def _started(file: Path) -> str:
    """When the training of a LoRA file began, as it tells itself; empty where it does not."""
    # One that cannot be read is told where its tensors are.
    with contextlib.suppress(OSError, SafetensorError), safe_open(file, "pt") as opened:
        return (opened.metadata() or {}).get("ss_training_started_at", "")
    return ""
