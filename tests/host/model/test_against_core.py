"""What we train is what ComfyUI samples: our raw output and our schedule against its own `apply_model`."""

import comfy.model_management
import comfy.sampler_helpers
import comfy.samplers
import pytest
import torch

from harness.models import small_model, small_text
from harness.small import small_models
from masklora.dataset.geometry import Geometry
from masklora.host.model.conditioning import size_conditioning
from masklora.host.model.trainable import TrainableModel
from masklora.loss.noise import add_noise, sigma_of, snr_of, target

SQUARE = Geometry(source=(64, 64), resized=(64, 64), crop=(0, 0, 64, 64))
NAMES = list(small_models())
LEVELS = (0.05, 0.3, 0.5, 0.75, 0.95)


def draw(trainable):
    g = torch.Generator().manual_seed(1)
    shape = (1, trainable.channels, 8, 8)
    return torch.randn(shape, generator=g), torch.randn(shape, generator=g)


def clean_by_schedule(raw, noisy, u, schedule):
    """The clean latent that a raw output stands for, from the definition of each prediction."""
    u = u.view(-1, 1, 1, 1)
    if schedule.prediction == "flow":
        return noisy - u * raw
    snr = snr_of(u, schedule=schedule)
    signal, noise = (snr / (1 + snr)).sqrt(), (1 / (1 + snr)).sqrt()
    return (noisy - noise * raw) / signal if schedule.prediction == "epsilon" else signal * noisy - noise * raw


def clean_by_core(patcher, noisy, u, text, schedule, *, frames):
    """The clean latent that ComfyUI's sampler gets at the sigma of u, with its own conditioning of the text."""
    sigma = sigma_of(u, schedule=schedule)
    x = noisy if schedule.prediction == "flow" else noisy * (sigma.view(-1, 1, 1, 1) ** 2 + 1).sqrt()
    x = x[:, :, None] if frames else x
    extras = {k: v for k, v in text.items() if k != "cond"}
    conds = {"positive": comfy.sampler_helpers.convert_cond([[text["cond"], {**extras, **size_conditioning(SQUARE)}]])}
    comfy.model_management.load_models_gpu([patcher])
    patcher.pre_run()
    conds = comfy.samplers.process_conds(patcher.model, x, conds, x.device, x, None, 0)
    out = comfy.samplers.calc_cond_batch(patcher.model, [conds["positive"]], x, sigma, patcher.model_options)[0]
    return out[:, :, 0] if frames else out


@torch.no_grad()
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("family", NAMES)
def test_the_clean_latent_of_our_raw_output_is_the_one_that_core_samples_with(family, level):
    patcher = small_model(family)
    trainable = TrainableModel(patcher)
    # Core samples Flux with 3.5 where nothing is said; a person's own guidance reaches the network in both.
    trainable.guidance = 2.5
    text, u = {**small_text(family, tokens=77), "guidance": 2.5}, torch.tensor([level])
    latent, noise = draw(trainable)
    noisy = add_noise(latent, noise, u, schedule=trainable.schedule)
    raw = trainable.denoise(noisy, u, trainable.collate([text], [SQUARE], noisy.shape[1:]))
    ours = clean_by_schedule(raw, noisy, u, trainable.schedule)
    theirs = clean_by_core(patcher, noisy, u, text, trainable.schedule, frames=trainable.has_frames)
    assert (ours - theirs).norm() <= 1e-6 * theirs.norm()


@torch.no_grad()
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("family", NAMES)
def test_where_the_network_answers_with_our_target_core_gets_the_clean_latent(family, level, monkeypatch):
    patcher = small_model(family)
    trainable = TrainableModel(patcher)
    text, u = small_text(family, tokens=77), torch.tensor([level])
    latent, noise = draw(trainable)
    noisy = add_noise(latent, noise, u, schedule=trainable.schedule)
    goal = target(latent, noise, u, schedule=trainable.schedule)
    goal = goal[:, :, None] if trainable.has_frames else goal
    monkeypatch.setattr(patcher.model.diffusion_model, "forward", lambda *args, **kwargs: goal.clone())
    found = clean_by_core(patcher, noisy, u, text, trainable.schedule, frames=trainable.has_frames)
    assert (found - latent).norm() <= 1e-6 * latent.norm()
