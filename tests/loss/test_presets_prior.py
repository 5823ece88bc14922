"""Parity of the presets' priors, each trainer's own formula transcribed as independent lines; their faults stay out.

As in test_presets.py every trainer starts from the same pixel mask, prediction, target, base model's prediction,
timestep weight and loss multiplier; the formulas were read from the sources named in each docstring.
"""

import math
from dataclasses import replace

import pytest
import torch

from harness.parity import (
    CELL,
    GRID,
    blissful_weights,
    cubic_taps,
    make_case,
    scaled_mean,
    triangle_filter,
)
from harness.toy import ToyEntry, ToyNet, toy_job
from masklora.errors import ConfigError
from masklora.loss.check import check_loss
from masklora.loss.losses import masked_objective
from masklora.loss.masks import effective_weights, reduce_mask
from masklora.loss.noise import Schedule
from masklora.loss.presets import PRESET_DECIDES, PRESETS, apply_preset, overruled_options, preset_help
from masklora.loss.prior import Prior, prior_factors, prior_gate, prior_weights
from masklora.settings import LossSettings
from masklora.training.batches import Draw
from masklora.training.microbatch import Feed
from masklora.training.objective import Objective

# A sample with much noise and two with little.
LEVELS = torch.tensor([0.7, 0.15, 0.25])


def ours(case, settings, *, multiplier=True, progress=0.5, pred=None):
    """The pack's loss of a case, from the pixels on, at the noise levels `LEVELS`."""
    pred = case.pred if pred is None else pred
    u = LEVELS[: len(pred)]
    w = effective_weights(case.pixels, settings, grid=GRID, thresholded=prior_gate(u, settings))
    m = reduce_mask(case.pixels, grid=GRID, kind=settings.reduction)
    bicubic = None
    if settings.prior_reduction != "as the mask":
        bicubic = reduce_mask(case.pixels, grid=GRID, kind=settings.prior_reduction)
    prior = Prior(
        case.base, prior_weights(m, w, settings, bicubic=bicubic), prior_factors(u, settings, progress=progress)
    )
    c = case.multiplier if multiplier else None
    return masked_objective(pred, case.target, w, settings, omega=case.omega, multiplier=c, prior=prior)[0]


def compare(settings, formula, batch, *, multiplier=True, progress=0.5):
    """Asserts that loss and gradient equal `formula(pixels, squared error, squared distance to the base, ω, c)`."""
    case = make_case(batch)
    pred = case.pred.clone().requires_grad_()
    loss = ours(case, settings, multiplier=multiplier, progress=progress, pred=pred)
    loss.backward()

    theirs = case.pred.double().requires_grad_()
    squared, distance = (theirs - case.target.double()) ** 2, (theirs - case.base.double()) ** 2
    c = case.multiplier.double() if multiplier else torch.ones(batch, dtype=torch.float64)
    expected = formula(case.pixels.double(), squared, distance, case.omega.double(), c)
    expected.backward()

    without = formula(case.pixels.double(), squared.detach(), 0 * distance.detach(), case.omega.double(), c)
    assert expected.item() > without.item() + 0.01
    assert loss.item() == pytest.approx(expected.item(), rel=2e-6)
    assert torch.allclose(pred.grad.double(), theirs.grad, rtol=2e-5, atol=1e-8)


def ai_toolkit(mask_min_value, weight):
    """ostris/ai-toolkit at 27a03a91, extensions_built_in/sd_trainer/SDTrainer.py.

    1484-1504: the mask, nearest, over its mean. 588-608: a bicubic copy of it (which has the min value already), one
    minus that, over its mean. 966-999: mean per sample, the loss multiplier on the target's part only, then the sum.
    1001-1013: SNR weights on both. Line 599's `prior_mask[:1]` is each sample's own here.
    """

    def formula(pixels, squared, distance, omega, c):
        pixels = mask_min_value + (1 - mask_min_value) * pixels
        mask = pixels[:, :, ::CELL, ::CELL]
        outside = 1 - cubic_taps(pixels)
        loss = (squared * mask / mask.mean()).mean(dim=(1, 2, 3)) * c
        return ((loss + (distance * outside / outside.mean() * weight).mean(dim=(1, 2, 3))) * omega).mean()

    return formula


