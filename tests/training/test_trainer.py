"""The loop on a toy: what it computes, what it leaves behind, and that it can go on exactly."""

import math
import shutil
from dataclasses import replace

import pytest
import torch

from harness.toy import (
    GRIDS,
    Recorder,
    ToyEntry,
    ToyNet,
    open_run,
    same,
    seeded,
    toy_entries,
    toy_job,
    train_toy,
    with_infills,
)
from masklora.errors import ConfigError, NonFiniteLossError, RunError
from masklora.loss.losses import masked_objective
from masklora.loss.masks import effective_weights, reduce_mask
from masklora.loss.noise import Schedule, add_noise, make_noise, sample_timesteps, target
from masklora.settings import OPTIMIZERS, LossSettings, OptimizerSettings
from masklora.training.batches import EMPTY_CAPTION, BatchPlan
from masklora.training.seeds import chance_of
from masklora.training.trainer import train

RESUMABLE = [name for name in OPTIMIZERS if name != "adamw8bit"]
RICH_LOSS = LossSettings(mask_probability=0.7, edge_jitter=0.05, outside_share=0.1, noise_offset=0.05)


class Interrupted(BaseException):
    """Like ComfyUI's: no Exception."""


def optimizer(name, **settings):
    rate = {"prodigy": 1.0, "lion": 1e-3}.get(name, 1e-2)
    return OptimizerSettings(optimizer=name, learning_rate=rate, **settings)


def straight_and_resumed(tmp_path, make_job):
    straight = train_toy(tmp_path / "straight", make_job())
    half = train_toy(tmp_path / "halves", make_job(), Recorder(stop_at=5))
    assert half.steps == 5
    assert not half.completed
    job = make_job()
    resumed = train_toy(tmp_path / "halves", job)
    assert resumed.resumed_from == 5
    assert not same(half.adapter, resumed.adapter)
    return straight, resumed


@pytest.mark.parametrize("name", RESUMABLE)
def test_ten_steps_equal_five_and_five_more_bit_for_bit(tmp_path, name):
    def make_job():
        settings = optimizer(name, schedule="constant" if "free" in name else "cosine", warmup_steps=3)
        return toy_job(loss=RICH_LOSS, optim=settings, gradient_accumulation=2)

    straight, resumed = straight_and_resumed(tmp_path, make_job)
    assert same(straight.adapter, resumed.adapter)
    assert straight.losses == resumed.losses
    assert straight.steps == resumed.steps == 10


@pytest.mark.parametrize("name", [n for n in RESUMABLE if "free" not in n])
def test_resuming_is_exact_with_a_moving_average(tmp_path, name):
    def make_job():
        return toy_job(loss=RICH_LOSS, optim=optimizer(name, ema_decay=0.9, lora_plus_ratio=1.0))

    straight, resumed = straight_and_resumed(tmp_path, make_job)
    assert same(straight.adapter, resumed.adapter)


def test_resuming_draws_the_same_replaced_backgrounds(tmp_path):
    entries = [with_infills(e, "i", "j", "k") for e in toy_entries()]
    straight, resumed = straight_and_resumed(tmp_path, lambda: toy_job(entries=entries))
    plain = train_toy(tmp_path / "plain", toy_job(entries=toy_entries()))
    assert same(straight.adapter, resumed.adapter)
    assert straight.losses == resumed.losses
    assert straight.losses != plain.losses


def test_resuming_is_exact_with_validation_lora_plus_and_many_checkpoints(tmp_path):
    def make_job():
        settings = optimizer("adamw", lora_plus_ratio=8.0, schedule="cosine with restarts", min_lr_ratio=0.1)
        return toy_job(optim=settings, validate_every=2, validation_share=0.3, save_every=3)

    straight, resumed = straight_and_resumed(tmp_path, make_job)
    assert same(straight.adapter, resumed.adapter)
    assert straight.summary == resumed.summary


