"""Typed settings: every default, range and choice of the pack stands on its field, once; widgets and checks read it.

All dataclasses are frozen; what `dataclasses.asdict` makes of them travels in the run folder and in the metadata of
the LoRA file.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from .errors import ConfigError

T = TypeVar("T")

CAPTION_LINES = ("auto", "captions", "tags", "text")
CAPTION_POLICIES = ("auto", "empty caption", "use trigger word", "error")
MASK_SOURCES = ("auto", "folder", "sidecar", "alpha", "none")
MASK_CHANNELS = ("luminance", "red", "green", "blue", "rgb average", "alpha")
MISSING_MASK = ("train whole image", "skip image", "error")
FILLS = ("keep", "grey", "mean colour", "blur", "noise", "inpaint")
CROPS = ("centre", "mask-centred", "random", "around mask", "masked crop")
RESIZES = ("lanczos", "area")
STORAGES = ("disk", "memory")
INFILLS = ("mixed", "flat colour", "blur", "other picture", "inpaint")
REDUCTIONS = ("area", "any", "all", "nearest", "bilinear antialiased")
ELEMENTWISE = (
    "mse",
    "l1",
    "smooth_l1",
    "huber",
    "huber (kohya)",
    "pseudo_huber (ai-toolkit)",
    "log_cosh",
    "smooth_l1 (kohya)",
)
NORMALIZE = ("area", "none", "batch", "batch_mean")
TIMESTEP_SAMPLING = ("default", "uniform", "logit-normal", "sigmoid", "shifted", "shifted by resolution")
TIMESTEP_WEIGHTS = (
    "none",
    "min-snr",
    "min-snr (ai-toolkit)",
    "debiased",
    "debiased (OneTrainer)",
    "sigma-sqrt",
    "cosmap",
    "logit-normal",
    "sigma-linear (OneTrainer)",
)
ALGORITHMS = ("lora", "rslora", "dora")
INITS = ("default", "gaussian")
OPTIMIZERS = ("adamw", "adamw8bit", "adafactor", "lion", "prodigy", "schedule-free adamw")
SCHEDULES = ("constant", "linear", "cosine", "cosine with restarts", "polynomial")
OFFLOADED = "per block, offloaded"
CHECKPOINTING = ("per block", "off", "whole model", OFFLOADED)
# Those by which each block is recomputed by itself.
PER_BLOCK = ("per block", OFFLOADED)
EXISTING_RUNS = ("go on", "start anew")
OVER_MEMORY = ("refuse", "go on")
# What a LoRA is meant to learn; with the first each setting is a person's own or the usual one.
GOALS = ("own", "person", "object", "clothing", "style")
OWN_GOAL = GOALS[0]
# What a widget that the goal decides shows.
BY_GOAL = "by goal"
EXPORT_FORMATS = ("comfyui", "diffusers")
DTYPES = ("float32", "float16", "bfloat16")

MASK_TYPES = ("soft", "hard")
FLOOR_MODES = ("affine", "max")
PROBABILITY_SCOPES = ("sample", "batch")
FADES = ("constant", "linear", "cosine")
PRIOR_REDUCTIONS = ("as the mask", "bicubic (ai-toolkit)")
ROUTE_SELECTIONS = ("mask kept", "mask-aware", "random")


# One way in which a setting comes to have an effect: what other settings, by their widgets' names, then are or are not.
# All must hold.
Use = Mapping[str, Mapping[str, Any]]


def being(*values: Any) -> dict[str, Any]:
    """What a setting must be, one of these, for another to have an effect."""
    return {"is": list(values)}


def other_than(*values: Any) -> dict[str, Any]:
    """What a setting must not be for another to have an effect."""
    return {"not": list(values)}


def ranged(default: Any, low: float, high: float, *widgets: str, used: Iterable[Use] = ()) -> Any:
    """A field for a number, or a tuple of numbers: its default, and the least and the largest value that it takes.

    `widgets` are the names that people know it by, where these are others than the field's. `used` tells the ways in
    which it comes to have an effect, for the page to hide what has none; empty where it always has.
    """
    return field(default=default, metadata={"range": (low, high), "widgets": widgets, "used": tuple(used)})


def seeded(most: int = 2**32 - 1) -> Any:
    """A field for what decides all chance: its widget ends at `most`, but any number that torch takes is one."""
    return field(default=0, metadata={"range": (-(2**63), 2**64 - 1), "shown": (0, most)})


def chosen(default: str, choices: Iterable[str], *widgets: str, used: Iterable[Use] = ()) -> Any:
    """A field for one of some texts; `widgets` and `used` as in `ranged`."""
    return field(default=default, metadata={"choices": tuple(choices), "widgets": widgets, "used": tuple(used)})


def switched(default: bool, *, used: Iterable[Use]) -> Any:
    """A field for yes or no; `used` as in `ranged`."""
    return field(default=default, metadata={"used": tuple(used)})


def named(default: Any, widget: str) -> Any:
    """A field for anything else that people know by another name than the field's."""
    return field(default=default, metadata={"widgets": (widget,)})


