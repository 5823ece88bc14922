"""Noise levels, noise and targets against their definitions."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from masklora.errors import ConfigError
from masklora.loss.losses import flow_weights, snr_weights
from masklora.loss.noise import (
    Schedule,
    add_noise,
    make_noise,
    rescale_zero_terminal_snr,
    resolution_shift,
    sample_timesteps,
    shift_timesteps,
    sigma_of,
    snr_of,
    target,
    timestep_weights,
)
from masklora.settings import TIMESTEP_SAMPLING, LossSettings


def sd15_alphas():
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, dim=0)


EPSILON = Schedule("epsilon", alphas_cumprod=sd15_alphas())
V = Schedule("v", alphas_cumprod=sd15_alphas())
SD3 = Schedule("flow", shift=3.0)
FLUX = Schedule("flow", shift=math.exp(1.15))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def latents(shape=(4, 4, 6, 5)):
    g = generator(3)
    x = torch.randn(shape, generator=g, dtype=torch.float64)
    return (
        x,
        torch.randn(shape, generator=g, dtype=torch.float64),
        torch.tensor([0.0, 0.3, 0.77, 1.0], dtype=torch.float64),
    )


def draw(n=200_000, schedule=SD3, seed=0, **settings):
    return sample_timesteps(n, LossSettings(**settings), schedule=schedule, generator=generator(seed))


def ecdf_distance(u, cdf):
    u = np.sort(u.double().numpy())
    return np.abs(np.arange(1, len(u) + 1) / len(u) - cdf(u)).max()


def logistic_normal_cdf(mean=0.0, std=1.0, shift=1.0):
    def cdf(u):
        u = np.clip(u, 1e-12, 1 - 1e-12)
        u = u / (shift - (shift - 1) * u)
        z = (np.log(u / (1 - u)) - mean) / std
        return 0.5 * (1 + np.vectorize(math.erf)(z / math.sqrt(2)))

    return cdf


def truncated(cdf, low, high):
    ends = cdf(np.array([low, high]))
    return lambda u: (cdf(u) - ends[0]) / (ends[1] - ends[0])


DISTRIBUTIONS = {
    "uniform": ({"timestep_sampling": "uniform"}, lambda u: u),
    "uniform shifted by 3": (
        {"timestep_sampling": "uniform", "timestep_shift": 3.0},
        lambda u: u / (3 - 2 * u),
    ),
    "logit-normal": (
        {"timestep_sampling": "logit-normal", "timestep_mean": 0.5, "timestep_std": 0.6},
        logistic_normal_cdf(0.5, 0.6),
    ),
    "sigmoid": (
        {"timestep_sampling": "sigmoid", "timestep_mean": 0.5, "timestep_std": 1.3},
        logistic_normal_cdf(0.0, 1.3),
    ),
    "shifted by the model's own": ({"timestep_sampling": "shifted"}, logistic_normal_cdf(shift=3.0)),
    "shifted by 2": (
        {"timestep_sampling": "shifted", "timestep_shift": 2.0},
        logistic_normal_cdf(shift=2.0),
    ),
    "default without a family": ({}, lambda u: u),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_noise_levels_have_the_distribution_that_was_asked_for(name):
    settings, cdf = DISTRIBUTIONS[name]
    assert ecdf_distance(draw(**settings), cdf) < 0.004


@pytest.mark.parametrize("name", DISTRIBUTIONS)
@pytest.mark.parametrize("bounds", [(0.2, 0.6), (0.0, 0.5), (0.7, 1.0)])
def test_a_range_cuts_the_distribution_off_without_squeezing_it(name, bounds):
    settings, cdf = DISTRIBUTIONS[name]
    u = draw(timestep_min=bounds[0], timestep_max=bounds[1], **settings)
    assert bounds[0] <= u.min() < bounds[0] + 0.12
    assert bounds[1] - 0.12 < u.max() <= bounds[1]
    assert ecdf_distance(u, truncated(cdf, *bounds)) < 0.004


@pytest.mark.parametrize("kind", TIMESTEP_SAMPLING)
def test_noise_levels_depend_on_the_generator_alone(kind):
    one, same, other = (draw(n=8, timestep_sampling=kind, seed=seed) for seed in (1, 1, 2))
    assert one.dtype == torch.float32
    assert one.shape == (8,)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_every_sampling_spends_one_random_number_per_sample():
    for kind in TIMESTEP_SAMPLING:
        g, reference = generator(), generator()
        sample_timesteps(5, LossSettings(timestep_sampling=kind), schedule=FLUX, generator=g)
        torch.rand(5, generator=reference)
        assert torch.equal(g.get_state(), reference.get_state())


def test_an_unknown_sampling_is_named():
    with pytest.raises(ConfigError, match=r"timestep sampling.*'cosine'"):
        draw(timestep_sampling="cosine")


def test_shifting_moves_the_odds_of_noise_by_the_factor():
    u = torch.linspace(0.01, 0.99, 50, dtype=torch.float64)
    moved = shift_timesteps(u, shift=3.0)
    assert torch.allclose(moved / (1 - moved), 3 * u / (1 - u))
    assert torch.equal(shift_timesteps(u, shift=1.0), u)
    assert shift_timesteps(torch.tensor([0.0, 1.0]), shift=3.0).tolist() == [0, 1]


def test_flux_shift_is_the_same_formula_with_an_exponent():
    u = torch.linspace(0.01, 0.99, 50, dtype=torch.float64)
    flux = math.exp(1.15) / (math.exp(1.15) + (1 / u - 1))
    assert torch.allclose(shift_timesteps(u, shift=FLUX.shift), flux)


@pytest.mark.parametrize("schedule", [SD3, FLUX])
def test_flow_models_walk_straight_from_picture_to_noise(schedule):
    x, n, u = latents()
    noisy = add_noise(x, n, u, schedule=schedule)
    assert torch.equal(noisy[0], x[0])
    assert torch.equal(noisy[3], n[3])
    assert torch.allclose(noisy[1], 0.7 * x[1] + 0.3 * n[1])
    assert torch.equal(sigma_of(u, schedule=schedule), u)
    velocity = target(x, n, u, schedule=schedule)
    later = add_noise(x, n, u + 1e-3, schedule=schedule)
    assert torch.allclose((later - noisy) / 1e-3, velocity, atol=1e-9)
    # ComfyUI's CONST: denoised = input - output * sigma.
    assert torch.allclose(noisy - velocity * u.view(-1, 1, 1, 1), x)


@pytest.mark.parametrize("schedule", [EPSILON, V])
def test_table_models_keep_unit_variance_and_give_the_picture_back(schedule):
    x, n, u = latents()
    sigma = sigma_of(u, schedule=schedule).view(-1, 1, 1, 1)
    noisy, wanted = add_noise(x, n, u, schedule=schedule), target(x, n, u, schedule=schedule)
    # ComfyUI's own input is x + sigma n, which it scales by 1 / sqrt(sigma^2 + 1) before the model.
    raw = x + sigma * n
    assert torch.allclose(noisy, raw / (sigma**2 + 1).sqrt())
    if schedule is EPSILON:
        assert torch.equal(wanted, n)
        assert torch.allclose(raw - wanted * sigma, x)
    else:
        assert torch.allclose(raw / (sigma**2 + 1) - wanted * sigma / (sigma**2 + 1).sqrt(), x)


def test_v_is_the_quarter_turn_of_the_noisy_latent():
    x, n, u = latents()
    noisy, v = add_noise(x, n, u, schedule=V), target(x, n, u, schedule=V)
    alphas = sd15_alphas()[(u * 1000).long().clamp(max=999)].view(-1, 1, 1, 1)
    assert torch.allclose(alphas.sqrt() * noisy - (1 - alphas).sqrt() * v, x)
    assert torch.allclose((1 - alphas).sqrt() * noisy + alphas.sqrt() * v, n)
    assert torch.allclose(noisy**2 + v**2, x**2 + n**2)


def test_video_latents_take_one_noise_level_per_sample():
    x, n, u = latents((4, 2, 3, 6, 5))
    for schedule in (EPSILON, V, SD3):
        noisy = add_noise(x, n, u, schedule=schedule)
        for f in range(3):
            assert torch.equal(noisy[:, :, f], add_noise(x[:, :, f], n[:, :, f], u, schedule=schedule))


def test_table_entries_are_drawn_evenly_and_all_of_them():
    u = draw(n=100_000, schedule=EPSILON, timestep_sampling="uniform")
    sigmas = sigma_of(u, schedule=EPSILON)
    counts = torch.bincount((u * 1000).long(), minlength=1000)
    assert len(counts) == 1000
    assert counts.min() > 50
    assert counts.max() < 160
    assert len(sigmas.unique()) == 1000


def test_signal_to_noise_is_one_over_sigma_squared_for_table_models():
    u = torch.tensor([0.0, 0.2, 0.5, 1.0])
    snr, sigma = snr_of(u, schedule=EPSILON), sigma_of(u, schedule=EPSILON)
    assert torch.allclose(snr * sigma**2, torch.ones(4).double())
    assert sigma[0].item() == pytest.approx(0.0292, abs=1e-4)
    assert sigma[3].item() == pytest.approx(14.6146, abs=1e-3)
    assert snr_of(torch.tensor([0.25]), schedule=SD3).item() == pytest.approx(9)


def test_timestep_weights_use_the_curve_of_the_model():
    u = torch.tensor([0.2, 0.6])
    got = timestep_weights(u, LossSettings(timestep_weight="min-snr", snr_gamma=3.0), schedule=V)
    expected = snr_weights(snr_of(u, schedule=V), kind="min-snr", gamma=3.0, prediction="v")
    assert torch.equal(got, expected)
    got = timestep_weights(
        u, LossSettings(timestep_weight="logit-normal", timestep_mean=0.3, timestep_std=0.9), schedule=SD3
    )
    assert torch.equal(got, flow_weights(u, kind="logit-normal", mean=0.3, std=0.9))
    for schedule in (EPSILON, V, SD3):
        assert timestep_weights(u, LossSettings(), schedule=schedule).tolist() == [1, 1]
    with pytest.raises(ConfigError, match="flow model"):
        timestep_weights(u, LossSettings(timestep_weight="debiased"), schedule=FLUX)


def test_zero_terminal_snr_keeps_the_start_and_removes_the_signal_at_the_end():
    alphas = sd15_alphas()
    rescaled = rescale_zero_terminal_snr(alphas)
    assert rescaled[0].item() == pytest.approx(alphas[0].item(), rel=1e-12)
    assert rescaled[-1] < 1e-7
    assert (rescaled.diff() < 0).all()
    root = alphas.sqrt()
    middle = (root[500] - root[-1]) * root[0] / (root[0] - root[-1])
    assert rescaled[500].item() == pytest.approx(middle.item() ** 2, rel=1e-12)
    schedule = Schedule("v", alphas_cumprod=rescaled)
    x, n, _ = latents()
    ones = torch.ones(4)
    assert torch.allclose(add_noise(x, n, ones, schedule=schedule), n, atol=1e-2)
    assert torch.isfinite(sigma_of(ones, schedule=schedule)).all()
    assert torch.allclose(target(x, n, ones, schedule=schedule), -x, atol=1e-2)


def test_a_table_model_without_a_table_is_refused():
    with pytest.raises(ConfigError, match="alphas_cumprod"):
        sigma_of(torch.ones(1), schedule=Schedule("epsilon"))


def test_an_unknown_prediction_is_named():
    x, n, u = latents()
    with pytest.raises(ConfigError, match="'x0'"):
        target(x, n, u, schedule=Schedule("x0"))


def test_noise_is_plain_and_decided_by_the_generator_at_the_defaults():
    like = torch.empty(2, 4, 3, 8, 8, dtype=torch.bfloat16)
    noise = make_noise(like, generator=generator())
    assert torch.equal(noise, torch.randn(like.shape, generator=generator()))
    assert noise.dtype == torch.float32


def test_offset_adds_one_constant_to_each_channel():
    like = torch.empty(400, 4, 8, 8)
    plain, offset = (
        make_noise(like, generator=generator()),
        make_noise(like, generator=generator(), offset=0.1),
    )
    added = offset - plain
    assert torch.allclose(added, added[..., :1, :1].expand_as(added), atol=1e-6)
    assert added[..., 0, 0].std().item() == pytest.approx(0.1, rel=0.05)


def test_a_noise_pyramid_adds_low_frequencies_at_unit_variance():
    like = torch.empty(64, 4, 32, 32)

    def coarse(discount):
        noise = make_noise(like, generator=generator(), multires=discount)
        assert torch.allclose(noise.std(dim=(1, 2, 3)), torch.ones(64), atol=0.1 if discount == 0 else 1e-5)
        return torch.nn.functional.avg_pool2d(noise, 8).std().item()

    strength = [coarse(discount) for discount in (0.0, 0.3, 0.6, 0.9)]
    assert strength == sorted(strength)
    assert strength[1] > 1.1 * strength[0]
    assert strength[3] > 3 * strength[0]
    video = torch.empty(2, 4, 3, 8, 8)
    assert make_noise(video, generator=generator(), multires=0.3).shape == video.shape


@pytest.mark.parametrize("schedule", [EPSILON, V, SD3, FLUX])
def test_nothing_is_read_back_from_the_device(schedule):
    # A meta tensor holds no values: whatever looked at one would raise here.
    x = torch.empty(3, 4, 8, 8, device="meta")
    u = sample_timesteps(3, LossSettings(), schedule=schedule, device="meta")
    noise = make_noise(x, offset=0.1, multires=0.2)
    noisy = add_noise(x, noise, u, schedule=schedule)
    assert noisy.shape == target(x, noise, u, schedule=schedule).shape == x.shape
    assert timestep_weights(u, LossSettings(), schedule=schedule).shape == (3,)


@pytest.mark.parametrize("sampling", ["uniform", "logit-normal", "shifted"])
def test_masked_samples_are_drawn_from_their_own_range_and_the_others_as_before(sampling):
    schedule = Schedule("flow", shift=3.0)
    plain = LossSettings(timestep_sampling=sampling, timestep_min=0.1)
    capped = dataclasses.replace(plain, masked_timestep_max=0.6)
    masked = torch.arange(4000) % 2 == 0

    def draw(settings, **options):
        return sample_timesteps(4000, settings, schedule=schedule, generator=generator(), **options)

    before, after = draw(plain), draw(capped, masked=masked)
    assert torch.equal(before[~masked], after[~masked])
    assert after[masked].min() >= 0.1 and 0.59 < after[masked].max() <= 0.6
    assert torch.equal(before, draw(plain, masked=masked)) and torch.equal(before, draw(capped))
    # The range cuts the distribution off: what lies below the cap keeps its proportions.
    below = before[before <= 0.6]
    assert after[masked].median().item() == pytest.approx(below.median().item(), abs=0.03)


@pytest.mark.parametrize(("side", "shift"), [(512, 1.88), (768, 2.33), (1024, 3.16), (1536, 7.5)])
def test_the_shift_by_resolution_is_that_of_flux_s_own_sampler(side, shift):
    cells = (side // 8) ** 2
    assert resolution_shift(cells) == pytest.approx(shift, rel=0.01)
    by_size = LossSettings(timestep_sampling="shifted by resolution")
    by_hand = LossSettings(timestep_sampling="shifted", timestep_shift=resolution_shift(cells))
    drawn = [
        sample_timesteps(500, settings, schedule=FLUX, generator=torch.Generator().manual_seed(3), cells=cells)
        for settings in (by_size, by_hand)
    ]
    assert torch.equal(*drawn)


def test_a_shift_that_was_set_comes_before_that_of_the_resolution():
    settings = LossSettings(timestep_sampling="shifted by resolution", timestep_shift=1.0)
    plain = LossSettings(timestep_sampling="logit-normal")
    drawn = [
        sample_timesteps(200, one, schedule=FLUX, generator=torch.Generator().manual_seed(3), cells=16384)
        for one in (settings, plain)
    ]
    assert torch.equal(*drawn)