@pytest.mark.parametrize("name", ["adamw", "schedule-free adamw"])
def test_checkpoints_and_validation_on_the_way_do_not_change_the_outcome(tmp_path, name):
    def outcome(folder, **settings):
        return train_toy(tmp_path / folder, toy_job(optim=optimizer(name), **settings)).adapter

    assert same(outcome("never"), outcome("always", save_every=1, keep_last=2))
    assert same(outcome("late", validate_every=10), outcome("often", validate_every=1))


def test_keep_every_leaves_its_checkpoints_and_changes_nothing_else(tmp_path):
    plain = train_toy(tmp_path / "plain", toy_job())
    recorder = Recorder()
    kept = train_toy(tmp_path / "kept", toy_job(keep_every=3, keep_last=1), recorder)
    assert same(plain.adapter, kept.adapter) and plain.losses == kept.losses
    assert recorder.checkpoints == [3, 6, 9, 10]
    with open_run(tmp_path / "kept") as run:
        assert run.checkpoints() == [3, 6, 9, 10]
        at_six = run.load_checkpoint(6).adapter
    half = train_toy(tmp_path / "half", toy_job(steps=6))
    assert same(half.adapter, at_six)


class Saver(Recorder):
    """Wishes a checkpoint after given steps, or once while it waits after a given one."""

    def __init__(self, *, save_at=(), pause_at=None, **stops):
        super().__init__(**stops)
        self.save_at, self.pause_at, self.waits = set(save_at), pause_at, 0
        self.runs = []

    def on_run(self, folder, *, step, total):
        self.runs.append((folder, step, total))

    def on_step(self, report):
        super().on_step(report)
        self.newest = report.step

    def should_save(self):
        if self.waits == 2:
            return True
        return bool(self.reports) and self.newest in self.save_at

    def should_pause(self):
        if self.last_step != self.pause_at or self.waits > 2:
            return False
        self.waits += 1
        return True


@pytest.mark.parametrize("name", ["adamw", "schedule-free adamw"])
def test_a_checkpoint_on_demand_is_resumable_and_does_not_change_the_outcome(tmp_path, name):
    def make_job():
        return toy_job(loss=RICH_LOSS, optim=optimizer(name))

    straight = train_toy(tmp_path / "straight", make_job())
    saver = Saver(save_at=[3, 4])
    saved = train_toy(tmp_path / "saved", make_job(), saver)
    assert saver.checkpoints == [3, 4, 10]
    assert same(straight.adapter, saved.adapter)
    assert straight.losses == saved.losses
    with pytest.raises(Interrupted):
        train_toy(tmp_path / "cut", make_job(), Saver(save_at=[3], raise_at=6, error=Interrupted))
    with open_run(tmp_path / "cut") as run:
        shutil.rmtree(run.folder / "checkpoints" / "step-000006")
    saver = Saver()
    resumed = train_toy(tmp_path / "cut", make_job(), saver)
    assert resumed.resumed_from == 3
    assert saver.runs == [(resumed.folder, 3, 10)]
    assert same(straight.adapter, resumed.adapter)


def test_a_waiting_run_can_be_saved(tmp_path):
    saver = Saver(pause_at=2)
    waited = train_toy(tmp_path / "waited", toy_job(), saver)
    assert saver.checkpoints == [2, 10]
    assert same(train_toy(tmp_path / "straight", toy_job()).adapter, waited.adapter)


