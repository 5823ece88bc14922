"""Named sets of loss options: ours, and one for each trainer whose masked loss is reproduced exactly."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from ..errors import ConfigError
from ..settings import LossSettings

# What a preset decides. Noise levels, their weights and the noise itself stay the user's.
PRESET_OPTIONS = (
    "elementwise",
    "elementwise_param",
    "mask_type",
    "normalize",
    "area_min",
    "area_beta",
    "reduction",
    "reduction_binarize",
    "mask_channel",
    "mask_probability",
    "mask_probability_scope",
    "edge_jitter",
    "latent_blur",
    "gamma",
    "floor_mode",
    "floor",
    "ceiling",
    "weight_threshold",
    "outside_share",
    "infill_probability",
    "prior_weight",
    "prior_probability",
    "prior_normalize",
    "prior_multiplier",
    "prior_reduction",
    "prior_schedule",
    "prior_warmup",
    "prior_timestep_schedule",
    "prior_pivot",
    "prior_timestep_min",
    "preservation_weight",
    "preservation_probability",
    "noise_blur",
    "masked_timestep_max",
)
CUSTOM = "custom"
# A prior weight that leaves the choice to the preset: our default, 1, is a value that other trainers' users set too.
PRESET_DECIDES = -1.0


@dataclass(frozen=True)
class _Preset:
    """One preset.

    Attributes:
        help: what it does, in plain words.
        options: options that differ from our defaults.
        tunable: options that the trainer itself lets its users turn; a value that was set wins.
        curves: the elementwise losses that the trainer has; empty for all.
        alone: of `tunable`, options that equal the trainer's only while these others are left as they are.
    """

    help: str
    options: dict[str, Any] = field(default_factory=dict)
    tunable: tuple[str, ...] = ()
    curves: tuple[str, ...] = ()
    alone: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def leaves(self, option: str, base: LossSettings) -> bool:
        """Whether the value that `base` holds of an option counts, because the trainer would compute the same."""
        if option not in self.tunable or not _is_set(base, option):
            return False
        if self.curves and option.startswith("elementwise") and base.elementwise not in self.curves:
            return False
        return not any(_is_set(base, other) for other in self.alone.get(option, ()))


_ONETRAINER = {
    "mask_channel": "luminance",
    "reduction": "bilinear antialiased",
    "floor_mode": "max",
    "floor": 0.1,
}
# Presets whose trainer ignores a picture without a mask beside masked ones of its batch.
IGNORES_UNMASKED = frozenset({"ai-toolkit", "ai-toolkit inverted mask prior"})
_ONETRAINER_TUNABLE = ("elementwise", "elementwise_param", "floor", "prior_weight")
_BLISSFUL_TUNABLE = (
    "gamma",
    "floor",
    "latent_blur",
    "area_beta",
    "weight_threshold",
    "prior_weight",
    "prior_timestep_min",
)
# It refuses a prior schedule without normalize_per_sample.
_BLISSFUL_SAMPLE_TUNABLE = (*_BLISSFUL_TUNABLE, "prior_timestep_schedule", "prior_pivot", "prior_warmup")
# Its area scale takes the mask as it came, ours what these have made of it.
_BLISSFUL_ALONE = {"area_beta": ("gamma", "floor", "latent_blur", "weight_threshold")}
_BLISSFUL = (
    "Gamma and an affine floor act on the latent grid, both off until set. Its mask area scale b is "
    "area_beta 1−b here, as long as gamma, floor, latent_blur and weight_threshold are left alone, and its mask blur "
    "kernel size is latent_blur. Its prior preservation is off until "
    "prior_weight is set (it recommends 0.5 to 1); its teacher's timestep threshold is prior_timestep_min (300 is 0.3 "
    "here). Left out: it stops the device to look for an empty batch, and its second teacher, an average of the "
    "adapter itself."
)
_BLISSFUL_SAMPLE = (
    " Its prior decay is prior_timestep_schedule with prior_pivot, its warm-up ratio prior_warmup. As there, a tiny "
    "outside counts as much as a large one: a tenth of a pixel can multiply the loss, which area_min prevents in "
    "masked lora."
)
_BLISSFUL_THRESHOLD = (
    " Cells whose mask is below the threshold (0.1 unless set) learn nothing, and are all that the prior holds; a "
    "sample at or below prior_timestep_min, which has no prior, learns them by their weight. "
)
_KOHYA_CURVES = ("mse", "l1", "huber (kohya)", "smooth_l1 (kohya)")
_KOHYA_CURVES_HELP = (
    "Its huber and smooth_l1 are the two named (kohya), with their huber schedule constant; its other schedules are "
    "not offered. "
)
_KOHYA_FAULTS = (
    "Left out: it squashes a mask of another shape instead of cropping it like the picture, and keeps "
    "applying cached alpha masks after they are switched off. It has no prior."
)
_ONETRAINER_FAULTS = (
    "Its masked prior preservation is off until prior_weight is set. Left out: the division by zero for a black mask "
    "when the unmasked weight is 0, and for a white mask with the prior."
)
_AI_TOOLKIT = {
    "normalize": "batch_mean",
    "mask_channel": "luminance",
    "reduction": "nearest",
    "edge_jitter": 0.005,
    "prior_normalize": "batch_mean",
    "prior_multiplier": False,
    "prior_reduction": "bicubic (ai-toolkit)",
}
_AI_TOOLKIT_TUNABLE = ("elementwise", "elementwise_param", "floor", "edge_jitter", "prior_weight")
_AI_TOOLKIT_CURVES = ("mse", "l1", "pseudo_huber (ai-toolkit)")
_AI_TOOLKIT_HELP = (
    "weights divided by their mean over the batch, the top-left pixel of every cell, edges "
    "blurred at random by up to 0.5 % of the shorter side. Its mask min value is our affine floor. The "
    "blur is drawn anew each step on the latent grid; ai-toolkit draws whole pixels at the size of the "
    "mask's file. In a batch with masks a picture without one is ignored. "
    "The prior weighs by a second, bicubic copy of the mask, which this blur does not reach, and counts "
    "without the data set's loss multiplier; it uses the same elementwise loss, where ai-toolkit keeps mse for all "
    "but mae. Left out: NaN for a batch of black masks, half-precision masks, masks stretched to another shape, the "
    "first sample's mask for the whole batch in the prior, noise as what v models learn once the prior is on, and a "
    "prior that runs before control conditioning is attached."
)


def _without_area(options: tuple[str, ...]) -> tuple[str, ...]:
    """Without the area scale, which would take the mask as it came, not what the threshold leaves of it."""
    return tuple(option for option in options if option != "area_beta")


_PRESETS: dict[str, _Preset] = {
    "masked lora": _Preset(
        "Our defaults. Every sample has an equal say however small its mask, down to 5 % coverage; smaller "
        "masks are boosted 20-fold at most. What is ignored is held to what the base model paints there. Half of the "
        "steps show a picture whose background was replaced, where the cache holds such variants.",
        tunable=PRESET_OPTIONS,
    ),
    "kohya": _Preset(
        "sd-scripts with a masked loss from mask files (red channel) or alpha: the mean over the whole "
        "picture, so that the loss shrinks with the mask. " + _KOHYA_CURVES_HELP + _KOHYA_FAULTS,
        {"normalize": "none", "mask_channel": "red"},
        ("elementwise", "elementwise_param"),
        _KOHYA_CURVES,
    ),
    "SimpleTuner mask": _Preset(
        "SimpleTuner with conditioning type mask (red channel): the mean over the whole picture. Its masked "
        "loss probability has no effect on this type, here neither. " + _KOHYA_CURVES_HELP + "Left out: masks that "
        "drift away from their picture when both are cropped. It has no prior.",
        {"normalize": "none", "mask_channel": "red"},
        ("elementwise", "elementwise_param"),
        _KOHYA_CURVES,
    ),
    "SimpleTuner segmentation": _Preset(
        "SimpleTuner with conditioning type segmentation: every cell that any colour touches counts fully. "
        "Its masked loss probability is drawn once per batch, as here if it is set below 1. "
        + _KOHYA_CURVES_HELP
        + "It has no prior.",
        {
            "normalize": "none",
            "mask_channel": "rgb average",
            "reduction": "any",
            "reduction_binarize": True,
            "mask_probability_scope": "batch",
        },
        ("elementwise", "elementwise_param", "mask_probability"),
        _KOHYA_CURVES,
    ),
    "ai-toolkit": _Preset(
        "ai-toolkit with a mask: " + _AI_TOOLKIT_HELP + " Its inverted mask prior is off until prior_weight is set.",
        _AI_TOOLKIT,
        _AI_TOOLKIT_TUNABLE,
        _AI_TOOLKIT_CURVES,
    ),
    "ai-toolkit inverted mask prior": _Preset(
        "ai-toolkit with inverted_mask_prior on, 0.5 as its multiplier unless prior_weight is set: " + _AI_TOOLKIT_HELP,
        {**_AI_TOOLKIT, "prior_weight": 0.5},
        _AI_TOOLKIT_TUNABLE,
        _AI_TOOLKIT_CURVES,
    ),
    "blissful": _Preset(
        "blissful-tuner: one weighted mean over the whole batch. " + _BLISSFUL,
        {"normalize": "batch", "mask_channel": "luminance", "prior_normalize": "batch"},
        _BLISSFUL_TUNABLE,
        alone=_BLISSFUL_ALONE,
    ),
    "blissful per sample": _Preset(
        "blissful-tuner with normalize_per_sample: a weighted mean per sample without a smallest area, so "
        "that a mask of one cell weighs as much as a whole picture. " + _BLISSFUL + _BLISSFUL_SAMPLE,
        {"normalize": "area", "area_min": 0.0, "mask_channel": "luminance"},
        _BLISSFUL_SAMPLE_TUNABLE,
        alone=_BLISSFUL_ALONE,
    ),
    "blissful threshold": _Preset(
        "blissful-tuner with a prior mask threshold." + _BLISSFUL_THRESHOLD + _BLISSFUL,
        {"normalize": "batch", "mask_channel": "luminance", "weight_threshold": 0.1, "prior_normalize": "batch"},
        _without_area(_BLISSFUL_TUNABLE),
    ),
    "blissful per sample threshold": _Preset(
        "blissful-tuner with normalize_per_sample and a prior mask threshold."
        + _BLISSFUL_THRESHOLD
        + _BLISSFUL
        + _BLISSFUL_SAMPLE,
        {"normalize": "area", "area_min": 0.0, "mask_channel": "luminance", "weight_threshold": 0.1},
        _without_area(_BLISSFUL_SAMPLE_TUNABLE),
    ),
    "OneTrainer": _Preset(
        "OneTrainer's masked training: the mean over the whole picture, nowhere less than the unmasked "
        "weight 0.1 (our max floor). " + _ONETRAINER_FAULTS,
        {"normalize": "none", "prior_normalize": "none", **_ONETRAINER},
        _ONETRAINER_TUNABLE,
    ),
    "OneTrainer normalised": _Preset(
        "OneTrainer's masked training with normalised masked area: each sample divided by its mean weight. "
        + _ONETRAINER_FAULTS,
        {"normalize": "area", "area_min": 0.0, **_ONETRAINER},
        _ONETRAINER_TUNABLE,
    ),
}

# Our remedies, which other trainers lack or leave off until they are asked for.
_WITHOUT_OURS = {"infill_probability": 0.0, "prior_weight": 0.0, "preservation_weight": 0.0}


def _options(name: str) -> dict[str, Any]:
    return {**({} if name == LossSettings().preset else _WITHOUT_OURS), **_PRESETS[name].options}


PRESETS: dict[str, LossSettings] = {name: LossSettings(preset=name, **_options(name)) for name in _PRESETS}
PRESET_NAMES = (*PRESETS, CUSTOM)


def apply_preset(name: str, base: LossSettings | None = None) -> LossSettings:
    """Loss settings with every option that the preset decides, the rest from `base`.

    Args:
        name: one of `PRESET_NAMES`; `custom` takes every option from `base`.
        base: the user's settings: noise levels, timestep weight and noise are kept, and so is an option
            that the trainer itself offers and computes alike where it differs from our default; a prior weight wherever
            it is not `PRESET_DECIDES`. None for the defaults.

    Raises:
        ConfigError: unknown preset.
    """
    base = base or LossSettings(prior_weight=PRESET_DECIDES)
    if name == CUSTOM:
        weight = base.prior_weight if _is_set(base, "prior_weight") else LossSettings().prior_weight
        return dataclasses.replace(base, preset=CUSTOM, prior_weight=weight)
    chosen = PRESETS[_known(name)]
    options = {option: getattr(chosen, option) for option in PRESET_OPTIONS if not _PRESETS[name].leaves(option, base)}
    return dataclasses.replace(base, preset=name, **options)


def presets_that_read(option: str) -> tuple[str, ...]:
    """Names of the presets under which the user's value of an option may count; all where no preset decides it."""
    if option not in PRESET_OPTIONS:
        return PRESET_NAMES
    return tuple(name for name in PRESET_NAMES if name == CUSTOM or option in _PRESETS[name].tunable)


def _is_set(base: LossSettings, option: str) -> bool:
    """Whether a person chose a value for the option, as far as that can be seen."""
    untouched = PRESET_DECIDES if option == "prior_weight" else getattr(LossSettings(), option)
    return getattr(base, option) != untouched


def overruled_options(name: str, base: LossSettings) -> tuple[str, ...]:
    """Names of the options that a person set and the preset replaces, so that they can be told."""
    chosen = apply_preset(name, base)
    return tuple(
        option
        for option in PRESET_OPTIONS
        if _is_set(base, option) and getattr(base, option) != getattr(chosen, option)
    )


def preset_help(name: str) -> str:
    """What a preset does, what it sets, and which faults of that trainer it leaves out.

    Raises:
        ConfigError: unknown preset.
    """
    if name == CUSTOM:
        return "Every option as you set it."
    preset = _PRESETS[_known(name)]
    values = ", ".join(f"{option} {value}" for option, value in _options(name).items())
    return " ".join((preset.help, f"Sets: {values}." if values else "Sets the defaults."))


def _known(name: str) -> str:
    if name not in _PRESETS:
        raise ConfigError(f"preset: expected one of {', '.join(PRESET_NAMES)}, got {name!r}.")
    return name
