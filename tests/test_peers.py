"""Several processes that train one LoRA: the same as one, and an orderly end whatever happens to one of them."""

import json
import subprocess
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks import peers as benchmark
from harness.damage import ALL
from harness.toy import Recorder, open_run, same, toy_job, train_toy
from masklora.peers import Peers, exchanged
from masklora.training.trainer import planned_steps, train

AT_WORK = Path(__file__).parent / "harness" / "at_work.py"
MARK = "11".rjust(64, "f")

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("processes", [2, *([3, 4] if ALL else [])])
def test_many_processes_learn_what_one_learns_with_as_many_batches_a_step(processes):
    rows = benchmark.rows_of(processes)
    assert set(rows) == set(benchmark.CASES)
    for name, row in rows.items():
        assert row["weights apart"] < 1e-6 and row["losses apart"] < 1e-6, (name, row)
        # One large message a step, beside the words that are exchanged in main memory.
        assert row["messages a step"] < 3.5, (name, row)
        assert row["bytes a step"] < row["bytes of the gradients"] + 500, (name, row)


def at_work(folder, what="", whom=0, after=0, *, processes=2, steps=10):
    """How each process has ended, None for one that told nothing, and torchrun's exit code."""
    for path in folder.glob("told *.json"):
        path.unlink()
    command = benchmark.torchrun(processes, AT_WORK, folder, steps, what, whom, after)
    done = subprocess.run(command, env=benchmark.lean(), capture_output=True, text=True, timeout=120, check=False)
    paths = [folder / f"told {number}.json" for number in range(processes)]
    return [json.loads(p.read_text(encoding="utf-8")) if p.is_file() else None for p in paths], done.returncode


def checkpoint(folder):
    with open_run(folder / "runs", MARK) as run:
        return run.load_checkpoint()


def test_what_fails_in_one_is_told_by_the_first_with_a_checkpoint_and_any_number_goes_on(tmp_path):
    told, _ = at_work(tmp_path, "fails", whom=1, after=4)
    assert told[0]["kind"] == "PeerError" and told[0]["error"].startswith("Process 1 ")
    assert "the card fell off the bus" in told[0]["error"]
    assert told[1]["error"] == "the card fell off the bus"
    assert [one["code"] for one in told] == [1, 1]
    assert checkpoint(tmp_path).step == 4
    # Alone it takes the batches that are due, half as many a step.
    recorder = Recorder()
    with open_run(tmp_path / "runs", MARK) as run:
        alone = train(toy_job(steps=6), run=run, hooks=recorder)
    assert (alone.resumed_from, alone.steps) == (4, 6)
    assert any("2 batches so far; with 1 process it learns 1" in str(text) for text in recorder.messages)
    with open_run(tmp_path / "runs", MARK) as run:
        assert run.load_checkpoint().state["taken"] == 4 * 2 + 2


def test_a_process_that_is_killed_ends_the_others_with_a_checkpoint_and_they_go_on_to_the_bit(tmp_path):
    told, code = at_work(tmp_path, "killed", whom=1, after=4)
    assert code and told[1] is None
    assert told[0]["kind"] == "LostPeerError" and "not there any more" in told[0]["error"]
    assert checkpoint(tmp_path).step == 4
    told, code = at_work(tmp_path)
    assert code == 0 and [one["resumed"] for one in told] == [4, 4] and told[0]["steps"] == 10
    # A thread that outlives Python may abort it.
    assert [one["threads left"] for one in told] == [[], []]
    if not ALL:
        return
    whole = tmp_path / "whole"
    whole.mkdir()
    at_work(whole)
    assert same(checkpoint(tmp_path).adapter, checkpoint(whole).adapter)
    # A finished run is loaded by all.
    told, code = at_work(whole)
    assert code == 0 and [one["steps"] for one in told] == [10, 10]


def test_one_that_is_asked_to_end_because_another_was_killed_knows_of_that(tmp_path):
    told, code = at_work(tmp_path, "killed and asked to end", whom=1, after=4)
    assert code and told[0]["kind"] == "KeyboardInterrupt"
    assert "not there any more" in told[0]["lost"]
    assert checkpoint(tmp_path).step == 4


@pytest.mark.parametrize("whom", [1, *([0] if ALL else [])])
def test_a_process_that_hangs_is_named_by_the_others_which_end_with_a_checkpoint(whom, tmp_path):
    told, code = at_work(tmp_path, "hangs", whom=whom, after=4)
    assert code and told[whom] is None
    other = told[1 - whom]
    assert other["kind"] == "LostPeerError" and other["code"] == 1
    assert f"Process {whom} of this training has done nothing" in other["error"]
    if whom:
        assert checkpoint(tmp_path).step == 4
        told, code = at_work(tmp_path, steps=6)
        assert code == 0 and [one["resumed"] for one in told] == [4, 4]


