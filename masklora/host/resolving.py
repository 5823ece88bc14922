"""What a person asked for, made whole: the family's defaults filled in, and every check that comes before loading."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..cache.cache import Cache
from ..errors import ConfigError, FamilyError
from ..goals import goal, loss_by_goal, told
from ..loss.check import check_loss, check_loss_for
from ..loss.noise import Schedule
from ..optimizers.optim import check_optimizer
from ..settings import (
    BY_GOAL,
    OTHER_ALGORITHMS,
    OWN_GOAL,
    PER_BLOCK,
    AdapterSettings,
    LossSettings,
    OptimizerSettings,
    TextEncoderSettings,
    TrainSettings,
    check,
)
from .families import Family, Resolved, with_defaults
from .layers.low_precision import quantised_formats
from .model.encoders import NO_TEXT_MASK, TEXT_MASK, ClipTextEncoder
from .model.fitting import check_cache_fits, check_samples_fit
from .model.trainable import TrainableModel
from .sampling import SampleRequest
from .texts.parts import FAMILIES, NONE, TextRequest


@dataclass(frozen=True)
class Request:
    """What a person asked for: ComfyUI's MODEL, a cache, and settings with the family's defaults still open.

    `model_low` is a second MODEL that is trained in the same run, see `experts`; `texts` is the CLIP whose text
    encoders are, see `texts.trained`.
    """

    model: Any
    cache: Cache
    loss: LossSettings
    adapter: AdapterSettings
    optimizer: OptimizerSettings
    train: TrainSettings
    start_from: Path | None = None
    assistant: Path | None = None
    samples: SampleRequest | None = None
    destination: Path | None = None
    model_low: Any = None
    texts: TextRequest | None = None


def resolve(request: Request) -> tuple[TrainableModel, Resolved]:
    """The model, and the settings with its family's defaults, if they and the cache go together.

    Nothing is loaded or encoded. What is wrong with a setting alone is told first, then what the model does not take,
    then what the cache lacks.

    Raises:
        FamilyError: The model cannot be trained, or a VAE or CLIP does not fit it.
        ConfigError: A setting is out of range, or is for another model or cache; names the widget.
        AdapterError: The assistant LoRA is for another model.
    """
    if request.samples is not None:
        check(request.samples.settings)
    if request.model_low is not None and request.assistant is not None:
        raise ConfigError("assistant_lora: with two models there is none. Set it to none, or disconnect model_low.")
    trainable, settings = settle(
        request.model,
        loss=request.loss,
        adapter=request.adapter,
        optimizer=request.optimizer,
        train=request.train,
        assistant=request.assistant,
        goal_name=request.cache.goal,
    )
    check_cache_fits(request.cache, trainable)
    if settings.loss.text_padding_mask and TEXT_MASK not in request.cache.empty_text():
        raise ConfigError(NO_TEXT_MASK)
    if request.samples is not None:
        check_samples_fit(request.samples, trainable)
    if request.texts is not None:
        _check_texts(request.texts, request, trainable, settings)
    return trainable, settings


def _check_texts(texts: TextRequest, request: Request, trainable: TrainableModel, settings: Resolved) -> None:
    """Nothing if the text encoders are those of the model and of the cache, and can be trained with these settings."""
    if request.model_low is not None:
        raise ConfigError(
            "text_encoder: models that are two read texts of language models, which are not trained. Disconnect Train "
            "Text Encoder."
        )
    family = trainable.family
    if FAMILIES.get(family.name) != type(texts.clip.tokenizer).__qualname__:
        raise FamilyError(
            f"text_encoder: {family.title} does not read what this CLIP makes of texts, or reads a language model, "
            "which is not trained. Disconnect Train Text Encoder."
        )
    if ClipTextEncoder(texts.clip).identity != request.cache.encoders.text:
        raise ConfigError(
            "text_encoder: its CLIP is not that of Cache Dataset: another file, other LoRAs on it or another CLIP "
            "skip. Connect the same CLIP to both."
        )
    triggers = dict.fromkeys(triggers_of(request.cache))
    if texts.settings.new_word and len(triggers) > 1:
        raise ConfigError(
            f"new_word: it stands for one trigger word, and the data sets have {', '.join(triggers)}. Give all the "
            "same, or switch it off."
        )
    if settings.optimizer.optimizer == "prodigy" and _has_own_rate(texts.settings, settings.optimizer.learning_rate):
        raise ConfigError(
            "learning_rate: prodigy finds one rate for all that is trained. Set learning_rate and word_learning_rate "
            "in Train Text Encoder to 0."
        )


def _has_own_rate(texts: TextEncoderSettings, learning_rate: float) -> bool:
    rates = [texts.learning_rate] if texts.encoders != NONE else []
    rates += [texts.word_learning_rate] if texts.new_word else []
    return any(rate not in (0.0, learning_rate) for rate in rates)


def triggers_of(cache: Cache) -> list[str]:
    """The trigger words of the data sets that are learned, those that have one."""
    found = (one["settings"]["caption"]["trigger"] for one in cache.sources if not one["regularisation"])
    return [trigger.strip() for trigger in found if trigger.strip()]


def goal_notes(request: Request, settings: Resolved) -> list[str]:
    """A line on what the goal of the data set decided of the settings."""
    name = request.cache.goal
    chosen, decided = goal(name), {}
    if chosen.length != 1 and not (request.train.steps or request.train.epochs):
        decided["steps"] = settings.train.steps
    if chosen.rank != 1 and not request.adapter.rank:
        decided["rank"] = settings.adapter.rank
    if request.loss.preset == BY_GOAL:
        decided |= {one: getattr(settings.loss, one) for one in chosen.loss}
    return told(name, decided)


def _check_recomputed(train: TrainSettings) -> None:
    """Nothing if blocks are recomputed, or nothing needs that."""
    asked = {"swap_blocks": train.swap_blocks != 0, "compile": train.compile}
    widgets = [widget for widget, on in asked.items() if on]
    if widgets and train.checkpointing not in PER_BLOCK:
        raise ConfigError(
            f"{', '.join(widgets)}: it acts on blocks that are recomputed in backward, and checkpointing is "
            f'"{train.checkpointing}". Set that to "per block", or leave this off.'
        )


def settle(
    model: Any,
    *,
    loss: LossSettings,
    adapter: AdapterSettings,
    optimizer: OptimizerSettings,
    train: TrainSettings,
    assistant: Path | None = None,
    goal_name: str = OWN_GOAL,
) -> tuple[TrainableModel, Resolved]:
    """ComfyUI's MODEL as one that can be trained, and the settings as family and goal fill them, if they go together.

    Raises:
        FamilyError, ConfigError, AdapterError: See `resolve`.
    """
    loss = loss_by_goal(goal_name, loss)
    check_loss(loss)
    check(adapter)
    check_optimizer(optimizer)
    check(train)
    _check_recomputed(train)
    trainable = TrainableModel(model, guidance=train.guidance, unknown=train.unknown_model, assistant=assistant)
    settings = with_defaults(
        trainable.family, loss=loss, adapter=adapter, optimizer=optimizer, train=train, goal=goal(goal_name)
    )
    _check_factors(settings.adapter, settings.optimizer)
    _check_tokens(trainable.family, settings.loss)
    check_loss_for(settings.loss, schedule=trainable.schedule, tokens=trainable.token_model())
    _check_noise(settings.loss, trainable.schedule)
    if settings.loss.zero_terminal_snr:
        trainable.use_zero_terminal_snr()
    if train.quantized_compute:
        _check_quantised(trainable)
        trainable.quantised = True
    return trainable, settings


def _check_factors(adapter: AdapterSettings, optimizer: OptimizerSettings) -> None:
    """Nothing if the optimizer asks for a B matrix of adapters that have one, or for none."""
    if adapter.algorithm in OTHER_ALGORITHMS and optimizer.lora_plus_ratio != 1:
        raise ConfigError(
            f"lora_plus_ratio: {adapter.algorithm} has no second factor as a LoRA has, expected 1, got "
            f"{optimizer.lora_plus_ratio:g}."
        )


def _check_quantised(trainable: TrainableModel) -> None:
    """Nothing if some layers of the model are multiplied in low precision where it is trained."""
    low, others = quantised_formats(trainable.network)
    if low:
        return
    stored = f"stored as {' and '.join(sorted(others))}" if others else "not quantised"
    raise ConfigError(
        f"quantized_compute: this model is {stored}, and ComfyUI multiplies no layer of it in 8 bits on this device "
        f"({trainable.device.type}). Switch it off, or load a file of the model in int8, or in scaled fp8 (e4m3) on a "
        "card that multiplies in fp8, as the RTX 40 series and later ones do; there fp8 without scales does with "
        "weight_dtype fp8_e4m3fn_fast in Load Diffusion Model."
    )


def _check_noise(loss: LossSettings, schedule: Schedule) -> None:
    if schedule.prediction == "flow" and (loss.noise_offset or loss.multires_noise):
        raise ConfigError(
            "noise_offset, multires_noise: expected 0, because a flow model starts from plain noise. Set both to 0."
        )


def _check_tokens(family: Family, loss: LossSettings) -> None:
    """Nothing if the family has the tokens that the loss settings act on; else an error with what does the same."""
    if family.has_tokens:
        if loss.text_padding_mask and not any("text" in blocks.order for blocks in family.blocks):
            raise ConfigError(
                f"text_padding_mask: {family.title} looks at the text in an attention of its own, which hides no "
                "padding. Switch it off."
            )
        return
    instead = 'Cache Dataset with crop "masked crop" spends the steps on the masked part instead'
    asked = {
        "routes": (loss.routes.strip(), f"Empty it; {instead}."),
        "attention_mask": (loss.attention_mask, f"Switch it off; {instead}."),
        "text_padding_mask": (loss.text_padding_mask, "Switch it off; this model was trained to see the padding."),
    }
    for widget, (on, remedy) in asked.items():
        if on:
            raise ConfigError(f"{widget}: {_without_tokens(family)}. {remedy}")


def _without_tokens(family: Family) -> str:
    if all(size == 1 for size in family.patch):
        return f"{family.title} is a U-Net, which has no tokens for it"
    return f"it is not known how tokens pass {family.title}"