def about(settings: Any, name: str) -> dataclasses.Field:
    """The field of that name in a settings dataclass, or in one of its instances: default, range or choices."""
    return next(one for one in dataclasses.fields(settings) if one.name == name)


def widgets_of(one: dataclasses.Field) -> tuple[str, ...]:
    """The names by which people know a field: its own, unless it was given others."""
    return one.metadata.get("widgets") or (one.name,)


@dataclass(frozen=True)
class CaptionSettings:
    """How a caption text is read and varied."""

    extension: str = named(".txt", "caption_extension")
    trigger: str = named("", "trigger_word")
    prefix: str = named("", "caption_prefix")
    suffix: str = named("", "caption_suffix")
    separator: str = named(",", "caption_separator")
    shuffle: bool = named(False, "shuffle_tags")
    keep_first: int = ranged(1, 0, 10_000, "keep_first_tags", used=[{"shuffle_tags": being(True)}])
    dropout: float = ranged(0.0, 0.0, 1.0, "caption_dropout")
    missing: str = chosen("auto", CAPTION_POLICIES, "missing_captions")
    lines: str = chosen("auto", CAPTION_LINES)


@dataclass(frozen=True)
class DatasetSettings:
    """What is read from a folder and how its samples count."""

    folder: str = ""
    subfolders: bool = True
    mask_source: str = chosen("auto", MASK_SOURCES)
    mask_folder: str = ""
    mask_channel: str = chosen("luminance", MASK_CHANNELS)
    missing_mask: str = chosen("train whole image", MISSING_MASK)
    fill: str = chosen("keep", FILLS)
    repeats: int = ranged(1, 1, 10_000)
    loss_multiplier: float = ranged(1.0, 0.0, 1000.0)
    regularisation: bool = False
    caption: CaptionSettings = field(default_factory=CaptionSettings)
    together: float = ranged(0.5, 0.0, 1.0)
    subjects: str = ""
    folder_repeats: bool = True
    goal: str = chosen(OWN_GOAL, GOALS)


@dataclass(frozen=True)
class MaskTransform:
    """Pixel-grid mask transforms, applied in the order of the fields."""

    invert: bool = False
    binarize: bool = False
    threshold: float = ranged(0.5, 0.0, 1.0, used=[{"binarize": being(True)}])
    fill_holes: bool = False
    min_area: int = ranged(0, 0, 100_000_000)
    grow: int = ranged(0, -512, 512)
    feather: float = ranged(0.0, 0.0, 256.0)


