"""Settings of the masked objective, in the groups that its functions take."""

from __future__ import annotations

from dataclasses import dataclass

from .data import MASK_CHANNELS
from .fields import Use, being, chosen, other_than, ranged, switched

FRAME_REDUCTIONS = ("mean", "max", "min")
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
MASK_TYPES = ("soft", "hard")
FLOOR_MODES = ("affine", "max")
PROBABILITY_SCOPES = ("sample", "batch")
FADES = ("constant", "linear", "cosine")
PRIOR_REDUCTIONS = ("as the mask", "bicubic (ai-toolkit)")
ROUTE_SELECTIONS = ("mask kept", "mask-aware", "random")


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
    frame_reduction: str = chosen("mean", FRAME_REDUCTIONS)


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