@pytest.mark.parametrize("mask_min_value", [0.0, 0.2])
@pytest.mark.parametrize("batch", [1, 3])
def test_ai_toolkit_inverted_mask_prior(batch, mask_min_value):
    """toolkit/config_modules.py:486-487: off by default, multiplier 0.5."""
    base = LossSettings(floor=mask_min_value, prior_weight=PRESET_DECIDES)
    settings = apply_preset("ai-toolkit inverted mask prior", base)
    assert settings.prior_weight == 0.5
    compare(replace(settings, edge_jitter=0.0), ai_toolkit(mask_min_value, 0.5), batch)
    own = apply_preset("ai-toolkit", LossSettings(floor=mask_min_value, prior_weight=0.8))
    compare(replace(own, edge_jitter=0.0), ai_toolkit(mask_min_value, 0.8), batch)


def blissful(*, per_sample, threshold=None, weight=0.7, gate=None, schedule=None, warmup=1.0, beta=0.0, **mask_options):
    """DustyL/blissful-tuner: src/musubi_tuner/modules/mask_loss.py (289c641) apply_masked_loss_with_prior.

    The prior's mask is one minus the processed mask, or where the raw mask lies below the threshold, times the gate of
    src/blissful_tuner/mask_loss_process_batch.py (35c5ecc) masked_process_batch (timestep > threshold); with a
    threshold the target loses those cells. Each term is a weighted mean, over everything or per sample; the area
    scale is the target's alone. Weights per sample: modules/prior_scheduling.py compute_prior_weight_per_sample. The
    timestep weight is on both losses; there is no loss multiplier.
    """

    def formula(pixels, squared, distance, omega, c):
        timesteps = 1000 * LEVELS[: len(pixels)].double()
        options = (mask_options.get("gamma", 1), mask_options.get("floor", 0), mask_options.get("latent_blur"))
        raw, mask = blissful_weights(pixels, *options, None)
        prior_mask = 1 - mask if threshold is None else (raw < threshold).double()
        if gate is not None:
            prior_mask = prior_mask * (timesteps > gate).double().view(-1, 1, 1, 1)
        if threshold is not None:
            mask = mask * (1 - prior_mask)
        share = timesteps.clamp(0, 300) / 300
        decay = {"linear": share, "cosine": 0.5 - 0.5 * torch.cos(math.pi * share)}.get(
            schedule, torch.ones_like(share)
        )
        target_term = squared * omega.view(-1, 1, 1, 1) * mask
        prior_term = distance * omega.view(-1, 1, 1, 1) * prior_mask
        channels, over = squared.shape[1], (1, 2, 3)
        if not per_sample:
            total = prior_term.sum() / (prior_mask.sum() * channels).clamp(min=1e-8) * weight
            return target_term.sum() / (mask.sum() * channels) * raw.mean() ** beta + total
        target = target_term.sum(dim=over) / (mask.sum(dim=over) * channels) * raw.mean(dim=over) ** beta
        prior = prior_term.sum(dim=over) / (prior_mask.sum(dim=over) * channels).clamp(min=1e-8)
        return (target + prior * weight * decay * warmup).mean()

    return formula


@pytest.mark.parametrize("gate", [None, 200.0])
@pytest.mark.parametrize("threshold", [None, 0.1, 0.4])
@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.parametrize("batch", [1, 3])
def test_blissful_prior_preservation(batch, per_sample, threshold, gate):
    name = "blissful" + " per sample" * per_sample + " threshold" * (threshold is not None)
    own = {"weight_threshold": 0.4} if threshold == 0.4 else {}
    base = LossSettings(prior_weight=0.7, prior_timestep_min=0.0 if gate is None else gate / 1000, **own)
    assert overruled_options(name, base) == ()
    formula = blissful(per_sample=per_sample, threshold=threshold, gate=gate)
    compare(apply_preset(name, base), formula, batch, multiplier=False)


@pytest.mark.parametrize("options", [{"gamma": 0.6, "floor": 0.15}, {"gamma": 1.8, "floor": 0.05, "latent_blur": 3}])
@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.parametrize("batch", [1, 3])
def test_blissful_prior_is_the_complement_of_the_processed_mask(batch, per_sample, options):
    base = LossSettings(prior_weight=0.7, **options)
    settings = apply_preset("blissful per sample" if per_sample else "blissful", base)
    compare(settings, blissful(per_sample=per_sample, **options), batch, multiplier=False)


@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.parametrize("batch", [1, 3])
def test_blissful_area_scale_leaves_the_prior_alone(batch, per_sample):
    settings = apply_preset(
        "blissful per sample" if per_sample else "blissful", LossSettings(prior_weight=0.7, area_beta=0.4)
    )
    compare(settings, blissful(per_sample=per_sample, beta=0.6), batch, multiplier=False)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