@dataclass(frozen=True)
class CacheSettings:
    """Training geometry and what the cache holds."""

    resolution: int = ranged(512, 16, 8192)
    bucketing: bool = True
    bucket_step: int = ranged(64, 1, 1024)
    upscale: bool = False
    crop: str = chosen("centre", CROPS)
    flip: bool = False
    resize: str = chosen("lanczos", RESIZES)
    variants: int = ranged(4, 1, 1000)
    batch_size: int = ranged(4, 1, 1024)
    storage: str = chosen("disk", STORAGES)
    max_gigabytes: float = ranged(50.0, 0.0, 1_000_000.0, used=[{"storage": being("disk")}])
    seed: int = seeded()
    infill: str = chosen("mixed", INFILLS, used=[{"infill_variants": other_than(0)}])
    infill_variants: int = ranged(3, 0, 100)
    crop_margin: float = ranged(0.2, 0.0, 10.0, used=[{"crop": being(BY_GOAL, "around mask", "masked crop")}])
    crop_margin_max: float = ranged(0.2, 0.0, 10.0, used=[{"crop": being(BY_GOAL, "around mask")}])
    rotate: float = ranged(0.0, 0.0, 180.0)
    mask_shrink: float = ranged(1.0, 0.01, 1.0)
    more_resolutions: str = ""


@dataclass(frozen=True)
class MaskSettings:
    """What becomes of a mask on its way to the weight `w` of every latent cell."""

    mask_type: str = chosen("soft", MASK_TYPES)
    reduction: str = chosen("area", REDUCTIONS)
    reduction_binarize: bool = False
    mask_channel: str = chosen("", ("", *MASK_CHANNELS))
    mask_probability: float = ranged(1.0, 0.0, 1.0)
    mask_probability_scope: str = chosen("sample", PROBABILITY_SCOPES, used=[{"mask_probability": other_than(1)}])
    edge_jitter: float = ranged(0.0, 0.0, 0.5)
    gamma: float = ranged(1.0, 0.01, 10.0)
    floor_mode: str = chosen("affine", FLOOR_MODES, used=[{"floor": other_than(0)}])
    floor: float = ranged(0.0, 0.0, 1.0)
    ceiling: float = ranged(1.0, 0.0, 1.0)
    latent_blur: int = ranged(0, 0, 63)
    weight_threshold: float = ranged(0.0, 0.0, 1.0)
    noise_blur: float = ranged(0.0, 0.0, 0.5)


@dataclass(frozen=True)
class TimestepSettings:
    """Noise, its levels, and what each level weighs."""

    timestep_sampling: str = chosen("default", TIMESTEP_SAMPLING)
    timestep_mean: float = ranged(
        0.0,
        -10.0,
        10.0,
        used=[{"timestep_sampling": other_than("uniform", "sigmoid")}, {"timestep_weight": being("logit-normal")}],
    )
    timestep_std: float = ranged(
        1.0,
        0.01,
        10.0,
        used=[{"timestep_sampling": other_than("uniform")}, {"timestep_weight": being("logit-normal")}],
    )
    timestep_shift: float = ranged(0.0, 0.0, 100.0)
    timestep_min: float = ranged(0.0, 0.0, 1.0)
    timestep_max: float = ranged(1.0, 0.0, 1.0)
    masked_timestep_max: float = ranged(1.0, 0.0, 1.0)
    timestep_weight: str = chosen("none", TIMESTEP_WEIGHTS)
    snr_gamma: float = ranged(5.0, 0.01, 1000.0, used=[{"timestep_weight": being("min-snr", "min-snr (ai-toolkit)")}])
    noise_offset: float = ranged(0.0, 0.0, 1.0)
    multires_noise: float = ranged(0.0, 0.0, 0.99)
    zero_terminal_snr: bool = False


_WITH_PRIOR: Use = {"prior_weight": other_than(0)}


