"""Parity: each preset against its trainer's own formula, transcribed as independent lines.

Every trainer starts from the same pixel mask, prediction, target, timestep weight and loss multiplier. The
formulas were read from the sources named in each docstring and are written here in float64.
"""

import dataclasses

import numpy as np
import pytest
import torch

from harness.parity import CELL, GRID, blissful_weights, block_mean, make_case, scaled_mean, triangle_filter
from masklora.errors import ConfigError
from masklora.loss.check import check_loss
from masklora.loss.losses import masked_objective
from masklora.loss.masks import effective_weights
from masklora.loss.presets import (
    PRESET_DECIDES,
    PRESET_NAMES,
    PRESET_OPTIONS,
    PRESETS,
    apply_preset,
    overruled_options,
    preset_help,
)
from masklora.settings import LossSettings


def compare(settings, formula, batch, *, multiplier=True):
    """Asserts that loss and gradient of `settings` equal `formula(pixels, squared error, ω, c)`."""
    case = make_case(batch)
    pred = case.pred.clone().requires_grad_()
    w = effective_weights(case.pixels, settings, grid=GRID, generator=torch.Generator().manual_seed(0))
    c = case.multiplier if multiplier else None
    loss, _ = masked_objective(pred, case.target, w, settings, omega=case.omega, multiplier=c)
    loss.backward()

    theirs = case.pred.double().requires_grad_()
    squared = (theirs - case.target.double()) ** 2
    ones = torch.ones(batch, dtype=torch.float64)
    c = case.multiplier.double() if multiplier else ones
    expected = formula(case.pixels.double(), squared, case.omega.double(), c)
    expected.backward()

    assert expected.item() > 0.01
    assert loss.item() == pytest.approx(expected.item(), rel=2e-6)
    assert torch.allclose(pred.grad.double(), theirs.grad, rtol=2e-5, atol=1e-9)


@pytest.mark.parametrize("batch", [1, 3])
def test_kohya(batch):
    """kohya-ss/sd-scripts: library/custom_train_functions.py:487 apply_masked_loss, train_network.py:467-480.

    The mask's red channel (or alpha) goes from [-1, 1] to [0, 1] and is area-interpolated; the loss is
    multiplied by it and averaged over everything; loss weights and SNR weights follow per sample.
    """

    def formula(pixels, squared, omega, c):
        mask = block_mean((2 * pixels - 1) / 2 + 0.5)
        return scaled_mean(squared * mask, omega, c)

    compare(apply_preset("kohya"), formula, batch)


@pytest.mark.parametrize("batch", [1, 3])
def test_simpletuner_mask(batch):
    """bghira/SimpleTuner: simpletuner/helpers/models/common.py:6409 (loss of the model foundation).

    The red channel in [-1, 1] is area-interpolated and then brought to [0, 1].
    """

    def formula(pixels, squared, omega, c):
        mask = block_mean(2 * pixels - 1) / 2 + 0.5
        return scaled_mean(squared * mask, omega, c)

    compare(apply_preset("SimpleTuner mask"), formula, batch)


@pytest.mark.parametrize("batch", [1, 3])
def test_simpletuner_segmentation(batch):
    """bghira/SimpleTuner: simpletuner/helpers/models/common.py:6417 (loss of the model foundation).

    The channels' sum over 3 in [-1, 1] is area-interpolated, brought to [0, 1], and whatever is above 0
    becomes 1. Their probability, 1 by default, is drawn once per batch.
    """

    def formula(pixels, squared, omega, c):
        rgb = (2 * pixels - 1).expand(-1, 3, -1, -1)
        mask = ((block_mean(rgb.sum(dim=1, keepdim=True) / 3) / 2 + 0.5) > 1e-9).double()
        return scaled_mean(squared * mask, omega, c)

    compare(apply_preset("SimpleTuner segmentation"), formula, batch)


