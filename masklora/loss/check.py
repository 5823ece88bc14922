"""Whether the settings of the masked objective can be used: each by itself, together, and with a model."""

from __future__ import annotations

import torch

from ..errors import ConfigError
from ..settings import LossSettings, check
from .noise import Schedule, timestep_weights
from .tokens import TokenModel, parse_routes, resolve_routes


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


def check_loss_for(settings: LossSettings, *, schedule: Schedule, tokens: TokenModel | None) -> None:
    """Nothing if a model can be trained so.

    Args:
        settings: usable by themselves, see `check_loss`.
        schedule: what the model predicts.
        tokens: what of its tokens can be planned; None where no setting acts on tokens.

    Raises:
        ConfigError: a setting is made for another kind of model; names the widget.
    """
    # On one made-up noise level: a weight of another kind of model must not wait for the first prediction.
    timestep_weights(torch.full((1,), 0.5), settings, schedule=schedule)
    if tokens is not None:
        resolve_routes(parse_routes(settings.routes), blocks=tokens.blocks, title=tokens.title)