@dataclass(frozen=True)
class PriorSettings:
    """How what is ignored is held to the base model."""

    prior_weight: float = ranged(1.0, 0.0, 1000.0)
    prior_probability: float = ranged(1.0, 0.01, 1.0, used=[_WITH_PRIOR])
    prior_normalize: str = chosen("area", NORMALIZE, used=[_WITH_PRIOR])
    prior_multiplier: bool = switched(True, used=[_WITH_PRIOR])
    prior_schedule: str = chosen("constant", FADES, used=[_WITH_PRIOR])
    prior_timestep_schedule: str = chosen("constant", FADES, used=[_WITH_PRIOR])
    prior_pivot: float = ranged(
        0.3, 0.0, 1.0, used=[{**_WITH_PRIOR, "prior_timestep_schedule": other_than("constant")}]
    )
    prior_timestep_min: float = ranged(0.0, 0.0, 1.0, used=[_WITH_PRIOR])
    prior_warmup: float = ranged(0.0, 0.0, 1.0, used=[_WITH_PRIOR])
    prior_reduction: str = chosen("as the mask", PRIOR_REDUCTIONS, used=[_WITH_PRIOR])


@dataclass(frozen=True)
class PreservationSettings:
    """How captions without their trigger word are held to the base model."""

    preservation_weight: float = ranged(0.0, 0.0, 1000.0)
    preservation_probability: float = ranged(1.0, 0.01, 1.0, used=[{"preservation_weight": other_than(0)}])


@dataclass(frozen=True)
class TokenSettings:
    """What a transformer's tokens do about the mask."""

    attention_mask: bool = False
    text_padding_mask: bool = False
    routes: str = ""
    route_selection: str = chosen("mask kept", ROUTE_SELECTIONS, used=[{"routes": other_than("")}])
    route_until: float = ranged(1.0, 0.0, 1.0, used=[{"routes": other_than("")}])


@dataclass(frozen=True)
class LossSettings(MaskSettings, TimestepSettings, PriorSettings, PreservationSettings, TokenSettings):
    """The masked objective: `w` is the mask's weight per latent cell, `e` the elementwise loss.

    One flat set of names, as widgets, runs and files carry it; a function that reads one concern takes that group.
    """

    preset: str = "masked lora"
    elementwise: str = chosen("mse", ELEMENTWISE)
    elementwise_param: float = ranged(0.0, 0.0, 1000.0, used=[{"elementwise": other_than("mse", "l1", "log_cosh")}])
    normalize: str = chosen("area", NORMALIZE)
    area_min: float = ranged(
        0.05,
        0.0,
        1.0,
        used=[{"normalize": being("area")}, {**_WITH_PRIOR, "prior_normalize": being("area")}],
    )
    area_beta: float = ranged(1.0, 0.0, 1.0, used=[{"normalize": being("area", "batch")}])
    outside_share: float = ranged(0.0, 0.0, 1.0)
    infill_probability: float = ranged(0.5, 0.0, 1.0)


@dataclass(frozen=True)
class AdapterSettings:
    """What is trained. Zero rank or alpha means the default of the model family."""

    algorithm: str = chosen("lora", ALGORITHMS)
    rank: int = ranged(0, 0, 1024)
    alpha: float = ranged(0.0, 0.0, 4096.0)
    targets: str = "default"
    include: str = ""
    exclude: str = ""
    convolutions: bool = False
    dropout: float = ranged(0.0, 0.0, 0.9)
    init: str = chosen("default", INITS)
    start_from: str = ""


@dataclass(frozen=True)
class OptimizerSettings:
    """How it is trained. Zero learning rate means the default of the model family."""

    optimizer: str = chosen("adamw", OPTIMIZERS)
    learning_rate: float = ranged(0.0, 0.0, 10.0)
    weight_decay: float = ranged(0.01, 0.0, 10.0)
    betas: tuple[float, float] = ranged(
        (0.9, 0.999), 0.0, 0.99999, "beta1", "beta2", used=[{"optimizer": other_than("adafactor")}]
    )
    eps: float = ranged(1e-8, 0.0, 1.0, used=[{"optimizer": other_than("adafactor", "lion")}])
    schedule: str = chosen("constant", SCHEDULES)
    warmup_steps: int = ranged(0, 0, 1_000_000)
    restarts: int = ranged(1, 1, 1000, used=[{"schedule": being("cosine with restarts")}])
    power: float = ranged(1.0, 0.01, 100.0, used=[{"schedule": being("polynomial")}])
    min_lr_ratio: float = ranged(0.0, 0.0, 1.0, used=[{"schedule": other_than("constant")}])
    clip_norm: float = ranged(1.0, 0.0, 1000.0)
    lora_plus_ratio: float = ranged(1.0, 0.01, 1000.0)
    ema_decay: float = ranged(0.0, 0.0, 0.99999)


