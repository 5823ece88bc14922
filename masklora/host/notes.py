"""Lines for people on what a MODEL brings with it, and on settings that do nothing with the data they are given."""

from __future__ import annotations

from collections import Counter

import comfy.patcher_extension
from torch import nn

from ..adapters.opening import open_ranks
from ..cache.cache import Cache
from ..experts import LOW, steps_of
from ..findings import counted, worded
from ..loss.tokens import parse_routes
from ..settings import LossSettings, TrainSettings
from ..training.job import TrainJob
from ..training.trainer import planned_steps
from .experts import Models
from .layers.low_precision import quantised_formats
from .model.blocks import quantisation_notes
from .model.sampling_schedule import is_scaled
from .model.trainable import TrainableModel


def model_notes(trainable: TrainableModel) -> list[str]:
    """Lines on what the MODEL already carries: it is trained on top of that, or without it."""
    notes = quantisation_notes(trainable.network)
    if trainable.quantised:
        notes.append(_quantised_note(trainable.network))
    if trainable.assistant:
        notes.append(
            f"assistant_lora: trained on top of {trainable.assistant}; sample pictures, model_with_lora and the file "
            "are without it."
        )
    if trainable.drawing.patches:
        weights = counted(len(trainable.drawing.patches), "[weight|weights]")
        notes.append(f"The MODEL carries patches (LoRAs) on {weights}: trained on top.")
    if is_scaled(trainable.drawing):
        notes.append(
            f"KSampler gives {trainable.family.title} more noise than it was trained with, and draws noise. Put "
            "ModelSamplingDiscrete with v_prediction and zsnr between the MODEL and KSampler, as for sample pictures."
        )
    ignored = [k for k in trainable.patcher.model_options if k.endswith(("_function", "_wrapper"))]
    kinds = comfy.patcher_extension.WrappersMP
    wrapped = [
        k for k, wrappers in trainable.patcher.wrappers.items() if k != kinds.DIFFUSION_MODEL and any(wrappers.values())
    ]
    if ignored or wrapped:
        notes.append("The MODEL carries sampling patches that act outside the network: trained without them.")
    if "optimized_attention_override" in trainable.patcher.model_options["transformer_options"]:
        notes.append("The MODEL carries an attention function of its own: trained with PyTorch's instead.")
    return notes


def models_notes(models: Models, job: TrainJob, asked: TrainSettings) -> list[str]:
    """Lines on two models that take turns, or on what would be done with two where there is one."""
    usual = TrainSettings()
    if job.pair is None:
        without = [n for n in ("expert_switch", "switch_experts_every") if getattr(asked, n) != getattr(usual, n)]
        return [f"{' and '.join(without)}: without a model in model_low this does nothing."] if without else []
    total, every = planned_steps(job), job.pair.every
    high, low = (steps_of(number, total, every) for number in (0, 1))
    own = set(model_notes(models.trainables[0]))
    return [
        f"Two models take turns after every {counted(every, '[step|steps]')}: {high} steps for high noise, levels from "
        f"{job.pair.switch:g} up, and {low} for low noise. Two LoRA files will be written.",
        *(f"model_low: {line}" for line in model_notes(models.trainables[1]) if line not in own),
    ]


def opening_notes(models: Models, job: TrainJob) -> list[str]:
    """Lines on ranks that noise levels open: what file and pictures have of them, and which never learn."""
    least, rank = models.adapters[0].least, models.rank
    if not least:
        return []
    notes = [
        f"algorithm: tlora learns with {least} of {rank} ranks at the highest noise, and with more the less there is. "
        "The file is a plain LoRA, in which all of them act at all noise levels, as they do in the sample pictures."
    ]
    for course in job.courses():
        most = open_ranks(course.loss.timestep_min, rank=rank, least=least)
        if most < rank:
            which = "model_low: " if course.expert == LOW else ""
            notes.append(
                f"{which}least_rank: noise levels begin at {course.loss.timestep_min:g}, where {most} of {rank} ranks "
                "are open; the others never learn. Raise least_rank, or lower rank."
            )
    if job.train.batch_size > 1:
        notes.append(
            "batch_size: with tlora, samples whose noise levels open unlike numbers of ranks run one after another, "
            "which takes as long as steps of one sample."
        )
    return notes


