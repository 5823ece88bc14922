"""Whether the settings of the masked objective can be used, each by itself and together."""

from __future__ import annotations

from ..errors import ConfigError
from ..settings import LOSS_CHOICES, LOSS_RANGES, MASK_CHANNELS, LossSettings, check_choice, check_range
from .tokens import parse_routes


def check_loss(settings: LossSettings) -> LossSettings:
    """`settings` if every value is usable, else a `ConfigError` that names the widget and its range."""
    for widget, choices in LOSS_CHOICES.items():
        check_choice(widget, getattr(settings, widget), choices)
    for widget, (low, high) in LOSS_RANGES.items():
        check_range(widget, getattr(settings, widget), low, high)
    if settings.mask_channel:
        check_choice("mask_channel", settings.mask_channel, MASK_CHANNELS)
    parse_routes(settings.routes)
    if settings.latent_blur and settings.latent_blur % 2 == 0:
        raise ConfigError(f"latent_blur: expected 0 or an odd number of cells, got {settings.latent_blur}.")
    if settings.floor > settings.ceiling:
        raise ConfigError(f"floor: {settings.floor:g} lies above the ceiling {settings.ceiling:g}. Lower it.")
    if settings.timestep_min >= settings.timestep_max:
        raise ConfigError(
            f"timestep_min: {settings.timestep_min:g} must be below timestep_max {settings.timestep_max:g}."
        )
    if settings.timestep_min >= settings.masked_timestep_max:
        raise ConfigError(
            f"masked_timestep_max: {settings.masked_timestep_max:g} must be above timestep_min "
            f"{settings.timestep_min:g}."
        )
    return settings