@pytest.mark.parametrize("batch", [1, 3])
def test_simpletuner_s_probability_counts_for_segmentation_alone_and_once_a_batch(batch):
    """bghira/SimpleTuner: simpletuner/helpers/models/common.py:6418; where the draw fails there is no mask at all."""
    base = LossSettings(mask_probability=0.25, prior_weight=PRESET_DECIDES)
    assert apply_preset("SimpleTuner mask", base).mask_probability == 1
    assert overruled_options("SimpleTuner mask", base) == ("mask_probability",)
    settings = apply_preset("SimpleTuner segmentation", base)
    assert (settings.mask_probability, settings.mask_probability_scope) == (0.25, "batch")
    drawn = torch.rand(1, generator=torch.Generator().manual_seed(0)).item()
    assert drawn > 0.25
    compare(settings, lambda pixels, squared, omega, c: scaled_mean(squared, omega, c), batch)


@pytest.mark.parametrize("mask_min_value", [0.0, 0.2])
@pytest.mark.parametrize("batch", [1, 3])
def test_ai_toolkit(batch, mask_min_value):
    """ostris/ai-toolkit: extensions_built_in/sd_trainer/SDTrainer.py:1484-1504 and 959-1013 (calculate_loss).

    toolkit/dataloader_mixins.py:1657 maps [0, 1] to [mask_min_value, 1]; the mask is interpolated with the
    default mode (nearest), expanded over the channels and divided by its mean over the whole batch. The
    random blur of the file is off on both sides here (see the next test).
    """

    def formula(pixels, squared, omega, c):
        mask = mask_min_value + (1 - mask_min_value) * pixels[:, :, ::CELL, ::CELL]
        mask = mask.expand(-1, squared.shape[1], -1, -1)
        return scaled_mean(squared * (mask / mask.mean()), omega, c)

    settings = apply_preset("ai-toolkit", LossSettings(floor=mask_min_value))
    compare(dataclasses.replace(settings, edge_jitter=0.0), formula, batch)


def test_ai_toolkit_blurs_edges_by_up_to_half_a_percent_of_the_shorter_side():
    """ostris/ai-toolkit: toolkit/dataloader_mixins.py:1630 load_mask_image: radius = U(0, 1)·0.005·min side.

    Theirs is cut to whole pixels and drawn by Pillow, so the draws cannot agree; the range does.
    """
    step = torch.zeros(400, 1, 64, 64)
    step[..., 32:] = 1
    settings = apply_preset("ai-toolkit")
    w = effective_weights(step, settings, grid=(64, 64), generator=torch.Generator().manual_seed(0))
    assert settings.edge_jitter == 0.005
    spread = 1 - w[:, 0, 32, 32]
    most = 0.005 * 64
    widest = np.exp(-0.5 / most**2) / (1 + 2 * np.exp(-0.5 / most**2))
    assert 0.8 * widest < spread.max().item() <= widest + 1e-6
    assert spread.min().item() < 1e-6


BLISSFUL_OPTIONS = [
    {},
    {"gamma": 0.6, "floor": 0.15},
    {"gamma": 1.8, "floor": 0.05, "latent_blur": 3},
    {"latent_blur": 5},
]


@pytest.mark.parametrize("threshold", [None, 0.1, 0.4])
@pytest.mark.parametrize("options", BLISSFUL_OPTIONS)
@pytest.mark.parametrize("batch", [1, 3])
def test_blissful(batch, options, threshold):
    """DustyL/blissful-tuner: src/musubi_tuner/modules/mask_loss.py apply_masked_loss_with_prior.

    Area-interpolated by the latent cache, optional blur, gamma, affine min weight, optionally nothing below
    the raw threshold; the sum over everything divided by the weight of everything. No loss multiplier; the
    timestep weight is already on the loss (hv_train_network.py).
    """

    def formula(pixels, squared, omega, c):
        _, mask = blissful_weights(
            pixels, options.get("gamma", 1), options.get("floor", 0), options.get("latent_blur"), threshold
        )
        weighted = squared * omega.view(-1, 1, 1, 1) * mask
        return weighted.sum() / (mask.sum() * squared.shape[1])

    name = "blissful" if threshold is None else "blissful threshold"
    base = LossSettings(weight_threshold=0.0 if threshold in (None, 0.1) else threshold, **options)
    compare(apply_preset(name, base), formula, batch, multiplier=False)


