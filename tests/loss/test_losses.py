"""The laws of the masked loss, each against numbers worked out here by other means."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F

from masklora.errors import ConfigError
from masklora.loss.losses import (
    elementwise_loss,
    flow_weights,
    inside_outside,
    masked_mean,
    masked_objective,
    outside_share,
    snr_weights,
)
from masklora.settings import ELEMENTWISE, NORMALIZE, TIMESTEP_WEIGHTS, LossSettings

SHAPES = [(1, 4, 8, 8), (3, 4, 7, 9), (2, 16, 13, 11), (5, 3, 33, 17), (2, 16, 3, 6, 10), (3, 4, 64, 48)]


def draws(shape, seed=0, dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=g, dtype=dtype), torch.randn(shape, generator=g, dtype=dtype)


def weights(shape, seed=1, dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)
    return torch.rand((shape[0], 1, *shape[2:]), generator=g, dtype=dtype)


def loss_and_gradient(pred, target, w, settings, **factors):
    pred = pred.clone().requires_grad_()
    loss, _ = masked_objective(pred, target, w, settings, **factors)
    loss.backward()
    return loss.detach(), pred.grad


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("normalize", NORMALIZE)
@pytest.mark.parametrize("area", [(0.05, 1.0), (0.0, 1.0), (0.05, 0.3)])
def test_a_mask_of_ones_equals_mse_bit_for_bit(shape, normalize, area):
    pred, target = draws(shape)
    settings = LossSettings(normalize=normalize, area_min=area[0], area_beta=area[1])
    loss, gradient = loss_and_gradient(pred, target, torch.ones_like(weights(shape)), settings)

    for over in (tuple(range(1, len(shape))), None):
        plain = pred.clone().requires_grad_()
        e = F.mse_loss(plain, target, reduction="none")
        per_sample = e.mean(dim=over) if over else e.flatten(1).mean(1)
        expected = per_sample.mean()
        expected.backward()
        assert torch.equal(loss, expected.detach())
        assert torch.equal(gradient, plain.grad)


TORCHS = {"l1": F.l1_loss, "smooth_l1": F.smooth_l1_loss, "huber": F.huber_loss}


@pytest.mark.parametrize("kind", [kind for kind in ELEMENTWISE if kind != "mse"])
@pytest.mark.parametrize("normalize", NORMALIZE)
def test_a_mask_of_ones_equals_the_plain_mean_of_every_other_loss_bit_for_bit(normalize, kind):
    pred, target = draws((3, 4, 7, 9))
    settings = LossSettings(normalize=normalize, elementwise=kind)
    loss, gradient = loss_and_gradient(pred, target, torch.ones(3, 1, 7, 9), settings)
    plain = pred.clone().requires_grad_()
    e = TORCHS[kind](plain, target, reduction="none") if kind in TORCHS else elementwise_loss(plain, target, kind=kind)
    e.mean(dim=(1, 2, 3)).mean().backward()
    assert torch.equal(loss, e.detach().mean(dim=(1, 2, 3)).mean())
    assert torch.equal(gradient, plain.grad)


@pytest.mark.parametrize("normalize", NORMALIZE)
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_outside_share_leaves_a_mask_of_ones_at_mse_bit_for_bit(normalize, share):
    pred, target = draws((3, 4, 7, 9))
    settings = LossSettings(normalize=normalize, outside_share=share)
    ones = torch.ones(3, 1, 7, 9)
    loss, gradient = loss_and_gradient(pred, target, ones, settings, omega=torch.ones(3))
    plain = pred.clone().requires_grad_()
    expected = F.mse_loss(plain, target, reduction="none").mean(dim=(1, 2, 3)).mean()
    expected.backward()
    assert torch.equal(loss, expected.detach())
    assert torch.equal(gradient, plain.grad)


@pytest.mark.parametrize("kind", ELEMENTWISE)
@pytest.mark.parametrize("normalize", NORMALIZE)
def test_no_gradient_outside_the_mask(normalize, kind):
    pred, target = draws((3, 4, 12, 10))
    w = (weights(pred.shape) > 0.6).float()
    loss, gradient = loss_and_gradient(pred, target, w, LossSettings(normalize=normalize, elementwise=kind))
    inside = w.expand_as(pred) > 0
    assert loss > 0
    assert torch.count_nonzero(gradient[~inside]) == 0
    assert torch.count_nonzero(gradient[inside]) > 0.9 * inside.sum()


@pytest.mark.parametrize("kind", ELEMENTWISE)
@pytest.mark.parametrize("share", [0.0, 0.4])
@pytest.mark.parametrize("area_min", [0.05, 0.0])
@pytest.mark.parametrize("normalize", NORMALIZE)
def test_a_black_sample_contributes_exactly_nothing(normalize, area_min, share, kind):
    pred, target = draws((3, 4, 12, 10))
    w = weights(pred.shape)
    w[1] = 0
    settings = LossSettings(normalize=normalize, area_min=area_min, outside_share=share, elementwise=kind)
    loss, gradient = loss_and_gradient(pred, target, w, settings)
    changed = pred.clone()
    changed[1] += 100
    again, other = loss_and_gradient(changed, target, w, settings)
    assert torch.equal(loss, again)
    assert torch.isfinite(gradient).all()
    assert torch.count_nonzero(gradient[1]) == 0
    assert torch.equal(gradient, other)


@pytest.mark.parametrize("kind", ELEMENTWISE)
@pytest.mark.parametrize("area_beta", [1.0, 0.5, 0.0])
@pytest.mark.parametrize("area_min", [0.05, 0.0])
@pytest.mark.parametrize("normalize", NORMALIZE)
def test_a_black_batch_is_exactly_zero_with_a_zero_gradient(normalize, area_min, area_beta, kind):
    pred, target = draws((3, 4, 12, 10))
    areas = {"area_min": area_min, "area_beta": area_beta}
    settings = LossSettings(normalize=normalize, elementwise=kind, outside_share=0.3, **areas)
    factors = {"omega": torch.tensor([1.0, 50.0, 2.0]), "multiplier": torch.full((3,), 3.0)}
    loss, gradient = loss_and_gradient(pred, target, torch.zeros(3, 1, 12, 10), settings, **factors)
    assert loss == 0
    assert torch.count_nonzero(gradient) == 0


@pytest.mark.parametrize("kind", ELEMENTWISE)
@pytest.mark.parametrize("normalize", NORMALIZE)
def test_the_gradient_agrees_with_finite_differences_in_float64(normalize, kind):
    pred, target = draws((2, 2, 3, 4), dtype=torch.float64)
    w = weights(pred.shape, dtype=torch.float64)
    w[0, :, 0] = 0
    settings = LossSettings(normalize=normalize, elementwise=kind, outside_share=0.1)
    omega, c = torch.tensor([0.5, 2.0], dtype=torch.float64), torch.tensor([1.5, 0.7], dtype=torch.float64)

    def loss(x):
        return masked_objective(x, target, w, settings, omega=omega, multiplier=c)[0]

    assert loss(pred).dtype == torch.float64
    assert torch.autograd.gradcheck(loss, pred.requires_grad_(), eps=1e-6, atol=1e-7)


@pytest.mark.parametrize("shape", [(3, 4, 7, 9), (3, 2, 3, 5, 4)])
def test_every_normalize_mode_equals_its_sum_written_out(shape):
    e = draws(shape, dtype=torch.float64)[0].square()
    w = weights(shape, dtype=torch.float64)
    w[0] *= 0.03
    omega = torch.tensor([0.5, 2.0, 1.0], dtype=torch.float64)
    c = torch.tensor([1.0, 0.25, 3.0], dtype=torch.float64)
    cells = w[0].numel()
    sums = [float((e[b] * w[b]).sum() * omega[b] * c[b]) for b in range(3)]
    means = [float(w[b].mean()) for b in range(3)]
    assert means[0] < 0.05 < means[1]
    expected = {
        "area": sum(s / (shape[1] * cells * max(a, 0.05)) for s, a in zip(sums, means, strict=True)) / 3,
        "none": sum(s / (shape[1] * cells) for s in sums) / 3,
        "batch": sum(sums) / (shape[1] * float(w.sum())),
        "batch_mean": sum(s / (shape[1] * cells * float(w.mean())) for s in sums) / 3,
    }
    for normalize, value in expected.items():
        got = masked_mean(e, w, normalize=normalize, omega=omega, multiplier=c)
        assert got.item() == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("coverage", [0.016, 0.05, 0.25, 1.0])
def test_the_loss_follows_the_mask_area_only_as_its_mode_says(coverage):
    cells = 1000
    w = torch.zeros(1, 1, 1, cells, dtype=torch.float64)
    w[..., : round(coverage * cells)] = 1
    e = torch.ones(1, 4, 1, cells, dtype=torch.float64)
    assert masked_mean(e, w, normalize="none").item() == pytest.approx(coverage)
    assert masked_mean(e, w, normalize="area").item() == pytest.approx(min(1, coverage / 0.05))
    assert masked_mean(e, w, normalize="area", area_min=0.0).item() == pytest.approx(1)
    assert masked_mean(e, w, normalize="area", area_min=0.0, area_beta=0.25).item() == pytest.approx(coverage**0.75)
    assert masked_mean(e, w, normalize="batch").item() == pytest.approx(1)
    assert masked_mean(e, w, normalize="batch", area_beta=0.25).item() == pytest.approx(coverage**0.75)
    assert masked_mean(e, w, normalize="batch_mean", area_beta=0.25).item() == pytest.approx(1)


def test_scaling_a_mask_changes_only_the_loss_that_is_not_normalised():
    e = draws((3, 4, 8, 8), dtype=torch.float64)[0].square()
    w = weights(e.shape, dtype=torch.float64)
    for normalize in ("area", "batch", "batch_mean"):
        whole, half = masked_mean(e, w, normalize=normalize), masked_mean(e, 0.5 * w, normalize=normalize)
        assert half.item() == pytest.approx(whole.item(), rel=1e-12)
    whole, half = masked_mean(e, w, normalize="none"), masked_mean(e, 0.5 * w, normalize="none")
    assert half.item() == pytest.approx(0.5 * whole.item(), rel=1e-12)


@pytest.mark.parametrize("normalize", NORMALIZE)
def test_omega_and_multiplier_scale_a_sample_after_its_spatial_mean(normalize):
    e = draws((3, 4, 8, 8), dtype=torch.float64)[0].square()
    w = weights(e.shape, dtype=torch.float64)
    zero = torch.zeros(3).double()
    alone = []
    for b in range(3):
        only = zero.clone()
        only[b] = 1
        alone.append(masked_mean(e, w, normalize=normalize, omega=only).item())
    omega, c = (
        torch.tensor([3.0, 0.5, 7.0], dtype=torch.float64),
        torch.tensor([0.1, 2.0, 1.0], dtype=torch.float64),
    )
    got = masked_mean(e, w, normalize=normalize, omega=omega, multiplier=c).item()
    assert got == pytest.approx(0.3 * alone[0] + 1.0 * alone[1] + 7.0 * alone[2], rel=1e-12)


def test_samples_without_weight_still_count_in_the_mean_over_the_batch():
    e, w = torch.ones(4, 2, 5, 5), torch.zeros(4, 1, 5, 5)
    w[2] = 1
    assert masked_mean(e, w, normalize="area") == 0.25
    assert masked_mean(e, w, normalize="none") == 0.25
    assert masked_mean(e, w, normalize="batch") == 1.0


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("shape", [(4, 1, 10, 10), (4, 1, 3, 6, 5)])
def test_the_outside_gets_the_asked_share_of_the_weight_or_all_it_can_hold(shape, share):
    g = torch.Generator().manual_seed(0)
    level = torch.tensor([0.02, 0.2, 0.6, 0.95], dtype=torch.float64).view(-1, *[1] * (len(shape) - 1))
    w = (torch.rand(shape, generator=g, dtype=torch.float64) < level).double()
    w = w * (0.5 + 0.5 * torch.rand(shape, generator=g, dtype=torch.float64))
    shared = outside_share(w, share=share)
    over = tuple(range(1, len(shape)))
    reached = (shared - w).sum(over) / shared.sum(over)
    for got, inside in zip(reached.tolist(), w.mean(over).tolist(), strict=True):
        assert got == pytest.approx(min(share, 1 - inside), abs=1e-9)
    assert shared.min() >= 0
    assert shared.max() <= 1 + 1e-12


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_outside_share_leaves_black_and_white_samples_alone(share):
    w = torch.cat([torch.zeros(1, 1, 6, 6), torch.ones(1, 1, 6, 6)])
    assert torch.equal(outside_share(w, share=share), w)


def test_inside_and_outside_are_plain_means_over_their_cells():
    e = draws((2, 4, 6, 6), dtype=torch.float64)[0].square()
    w = torch.zeros(2, 1, 6, 6, dtype=torch.float64)
    w[0, :, :3] = 1
    seen = inside_outside(e.requires_grad_(), w)
    assert seen["inside"].item() == pytest.approx(e[0, :, :3].mean().item())
    outside = torch.cat([e[0, :, 3:].flatten(), e[1].flatten()]).mean()
    assert seen["outside"].item() == pytest.approx(outside.item())
    assert seen["coverage"].tolist() == [0.5, 0.0]
    assert seen["zero"].item() == 1
    assert not any(value.requires_grad for value in seen.values())


def test_what_has_no_cell_is_not_a_number_rather_than_a_number():
    e = torch.ones(1, 4, 3, 3)
    assert math.isnan(inside_outside(e, torch.zeros(1, 1, 3, 3))["inside"].item())
    assert math.isnan(inside_outside(e, torch.ones(1, 1, 3, 3))["outside"].item())


def test_metrics_see_the_mask_without_omega_share_or_multiplier():
    pred, target = draws((2, 4, 6, 6))
    w = (weights(pred.shape) > 0.5).float()
    plain = masked_objective(pred, target, w, LossSettings())[1]
    settings = LossSettings(outside_share=0.5, normalize="none")
    other = masked_objective(pred, target, w, settings, omega=torch.tensor([9.0, 2.0]))[1]
    for name in ("inside", "outside", "coverage", "zero"):
        assert torch.equal(plain[name], other[name])
    assert not {"prior", "drift"} & (plain.keys() | other.keys())


CURVES = {
    "mse": lambda d, c: d * d,
    "l1": lambda d, c: abs(d),
    "smooth_l1": lambda d, c: 0.5 * d * d / c if abs(d) < c else abs(d) - 0.5 * c,
    "huber": lambda d, c: 0.5 * d * d if abs(d) <= c else c * (abs(d) - 0.5 * c),
    "huber (kohya)": lambda d, c: 2 * c * (math.sqrt(d * d + c * c) - c),
    "smooth_l1 (kohya)": lambda d, c: 2 * (math.sqrt(d * d + c * c) - c),
    "pseudo_huber (ai-toolkit)": lambda d, c: math.sqrt(d * d + c * c) - c,
    "log_cosh": lambda d, c: math.log(math.cosh(d)),
}


@pytest.mark.parametrize("kind", ELEMENTWISE)
def test_every_elementwise_loss_is_its_closed_form(kind):
    d = [-30.0, -3.0, -1.0, -0.2, -0.01, 0.0, 0.005, 0.1, 0.4, 1.0, 2.5, 50.0]
    for c in (0.01, 0.1, 1.0):
        got = elementwise_loss(torch.tensor(d, dtype=torch.float64), torch.zeros(len(d)).double(), kind=kind, param=c)
        assert got.tolist() == pytest.approx([CURVES[kind](x, c) for x in d], rel=1e-9, abs=1e-15)


def test_log_cosh_keeps_its_digits_when_tiny_and_does_not_overflow_when_huge():
    d = torch.tensor([1e-4, 1e-3, 300.0, -300.0], requires_grad=True)
    got = elementwise_loss(d, torch.zeros(4), kind="log_cosh")
    expected = [5e-9, 5e-7, 300 - math.log(2), 300 - math.log(2)]
    assert got.tolist() == pytest.approx(expected, rel=1e-5)
    got.sum().backward()
    assert d.grad.tolist() == pytest.approx([1e-4, 1e-3, 1.0, -1.0], rel=1e-5)


@pytest.mark.parametrize("kind", ELEMENTWISE)
def test_half_precision_predictions_get_a_float32_loss(kind):
    pred, target = draws((1, 2, 4, 4))
    half = elementwise_loss(pred.bfloat16(), target.bfloat16(), kind=kind)
    assert half.dtype == torch.float32
    full = elementwise_loss(pred.bfloat16().float(), target.bfloat16().float(), kind=kind)
    assert torch.equal(half, full)


def _debiased_v(snr):
    return 1 / (min(snr, 1000) + 1)


SNR_CURVES = {
    ("none", "epsilon"): lambda s: 1,
    ("none", "v"): lambda s: 1,
    ("min-snr", "epsilon"): lambda s: min(s, 5) / s,
    ("min-snr", "v"): lambda s: min(s, 5) / (s + 1),
    ("min-snr (ai-toolkit)", "epsilon"): lambda s: min(5 / s, 1),
    ("min-snr (ai-toolkit)", "v"): lambda s: min(5 / s, 1),
    ("debiased", "epsilon"): lambda s: 1 / math.sqrt(min(s, 1000)),
    ("debiased", "v"): _debiased_v,
    ("debiased (OneTrainer)", "epsilon"): lambda s: 1 / math.sqrt(min(s, 1000)),
    ("debiased (OneTrainer)", "v"): lambda s: math.sqrt(_debiased_v(s)),
}


@pytest.mark.parametrize(("kind", "prediction"), SNR_CURVES)
def test_every_snr_weight_is_its_closed_form(kind, prediction):
    snr = [0.001, 0.5, 1.0, 4.99, 5.0, 37.0, 999.0, 1200.0]
    got = snr_weights(torch.tensor(snr, dtype=torch.float64), kind=kind, gamma=5.0, prediction=prediction)
    assert got.tolist() == pytest.approx([SNR_CURVES[kind, prediction](s) for s in snr], rel=1e-12)


def test_min_snr_has_its_limit_where_no_signal_is_left():
    zero = torch.zeros(1)
    assert snr_weights(zero, kind="min-snr", prediction="epsilon").item() == 1
    assert snr_weights(zero, kind="min-snr", prediction="v").item() == 0


def _density(s, mean, std):
    z = (math.log(s / (1 - s)) - mean) / std
    return math.exp(-z * z / 2) / (std * math.sqrt(2 * math.pi) * s * (1 - s))


FLOW_CURVES = {
    "none": lambda s: 1,
    "sigma-sqrt": lambda s: 1 / s**2,
    "cosmap": lambda s: 2 / (math.pi * (1 - 2 * s + 2 * s * s)),
    "logit-normal": lambda s: _density(s, 0.2, 0.8),
    "sigma-linear (OneTrainer)": lambda s: s,
}


@pytest.mark.parametrize("kind", FLOW_CURVES)
def test_every_flow_weight_is_its_closed_form(kind):
    sigma = [0.001, 0.1, 0.5, 0.77, 0.99]
    got = flow_weights(torch.tensor(sigma, dtype=torch.float64), kind=kind, mean=0.2, std=0.8)
    assert got.tolist() == pytest.approx([FLOW_CURVES[kind](s) for s in sigma], rel=1e-12)
    assert torch.isfinite(flow_weights(torch.tensor([0.0, 1.0]), kind=kind)).all()


def test_the_logit_normal_weight_is_a_density():
    s = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    assert flow_weights(s, kind="logit-normal", mean=0.5, std=0.7).mean().item() == pytest.approx(1, abs=1e-3)


def test_every_weight_of_the_widget_belongs_to_a_kind_of_model():
    assert {kind for kind, _ in SNR_CURVES} | set(FLOW_CURVES) == set(TIMESTEP_WEIGHTS)


def test_a_weight_for_another_kind_of_model_is_refused_with_the_choices():
    with pytest.raises(ConfigError, match=r"flow model.*cosmap"):
        flow_weights(torch.ones(1), kind="min-snr")
    with pytest.raises(ConfigError, match="min-snr or a debiased"):
        snr_weights(torch.ones(1), kind="cosmap", prediction="v")


def test_unknown_choices_are_named():
    e, w = torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 2)
    with pytest.raises(ConfigError, match=r"normalize.*'mean'"):
        masked_mean(e, w, normalize="mean")
    with pytest.raises(ConfigError, match=r"elementwise.*'l3'"):
        elementwise_loss(e, e, kind="l3")


@pytest.mark.parametrize("normalize", NORMALIZE)
@pytest.mark.parametrize("kind", ELEMENTWISE)
def test_nothing_is_read_back_from_the_device(normalize, kind):
    # A meta tensor holds no values: whatever looked at one would raise here.
    settings = LossSettings(normalize=normalize, elementwise=kind, outside_share=0.2)
    pred = torch.empty(2, 4, 8, 8, device="meta", requires_grad=True)
    w, omega = torch.empty(2, 1, 8, 8, device="meta"), torch.empty(2, device="meta")
    loss, seen = masked_objective(pred, pred.detach(), w, settings, omega=omega, multiplier=omega)
    loss.backward()
    assert loss.shape == ()
    assert all(value.device.type == "meta" for value in seen.values())


def test_arguments_are_not_changed():
    pred, target = draws((2, 4, 5, 5))
    w = weights(pred.shape)
    before = [pred.clone(), target.clone(), w.clone()]
    masked_objective(pred, target, w, dataclasses.replace(LossSettings(), outside_share=0.3))
    assert all(torch.equal(a, b) for a, b in zip(before, (pred, target, w), strict=True))


def test_a_replaced_background_gets_no_outside_share():
    w = torch.zeros(2, 1, 4, 4)
    w[..., :2, :2] = 1.0
    shared = outside_share(w, share=0.2, strict=torch.tensor([True, False]))
    assert torch.equal(shared[0], w[0])
    assert torch.equal(shared[1], outside_share(w, share=0.2)[1]) and (shared[1] > 0).all()