def test_a_step_computes_the_masked_objective_with_each_sample_s_own_caption(tmp_path):
    job = toy_job(steps=1, optim=OptimizerSettings(learning_rate=1e-9))
    seen = []
    inner = job.model.denoise

    def denoise(noisy, u, conditioning):
        seen.append((noisy.detach().clone(), u.clone(), conditioning.clone()))
        return inner(noisy, u, conditioning)

    job.model.denoise = denoise
    recorder = Recorder()
    job.model.dropout.p = 0.0
    train_toy(tmp_path, job, recorder)
    draws = BatchPlan(job.cache.entries, 2, 11).batch(0)
    entries = [job.cache.entries[draw.entry] for draw in draws]
    latents = torch.stack([job.cache.latent(e, d.variant, d.infill) for e, d in zip(entries, draws, strict=True)])
    masks = torch.stack([job.cache.mask(e, d.variant) for e, d in zip(entries, draws, strict=True)])
    grid = GRIDS[entries[0].bucket]
    texts = [
        job.cache.empty_text() if c == EMPTY_CAPTION else job.cache.text(e.captions[c].key)
        for e, (_, _, c, _) in zip(entries, draws, strict=True)
    ]
    g = chance_of(torch.device("cpu"), 11, 0)
    noise = make_noise(latents, generator=g)
    u = sample_timesteps(2, job.loss, schedule=job.model.schedule, generator=g)
    w = effective_weights(reduce_mask(masks, grid=grid), job.loss, grid=grid, generator=g)
    noisy = add_noise(latents, noise, u, schedule=job.model.schedule)
    conditioning = torch.stack([t["cond"] for t in texts])
    prediction = ToyNet().eval()(noisy, u, conditioning)
    loss, parts = masked_objective(prediction, target(latents, noise, u, schedule=job.model.schedule), w, job.loss)
    assert torch.equal(seen[0][0], noisy)
    assert torch.equal(seen[0][2], conditioning)
    assert recorder.reports[0].loss == loss.item()
    assert recorder.reports[0].inside == parts["inside"].item()
    assert recorder.reports[0].samples == tuple(e.name for e in entries)


@pytest.mark.parametrize(
    "option",
    [
        {"prior_weight": 3.0},
        {"preservation_weight": 3.0},
        {"mask_probability": 0.2},
        {"edge_jitter": 0.3},
        {"infill_probability": 1.0},
    ],
)
def test_the_held_out_loss_is_the_masked_one_whatever_is_added_or_drawn_in_training(option, tmp_path):
    def held_out(settings, name):
        entries = [with_infills(e, "flat") for e in toy_entries()]
        job = toy_job(entries=entries, loss=settings, optim=OptimizerSettings(learning_rate=1e-9), steps=1)
        for key, p in job.model.params.items():
            if "lora_B" in key:
                torch.nn.init.normal_(p, std=0.3, generator=torch.Generator().manual_seed(1))
        job.train = replace(job.train, validate_every=1, validation_share=0.5)
        return train_toy(tmp_path / name, job).summary["validation"]

    plain = LossSettings(prior_weight=0.0, infill_probability=0.0)
    expected = held_out(plain, "plain")
    assert held_out(replace(plain, **option), "with") == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("mask_type", ["soft", "hard"])