@pytest.mark.parametrize("threshold", [None, 0.1])
@pytest.mark.parametrize("options", BLISSFUL_OPTIONS)
@pytest.mark.parametrize("batch", [1, 3])
def test_blissful_per_sample(batch, options, threshold):
    """DustyL/blissful-tuner: src/musubi_tuner/modules/mask_loss.py (normalize_per_sample)."""

    def formula(pixels, squared, omega, c):
        _, mask = blissful_weights(
            pixels, options.get("gamma", 1), options.get("floor", 0), options.get("latent_blur"), threshold
        )
        weighted = squared * omega.view(-1, 1, 1, 1) * mask
        return (weighted.sum(dim=(1, 2, 3)) / (mask.sum(dim=(1, 2, 3)) * squared.shape[1])).mean()

    name = "blissful per sample" if threshold is None else "blissful per sample threshold"
    compare(apply_preset(name, LossSettings(**options)), formula, batch, multiplier=False)


@pytest.mark.parametrize("beta", [0.25, 1.0])
@pytest.mark.parametrize("name", ["blissful", "blissful per sample"])
@pytest.mark.parametrize("batch", [1, 3])
def test_blissful_area_scale(batch, name, beta):
    """DustyL/blissful-tuner: src/musubi_tuner/modules/mask_loss.py, mask_area_scale_beta; ours is 1 − theirs.

    Theirs multiplies the weighted mean by (mean of the raw mask)^beta, which is one exponent less on the
    divisor as long as gamma and min weight leave the mask alone.
    """

    def formula(pixels, squared, omega, c):
        mask = block_mean(pixels)
        weighted = squared * omega.view(-1, 1, 1, 1) * mask
        if name == "blissful":
            return weighted.sum() / (mask.sum() * squared.shape[1]) * mask.mean() ** beta
        mean = weighted.sum(dim=(1, 2, 3)) / (mask.sum(dim=(1, 2, 3)) * squared.shape[1])
        return (mean * mask.mean(dim=(1, 2, 3)) ** beta).mean()

    compare(apply_preset(name, LossSettings(area_beta=1 - beta)), formula, batch, multiplier=False)


@pytest.mark.parametrize("options", [{"gamma": 2.0}, {"floor": 0.2}, {"latent_blur": 5}, {"weight_threshold": 0.1}])
@pytest.mark.parametrize("name", ["blissful", "blissful per sample"])
def test_blissful_s_area_scale_is_offered_only_where_it_is_theirs(name, options):
    """DustyL/blissful-tuner: mask_loss.py: the factor is the mean of the raw mask, whatever the options make of it."""
    base = LossSettings(area_beta=0.0, prior_weight=PRESET_DECIDES, **options)
    assert apply_preset(name, base).area_beta == 1
    assert overruled_options(name, base) == ("area_beta",)
    batch = 3

    def formula(pixels, squared, omega, c):
        _, mask = blissful_weights(
            pixels,
            options.get("gamma", 1),
            options.get("floor", 0),
            options.get("latent_blur"),
            options.get("weight_threshold"),
        )
        weighted = squared * omega.view(-1, 1, 1, 1) * mask
        if name == "blissful":
            return weighted.sum() / (mask.sum() * squared.shape[1])
        return (weighted.sum(dim=(1, 2, 3)) / (mask.sum(dim=(1, 2, 3)) * squared.shape[1])).mean()

    compare(apply_preset(name, base), formula, batch, multiplier=False)


@pytest.mark.parametrize("name", ["blissful threshold", "blissful per sample threshold"])
def test_a_threshold_leaves_no_area_scale(name):
    assert apply_preset(name, LossSettings(area_beta=0.5)).area_beta == 1


def huber_of_kohya(d, c, kind):
    """kohya-ss/sd-scripts: library/train_util.py, conditional_loss; its huber_schedule constant."""
    root = torch.sqrt(d * d + c * c) - c
    return 2 * c * root if kind == "huber (kohya)" else 2 * root