def _quantised_note(network: nn.Module) -> str:
    low, others = quantised_formats(network)
    layers = counted(low.total(), "[layer is|layers are]")
    text = f"quantized_compute: {layers} multiplied in low precision ({_listed(low)}), forward and for gradients."
    if others:
        exact = counted(others.total(), "[other layer that is stored in it is|other layers that are stored in it are]")
        text += f" {exact} multiplied exactly ({_listed(others)})."
    return text


def _listed(formats: Counter[str]) -> str:
    return ", ".join(f"{number} {name}" for name, number in sorted(formats.items()))


def cache_notes(loss: LossSettings, cache: Cache) -> list[str]:
    """Lines on what the loss asks for and does not find: mask channels, replaced backgrounds, triggers, tokens."""
    notes = [*_channel_notes(loss, cache), *_trigger_notes(loss, cache), *_token_notes(loss, cache)]
    masked = [entry for entry in cache.entries if entry.has_mask]
    replaced = any(entry.infills for entry in masked)
    # At our default it is no wish of a person's, and the cache makes none by default.
    if loss.infill_probability not in (0, LossSettings().infill_probability) and masked and not replaced:
        notes.append("Every step sees the pictures' own backgrounds: infill_variants of Cache Dataset is 0.")
    if loss.infill_probability == 0 and replaced:
        notes.append("The replaced backgrounds in the cache are not used: infill_probability is 0.")
    weighing = [name for name in ("floor", "outside_share") if getattr(loss, name) > 0]
    weighing += ["mask_probability"] if loss.mask_probability < 1 else []
    if loss.infill_probability > 0 and replaced and weighing:
        notes.append(
            f"{' and '.join(weighing)} gives weight to what lies outside of the masks, but not where the background "
            "was replaced: that is not the picture's. Set infill_probability to 0 in Masked Loss to learn the "
            "background in every step."
        )
    return notes


def _trigger_notes(loss: LossSettings, cache: Cache) -> list[str]:
    """Lines on pictures whose captions have no trigger word, where that is asked for."""
    if loss.preservation_weight <= 0:
        return []
    named = [entry for entry in cache.entries if not entry.regularisation]
    without = [entry.name for entry in named if not any(caption.plain_key for caption in entry.captions)]
    if not without:
        return []
    lack = worded(len(without), "[has|have] no trigger word")
    which = f"{len(without)} of {len(named)} captions {lack}, such as that of {without[0]}"
    if len(without) == len(named):
        which = "No caption has a trigger word"
    return [
        f"{which}: preservation_weight does nothing there. Write a trigger_word in Load Dataset, or set "
        "preservation_weight to 0."
    ]


def _token_notes(loss: LossSettings, cache: Cache) -> list[str]:
    """Lines on token settings that other settings, or the data, leave without effect."""
    notes = []
    if loss.attention_mask and not any(entry.has_mask for entry in cache.entries):
        notes.append("attention_mask hides nothing: no picture has a mask. Switch it off, or give the pictures masks.")
    elif loss.attention_mask and loss.floor > 0 and loss.weight_threshold == 0:
        notes.append(
            f"attention_mask hides nothing of a picture's own background: floor {loss.floor:g} gives weight to all of "
            "it. Set floor to 0 in Masked Loss, or switch attention_mask off."
        )
    if parse_routes(loss.routes) and loss.route_until == 0:
        notes.append("routes do nothing: route_until is 0. Set it to the share of the run that is to be routed.")
    return notes


def _channel_notes(loss: LossSettings, cache: Cache) -> list[str]:
    """Lines on data sets whose masks were read from another channel than the loss preset's trainer reads."""
    wanted = loss.mask_channel
    read = {s["settings"]["mask_channel"] for s in cache.sources if s["settings"]["mask_source"] != "alpha"}
    return [
        f"The preset {loss.preset} reads masks from their {wanted} channel, but a data set was read with "
        f"{channel}. For equal results set mask_channel to {wanted} in Load Dataset."
        for channel in sorted(read - {wanted})
        if wanted
    ]