@pytest.mark.parametrize("batch", [1, 3])
def test_blissful_prior_decay_and_warmup(batch, schedule):
    """Full at and above the pivot timestep (300), none at 0; risen to 2/5 after 4 % of a warm-up of 10 %."""
    base = LossSettings(prior_weight=0.7, prior_timestep_schedule=schedule, prior_warmup=0.1)
    settings = apply_preset("blissful per sample", base)
    assert overruled_options("blissful per sample", base) == ()
    risen = blissful(per_sample=True, schedule=schedule, warmup=0.4)
    compare(settings, risen, batch, multiplier=False, progress=0.04)
    full = blissful(per_sample=True, schedule=schedule)
    compare(settings, full, batch, multiplier=False, progress=0.1)


def test_blissful_refuses_a_prior_schedule_over_the_whole_batch_and_so_it_is_overruled_and_told():
    """modules/mask_loss.py (289c641) validate_mask_loss_args: scheduling requires normalize_per_sample."""
    base = LossSettings(prior_weight=0.7, prior_timestep_schedule="linear", prior_warmup=0.1)
    assert apply_preset("blissful", base).prior_timestep_schedule == "constant"
    assert set(overruled_options("blissful", base)) == {"prior_timestep_schedule", "prior_warmup"}


@pytest.mark.parametrize("unmasked_weight", [0.1, 0.35])
@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("batch", [1, 3])
def test_onetrainer_masked_prior_preservation(batch, normalised, unmasked_weight):
    """Nerogar/OneTrainer at 23df3832: modules/util/loss/masked_loss.py:21-45 masked_losses_with_prior.

    One minus the clamped mask, normalised like the target if that is; the mean, the loss weight and the timestep
    weight follow on the sum of both (ModelSetupDiffusionLossMixin.py:47-62, 288-303). Off by default:
    modules/util/config/TrainConfig.py:1210.
    """

    def formula(pixels, squared, distance, omega, c):
        mask = triangle_filter(pixels).clamp(unmasked_weight, 1)
        loss, prior = squared * mask, distance * (1 - mask) * 0.7
        if normalised:
            loss = loss / mask.mean(dim=(1, 2, 3), keepdim=True)
            prior = prior / (1 - mask).mean(dim=(1, 2, 3), keepdim=True)
        return scaled_mean(loss + prior, omega, c)

    name = "OneTrainer normalised" if normalised else "OneTrainer"
    floor = 0.0 if unmasked_weight == 0.1 else unmasked_weight
    assert apply_preset(name).prior_weight == 0
    compare(apply_preset(name, LossSettings(floor=floor, prior_weight=0.7)), formula, batch)


@pytest.mark.parametrize("name", ["kohya", "SimpleTuner mask", "SimpleTuner segmentation"])
def test_a_trainer_without_a_prior_overrules_it_and_says_so(name):
    base = LossSettings(prior_weight=1.0)
    assert apply_preset(name, base).prior_weight == 0
    assert overruled_options(name, base) == ("prior_weight",)
    assert "no prior" in preset_help(name)


def test_no_preset_but_ours_and_ai_toolkit_s_inverted_mask_prior_has_a_prior_unless_asked():
    with_prior = {name for name, settings in PRESETS.items() if settings.prior_weight > 0}
    assert with_prior == {"masked lora", "ai-toolkit inverted mask prior"}


def test_our_own_preset_and_custom_keep_every_prior_option():
    base = LossSettings(prior_weight=0.5, prior_probability=0.25, prior_schedule="cosine", prior_warmup=0.1)
    assert apply_preset("masked lora", base) == base
    assert replace(apply_preset("custom", base), preset=base.preset) == base


def test_ai_toolkit_s_prior_weighs_the_whole_batch_by_the_first_sample_s_mask():
    """SDTrainer.py:599 at 27a03a91; here every sample is weighed by its own mask."""
    case = make_case(3)
    flipped = replace(case, pixels=case.pixels.flip(0), pred=case.pred.flip(0), base=case.base.flip(0))
    flipped = replace(flipped, target=case.target.flip(0))
    settings = replace(apply_preset("ai-toolkit inverted mask prior"), edge_jitter=0.0)
    ones = torch.ones(3)
    case, flipped = replace(case, omega=ones), replace(flipped, omega=ones)
    assert ours(case, settings, multiplier=False).item() == pytest.approx(
        ours(flipped, settings, multiplier=False).item(), rel=1e-6
    )

    def theirs(one):
        outside = 1 - cubic_taps(one.pixels[:1].double())
        return ((one.pred - one.base) ** 2 * outside / outside.mean()).mean().item()

    assert theirs(case) != pytest.approx(theirs(flipped), rel=1e-2)


