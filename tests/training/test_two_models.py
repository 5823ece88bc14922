"""Two models that take turns by noise level: each learns what it would learn alone, and the run goes on exactly."""

from dataclasses import replace

import pytest
import torch

from harness.toy import Recorder, ToyNet, open_run, same, toy_job, train_toy
from masklora.errors import ConfigError
from masklora.experts import EXPERTS, HIGH, LOW, levels_of, parted, steps_for_both, steps_of, steps_until, turn_of
from masklora.peers import Peers
from masklora.runs.history import read_curve, read_run
from masklora.runs.run import Run
from masklora.settings import LossSettings, OptimizerSettings
from masklora.training.earlier import find_source, go_on_from
from masklora.training.job import Pair
from masklora.training.trainer import train

SWITCH = 0.875
RICH = LossSettings(
    mask_probability=0.7, edge_jitter=0.05, outside_share=0.1, prior_weight=0.5, prior_schedule="linear"
)
ADAMW = OptimizerSettings(learning_rate=1e-2, schedule="cosine", warmup_steps=2, ema_decay=0.9)


def other_net():
    """Another toy: what it knows differs, so that a gradient of one is no gradient of the other."""
    net = ToyNet()
    net.first = net.first * 0.5 + 0.1
    return net


class Shown:
    """Notes whose weights were asked for, and that no other model is used."""

    def __init__(self, *nets):
        self.nets, self.at, self.asked = nets, 0, []
        for number, net in enumerate(nets):
            net.denoise = self._guarded(number, net.denoise)
            net.collate = self._guarded(number, net.collate)
            net.levels = []

    def __call__(self, number):
        self.at = number
        self.asked.append(number)

    def _guarded(self, number, act):
        def guarded(*args, **kwargs):
            assert self.at == number
            if torch.is_grad_enabled() and len(args) > 1 and torch.is_tensor(args[1]):
                self.nets[number].levels += args[1].tolist()
            return act(*args, **kwargs)

        return guarded


def pair_job(*, every=2, switch=SWITCH, loss=RICH, optim=ADAMW, **train):
    nets = ToyNet(), other_net()
    shown = Shown(*nets)
    job = toy_job(net=nets[0], loss=loss, optim=optim, **{"gradient_accumulation": 2, **train})
    job.pair = Pair(nets[1], switch, every, shown)
    return job, shown


def alone(expert, *, loss=RICH, optim=ADAMW, **train):
    """The job of a person who trains one of both by its range of noise levels."""
    levels = {"timestep_min": SWITCH} if expert == HIGH else {"timestep_max": SWITCH}
    net = ToyNet() if expert == HIGH else other_net()
    return toy_job(net=net, loss=replace(loss, **levels), optim=optim, **{"gradient_accumulation": 2, **train})


