"""Preservation without the trigger: other prompts are held to the base model, in the whole picture."""

import math
from dataclasses import replace

import pytest
import torch

from harness.toy import TRIGGERED, Recorder, ToyEntry, open_run, same, toy_entries, toy_job, train_toy
from masklora.errors import ConfigError
from masklora.loss.check import check_loss
from masklora.loss.losses import preservation_term
from masklora.loss.prior import preservation_runs
from masklora.settings import LossSettings
from masklora.training.batches import EMPTY_CAPTION, Draw
from masklora.training.microbatch import Feed

SHAPE = (3, 4, 6, 5)
WITH = LossSettings(preservation_weight=1.0)


def draws(dtype=torch.float64):
    g = torch.Generator().manual_seed(0)
    return [torch.randn(SHAPE, generator=g, dtype=dtype) for _ in range(2)]


def test_it_is_the_mean_distance_to_the_base_model_over_the_whole_picture():
    pred, base = draws()
    omega, c = torch.tensor([1.0, 2.0, 0.5]), torch.tensor([1.0, 1.0, 3.0])
    factor = torch.tensor([0.5, 0.0, 0.25])
    found = preservation_term(pred, base, factor, WITH, omega=omega, multiplier=c)
    per_sample = (pred - base).square().mean(dim=(1, 2, 3))
    assert found.item() == pytest.approx((per_sample * factor * omega * c).mean().item(), rel=1e-6)


def test_samples_without_a_trigger_word_have_no_say_and_no_gradient():
    pred, base = draws()
    pred.requires_grad_()
    preservation_term(pred, base, torch.tensor([0.0, 1.0, 0.0]), WITH).backward()
    assert not pred.grad[[0, 2]].any() and pred.grad[1].all()


@pytest.mark.parametrize("kind", ["mse", "huber (kohya)"])
def test_its_gradient_agrees_with_finite_differences_in_float64(kind):
    pred, base = draws()
    settings = replace(WITH, elementwise=kind)
    factor = torch.tensor([0.7, 1.0, 0.0], dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda x: preservation_term(x, base, factor, settings), pred.clone().requires_grad_()
    )


def test_it_runs_as_often_as_asked_apart_from_the_prior():
    settings = LossSettings(preservation_weight=0.2, preservation_probability=0.25, prior_probability=0.25)
    runs = [preservation_runs(settings, seed=3, number=n) for n in range(4000)]
    assert abs(sum(runs) / 4000 - 0.25) < 0.03
    assert not any(preservation_runs(LossSettings(preservation_weight=0.0), seed=3, number=n) for n in range(9))
    with pytest.raises(ConfigError, match="preservation_probability: expected 0"):
        check_loss(replace(WITH, preservation_probability=0.0))


def feed_of(entries, job=None):
    job = job or toy_job(entries=entries)
    return Feed(job.cache, job.loss, model=job.model)


def test_a_batch_brings_the_caption_of_each_sample_without_its_trigger_word():
    entries = [ToyEntry(f"{i}.png") for i in range(3)]
    feed = feed_of(entries)
    batch = feed.make([Draw(0, 0, 0, -1), Draw(1, 0, 1, -1), Draw(2, 0, EMPTY_CAPTION, -1)], plain=True)
    assert batch.triggered.tolist() == [1.0, 0.0, 0.0]
    assert torch.equal(batch.plain[0], feed.cache.text("plain x")["cond"])
    assert torch.equal(batch.plain[1:], batch.conditioning[1:])
    assert feed.make([Draw(1, 0, 1, -1)], plain=True).plain is None
    assert feed.make([Draw(0, 0, 0, -1)]).plain is None


def plain_change(net, cache):
    """How far the trained model is from the base model for the caption without the trigger."""
    g = torch.Generator().manual_seed(5)
    noisy, u = torch.randn(8, 4, 8, 8, generator=g), torch.rand(8, generator=g)
    text = cache.text("plain x")["cond"].expand(8, -1)
    net.eval()
    with torch.no_grad():
        changed = net(noisy, u, text)
        with net.without_adapter():
            return (changed - net(noisy, u, text)).square().mean().item()


def test_training_with_it_changes_other_prompts_less(tmp_path):
    def change(settings, name):
        entries = [replace(e, captions=(TRIGGERED,)) for e in toy_entries()]
        job = toy_job(entries=entries, loss=settings, steps=150)
        result = train_toy(tmp_path / name, job)
        return plain_change(job.model, job.cache), result

    with_it, result = change(replace(WITH, preservation_weight=2.0), "with")
    without, _ = change(LossSettings(preservation_weight=0.0), "without")
    assert with_it < 0.5 * without
    assert result.summary["preservation"] > 0


def test_a_rare_one_weighs_on_average_as_much_as_a_constant_one(tmp_path):
    def mean_term(probability):
        job = toy_job(loss=replace(WITH, preservation_probability=probability), steps=400)
        job = replace(job, optim=replace(job.optim, learning_rate=1e-9))
        for name, p in job.model.params.items():
            if "lora_B" in name:
                torch.nn.init.normal_(p, std=0.2, generator=torch.Generator().manual_seed(1))
        train_toy(tmp_path / str(probability), job)
        with open_run(tmp_path / str(probability)) as run:
            return sum(r.get("preservation") or 0.0 for r in run.read_metrics() if "loss" in r) / 400

    assert mean_term(0.25) == pytest.approx(mean_term(1.0), rel=0.3)


def test_resuming_with_it_is_exact(tmp_path):
    settings = LossSettings(preservation_weight=0.5, preservation_probability=0.5, prior_weight=1.0)
    straight = train_toy(tmp_path / "straight", toy_job(loss=settings))
    train_toy(tmp_path / "halves", toy_job(loss=settings), Recorder(stop_at=5))
    resumed = train_toy(tmp_path / "halves", toy_job(loss=settings))
    assert same(straight.adapter, resumed.adapter)
    assert straight.losses == resumed.losses


def test_the_reported_loss_is_the_sum_of_the_parts_and_the_masked_part_is_as_without(tmp_path):
    def first(settings, name):
        recorder = Recorder()
        entries = [replace(e, captions=(TRIGGERED,)) for e in toy_entries()]
        job = toy_job(entries=entries, loss=settings, steps=1)
        job.model.dropout.p = 0.0
        for key, p in job.model.params.items():
            if "lora_B" in key:
                torch.nn.init.normal_(p, std=0.2, generator=torch.Generator().manual_seed(1))
        train_toy(tmp_path / name, job, recorder)
        return recorder.reports[0]

    plain, both = first(LossSettings(preservation_weight=0.0), "plain"), first(WITH, "both")
    assert plain.preservation is None
    assert both.inside == plain.inside
    assert both.loss == pytest.approx(plain.loss + both.preservation, rel=1e-6)
    assert both.preservation > 0


def test_each_part_is_differentiated_before_the_next_is_made(tmp_path):
    """Two graphs at once would take twice the memory."""
    job = toy_job(loss=WITH, steps=1, batch_size=1)
    events, net = [], job.model.denoise

    class Noted(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            events.append("forward")
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            events.append("backward")
            return grad

    def denoise(noisy, u, conditioning):
        out = net(noisy, u, conditioning)
        return Noted.apply(out) if torch.is_grad_enabled() else out

    job.cache.entries = [replace(e, captions=(TRIGGERED,)) for e in toy_entries()]
    job.model.denoise = denoise
    train_toy(tmp_path, job)
    assert events == ["forward", "backward"] * 2
    assert all(math.isfinite(p.sum().item()) for p in job.model.params.values())
