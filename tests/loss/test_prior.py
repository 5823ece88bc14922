"""The inverted mask prior: where it counts, how much, and that it holds the outside to the base model."""

import math
from dataclasses import replace

import pytest
import torch

from harness.toy import Recorder, ToyNet, open_run, same, toy_job, train_toy
from masklora.errors import ConfigError
from masklora.loss.check import check_loss
from masklora.loss.losses import masked_mean, masked_objective, prior_term
from masklora.loss.prior import Prior, prior_factors, prior_runs, prior_weights
from masklora.settings import ELEMENTWISE, NORMALIZE, LossSettings

SHAPE = (3, 4, 6, 5)
WITH = LossSettings(prior_weight=1.0)


def draws(seed=0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    pred, target, base = (torch.randn(SHAPE, generator=g, dtype=dtype) for _ in range(3))
    m = (torch.rand(SHAPE[0], 1, *SHAPE[2:], generator=g, dtype=dtype) * 1.6 - 0.3).clamp(0, 1)
    return pred, target, base, m


def prior_of(base, w, m=None, settings=WITH, factor=None):
    v = prior_weights(w if m is None else m, w, settings)
    return Prior(base, v, torch.ones(len(w)) if factor is None else factor)


def test_each_sample_is_held_by_its_own_mask():
    """ai-toolkit weighs the whole batch by the first sample's mask."""
    pred, _, base, m = draws()
    whole = prior_term(pred, prior_of(base, m), WITH)
    alone = [prior_term(pred[i : i + 1], prior_of(base[i : i + 1], m[i : i + 1]), WITH) for i in range(3)]
    assert whole.item() == pytest.approx(torch.stack(alone).mean().item(), rel=1e-12)


@pytest.mark.parametrize("normalize", NORMALIZE)
def test_the_prior_is_the_masked_mean_of_the_distance_to_the_base_model(normalize):
    pred, target, base, m = draws()
    settings = replace(WITH, prior_normalize=normalize, prior_weight=0.5)
    factor, omega, c = torch.full((3,), 0.5), torch.tensor([1.0, 2.0, 0.5]), torch.tensor([1.0, 1.0, 3.0])
    with_prior, seen = masked_objective(
        pred, target, m, settings, omega=omega, multiplier=c, prior=prior_of(base, m, factor=factor)
    )
    plain, _ = masked_objective(pred, target, m, settings, omega=omega, multiplier=c)
    expected = 0.5 * masked_mean((pred - base) ** 2, 1 - m, normalize=normalize, omega=omega, multiplier=c)
    assert (with_prior - plain).item() == pytest.approx(expected.item(), rel=1e-6)
    assert seen["prior"].item() == pytest.approx(expected.item(), rel=1e-6)


def test_the_loss_multiplier_counts_only_if_asked_and_omega_always():
    pred, _, base, m = draws()
    c, omega = torch.tensor([5.0, 5.0, 5.0]), torch.tensor([2.0, 2.0, 2.0])
    plain = prior_term(pred, prior_of(base, m), WITH)
    assert prior_term(pred, prior_of(base, m), WITH, multiplier=c).item() == pytest.approx(5 * plain.item())
    without = replace(WITH, prior_multiplier=False)
    assert prior_term(pred, prior_of(base, m), without, multiplier=c).item() == pytest.approx(plain.item())
    assert prior_term(pred, prior_of(base, m), without, omega=omega).item() == pytest.approx(2 * plain.item())


def test_a_tiny_outside_never_becomes_a_full_strength_term():
    """blissful: a complement of a tenth of a cell took the loss from 1 to 6."""
    pred, _, base, _ = draws()
    w = torch.ones(3, 1, 6, 5, dtype=torch.float64)
    w[:, :, 0, 0] = 0.9
    tiny = prior_term(pred, prior_of(base, w), WITH).item()
    e = ((pred - base) ** 2).mean(dim=1)[:, 0, 0].mean().item()
    assert tiny == pytest.approx(e * 0.1 / 30 / 0.05, rel=1e-6)
    assert tiny < 0.1 * e


@pytest.mark.parametrize("kind", ELEMENTWISE)
@pytest.mark.parametrize("area_min", [0.05, 0.0])
@pytest.mark.parametrize("normalize", NORMALIZE)
def test_a_full_mask_has_no_prior_and_a_zero_finite_gradient(normalize, area_min, kind):
    settings = replace(WITH, prior_normalize=normalize, area_min=area_min, elementwise=kind)
    pred, _, base, m = draws()
    pred.requires_grad_()
    term = prior_term(pred, prior_of(base, torch.ones_like(m)), settings)
    term.backward()
    assert term.item() == 0
    assert not pred.grad.any()

    m[1] = 1
    pred.grad = None
    term = prior_term(pred, prior_of(base, m), settings)
    term.backward()
    assert term > 0
    assert torch.isfinite(pred.grad).all()
    assert not pred.grad[1].any() and pred.grad[0].any() and pred.grad[2].any()


@pytest.mark.parametrize("kind", ELEMENTWISE)
@pytest.mark.parametrize("normalize", NORMALIZE)
def test_the_prior_has_no_gradient_inside_the_mask(normalize, kind):
    settings = replace(WITH, prior_normalize=normalize, elementwise=kind)
    pred, _, base, m = draws()
    hard = (m > 0.5).to(m.dtype)
    pred.requires_grad_()
    prior_term(pred, prior_of(base, hard), settings).backward()
    inside = (hard == 1).expand_as(pred)
    assert not pred.grad[inside].any()
    assert pred.grad[~inside].all()


def test_the_gradient_of_the_whole_loss_agrees_with_finite_differences_in_float64():
    pred, target, base, m = draws()
    factor = torch.tensor([0.7, 1.0, 2.0], dtype=torch.float64)

    def loss(x):
        prior = prior_of(base, m, factor=factor)
        return masked_objective(x, target, m, replace(WITH, outside_share=0.1), prior=prior)[0]

    assert torch.autograd.gradcheck(loss, pred.clone().requires_grad_())


def test_no_gradient_outside_where_the_model_still_agrees_with_the_base_model():
    pred, target, _, m = draws()
    hard = (m > 0.5).to(m.dtype)
    pred.requires_grad_()
    masked_objective(pred, target, hard, WITH, prior=prior_of(pred.detach(), hard))[0].backward()
    assert not pred.grad[(hard == 0).expand_as(pred)].any()


def test_with_a_threshold_only_what_lies_below_it_is_held():
    _, _, _, m = draws()
    settings = replace(WITH, weight_threshold=0.3)
    w = m * (m >= 0.3)
    v = prior_weights(m, w, settings)
    assert torch.equal(v, (m < 0.3).to(m.dtype))
    unmasked = torch.ones_like(w)
    assert not prior_weights(m, unmasked, settings).any()


def test_the_weight_is_the_complement_after_gamma_and_floor():
    _, _, _, m = draws()
    assert torch.equal(prior_weights(m, m**2, WITH), 1 - m**2)


def test_factors_follow_step_and_noise_level():
    u = torch.tensor([0.0, 0.15, 0.3, 0.9])
    half = replace(WITH, prior_weight=2.0, prior_probability=0.25)
    assert prior_factors(u, half, progress=0.3).tolist() == [8.0] * 4
    linear = replace(WITH, prior_schedule="linear")
    assert prior_factors(u, linear, progress=0.25).tolist() == pytest.approx([0.75] * 4)
    cosine = replace(WITH, prior_schedule="cosine")
    assert prior_factors(u, cosine, progress=0.5).tolist() == pytest.approx([0.5] * 4)
    by_level = replace(WITH, prior_timestep_schedule="linear", prior_pivot=0.3)
    assert prior_factors(u, by_level, progress=0.0).tolist() == pytest.approx([0.0, 0.5, 1.0, 1.0])
    gate = replace(WITH, prior_timestep_min=0.2)
    assert prior_factors(u, gate, progress=0.0).tolist() == [0.0, 0.0, 1.0, 1.0]


def test_an_unknown_schedule_names_its_widget():
    with pytest.raises(ConfigError, match="prior_schedule"):
        prior_factors(torch.zeros(1), replace(WITH, prior_schedule="steps"), progress=0.0)
    with pytest.raises(ConfigError, match="prior_probability: expected 0"):
        check_loss(replace(WITH, prior_probability=0.0))


def test_the_prior_runs_as_often_as_asked_and_alike_after_a_resume():
    settings = replace(WITH, prior_probability=0.25)
    runs = [prior_runs(settings, seed=3, number=n) for n in range(4000)]
    assert abs(sum(runs) / 4000 - 0.25) < 0.03
    assert runs == [prior_runs(settings, seed=3, number=n) for n in range(4000)]
    assert runs != [prior_runs(settings, seed=4, number=n) for n in range(4000)]
    assert not prior_runs(replace(settings, prior_weight=0.0), seed=3, number=0)


def test_a_rare_prior_weighs_on_average_as_much_as_a_constant_one(tmp_path):
    def mean_term(settings):
        job = toy_job(loss=settings, steps=400, optim=None)
        job = replace(job, optim=replace(job.optim, learning_rate=1e-9))
        for name, p in job.model.params.items():
            if "lora_B" in name:
                torch.nn.init.normal_(p, std=0.2, generator=torch.Generator().manual_seed(1))
        result = train_toy(tmp_path / f"{settings.prior_probability}", job)
        with open_run(tmp_path / f"{settings.prior_probability}") as run:
            values = [r.get("prior") for r in run.read_metrics() if "loss" in r]
        assert result.completed
        return sum(v or 0.0 for v in values) / len(values)

    constant = mean_term(replace(WITH, mask_probability=1.0))
    assert mean_term(replace(WITH, prior_probability=0.25)) == pytest.approx(constant, rel=0.25)


def test_training_with_the_prior_drifts_less_outside(tmp_path):
    def drift(settings, name):
        job = toy_job(loss=settings, steps=150)
        train_toy(tmp_path / name, job)
        with torch.no_grad():
            return outside_change(job.model)

    assert drift(WITH, "with") < 0.5 * drift(LossSettings(prior_weight=0.0), "without")


def outside_change(net: ToyNet):
    g = torch.Generator().manual_seed(5)
    noisy, u, text = torch.randn(8, 4, 8, 8, generator=g), torch.rand(8, generator=g), torch.zeros(8, 6)
    net.eval()
    changed = net(noisy, u, text[:, : net.caption.shape[1]])
    with net.without_adapter():
        base = net(noisy, u, text[:, : net.caption.shape[1]])
    return (changed - base)[..., 6:].square().mean().item()


def test_resuming_with_the_prior_is_exact(tmp_path):
    settings = replace(WITH, prior_probability=0.5, prior_schedule="linear")
    straight = train_toy(tmp_path / "straight", toy_job(loss=settings))
    train_toy(tmp_path / "halves", toy_job(loss=settings), Recorder(stop_at=5))
    resumed = train_toy(tmp_path / "halves", toy_job(loss=settings))
    assert same(straight.adapter, resumed.adapter)
    assert straight.losses == resumed.losses


def test_without_a_weight_nothing_is_asked_of_the_base_model_and_nothing_changes(tmp_path):
    job = toy_job()
    job.model.without_adapter = lambda: pytest.fail("the base model was asked")
    plain = train_toy(tmp_path / "plain", job)
    assert plain.completed
    assert all(math.isfinite(loss) for loss in plain.losses)


@pytest.mark.parametrize(("ceiling", "asked"), [(1.0, False), (0.8, True)])
def test_white_masks_ask_the_base_model_only_below_a_ceiling(tmp_path, ceiling, asked):
    job = toy_job(loss=replace(WITH, ceiling=ceiling), steps=2)
    job.cache.mask = lambda entry, variant: torch.ones(1, *entry.bucket[::-1])
    calls, inner = [], job.model.without_adapter
    job.model.without_adapter = lambda: calls.append(1) or inner()
    train_toy(tmp_path, job)
    assert bool(calls) == asked