@dataclass(frozen=True)
class TrainSettings:
    """Length, batch and bookkeeping of a run. `epochs` wins over `steps` when it is not zero."""

    steps: int = ranged(0, 0, 1_000_000)
    epochs: int = ranged(0, 0, 100_000)
    batch_size: int = ranged(1, 1, 256)
    gradient_accumulation: int = ranged(1, 1, 1024)
    seed: int = seeded()
    checkpointing: str = chosen("per block", CHECKPOINTING)
    compile: bool = False
    guidance: float = ranged(-1.0, -1.0, 100.0)
    save_every: int = ranged(250, 0, 1_000_000)
    keep_last: int = ranged(3, 1, 1000)
    validate_every: int = ranged(0, 0, 1_000_000)
    validation_share: float = ranged(0.1, 0.0, 0.9, used=[{"validate_every": other_than(0)}])
    regularisation_weight: float = ranged(1.0, 0.0, 100.0)
    name: str = "masked-lora"
    if_a_run_exists: str = chosen("go on", EXISTING_RUNS)
    keep_finished_runs: int = ranged(3, 0, 1000)
    unknown_model: bool = False
    assistant_lora: str = ""
    swap_blocks: int = ranged(0, -1, 1000)
    over_memory: str = chosen("refuse", OVER_MEMORY)
    quantized_compute: bool = False
    keep_every: int = ranged(0, 0, 1_000_000)


@dataclass(frozen=True)
class ExportSettings:
    """How a finished LoRA is written."""

    format: str = chosen("comfyui", EXPORT_FORMATS)
    dtype: str = chosen("float16", DTYPES)
    title: str = ""
    trigger: str = ""


def check_choice(widget: str, value: str, choices: tuple[str, ...]) -> str:
    """`value` if it is one of `choices`, else a `ConfigError` that names the widget and the choices."""
    if value not in choices:
        raise ConfigError(f"{widget}: expected one of {', '.join(filter(None, choices))}, got {value!r}.")
    return value


def check_range(widget: str, value: float, low: float, high: float) -> float:
    """`value` if low ≤ value ≤ high, else a `ConfigError` that names the widget and the range."""
    if not low <= value <= high:
        raise ConfigError(f"{widget}: expected {low:g} to {high:g}, got {value:g}.")
    return value


def check(settings: T) -> T:
    """`settings` if every field is in its range or one of its choices and every number is one.

    Dataclasses in it are looked into.

    Raises:
        ConfigError: One is not; it names the widget and what it takes.
    """
    for one in dataclasses.fields(settings):  # type: ignore[arg-type]
        value = getattr(settings, one.name)
        if dataclasses.is_dataclass(value):
            check(value)
            continue
        each = value if isinstance(value, tuple) else (value,)
        for widget, single in zip(itertools.cycle(widgets_of(one)), each, strict=False):
            _check_value(widget, single, one.metadata)
    return settings


def _check_value(widget: str, value: Any, limits: Mapping[str, Any]) -> None:
    # NaN passes each comparison that looks for what is too large or too small.
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{widget}: expected a number, got {value}. Write one.")
    if "range" in limits:
        check_range(widget, value, *limits["range"])
    if "choices" in limits:
        check_choice(widget, value, limits["choices"])
