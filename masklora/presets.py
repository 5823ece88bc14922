"""Named sets of loss options: ours, and one for each trainer whose loss is reproduced exactly."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from .config import LossSettings
from .errors import ConfigError

# What a preset decides. Noise levels, their weights and the shape of the noise stay the user's.
PRESET_FIELDS = (
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
    "gamma",
    "floor_mode",
    "floor",
    "ceiling",
    "outside_share",
)


@dataclass(frozen=True)
class _Preset:
    help: str
    options: dict[str, Any] = field(default_factory=dict)


_BLISSFUL = (
    "Gamma, then an affine floor, both off until set."
)

_PRESETS: dict[str, _Preset] = {
    "masked lora": _Preset("Our defaults: every sample has an equal say, down to 5 % coverage."),
    "kohya": _Preset(
        "kohya's sd-scripts: the mean over the whole picture, so the loss shrinks with the mask.",
        {"normalize": "none", "mask_channel": "red"},
    ),
    "SimpleTuner mask": _Preset(
        "SimpleTuner with conditioning type mask: the mean over the whole picture.",
        {"normalize": "none", "mask_channel": "red"},
    ),
    "SimpleTuner segmentation": _Preset(
        "SimpleTuner with conditioning type segmentation: every cell that holds any colour counts fully.",
        {
            "normalize": "none",
            "mask_channel": "rgb average",
            "reduction": "any",
            "reduction_binarize": True,
        },
    ),
    "ai-toolkit": _Preset(
        "ai-toolkit: weights divided by their mean over the batch, top-left pixel of every cell.",
        {
            "normalize": "batch_mean",
            "mask_channel": "luminance",
            "reduction": "nearest",
            "edge_jitter": 0.005,
        },
    ),
    "blissful": _Preset(
        "blissful-tuner: one weighted mean over the whole batch. " + _BLISSFUL,
        {"normalize": "batch", "mask_channel": "luminance"},
    ),
    "blissful per sample": _Preset(
        "blissful-tuner, normalised per sample. " + _BLISSFUL,
        {"normalize": "area", "area_min": 0.0, "mask_channel": "luminance"},
    ),
    "OneTrainer": _Preset(
        "OneTrainer: the mean over the whole picture, the background at a tenth of the weight.",
        {
            "normalize": "none",
            "mask_channel": "luminance",
            "reduction": "bilinear antialiased",
            "floor_mode": "max",
            "floor": 0.1,
        },
    ),
    "OneTrainer normalised": _Preset(
        "OneTrainer with its masked-area normalisation.",
        {
            "normalize": "area",
            "area_min": 0.0,
            "mask_channel": "luminance",
            "reduction": "bilinear antialiased",
            "floor_mode": "max",
            "floor": 0.1,
        },
    ),
}

CUSTOM = "custom"
PRESETS: dict[str, LossSettings] = {
    name: LossSettings(preset=name, **preset.options) for name, preset in _PRESETS.items()
}
PRESET_NAMES = (*PRESETS, CUSTOM)


def apply_preset(name: str, base: LossSettings | None = None) -> LossSettings:
    """Loss settings with every option that the preset decides, the rest from `base`.

    Args:
        name: one of `PRESET_NAMES`; `custom` takes every option from `base`.
        base: settings whose noise levels, timestep weight and noise are kept; None for the defaults.

    Raises:
        ConfigError: unknown preset.
    """
    base = base or LossSettings()
    if name == CUSTOM:
        return dataclasses.replace(base, preset=CUSTOM)
    chosen = PRESETS.get(name)
    if chosen is None:
        raise ConfigError(f"preset: expected one of {', '.join(PRESET_NAMES)}, got {name!r}.")
    options = {option: getattr(chosen, option) for option in PRESET_FIELDS}
    return dataclasses.replace(base, preset=name, **options)


def preset_help(name: str) -> str:
    """What a preset does and which known bugs of that trainer it leaves out, in plain words.

    Raises:
        ConfigError: unknown preset.
    """
    if name == CUSTOM:
        return "Every option as you set it."
    if name not in _PRESETS:
        raise ConfigError(f"preset: expected one of {', '.join(PRESET_NAMES)}, got {name!r}.")
    return _PRESETS[name].help
