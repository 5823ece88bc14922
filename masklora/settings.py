"""Typed settings: every default of the pack is written here once; node schemas read them.

All dataclasses are frozen and convert to flat JSON with `to_json` and back with `from_json`; that JSON
travels in the run folder and in the metadata of the LoRA file.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any, TypeVar

from .errors import ConfigError

T = TypeVar("T")

CAPTION_LINES = ("auto", "captions", "tags", "text")
CAPTION_POLICIES = ("empty caption", "use trigger word", "error")
MASK_SOURCES = ("auto", "folder", "sidecar", "alpha", "none")
MASK_CHANNELS = ("luminance", "red", "green", "blue", "rgb average", "alpha")
MISSING_MASK = ("train whole image", "skip image", "error")
FILLS = ("keep", "grey", "mean colour", "blur", "noise", "inpaint")
CROPS = ("centre", "mask-centred", "random", "around mask", "masked crop")
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
OPTIMIZERS = ("adamw", "adamw8bit", "adafactor", "lion", "prodigy", "schedule-free adamw")
SCHEDULES = ("constant", "linear", "cosine", "cosine with restarts", "polynomial")
CHECKPOINTING = ("per block", "off", "whole model")
EXISTING_RUNS = ("go on", "start anew")
EXPORT_FORMATS = ("comfyui", "diffusers")
DTYPES = ("float32", "float16", "bfloat16")

MASK_TYPES = ("soft", "hard")
FLOOR_MODES = ("affine", "max")
PROBABILITY_SCOPES = ("sample", "batch")
FADES = ("constant", "linear", "cosine")
PRIOR_REDUCTIONS = ("as the mask", "bicubic (ai-toolkit)")
ROUTE_SELECTIONS = ("mask kept", "mask-aware", "random")

LOSS_CHOICES = {
    "elementwise": ELEMENTWISE,
    "mask_type": MASK_TYPES,
    "normalize": NORMALIZE,
    "reduction": REDUCTIONS,
    "mask_probability_scope": PROBABILITY_SCOPES,
    "floor_mode": FLOOR_MODES,
    "timestep_sampling": TIMESTEP_SAMPLING,
    "timestep_weight": TIMESTEP_WEIGHTS,
    "prior_normalize": NORMALIZE,
    "prior_reduction": PRIOR_REDUCTIONS,
    "prior_schedule": FADES,
    "prior_timestep_schedule": FADES,
    "route_selection": ROUTE_SELECTIONS,
}
LOSS_RANGES = {
    "elementwise_param": (0.0, 1000.0),
    "area_min": (0.0, 1.0),
    "area_beta": (0.0, 1.0),
    "mask_probability": (0.0, 1.0),
    "edge_jitter": (0.0, 0.5),
    "latent_blur": (0, 63),
    "gamma": (0.01, 10.0),
    "floor": (0.0, 1.0),
    "ceiling": (0.0, 1.0),
    "weight_threshold": (0.0, 1.0),
    "outside_share": (0.0, 1.0),
    "timestep_mean": (-10.0, 10.0),
    "timestep_std": (0.01, 10.0),
    "timestep_shift": (0.0, 100.0),
    "timestep_min": (0.0, 1.0),
    "timestep_max": (0.0, 1.0),
    "snr_gamma": (0.01, 1000.0),
    "noise_offset": (0.0, 1.0),
    "multires_noise": (0.0, 0.99),
    "infill_probability": (0.0, 1.0),
    "prior_weight": (0.0, 1000.0),
    "prior_probability": (0.01, 1.0),
    "prior_pivot": (0.0, 1.0),
    "prior_timestep_min": (0.0, 1.0),
    "prior_warmup": (0.0, 1.0),
    "preservation_weight": (0.0, 1000.0),
    "preservation_probability": (0.01, 1.0),
    "noise_blur": (0.0, 0.5),
    "masked_timestep_max": (0.0, 1.0),
    "route_until": (0.0, 1.0),
}
_TRANSFORM_RANGES = {
    "threshold": (0.0, 1.0),
    "min_area": (0, 100_000_000),
    "grow": (-512, 512),
    "feather": (0.0, 256.0),
}


@dataclass(frozen=True)
class CaptionSettings:
    """How a caption text is read and varied."""

    extension: str = ".txt"
    trigger: str = ""
    prefix: str = ""
    suffix: str = ""
    separator: str = ","
    shuffle: bool = False
    keep_first: int = 1
    dropout: float = 0.0
    missing: str = "empty caption"
    lines: str = "auto"


@dataclass(frozen=True)
class DatasetSettings:
    """What is read from a folder and how its samples count."""

    folder: str = ""
    subfolders: bool = True
    mask_source: str = "auto"
    mask_folder: str = ""
    mask_channel: str = "luminance"
    missing_mask: str = "train whole image"
    fill: str = "keep"
    repeats: int = 1
    loss_multiplier: float = 1.0
    regularisation: bool = False
    caption: CaptionSettings = field(default_factory=CaptionSettings)
    together: float = 0.5
    subjects: str = ""
    folder_repeats: bool = True


@dataclass(frozen=True)
class MaskTransform:
    """Pixel-grid mask transforms, applied in the order of the fields."""

    invert: bool = False
    binarize: bool = False
    threshold: float = 0.5
    fill_holes: bool = False
    min_area: int = 0
    grow: int = 0
    feather: float = 0.0


@dataclass(frozen=True)
class CacheSettings:
    """Training geometry and what the cache holds."""

    resolution: int = 512
    bucketing: bool = True
    bucket_step: int = 64
    upscale: bool = False
    crop: str = "centre"
    flip: bool = False
    resize: str = "lanczos"
    variants: int = 4
    batch_size: int = 4
    storage: str = "disk"
    max_gigabytes: float = 50.0
    seed: int = 0
    infill: str = "mixed"
    infill_variants: int = 3
    crop_margin: float = 0.2
    crop_margin_max: float = 0.2
    rotate: float = 0.0
    mask_shrink: float = 1.0


@dataclass(frozen=True)
class LossSettings:
    """The masked objective: `w` is the mask's weight per latent cell, `e` the elementwise loss."""

    preset: str = "masked lora"
    elementwise: str = "mse"
    elementwise_param: float = 0.0
    mask_type: str = "soft"
    normalize: str = "area"
    area_min: float = 0.05
    area_beta: float = 1.0
    reduction: str = "area"
    reduction_binarize: bool = False
    mask_channel: str = ""
    mask_probability: float = 1.0
    mask_probability_scope: str = "sample"
    edge_jitter: float = 0.0
    gamma: float = 1.0
    floor_mode: str = "affine"
    floor: float = 0.0
    ceiling: float = 1.0
    outside_share: float = 0.0
    timestep_sampling: str = "default"
    timestep_mean: float = 0.0
    timestep_std: float = 1.0
    timestep_shift: float = 0.0
    timestep_min: float = 0.0
    timestep_max: float = 1.0
    timestep_weight: str = "none"
    snr_gamma: float = 5.0
    noise_offset: float = 0.0
    multires_noise: float = 0.0
    zero_terminal_snr: bool = False
    latent_blur: int = 0
    weight_threshold: float = 0.0
    infill_probability: float = 0.5
    prior_weight: float = 1.0
    prior_probability: float = 1.0
    prior_normalize: str = "area"
    prior_multiplier: bool = True
    prior_schedule: str = "constant"
    prior_timestep_schedule: str = "constant"
    prior_pivot: float = 0.3
    prior_timestep_min: float = 0.0
    prior_warmup: float = 0.0
    prior_reduction: str = "as the mask"
    preservation_weight: float = 0.0
    preservation_probability: float = 1.0
    noise_blur: float = 0.0
    masked_timestep_max: float = 1.0
    attention_mask: bool = False
    text_padding_mask: bool = False
    routes: str = ""
    route_selection: str = "mask kept"
    route_until: float = 1.0