@pytest.mark.parametrize("c", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("kind", ["huber (kohya)", "smooth_l1 (kohya)"])
@pytest.mark.parametrize("name", ["kohya", "SimpleTuner mask"])
def test_the_curves_of_kohya_and_simpletuner_are_theirs(name, kind, c):
    settings = apply_preset(name, LossSettings(elementwise=kind, elementwise_param=c))

    def formula(pixels, squared, omega, multiplier):
        return scaled_mean(huber_of_kohya(squared.sqrt(), c or 0.1, kind) * block_mean(pixels), omega, multiplier)

    compare(settings, formula, 3)


@pytest.mark.parametrize(
    ("name", "curve"),
    [
        ("kohya", "smooth_l1"),
        ("kohya", "huber"),
        ("SimpleTuner mask", "smooth_l1"),
        ("SimpleTuner segmentation", "pseudo_huber (ai-toolkit)"),
        ("ai-toolkit", "huber (kohya)"),
        ("ai-toolkit inverted mask prior", "log_cosh"),
    ],
)
def test_a_curve_that_a_trainer_does_not_have_is_not_left_under_its_name(name, curve):
    base = LossSettings(elementwise=curve, elementwise_param=0.3, prior_weight=PRESET_DECIDES)
    assert (apply_preset(name, base).elementwise, apply_preset(name, base).elementwise_param) == ("mse", 0.0)
    assert overruled_options(name, base) == ("elementwise", "elementwise_param")


@pytest.mark.parametrize("unmasked_weight", [0.1, 0.35])
@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("batch", [1, 3])
def test_onetrainer(batch, normalised, unmasked_weight):
    """Nerogar/OneTrainer: modules/util/loss/masked_loss.py masked_losses_with_prior (prior weight 0).

    The mask is shrunk by torchvision's antialiased bilinear Resize (Nerogar/mgds,
    src/mgds/pipelineModules/ScaleImage.py) and clamped to [unmasked weight, 1]; loss weight and timestep
    weight follow per sample (ModelSetupDiffusionLossMixin._diffusion_losses).
    """

    def formula(pixels, squared, omega, c):
        mask = triangle_filter(pixels).clamp(unmasked_weight, 1)
        loss = squared * mask
        if normalised:
            loss = loss / mask.mean(dim=(1, 2, 3), keepdim=True)
        return scaled_mean(loss, omega, c)

    name = "OneTrainer normalised" if normalised else "OneTrainer"
    base = LossSettings(floor=0.0 if unmasked_weight == 0.1 else unmasked_weight)
    compare(apply_preset(name, base), formula, batch)


@pytest.mark.parametrize("batch", [1, 3])
def test_our_default_gives_every_sample_an_equal_say_down_to_five_percent(batch):
    def formula(pixels, squared, omega, c):
        mask = block_mean(pixels)
        coverage = mask.mean(dim=(1, 2, 3))
        if batch == 3:
            assert coverage[1] < 0.05 < coverage[0]
        return ((squared * mask).mean(dim=(1, 2, 3)) / coverage.clamp(min=0.05) * omega * c).mean()

    compare(LossSettings(), formula, batch)
    compare(apply_preset("masked lora"), formula, batch)


@pytest.mark.parametrize("name", PRESETS)
def test_black_masks_contribute_nothing_in_any_preset_without_a_floor(name):
    settings = apply_preset(name)
    case = make_case(3)
    pred = case.pred.clone().requires_grad_()
    w = effective_weights(torch.zeros_like(case.pixels), settings, grid=GRID, generator=torch.Generator())
    loss, seen = masked_objective(pred, case.target, w, settings, omega=case.omega)
    loss.backward()
    if settings.floor > 0:
        assert loss > 0
    else:
        assert loss == 0
        assert torch.count_nonzero(pred.grad) == 0
        assert seen["zero"] == 3


@pytest.mark.parametrize("name", PRESET_NAMES)
def test_every_preset_is_valid_and_says_what_it_does(name):
    assert check_loss(apply_preset(name)).preset == name
    assert len(preset_help(name)) > 20
    if name != "custom":
        for option, value in dataclasses.asdict(PRESETS[name]).items():
            if option in PRESET_OPTIONS and value != getattr(LossSettings(), option):
                assert f"{option} {value}" in preset_help(name)


def test_the_default_preset_is_the_defaults():
    assert apply_preset("masked lora") == LossSettings() == PRESETS["masked lora"]
    assert LossSettings().preset == "masked lora"


@pytest.mark.parametrize("name", sorted(set(PRESETS) - {"masked lora"}))
def test_a_preset_of_another_trainer_keeps_the_noise_levels_and_overrules_the_rest(name):
    kept = {"timestep_sampling": "sigmoid", "snr_gamma": 3.0, "noise_offset": 0.05}
    base = LossSettings(prior_weight=PRESET_DECIDES, outside_share=0.4, **kept)
    chosen = apply_preset(name, base)
    assert (chosen.timestep_sampling, chosen.snr_gamma, chosen.noise_offset) == ("sigmoid", 3.0, 0.05)
    assert chosen.outside_share == 0
    assert overruled_options(name, base) == ("outside_share",)


def test_an_option_that_the_trainer_offers_keeps_the_value_that_was_set():
    assert apply_preset("blissful", LossSettings(gamma=0.7)).gamma == 0.7
    assert apply_preset("OneTrainer", LossSettings(floor=0.3)).floor == 0.3
    assert apply_preset("OneTrainer").floor == 0.1
    assert apply_preset("kohya", LossSettings(gamma=0.7)).gamma == 1
    untouched = LossSettings(gamma=0.7, prior_weight=PRESET_DECIDES)
    assert overruled_options("kohya", untouched) == ("gamma",)
    assert overruled_options("blissful", untouched) == ()


def test_a_prior_weight_of_ours_that_a_person_set_counts_for_other_trainers_too():
    assert apply_preset("OneTrainer", LossSettings(prior_weight=1.0)).prior_weight == 1
    assert apply_preset("OneTrainer", LossSettings(prior_weight=PRESET_DECIDES)).prior_weight == 0
    assert overruled_options("kohya", LossSettings(prior_weight=1.0)) == ("prior_weight",)
    for name in ("custom", "masked lora"):
        assert apply_preset(name, LossSettings(prior_weight=PRESET_DECIDES)) == LossSettings(preset=name)


def test_our_own_preset_ignores_no_widget():
    changed = {"floor": 0.2, "outside_share": 0.1, "mask_probability": 0.5, "mask_type": "hard", "gamma": 2.0}
    base = LossSettings(normalize="none", **changed)
    assert apply_preset("masked lora", base) == base
    assert overruled_options("masked lora", base) == ()


def test_custom_overrules_nothing():
    base = LossSettings(gamma=0.7, normalize="none", preset="masked lora")
    assert apply_preset("custom", base) == dataclasses.replace(base, preset="custom")
    assert overruled_options("custom", base) == ()


def test_an_unknown_preset_is_named_with_the_choices():
    for call in (apply_preset, preset_help):
        with pytest.raises(ConfigError, match=r"kohya.*'Kohya'"):
            call("Kohya")


@pytest.mark.parametrize(
    ("widget", "value"),
    [
        ("normalize", "mean"),
        ("elementwise", "l3"),
        ("reduction", "bicubic"),
        ("mask_channel", "hue"),
        ("timestep_weight", "p2"),
        ("gamma", 0.0),
        ("floor", 1.5),
        ("ceiling", -0.1),
        ("outside_share", 2.0),
        ("mask_probability", -1.0),
        ("latent_blur", 4),
        ("timestep_std", 0.0),
        ("timestep_min", 1.0),
        ("multires_noise", 1.0),
        ("gamma", float("nan")),
    ],
)
def test_a_value_out_of_range_names_its_widget(widget, value):
    with pytest.raises(ConfigError, match=widget):
        check_loss(dataclasses.replace(LossSettings(), **{widget: value}))


def test_a_floor_above_the_ceiling_is_refused():
    with pytest.raises(ConfigError, match="floor"):
        check_loss(LossSettings(floor=0.5, ceiling=0.4))
