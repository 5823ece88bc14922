"""Going on from an earlier run: exact where it can be, told where not; what differs, in words; what is kept."""

import json

import pytest
import torch

from harness.toy import Recorder, same, toy_job
from masklora.runs.identity import FIRST, KEPT_ONLY, lasting
from masklora.runs.retention import make_room
from masklora.runs.run import Run, fingerprint, has_optimizer
from masklora.settings import LossSettings, OptimizerSettings
from masklora.training.earlier import (
    Source,
    difference_note,
    differences,
    find_source,
    go_on_from,
    length_bound,
    source_notes,
)
from masklora.training.trainer import planned_steps, train


def identity(job, **more):
    return {"loss": lasting(job.loss), "optimizer": lasting(job.optim), "train": lasting(job.train)} | more


def trained(root, job, hooks=None, *, name="toy", anew=False):
    """Trains a toy as the host does: from an earlier run where that is there."""
    mine = identity(job)
    bound = length_bound(job.loss, job.optim)
    with Run.open(root, name, fingerprint(mine), settings=mine, anew=anew) as run:
        source = find_source(root, mine, total=planned_steps(job), exact=not bound)
        if source and not run.checkpoints() and not anew:
            assert go_on_from(run, source)
        return train(job, run=run, hooks=hooks)


@pytest.mark.parametrize(
    "optim",
    [
        OptimizerSettings(learning_rate=1e-2),
        OptimizerSettings(learning_rate=1e-2, optimizer="lion", warmup_steps=8),
        OptimizerSettings(learning_rate=1e-2, ema_decay=0.9),
        OptimizerSettings(learning_rate=1e-2, optimizer="schedule-free adamw"),
        OptimizerSettings(learning_rate=1.0, optimizer="prodigy"),
    ],
    ids=["adamw", "lion with warm-up", "average", "schedule-free", "prodigy"],
)
def test_a_longer_run_goes_on_to_the_bit(tmp_path, optim):
    options = {"validate_every": 4, "validation_share": 0.3, "optim": optim}
    whole = trained(tmp_path / "whole", toy_job(steps=12, **options))
    trained(tmp_path / "parts", toy_job(steps=5, **options))
    longer = trained(tmp_path / "parts", toy_job(steps=12, **options))
    assert (longer.resumed_from, longer.steps) == (5, 12)
    assert same(longer.adapter, whole.adapter)
    assert longer.losses == whole.losses


def test_epochs_count_as_length_too_and_a_run_that_was_cut_serves(tmp_path):
    whole = trained(tmp_path / "whole", toy_job(epochs=5))
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "parts", toy_job(steps=9), Recorder(raise_at=4))
    longer = trained(tmp_path / "parts", toy_job(epochs=5))
    assert longer.resumed_from == 4 and same(longer.adapter, whole.adapter)


def test_fewer_steps_are_taken_from_a_checkpoint_on_the_way(tmp_path):
    trained(tmp_path / "long", toy_job(steps=12, save_every=4, keep_last=9))
    shorter = trained(tmp_path / "long", toy_job(steps=9))
    assert shorter.resumed_from == 8
    assert same(shorter.adapter, trained(tmp_path / "short", toy_job(steps=9)).adapter)


@pytest.mark.parametrize(
    ("loss", "optim", "word"),
    [
        ({}, {"schedule": "cosine"}, "schedule cosine"),
        ({"prior_weight": 1.0, "prior_schedule": "linear"}, {}, "prior_schedule linear"),
        ({"prior_weight": 1.0, "prior_warmup": 0.2}, {}, "prior_warmup 0.2"),
        ({"routes": "0.5: 1..2", "route_until": 0.5}, {}, "route_until 0.5"),
    ],
)
def test_what_reckons_with_the_length_is_named(loss, optim, word):
    assert length_bound(LossSettings(**loss), OptimizerSettings(**optim)) == [word]


def test_what_does_not_act_binds_nothing():
    loss = LossSettings(prior_weight=0.0, prior_schedule="cosine", prior_warmup=0.3, route_until=0.5)
    assert length_bound(loss, OptimizerSettings(warmup_steps=20)) == []


def test_a_schedule_goes_on_from_a_shorter_run_only_and_says_so(tmp_path):
    optim = OptimizerSettings(learning_rate=1e-2, schedule="linear")
    trained(tmp_path, toy_job(steps=10, optim=optim, save_every=4, keep_last=9))
    assert find_source(tmp_path, identity(toy_job(steps=8, optim=optim)), total=8, exact=False) is None
    wanted = identity(toy_job(steps=20, optim=optim))
    source = find_source(tmp_path, wanted, total=20, exact=False)
    checkpoint = Run(folder=source.folder, fingerprint="").load_checkpoint(source.step)
    (told,) = source_notes(source, checkpoint, total=20, bound=["schedule linear"], optim=optim)
    assert told.level == "warning" and "was at 10% of its value there and goes on at 50%" in told.text