class Watched(ToyNet):
    """The toy with a changed adapter, remembering what it was asked."""

    def __init__(self):
        super().__init__()
        self.seen = []
        for name, p in self.params.items():
            if "lora_B" in name:
                torch.nn.init.normal_(p, std=0.2, generator=torch.Generator().manual_seed(1))
        self.eval()

    def forward(self, noisy, u, conditioning):
        out = super().forward(noisy, u, conditioning)
        self.seen.append((self.bare, noisy, u, conditioning, out.detach()))
        return out


def batch_of(job, draws):
    """The micro-batch that the trainer's feed makes of these draws."""
    feed = Feed(job.cache, job.loss, model=job.model)
    return feed.make(draws)


def trained_on(settings, schedule):
    """One micro-batch of two through the feed and the objective, and what the network was asked."""
    net = Watched()
    net.schedule = schedule
    job = toy_job(net=net, loss=settings)
    batch = batch_of(job, [Draw(0, 0, 0, -1), Draw(2, 1, 0, -1)])
    loss, seen = Objective(job.model, seed=0).terms(
        batch, settings, torch.Generator().manual_seed(4), number=0, progress=0.5
    )[0]()
    pixels = torch.stack([job.cache.mask(job.cache.entries[i], 0) for i in (0, 2)])
    return loss, seen, batch, net.seen, pixels


def test_the_trainer_s_objective_weighs_ai_toolkit_s_prior_by_its_bicubic_mask():
    settings = replace(apply_preset("ai-toolkit inverted mask prior"), edge_jitter=0.0)
    loss, _, batch, calls, pixels = trained_on(settings, Schedule("flow"))
    (_, noisy, u, _, base), (_, _, _, _, pred) = calls
    u = u.view(-1, 1, 1, 1)
    noise = (noisy - (1 - u) * batch.latents) / u
    squared, distance = (pred - (noise - batch.latents)) ** 2, (pred - base) ** 2
    ones = torch.ones(2, dtype=torch.float64)
    expected = ai_toolkit(0.0, 0.5)(pixels.double(), squared.double(), distance.double(), ones, ones)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_blissful_s_gate_spares_the_target_of_samples_without_a_prior_in_the_trainer_s_objective():
    settings = apply_preset("blissful threshold", LossSettings(weight_threshold=0.5, floor=0.2, prior_weight=1.0))
    low = replace(settings, prior_timestep_min=0.001, timestep_min=0.5)
    high = replace(settings, prior_timestep_min=0.999, timestep_max=0.5)
    _, held, *_ = trained_on(low, Schedule("flow"))
    _, spared, *_ = trained_on(high, Schedule("flow"))
    assert held["prior"] > 0
    assert spared["prior"] == 0
    # Of the toy's eight columns four are learned, one is so to 3/8 and three lie outside.
    assert held["coverage"].tolist() == pytest.approx([4 / 8] * 2)
    assert spared["coverage"].tolist() == pytest.approx([(4 + 0.2 + 0.8 * 3 / 8 + 3 * 0.2) / 8] * 2)


def test_ai_toolkit_s_noise_target_for_v_models_is_not_ours():
    """SDTrainer.py:585-618 at 27a03a91: once the prior is on, what a v model learns is the noise."""
    # One ᾱ for every noise level: signal 0.6, noise 0.8.
    schedule = Schedule("v", torch.full((10,), 0.36))
    settings = replace(apply_preset("ai-toolkit inverted mask prior"), edge_jitter=0.0)
    loss, seen, batch, calls, _ = trained_on(settings, schedule)
    (_, noisy, _, _, base), (_, _, _, _, pred) = calls
    noise = (noisy - 0.6 * batch.latents) / 0.8
    mask = batch.masks / batch.masks.mean()
    v, epsilon = 0.6 * noise - 0.8 * batch.latents, noise
    assert (loss - seen["prior"]).item() == pytest.approx(((pred - v) ** 2 * mask).mean().item(), rel=1e-5)
    assert (loss - seen["prior"]).item() != pytest.approx(((pred - epsilon) ** 2 * mask).mean().item(), rel=1e-2)
    outside = (1 - batch.bicubic) / (1 - batch.bicubic).mean()
    assert seen["prior"].item() == pytest.approx((0.5 * (pred - base) ** 2 * outside).mean().item(), rel=1e-5)