@pytest.mark.parametrize("every", [1, 3, 6])
def test_each_of_two_learns_bit_for_bit_what_it_learns_alone(every, tmp_path):
    job, shown = pair_job(every=every, steps=12)
    both = train_toy(tmp_path / "both", job)
    assert both.steps == 12
    for expert in EXPERTS:
        single = train_toy(tmp_path / expert, alone(expert, steps=6))
        assert same(parted(both.adapter, expert), single.adapter), expert
        records = Run(folder=both.folder, fingerprint="").read_metrics()
        assert [r["loss"] for r in records if r["expert"] == expert] == single.losses
        learned = {key: value for key, value in both.summary["experts"][expert].items() if value is not None}
        assert learned["loss"] == pytest.approx(single.summary["loss"]) and "inside" in learned
    assert min(shown.nets[0].levels) >= SWITCH > max(shown.nets[1].levels)
    assert shown.asked == [1, 0] * (6 // every - 1) + [1]


def test_the_curves_and_the_list_tell_whose_step_it_was(tmp_path):
    heard = Recorder()
    both = train_toy(tmp_path, pair_job(every=2, steps=8)[0], heard)
    assert [report.expert for report in heard.reports] == [HIGH, HIGH, LOW, LOW] * 2
    rows = read_curve(both.folder)
    assert [("loss" in row, "loss_low" in row) for row in rows] == ([(True, False)] * 2 + [(False, True)] * 2) * 2
    assert [row.get("inside_low", row.get("inside")) for row in rows] == [report.inside for report in heard.reports]
    assert read_run(both.folder).step == 8


def test_a_step_moves_one_of_both_only(tmp_path):
    job, _ = pair_job(every=2, steps=8)
    moved = []

    class Watching(Recorder):
        def after_step(self, step):
            super().after_step(step)
            moved.append([{n: p.detach().clone() for n, p in net.params.items()} for net in (job.model, job.pair.low)])

    first = [{n: p.detach().clone() for n, p in net.params.items()} for net in (job.model, job.pair.low)]
    train_toy(tmp_path, job, Watching())
    for step, (before, after) in enumerate(zip([first, *moved], moved, strict=False)):
        turn = turn_of(step, 2)
        assert not same(before[turn], after[turn])
        assert same(before[1 - turn], after[1 - turn])


@pytest.mark.parametrize("stop", [1, 2, 3, 5])
def test_a_run_of_two_goes_on_exactly_wherever_it_stopped(stop, tmp_path):
    options = {"every": 2, "steps": 8, "validate_every": 3}
    whole = train_toy(tmp_path / "whole", pair_job(**options)[0])
    part = train_toy(tmp_path / "parts", pair_job(**options)[0], Recorder(stop_at=stop))
    assert part.steps == stop and not part.completed
    resumed = train_toy(tmp_path / "parts", pair_job(**options)[0])
    assert resumed.resumed_from == stop
    assert same(whole.adapter, resumed.adapter)
    assert whole.summary["validation"] == resumed.summary["validation"]


def test_checkpoints_and_held_out_losses_on_the_way_change_nothing(tmp_path):
    plain = train_toy(tmp_path / "plain", pair_job(steps=8, validate_every=8)[0])
    busy = train_toy(tmp_path / "busy", pair_job(steps=8, validate_every=1, save_every=1)[0])
    assert same(plain.adapter, busy.adapter)


def test_a_longer_run_begins_as_a_shorter_one_without_its_optimizer_too(tmp_path):
    optim, loss = OptimizerSettings(learning_rate=1e-2), LossSettings(prior_weight=0.0)
    steady = {"optim": optim, "loss": loss}

    def opened(steps):
        identity = {"train": {"steps": steps}}
        return Run.open(tmp_path, "toy", f"{steps:064d}"[::-1], settings=identity)

    with opened(4) as run:
        train(pair_job(steps=4, **steady)[0], run=run)
    with opened(8) as run:
        source = find_source(tmp_path, run.identity, total=8, exact=True)
        assert go_on_from(run, source).step == 4
        longer = train(pair_job(steps=8, **steady)[0], run=run)
    straight = train_toy(tmp_path / "straight", pair_job(steps=8, **steady)[0])
    assert longer.resumed_from == 4 and same(longer.adapter, straight.adapter)
    shed = Run(folder=longer.folder, fingerprint="")
    assert shed.shed_optimizer(8) > 0
    checkpoint = shed.load_checkpoint(8)
    assert checkpoint.state["optimizer"] is None and same(checkpoint.adapter, longer.adapter)


def test_passes_over_the_data_are_those_of_each(tmp_path):
    # Six pictures in two sizes at two a step, accumulated twice.
    single = train_toy(tmp_path / "single", alone(HIGH, epochs=3))
    both = train_toy(tmp_path / "both", pair_job(epochs=3, every=1)[0])
    assert both.steps == 2 * single.steps
    for each in range(1, 40):
        for every in range(1, 12):
            total = steps_for_both(each, every)
            # The last turn may end later than that of the other, and never before.
            assert steps_of(1, total, every) == each and each <= steps_of(0, total, every) < each + every
            for expert in (0, 1):
                last = steps_until(expert, each, every)
                assert [steps_of(expert, steps, every) for steps in (last - 1, last)] == [each - 1, each]


@pytest.mark.parametrize("counts", [(2, 1), (1, 2)])
def test_passes_over_the_data_hold_for_both_where_more_or_fewer_processes_go_on(counts, tmp_path):
    # Six pictures in two sizes at two a step, accumulated twice.
    due, micros = 6 * 6 // 2, 2 * counts[-1]
    for count, hooks in zip(counts, (Recorder(stop_at=6), None), strict=True):
        job = pair_job(epochs=6, every=2)[0]
        job.peers = Peers(0, count)
        done = train_toy(tmp_path, job, hooks)
    assert done.completed
    with open_run(tmp_path) as run:
        taken = run.load_checkpoint().state["taken"]
    assert due <= taken[LOW] < due + 2 * micros
    # The last turn of the one may end later.
    assert due <= taken[HIGH] < due + 2 * micros + 2 * micros


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"loss": replace(RICH, timestep_min=0.9)}, "timestep_min, timestep_max: from 0.9 to 1 .* low noise"),
        ({"loss": replace(RICH, timestep_max=0.8)}, "timestep_min, timestep_max: from 0 to 0.8 .* high noise"),
        ({"loss": replace(RICH, masked_timestep_max=0.5)}, "masked_timestep_max: up to 0.5 .* high noise"),
        ({"every": 10, "steps": 10}, "switch_experts_every: .* 10 steps"),
    ],
)
def test_a_run_that_would_leave_one_nothing_is_refused(change, text, tmp_path):
    with pytest.raises(ConfigError, match=text):
        train_toy(tmp_path, pair_job(**change)[0])


def test_turns_and_levels():
    turns = [turn_of(step, 3) for step in range(12)]
    assert turns == [0, 0, 0, 1, 1, 1] * 2
    for steps in range(13):
        assert [steps_of(one, steps, 3) for one in (0, 1)] == [turns[:steps].count(0), turns[:steps].count(1)]
    loss = LossSettings(timestep_min=0.1, timestep_max=0.95)
    high, low = (levels_of(one, loss, 0.9) for one in EXPERTS)
    assert (high.timestep_min, high.timestep_max) == (0.9, 0.95)
    assert (low.timestep_min, low.timestep_max) == (0.1, 0.9)
    assert levels_of(LOW, loss, 0.97) == loss


def test_a_model_whose_turn_never_came_does_not_halve_the_leak_of_the_other(tmp_path):
    stopped = train_toy(tmp_path / "both", pair_job(every=4, steps=8, leak_every=0)[0], Recorder(stop_at=3))
    # Its schedule ends with its own steps, of which it would have had four.
    one = train_toy(tmp_path / "one", alone(HIGH, steps=4, leak_every=0), Recorder(stop_at=3))
    assert stopped.summary["leak"] == one.summary["leak"] != 0
