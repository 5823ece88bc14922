"""What a MODEL predicts and which noise levels it knows, read from ComfyUI's sampling and held against it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import comfy.model_sampling
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...errors import FamilyError
from ...loss.noise import Schedule, add_noise, sigma_of, target

# By ComfyUI's class of the sampling parameterisation; the nearest ancestor decides, and None cannot be trained.
_PREDICTIONS = {"CONST": "flow", "COSMOS_RFLOW": "flow", "V_PREDICTION": "v", "EPS": "epsilon"}
# Its noisy pictures are those of v-prediction, but ComfyUI does not scale what its usual samplers give it.
_UNSCALED = "V_PREDICTION_DDPM"
_PREDICTIONS |= dict.fromkeys(("EDM", "X0", "LCM", "IMG_TO_IMG", "IMG_TO_IMG_FLOW"))
_LEVELS = (0.25, 0.5, 0.75)


def read_schedule(sampling: Any, *, title: str, kind: str, predictions: Sequence[str]) -> Schedule:
    """The schedule of ComfyUI's `sampling`.

    Args:
        sampling: ComfyUI's ModelSampling, that of a node where one changed it.
        title: The family's.
        kind: ComfyUI's name of what the model was made for.
        predictions: What models of this family may predict.

    Raises:
        FamilyError: It predicts something else, or noises pictures and tells the network of the noise in another way
            than training would.
    """
    ancestors = [c.__name__ for c in type(sampling).__mro__]
    prediction = next((_PREDICTIONS[name] for name in ancestors if name in _PREDICTIONS), None)
    if prediction not in predictions:
        raise FamilyError(
            f"model: {title} with {ancestors[1]} sampling and {kind} prediction cannot be trained. Use a model that "
            f"predicts {' or '.join(predictions)}."
        )
    strength = float(getattr(sampling, "noise_scale", 1.0))
    if strength != 1.0:
        raise FamilyError(
            f"model: {title} cannot be trained: its noise is {strength:g} times as strong as that of other models, and "
            "this pack trains with noise of strength 1 only. Use another model."
        )
    with torch.inference_mode(False):
        schedule = _of(sampling, prediction, ancestors)
        if not _is_alike(sampling, schedule):
            raise FamilyError(
                f"model: {title} with {ancestors[1]} sampling cannot be trained: it mixes noise and pictures, or tells "
                "the network of the noise, in another way than this pack knows. Take away the node that changed the "
                "MODEL's sampling, or use another model."
            )
    return schedule


class _Scaled(comfy.model_sampling.ModelSamplingDiscrete, comfy.model_sampling.V_PREDICTION):
    """ComfyUI's v-prediction in place of the one for a sampler of its own."""


def scaled(patcher: ModelPatcher) -> ModelPatcher:
    """The MODEL as every sampler of ComfyUI can draw with it; it is changed, so give a clone.

    To CogVideoX ComfyUI's usual samplers give noise that is `sqrt(1 + sigma²)` times as strong as the network knows it.
    With the sampling of other models that predict v it is given what it was trained with, at the same noise levels.
    """
    sampling = patcher.get_model_object("model_sampling")
    if any(c.__name__ == _UNSCALED for c in type(sampling).__mro__):
        usual = _Scaled(patcher.model.model_config)
        usual.set_sigmas(sampling.sigmas)
        patcher.add_object_patch("model_sampling", usual)
    return patcher


def is_scaled(patcher: ModelPatcher) -> bool:
    """Whether `scaled` changed it."""
    return isinstance(patcher.get_model_object("model_sampling"), _Scaled)


def told_level(u: Tensor, sampling: Any, schedule: Schedule) -> Tensor:
    """What the network is told of noise levels u (B,); a table's position, so that rescaling it changes nothing."""
    table = schedule.alphas_cumprod
    if table is not None:
        return (u * len(table)).long().clamp(max=len(table) - 1).float()
    # Where sigma is a ratio of noise to picture it is infinite at u = 1, though what the network is told is not.
    return u.float() if _is_ratio(sampling) else sampling.timestep(u).float()


def core_sigma(u: Tensor, sampling: Any, schedule: Schedule) -> Tensor:
    """The sigma (B,) that ComfyUI's `sampling` gives noise levels u (B,).

    That of `sigma_of`, or u/(1−u) for flow models that ComfyUI shows (x + σ·noise)/(1 + σ).
    """
    return u / (1 - u) if _is_ratio(sampling) else sigma_of(u, schedule=schedule)


def _is_ratio(sampling: Any) -> bool:
    """Whether this is a flow model whose sigma ComfyUI counts as those of ε models."""
    return any(c.__name__ == "COSMOS_RFLOW" for c in type(sampling).__mro__)


def _of(sampling: Any, prediction: str, ancestors: Sequence[str]) -> Schedule:
    if prediction == "flow":
        shift = torch.tensor(float(getattr(sampling, "shift", 1.0)))
        return Schedule("flow", shift=float(shift.exp() if "ModelSamplingFlux" in ancestors else shift))
    sigmas = sampling.sigmas.detach().to("cpu", torch.float32, copy=True)
    return Schedule(prediction, alphas_cumprod=1.0 / (1.0 + sigmas.square()))


def _is_alike(sampling: Any, schedule: Schedule) -> bool:
    """Whether ComfyUI noises a picture, tells of the noise and reads a perfect answer as training takes it to."""
    u = torch.tensor(_LEVELS)
    # Any numbers do; one whose noise has another strength, or an answer another sign, is off by as much.
    latent = torch.linspace(-1.0, 1.0, 4).expand(len(u), 1, 2, 4)
    noise = torch.linspace(1.5, -0.5, 8).view(1, 1, 2, 4).expand_as(latent)
    sigma = core_sigma(u, sampling, schedule)
    with torch.no_grad():
        noisy = sampling.noise_scaling(sigma, noise.clone(), latent.clone())
        pairs = [
            (sampling.calculate_input(sigma, noisy), add_noise(latent, noise, u, schedule=schedule)),
            (
                sampling.calculate_denoised(sigma, target(latent, noise, u, schedule=schedule), noisy),
                latent,
            ),
            (sampling.timestep(sigma).float(), told_level(u, sampling, schedule)),
        ]
    return all(torch.allclose(theirs.cpu(), ours, rtol=1e-3, atol=1e-3) for theirs, ours in pairs)