@dataclass(frozen=True)
class AdapterSettings:
    """What is trained. Zero rank or alpha means the default of the model family."""

    algorithm: str = "lora"
    rank: int = 0
    alpha: float = 0.0
    targets: str = "default"
    include: str = ""
    exclude: str = ""
    convolutions: bool = False
    dropout: float = 0.0
    init: str = "default"
    start_from: str = ""


@dataclass(frozen=True)
class OptimizerSettings:
    """How it is trained. Zero learning rate means the default of the model family."""

    optimizer: str = "adamw"
    learning_rate: float = 0.0
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    schedule: str = "constant"
    warmup_steps: int = 0
    restarts: int = 1
    power: float = 1.0
    min_lr_ratio: float = 0.0
    clip_norm: float = 1.0
    lora_plus_ratio: float = 1.0
    ema_decay: float = 0.0


@dataclass(frozen=True)
class TrainSettings:
    """Length, batch and bookkeeping of a run. `epochs` wins over `steps` when it is not zero."""

    steps: int = 0
    epochs: int = 0
    batch_size: int = 1
    gradient_accumulation: int = 1
    seed: int = 0
    checkpointing: str = "per block"
    guidance: float = -1.0
    save_every: int = 250
    keep_last: int = 3
    validate_every: int = 0
    validation_share: float = 0.1
    regularisation_weight: float = 1.0
    name: str = "masked-lora"
    if_a_run_exists: str = "go on"
    keep_finished_runs: int = 3
    unknown_model: bool = False


@dataclass(frozen=True)
class ExportSettings:
    """How a finished LoRA is written."""

    format: str = "comfyui"
    dtype: str = "float16"
    title: str = ""
    trigger: str = ""


def to_json(settings: Any) -> str:
    """JSON text of a settings dataclass, with sorted keys so that equal settings give equal text."""
    return json.dumps(dataclasses.asdict(settings), sort_keys=True)


def from_json(kind: type[T], text: str) -> T:
    """The settings dataclass `kind` from `to_json`'s text; unknown keys raise `ConfigError`."""
    return from_dict(kind, json.loads(text))


def from_dict(kind: type[T], values: dict[str, Any]) -> T:
    """The settings dataclass `kind` from a plain dict, nested dataclasses and tuples restored."""
    known = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ConfigError(f"{kind.__name__} has no setting {', '.join(unknown)}. Known: {', '.join(known)}.")
    out: dict[str, Any] = {}
    for name, value in values.items():
        if name == "caption":
            value = from_dict(CaptionSettings, value)
        elif isinstance(value, list):
            value = tuple(value)
        out[name] = value
    return kind(**out)


def check_choice(widget: str, value: str, choices: tuple[str, ...]) -> str:
    """`value` if it is one of `choices`, else a `ConfigError` that names the widget and the choices."""
    if value not in choices:
        raise ConfigError(f"{widget}: expected one of {', '.join(choices)}, got {value!r}.")
    return value


def check_range(widget: str, value: float, low: float, high: float) -> float:
    """`value` if low ≤ value ≤ high, else a `ConfigError` that names the widget and the range."""
    if not low <= value <= high:
        raise ConfigError(f"{widget}: expected {low:g} to {high:g}, got {value:g}.")
    return value


def check_mask_transform(settings: MaskTransform) -> MaskTransform:
    """`settings` if every value is usable, else a `ConfigError` that names the widget and its range."""
    for widget, (low, high) in _TRANSFORM_RANGES.items():
        check_range(widget, getattr(settings, widget), low, high)
    return settings