@pytest.mark.parametrize("whom", [0, *([1] if ALL else [])])
def test_a_process_that_takes_long_is_waited_for(whom, tmp_path):
    told, code = at_work(tmp_path, "takes long", whom=whom, after=4, steps=5)
    assert code == 0 and [one["steps"] for one in told] == [5, 5]


@pytest.mark.parametrize(
    ("what", "kind"), [("pause and stop", None), *([("cancel", "KeyboardInterrupt")] if ALL else [])]
)
def test_what_a_person_asks_the_first_process_for_reaches_all(what, kind, tmp_path):
    told, code = at_work(tmp_path, what, after=3)
    assert code == 0 and told[0].get("kind") == kind
    assert checkpoint(tmp_path).step == 3
    # Who was not asked has nothing to complain of.
    assert told[1]["steps"] == 3 and told[1]["messages"] == []
    if what != "cancel":
        assert (told[0]["steps"], told[0]["waited"]) == (3, 10)


def test_processes_with_other_settings_are_told_before_the_first_step(tmp_path):
    told, _ = at_work(tmp_path, "other settings")
    assert all("has another training than process" in one["error"] for one in told)
    assert not list((tmp_path / "runs").rglob("adapter.safetensors"))


def test_a_process_that_cannot_keep_the_checkpoint_ends_all_in_the_midst_of_its_messages(tmp_path):
    with open_run(tmp_path / "runs", MARK) as run:
        train(toy_job(), run=run, hooks=Recorder(stop_at=4))
    told, _ = at_work(tmp_path, "cannot write", whom=1, after=4)
    assert told[1]["kind"] == "RunError" and "could not be given to all processes" in told[1]["error"]
    assert told[0]["kind"] == "PeerError" and "could not be given" in told[0]["error"]
    assert checkpoint(tmp_path).step == 4


def test_one_process_alone_exchanges_nothing():
    alone, rows = Peers(), torch.ones(2, 3)
    assert exchanged({}, rows, alone) is rows
    assert alone.messages == alone.sent_bytes == 0


class Met(Peers):
    """The first of two, whose other one is always there."""

    def __init__(self):
        super().__init__(0, 2)
        self.met = 0

    def meet(self, *given, **named):
        self.met += 1
        return super().meet(*given, **named)


def test_gradients_come_back_as_the_weights_are_kept_and_none_where_nothing_was_learned():
    params = {
        "plain": nn.Parameter(torch.ones(2, 3)),
        "half": nn.Parameter(torch.ones(3, dtype=torch.bfloat16)),
        "idle": nn.Parameter(torch.ones(2)),
        "fixed": nn.Parameter(torch.ones(2), requires_grad=False),
    }
    rows = torch.tensor([[1.0, float("nan")]])
    params["plain"].grad, params["half"].grad = torch.full((2, 3), 0.25), torch.full((3,), 0.5, dtype=torch.bfloat16)
    found = exchanged(params, rows, Met())
    assert torch.equal(params["plain"].grad, torch.full((2, 3), 0.25))
    assert torch.equal(params["half"].grad, torch.full((3,), 0.5, dtype=torch.bfloat16))
    assert params["idle"].grad is None and params["fixed"].grad is None
    assert torch.equal(found.nan_to_num(5.0), torch.tensor([[1.0, 5.0], [0.0, 0.0]]))


def test_who_cannot_make_its_message_has_met_nobody_and_can_still_say_so():
    peers, absent = Met(), nn.Parameter(torch.ones(2, device="meta"))
    absent.grad = torch.ones(2, device="meta")
    with pytest.raises(NotImplementedError):
        exchanged({"absent": absent}, torch.ones(1, 2), peers)
    assert peers.met == 0


@pytest.mark.parametrize(("before", "after"), [(Peers(0, 2), Peers()), (Peers(), Peers(0, 2))])
def test_epochs_that_others_go_on_with_show_what_they_promise(before, after, tmp_path):
    settings, stop = {"steps": 0, "epochs": 4}, 4 // before.count * 2
    whole = planned_steps(toy_job(**settings))
    job, rest = toy_job(**settings), toy_job(**settings)
    job.peers, rest.peers = before, after
    train_toy(tmp_path, job, Recorder(stop_at=stop))
    recorder = Recorder()
    done = train_toy(tmp_path, rest, recorder)
    assert done.completed and recorder.reports[-1].step == recorder.reports[-1].total == done.steps
    with open_run(tmp_path) as run:
        taken = run.load_checkpoint().state["taken"]
    assert whole <= taken < whole + after.count


def test_epochs_are_shared_out(tmp_path):
    job = toy_job(steps=0, epochs=4)
    alone = planned_steps(job)
    job.peers = Peers(1, 3)
    assert planned_steps(job) == -(-alone // 3)