def test_differences_are_told_in_words():
    old = identity(toy_job(), cache="a", model="x", names=None)
    new = json.loads(json.dumps(identity(toy_job(seed=4, steps=20), cache="b", model="x", names=["y"])))
    assert differences(old, new) == [
        "steps 10 -> 20",
        "seed 11 -> 4",
        "the pictures, masks or captions, or the settings of Cache Dataset",
        "the pictures' names, which decide what is held out",
    ]
    assert differences(old, old) == []


def test_the_run_of_this_name_that_is_most_alike_is_told(tmp_path):
    trained(tmp_path, toy_job(seed=1))
    trained(tmp_path, toy_job(seed=1, guidance=2.0))
    mine = identity(toy_job(seed=2))
    (told,) = difference_note(tmp_path, "TOY", mine, but=tmp_path / "none")
    assert "A run of this name with 10 steps exists" in told.text and told.text.count("->") == 1
    assert difference_note(tmp_path, "other", mine, but=tmp_path / "none") == []


def test_a_damaged_source_is_no_source(tmp_path):
    trained(tmp_path, toy_job(steps=5))
    job = toy_job(steps=9)
    source = find_source(tmp_path, identity(job), total=9, exact=True)
    (source.folder / "checkpoints" / "step-000005" / "adapter.safetensors").write_bytes(b"")
    with Run.open(tmp_path, "toy", "ab" * 32, settings={}) as run:
        assert go_on_from(run, Source(source.folder, 5)) is None
        assert go_on_from(run, Source(source.folder, 4)) is None
        assert run.checkpoints() == []


def test_a_run_is_found_under_any_name_and_each_start_anew_is_another(tmp_path):
    one = trained(tmp_path, toy_job(), name="anna")
    assert trained(tmp_path, toy_job(), name="bella").loaded
    anew = trained(tmp_path, toy_job(), name="bella", anew=True)
    assert not anew.loaded and anew.folder != one.folder and same(anew.adapter, one.adapter)
    assert trained(tmp_path, toy_job(), name="bella", anew=True).folder not in (one.folder, anew.folder)
    assert trained(tmp_path, toy_job(), name="anna").folder == one.folder


def test_settings_that_came_later_change_no_identity_at_their_defaults():
    names = set(lasting(LossSettings()))
    assert names == set(FIRST["LossSettings"].split())
    assert not KEPT_ONLY & set(lasting(toy_job().train))
    assert lasting(toy_job(name="x", if_a_run_exists="start anew").train) == lasting(toy_job(name="y").train)


# -------------------------------------------------------------- what is kept


def test_the_newest_finished_runs_stay_whole_and_older_ones_keep_all_but_the_state(tmp_path):
    done = [trained(tmp_path, toy_job(seed=seed, save_every=4)) for seed in range(4)]
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path, toy_job(seed=9), Recorder(raise_at=3))
    (told,) = make_room(tmp_path, keep=2, spare=done[3].folder)
    assert "of optimizer state of 4 finished runs made room" in told.text and "5 runs take" in told.text
    assert [has_optimizer(one.folder, 10) for one in done] == [False, False, True, True]
    assert [has_optimizer(one.folder, 8) for one in done] == [False] * 4
    (open_run,) = [folder for folder in tmp_path.iterdir() if not (folder / "result.json").exists()]
    assert has_optimizer(open_run, 3)
    for one in done:
        run = Run(folder=one.folder, fingerprint="")
        assert run.checkpoints() == [4, 8, 10] and same(run.load_checkpoint().adapter, one.adapter)
        assert len(run.read_metrics()) == 10 and run.messages == []
    assert "made room" not in make_room(tmp_path, keep=2, spare=done[3].folder)[0].text


def test_going_on_without_the_state_works_and_says_so(tmp_path):
    trained(tmp_path, toy_job(steps=6))
    make_room(tmp_path, keep=0)
    hooks = Recorder()
    longer = trained(tmp_path, toy_job(steps=9), hooks)
    assert (longer.steps, longer.resumed_from) == (9, 6)
    assert any("starts with fresh state" in getattr(one, "text", one) for one in hooks.messages)
    assert all(torch.isfinite(value).all() for value in longer.adapter.values())
    again = Recorder()
    assert trained(tmp_path, toy_job(steps=6), again).loaded
    assert not any("fresh" in getattr(one, "text", one) for one in again.messages)


def test_a_run_that_somebody_trains_is_not_touched(tmp_path):
    done = trained(tmp_path, toy_job())
    mine = identity(toy_job())
    with Run.open(tmp_path, "toy", fingerprint(mine), settings=mine):
        make_room(tmp_path, keep=0)
        assert has_optimizer(done.folder, 10)


def test_a_checkpoint_that_cannot_be_read_stays_as_it_is(tmp_path):
    done = trained(tmp_path, toy_job())
    (done.folder / "checkpoints" / "step-000010" / "state.json").write_text("{}")
    make_room(tmp_path, keep=0)
    assert has_optimizer(done.folder, 10)