def test_cells_that_a_mask_covers_in_part_weigh_by_their_share_in_every_step(tmp_path, mask_type):
    """A hard mask was once cut again on the latent grid, where thin parts vanished."""
    job, recorder = toy_job(loss=LossSettings(mask_type=mask_type)), Recorder()
    train_toy(tmp_path, job, recorder)
    shares = {(width // 2 + 3) / width for width, _ in GRIDS}
    assert {report.coverage for report in recorder.reports} == shares


def test_training_learns_inside_the_mask(tmp_path):
    job = toy_job(steps=120, optim=OptimizerSettings(learning_rate=2e-2))
    job.cache.latent = lambda entry, variant, infill: torch.full((4, *GRIDS[entry.bucket]), 3.0)
    result = train_toy(tmp_path, job)
    assert sum(result.losses[-30:]) < 0.5 * sum(result.losses[:30])


def test_accumulation_steps_along_the_mean_gradient(tmp_path):
    """On black latents at one noise level the noise, so the target, can be read off the model's input."""
    level = 0.5
    loss = LossSettings(timestep_min=level, timestep_max=level + 1e-6, prior_weight=0.0)
    job, recorder, seen = toy_job(steps=1, gradient_accumulation=3, loss=loss), Recorder(), []
    net, inner = job.model.denoise, job.cache.latent
    job.model.dropout.p = 0.0
    job.cache.latent = lambda entry, variant, infill: inner(entry, variant, infill) * 0

    def denoise(noisy, u, conditioning):
        seen.append((noisy.detach(), u, conditioning))
        return net(noisy, u, conditioning)

    job.model.denoise = denoise
    train_toy(tmp_path, job, recorder)
    reference = ToyNet().eval()
    losses = []
    for noisy, u, conditioning in seen:
        mask = job.cache.mask(ToyEntry("", bucket={g: b for b, g in GRIDS.items()}[noisy.shape[-2:]]), 0)
        w = effective_weights(mask.expand(2, 1, -1, -1), loss, grid=noisy.shape[-2:])
        losses.append(masked_objective(reference(noisy, u, conditioning), noisy / level, w, loss)[0])
    torch.stack(losses).mean().backward()
    norm = torch.nn.utils.get_total_norm([p.grad for p in reference.params.values()])
    assert len(losses) == 3
    assert recorder.reports[0].loss == pytest.approx(torch.stack(losses).mean().item(), rel=1e-4)
    assert recorder.reports[0].grad_norm == pytest.approx(norm.item(), rel=1e-4)


def test_regularisation_pictures_count_with_their_weight(tmp_path):
    def loss_of(folder, weight, regularisation):
        entries = [ToyEntry("a", regularisation=regularisation, multiplier=2.0)]
        job = toy_job(entries=entries, steps=1, batch_size=1, regularisation_weight=weight)
        return train_toy(folder, job).losses[0]

    plain = loss_of(tmp_path / "1", 0.25, False)
    assert loss_of(tmp_path / "2", 0.25, True) == pytest.approx(0.25 * plain, rel=1e-6)
    assert loss_of(tmp_path / "3", 1.0, True) == plain


def test_masks_are_read_once_for_each_entry_and_variant(tmp_path):
    job = toy_job(steps=30)
    train_toy(tmp_path, job)
    assert job.cache.mask_reads <= len(job.cache.entries) * 2


def test_epochs_decide_the_length_when_given(tmp_path):
    job = toy_job(entries=[ToyEntry(str(i)) for i in range(6)], epochs=2, steps=100, batch_size=2)
    result = train_toy(tmp_path, job)
    assert result.steps == 6


def test_a_finished_run_is_loaded_and_not_trained_again(tmp_path):
    first = train_toy(tmp_path, toy_job())
    job = toy_job()
    job.model.denoise = None
    again = train_toy(tmp_path, job)
    assert again.loaded
    assert same(first.adapter, again.adapter)
    assert again.losses == first.losses
    assert again.summary == first.summary


def test_a_finished_run_whose_last_checkpoint_is_damaged_trains_its_end_again(tmp_path):
    first = train_toy(tmp_path, toy_job(save_every=4))
    damaged = first.folder / "checkpoints" / "step-000010" / "adapter.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-7])
    recorder = Recorder()
    again = train_toy(tmp_path, toy_job(save_every=4), recorder)
    assert again.resumed_from == 8
    assert same(first.adapter, again.adapter)
    assert any("damaged" in text for text in recorder.messages)


@pytest.mark.parametrize("error", [Interrupted, KeyboardInterrupt, ValueError])
def test_a_cancel_between_steps_leaves_a_checkpoint_and_is_raised_again(tmp_path, error):
    with pytest.raises(error):
        train_toy(tmp_path, toy_job(), Recorder(raise_at=4, error=error))
    straight = train_toy(tmp_path / "straight", toy_job())
    resumed = train_toy(tmp_path, toy_job())
    assert resumed.resumed_from == 4
    assert same(straight.adapter, resumed.adapter)
    assert straight.losses == resumed.losses


def test_a_cancel_in_the_middle_of_a_step_resumes_as_if_the_step_had_not_begun(tmp_path):
    def make_job():
        return toy_job(loss=RICH_LOSS, gradient_accumulation=2)

    job, calls = make_job(), []
    inner = job.model.denoise

    def interrupted(noisy, u, conditioning):
        calls.append(1)
        # Four calls a step: two micro-batches, each asking the base model too.
        if len(calls) == 14:
            raise Interrupted
        return inner(noisy, u, conditioning)

    job.model.denoise = interrupted
    with pytest.raises(Interrupted):
        train_toy(tmp_path, job)
    straight, resumed = train_toy(tmp_path / "straight", make_job()), train_toy(tmp_path, make_job())
    assert resumed.resumed_from == 3
    assert same(straight.adapter, resumed.adapter)


def test_a_cancel_before_the_first_step_leaves_no_checkpoint(tmp_path):
    with pytest.raises(Interrupted):
        train_toy(tmp_path, toy_job(), Recorder(raise_at=0, error=Interrupted))
    with open_run(tmp_path) as run:
        assert run.checkpoints() == []


def test_a_cancel_during_validation_puts_the_training_weights_back(tmp_path):
    job = toy_job(optim=optimizer("adamw", ema_decay=0.9), validate_every=5, validation_share=0.4)
    recorder = Recorder()

    def cancel_in_validation():
        if not job.model.training:
            raise Interrupted

    recorder.check_cancel = cancel_in_validation
    with pytest.raises(Interrupted):
        train_toy(tmp_path, job, recorder)
    assert job.model.training

    def fresh():
        return toy_job(optim=optimizer("adamw", ema_decay=0.9), validate_every=5, validation_share=0.4)

    assert same(train_toy(tmp_path / "s", fresh()).adapter, train_toy(tmp_path, fresh()).adapter)


def test_stopping_saves_and_a_later_queue_goes_on(tmp_path):
    recorder = Recorder(stop_at=3)
    stopped = train_toy(tmp_path, toy_job(), recorder)
    assert (stopped.steps, stopped.completed, recorder.checkpoints) == (3, False, [3])
    with open_run(tmp_path) as run:
        assert run.read_result()["completed"] is False
    assert train_toy(tmp_path, toy_job()).resumed_from == 3


def test_a_pause_waits_and_changes_nothing(tmp_path):
    recorder, asked = Recorder(), []

    def pause():
        asked.append(1)
        return 3 <= len(asked) <= 5

    recorder.should_pause = pause
    paused = train_toy(tmp_path / "1", toy_job(), recorder)
    assert len(asked) > 10
    assert same(paused.adapter, train_toy(tmp_path / "2", toy_job()).adapter)


def poisoned(job, at_call, value):
    inner, calls = job.model.denoise, []

    def denoise(noisy, u, conditioning):
        calls.append(1)
        out = inner(noisy, u, conditioning)
        return out * value if len(calls) == at_call else out

    job.model.denoise = denoise
    return job


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_bad_loss_names_step_and_pictures_and_keeps_the_good_weights(tmp_path, value):
    with pytest.raises(NonFiniteLossError, match=r"Step 7: the loss .* picture \d\.png") as caught:
        train_toy(tmp_path, poisoned(toy_job(save_every=4), 7, value))
    assert "step 4" in str(caught.value)
    good = train_toy(tmp_path / "good", toy_job(), Recorder(stop_at=6))
    with open_run(tmp_path) as run:
        checkpoint = run.load_checkpoint()
        assert checkpoint.step == 6
        assert same(checkpoint.adapter, good.adapter)
        assert len([r for r in run.read_metrics() if "loss" in r]) == 6


def test_a_bad_loss_that_is_noticed_late_has_not_touched_the_weights(tmp_path):
    """As on a GPU: numbers are read at checkpoints only, three steps after the bad one."""
    job = poisoned(toy_job(save_every=4), 5, math.nan)
    job.immediate = False
    good = train_toy(tmp_path / "good", toy_job(), Recorder(stop_at=4))
    with pytest.raises(NonFiniteLossError, match=r"Step 5: the loss .* step 4 is kept"):
        train_toy(tmp_path, job)
    assert same({n: p.detach() for n, p in job.model.params.items()}, good.adapter)
    with open_run(tmp_path) as run:
        assert run.checkpoints() == [4]
        assert same(run.load_checkpoint().adapter, good.adapter)


@pytest.mark.parametrize("name", RESUMABLE)
def test_a_bad_loss_that_is_noticed_late_never_makes_weights_or_checkpoints_bad(tmp_path, name):
    job = poisoned(toy_job(save_every=4, optim=optimizer(name)), 5, math.nan)
    job.immediate = False
    with pytest.raises(NonFiniteLossError, match="Step 5"):
        train_toy(tmp_path, job)
    assert all(torch.isfinite(p).all() for p in job.model.params.values())
    with open_run(tmp_path) as run:
        assert run.checkpoints() == [4]


def test_numbers_read_late_are_the_same_numbers(tmp_path):
    late, now = Recorder(), Recorder()
    job = toy_job()
    job.immediate = False
    outcome = train_toy(tmp_path / "1", job, late)
    assert same(outcome.adapter, train_toy(tmp_path / "2", toy_job(), now).adapter)
    assert [replace(r, steps_per_second=0) for r in late.reports] == [
        replace(r, steps_per_second=0) for r in now.reports
    ]


def test_a_finite_loss_with_a_bad_gradient_stops_too(tmp_path):
    job = toy_job()
    inner = job.model.denoise

    class Spoil(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            return grad * math.inf

    job.model.denoise = lambda noisy, u, c: Spoil.apply(inner(noisy, u, c))
    with pytest.raises(NonFiniteLossError, match="Step 1: the gradient"):
        train_toy(tmp_path, job)


def test_validation_is_repeatable_and_keeps_the_best_checkpoint(tmp_path):
    settings = dict(validate_every=2, validation_share=0.3, keep_last=1)
    one, two = Recorder(), Recorder()
    first = train_toy(tmp_path / "1", toy_job(**settings), one)
    train_toy(tmp_path / "2", toy_job(**settings), two)
    assert one.validations == two.validations
    assert [step for step, _ in one.validations] == [2, 4, 6, 8, 10]
    best_step = min(one.validations, key=lambda pair: pair[1])[0]
    assert first.summary["best_step"] == best_step
    assert first.summary["validation_best"] == min(value for _, value in one.validations)
    with open_run(tmp_path / "1") as run:
        assert set(run.checkpoints()) == {best_step, 10}


def test_held_out_pictures_are_never_trained_on_and_regularisation_is_never_held_out(tmp_path):
    entries = [replace(e, regularisation=i >= 6) for i, e in enumerate(toy_entries(10))]
    job, recorder = toy_job(entries=entries, steps=60, validate_every=60, validation_share=0.4), Recorder()
    trained, validated = set(), set()
    inner = job.cache.latent

    def latent(entry, variant, infill):
        (trained if job.model.training else validated).add(entry.name)
        return inner(entry, variant, infill)

    job.cache.latent = latent
    train_toy(tmp_path, job, recorder)
    assert trained.isdisjoint(validated)
    assert len(validated) == 2
    assert {e.name for e in entries if e.regularisation} <= trained


def test_a_batch_without_any_weight_is_counted_and_moves_nothing(tmp_path):
    job, recorder = (
        toy_job(steps=2, optim=OptimizerSettings(learning_rate=1e-2, weight_decay=0.0)),
        Recorder(),
    )
    inner = job.cache.mask
    job.cache.mask = lambda entry, variant: inner(entry, variant) * 0
    before = {n: p.detach().clone() for n, p in job.model.params.items()}
    result = train_toy(tmp_path, job, recorder)
    assert same(result.adapter, before)
    assert [r.zero_weight_samples for r in recorder.reports] == [2, 2]
    assert [r.loss for r in recorder.reports] == [0.0, 0.0]
    assert [r.inside for r in recorder.reports] == [None, None]


def test_reports_carry_every_number_of_the_step(tmp_path):
    recorder = Recorder()
    settings = OptimizerSettings(learning_rate=1e-2, schedule="linear", warmup_steps=2)
    train_toy(tmp_path, toy_job(optim=settings), recorder)
    assert [r.step for r in recorder.reports] == list(range(1, 11))
    plan = BatchPlan(toy_job().cache.entries, 2, toy_job().train.seed)
    assert [r.epoch for r in recorder.reports] == [plan.epoch_of(number) for number in range(10)]
    assert {r.epoch for r in recorder.reports} >= {0, 1, 2}
    assert recorder.reports[0].learning_rate == pytest.approx(5e-3)
    assert recorder.reports[2].learning_rate == pytest.approx(1e-2)
    for report in recorder.reports:
        assert report.grad_norm > 0
        assert report.steps_per_second > 0
        assert report.outside > 0
        assert 0.4 < report.coverage < 0.7
        assert len(report.samples) == 2
    with open_run(tmp_path) as run:
        assert [r["loss"] for r in run.read_metrics()] == [r.loss for r in recorder.reports]


def test_a_run_from_another_adapter_is_refused(tmp_path):
    train_toy(tmp_path, toy_job(), Recorder(stop_at=2))
    job = toy_job()
    job.model.params = {name.replace("first", "third"): p for name, p in job.model.params.items()}
    with pytest.raises(RunError, match="another adapter"):
        train_toy(tmp_path, job)


def test_training_works_inside_inference_mode_and_leaves_the_global_random_state_alone(tmp_path):
    plain = train_toy(tmp_path / "1", toy_job())
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    job = toy_job()
    inner = job.cache.latent
    with torch.inference_mode():
        job.cache.latent = lambda entry, variant, infill: inner(entry, variant, infill)
        inside = train_toy(tmp_path / "2", job)
    assert same(plain.adapter, inside.adapter)
    assert torch.equal(torch.rand(3), expected)


def test_sampling_between_steps_does_not_change_the_outcome(tmp_path):
    recorder = Recorder()
    recorder.after_step = lambda step: torch.manual_seed(1)
    sampled = train_toy(tmp_path / "1", toy_job(), recorder)
    assert same(sampled.adapter, train_toy(tmp_path / "2", toy_job()).adapter)


def test_gradient_scaling_trains_and_resumes_exactly(tmp_path):
    def make_job():
        job = toy_job()
        job.model.grad_scaling = True
        return job

    straight, resumed = straight_and_resumed(tmp_path, make_job)
    assert same(straight.adapter, resumed.adapter)
    assert not same(straight.adapter, {n: p.detach() for n, p in ToyNet().params.items()})


@pytest.mark.parametrize(
    ("settings", "widget"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"gradient_accumulation": 0}, "gradient_accumulation"),
        ({"steps": -1}, "steps"),
        ({"steps": 0}, "steps, epochs"),
        ({"keep_last": 0}, "keep_last"),
        ({"validate_every": 1, "validation_share": 1.0}, "validation_share"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(tmp_path, settings, widget):
    with pytest.raises(ConfigError, match=widget):
        train_toy(tmp_path, toy_job(**settings))


@pytest.mark.parametrize(
    ("prediction", "loss", "widget"),
    [
        ("flow", LossSettings(timestep_weight="min-snr"), "timestep weight"),
        ("epsilon", LossSettings(timestep_weight="cosmap"), "timestep weight"),
    ],
)
def test_options_of_another_kind_of_model_are_refused_before_the_first_prediction(tmp_path, prediction, loss, widget):
    def never(*args):
        raise AssertionError("the model was asked")

    table = None if prediction == "flow" else torch.linspace(0.999, 0.005, 1000)
    job = toy_job(loss=loss, net=ToyNet(Schedule(prediction, table)))
    job.model.denoise = never
    with pytest.raises(ConfigError, match=widget):
        train_toy(tmp_path, job)


def test_half_precision_adapters_are_refused(tmp_path):
    job = toy_job()
    job.model.params = {"a": torch.nn.Parameter(torch.zeros(2, dtype=torch.float16))}
    with pytest.raises(ConfigError, match="expected float32"):
        train_toy(tmp_path, job)


def test_another_seed_gives_another_outcome(tmp_path):
    one = train_toy(tmp_path / "1", toy_job())
    two = train_toy(tmp_path / "2", toy_job(seed=12))
    assert not same(one.adapter, two.adapter)
    assert seeded("a", 1).initial_seed() != seeded("b", 1).initial_seed()
    with open_run(tmp_path / "3") as run:
        assert same(train(toy_job(), run=run).adapter, one.adapter)


@pytest.mark.parametrize(("settings", "twice"), [({}, False), ({"ema_decay": 0.9}, True)])
def test_checkpoints_hold_the_live_weights_apart_only_where_they_differ(tmp_path, settings, twice):
    train_toy(tmp_path, toy_job(optim=optimizer("adamw", **settings)))
    with open_run(tmp_path) as run:
        assert (run.load_checkpoint().state["live"] is not None) == twice
