"""Whether the settings of the masked objective can be used, each by itself and together."""

from __future__ import annotations

from ..errors import ConfigError
from ..settings import LossSettings, check
from .tokens import parse_routes


def check_loss(settings: LossSettings) -> LossSettings:
    """`settings` if every value is usable, else a `ConfigError` that names the widget and its range."""
    check(settings)
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