def test_ai_toolkit_s_prior_before_control_conditioning_is_attached_is_not_ours():
    """SDTrainer.py:2002-2018 at 27a03a91: the prior runs before a custom adapter conditions the pass that learns."""
    settings = apply_preset("ai-toolkit inverted mask prior")
    *_, calls, _ = trained_on(settings, Schedule("flow"))
    (bare, *base_saw, _), (worn, *learner_saw, _) = calls
    assert (bare, worn) == (True, False)
    assert all(theirs is mine for theirs, mine in zip(base_saw, learner_saw, strict=True))


def test_blissful_s_tiny_complement_that_multiplies_the_loss_is_held_down_by_our_default():
    """modules/mask_loss.py (289c641): a tenth of a cell outside took the loss from 1 to 6."""
    w = torch.ones(1, 1, *GRID)
    w[..., 4, 4] = 0.9
    pred = torch.zeros(1, 4, *GRID)

    def loss(name):
        settings = apply_preset(name, LossSettings(prior_weight=1.0))
        prior = Prior(torch.full_like(pred, math.sqrt(5.0)), prior_weights(w, w, settings), torch.ones(1))
        return masked_objective(pred, torch.ones_like(pred), w, settings, prior=prior)[0].item()

    assert loss("blissful per sample") == pytest.approx(6, rel=1e-5)
    assert loss("masked lora") == pytest.approx(1 + 5 * 0.1 / 108 / 0.05, rel=1e-5)
    assert "tiny outside" in preset_help("blissful per sample")


@pytest.mark.parametrize("name", PRESETS)
def test_white_masks_have_no_prior_in_any_preset(name):
    """OneTrainer normalised and ai-toolkit divide nothing by nothing."""
    case = make_case(3)
    case = replace(case, pixels=torch.ones_like(case.pixels))
    settings = replace(apply_preset(name, LossSettings(prior_weight=1.0)), edge_jitter=0.0)
    pred = case.pred.clone().requires_grad_()
    loss = ours(case, settings, pred=pred)
    loss.backward()
    plain = ours(case, replace(settings, prior_weight=0.0))
    assert loss.item() == pytest.approx(plain.item(), rel=1e-6)
    assert torch.isfinite(pred.grad).all()


def test_a_sample_to_which_the_mask_does_not_apply_has_no_bicubic_outside():
    m = torch.rand(2, 1, *GRID, generator=torch.Generator().manual_seed(0))
    w = m.clone()
    w[0] = 1
    v = prior_weights(m, w, LossSettings(prior_reduction="bicubic (ai-toolkit)"), bicubic=m)
    assert not v[0].any()
    assert torch.equal(v[1], 1 - m[1])


def test_an_unknown_prior_reduction_or_warmup_names_its_widget():
    with pytest.raises(ConfigError, match=r"prior_reduction: .*bicubic \(ai-toolkit\)"):
        check_loss(LossSettings(prior_reduction="nearest"))
    with pytest.raises(ConfigError, match="prior_warmup"):
        check_loss(LossSettings(prior_warmup=1.5))


@pytest.mark.parametrize(
    ("preset", "masked", "seen"),
    [
        ("ai-toolkit", (True, False), (True, False)),
        ("ai-toolkit inverted mask prior", (False, True), (False, True)),
        ("ai-toolkit", (False, False), (True, True)),
        ("masked lora", (True, False), (True, True)),
        ("kohya", (False, True), (True, True)),
    ],
)
def test_ai_toolkit_ignores_a_picture_without_a_mask_beside_masked_ones(preset, masked, seen):
    """ostris/ai-toolkit: toolkit/data_transfer_object/data_loader.py:404-412: a zero mask where others have one."""
    settings = apply_preset(preset)
    entries = [ToyEntry(str(i), has_mask=has) for i, has in enumerate(masked)]
    job = toy_job(entries=entries, loss=settings)
    batch = batch_of(job, [Draw(0, 0, 0, -1), Draw(1, 0, 0, -1)])
    assert tuple(bool(mask.any()) for mask in batch.masks) == seen
    if batch.bicubic is not None:
        assert tuple(bool(mask.any()) for mask in batch.bicubic) == seen
