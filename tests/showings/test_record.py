"""What is kept of each showing: whole over stops, resumes and damage, and nothing of the training is changed by it."""

import json
from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from harness.damage import damaged, many
from harness.toy import Recorder, open_run, same, toy_job, train_toy
from masklora.loss.losses import inside_outside
from masklora.runs.history import run_folders
from masklora.showings.record import NAME, Showings, Shown, copy_showings, read_showings
from masklora.showings.sources import Source, keep_sources, read_sources
from masklora.training import track


def kept(root):
    (folder,) = run_folders(root)
    return list(read_showings(folder))


def short(value):
    return pytest.approx(value, rel=1e-4)


def test_each_picture_of_each_step_is_kept_with_its_own_loss(tmp_path):
    recorder = Recorder()
    train_toy(tmp_path, toy_job(gradient_accumulation=2), recorder)
    steps = kept(tmp_path)
    assert [step for step, _ in steps] == list(range(1, 11))
    for report, (_, shown) in zip(recorder.reports, steps, strict=True):
        assert tuple(one.name for one in shown) == report.samples and len(shown) == 4
        assert all(0 <= one.level <= 1 for one in shown)
        assert sum(one.coverage for one in shown) / 4 == short(report.coverage)
        # Both pictures of a batch are masked alike here, so the batch's loss inside is their mean.
        assert sum(one.inside for one in shown) / 4 == short(report.inside)
        assert len({one.inside for one in shown}) == 4
    assert "shown" not in json.loads((next(iter(run_folders(tmp_path))) / "metrics.jsonl").read_text().splitlines()[0])


def test_a_picture_s_loss_is_that_of_it_alone():
    generator = torch.Generator().manual_seed(5)
    e, w = torch.rand(3, 4, 5, 6, generator=generator), torch.rand(3, 1, 5, 6, generator=generator)
    w[2] = 0
    together = inside_outside(e, w)
    alone = [inside_outside(e[i : i + 1], w[i : i + 1])["inside"] for i in range(3)]
    assert torch.allclose(together["each"], torch.stack(alone), equal_nan=True)
    assert together["each"].isnan().tolist() == [False, False, True]


def test_a_picture_without_weight_is_shown_without_a_loss(tmp_path):
    job = toy_job()
    job.cache.mask = lambda entry, variant: torch.zeros(1, *entry.bucket[::-1])
    train_toy(tmp_path, job)
    assert {(one.inside, one.coverage) for _, shown in kept(tmp_path) for one in shown} == {(None, 0.0)}


@pytest.mark.parametrize("immediate", [True, False])
def test_keeping_them_changes_no_bit_of_the_training(tmp_path, monkeypatch, immediate):
    def trained(name):
        job = toy_job(gradient_accumulation=2, validate_every=3, validation_share=0.3)
        job.immediate = immediate
        recorder = Recorder()
        outcome = train_toy(tmp_path / name, job, recorder)
        return outcome, [replace(one, steps_per_second=0, shown=()) for one in recorder.reports], recorder.validations

    with_them = trained("with")
    monkeypatch.setattr(track, "showing_row", lambda part: torch.zeros(0, 3))
    without = trained("without")
    assert same(with_them[0].adapter, without[0].adapter)
    assert with_them[0].losses == without[0].losses and with_them[1:] == without[1:]
    assert len(kept(tmp_path / "with")[0][1]) == 4 and kept(tmp_path / "without")[0][1] == []


class Reads(TorchDispatchMode):
    """Counts how often a number is read from a tensor, for which a device would be waited for."""

    count = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self.count += "_local_scalar_dense" in str(operation)
        return operation(*args, **kwargs or {})


def test_no_number_is_read_for_them_before_all_are_read_together(tmp_path, monkeypatch):
    def reads(name, length):
        job = toy_job(steps=length)
        job.immediate = False
        monkeypatch.setattr("masklora.training.metrics.FLUSH_SECONDS", 1e9)
        with Reads() as counted:
            train_toy(tmp_path / name, job)
        return counted.count

    now = [reads(f"now {n}", n) for n in (4, 8)]
    monkeypatch.setattr(track, "showing_row", lambda part: torch.zeros(0, 3))
    assert now == [reads(f"without {n}", n) for n in (4, 8)]


def test_a_resumed_run_has_kept_each_step_once(tmp_path):
    straight = tmp_path / "straight"
    train_toy(straight, toy_job())
    halves = tmp_path / "halves"
    train_toy(halves, toy_job(), Recorder(stop_at=5))
    # A process that was ended by force has taken steps that no checkpoint holds, and left half a line.
    (folder,) = run_folders(halves)
    with Showings(folder)._path.open("a") as file:
        file.write('{"step":6,"shown":[["of before",0.5,1.0,0.5]]}\n{"step":7,"sho')
    train_toy(halves, toy_job())
    assert kept(halves) == kept(straight)


def test_a_longer_run_takes_those_of_the_one_before_over(tmp_path):
    train_toy(tmp_path / "a", toy_job())
    (source,) = run_folders(tmp_path / "a")
    with open_run(tmp_path / "b") as run:
        copy_showings(source, run.folder, until=4)
        assert [step for step, _ in read_showings(run.folder)] == [1, 2, 3, 4]


@pytest.mark.parametrize("seed", range(many(9, 90)))
def test_a_damaged_file_costs_its_damaged_lines_at_most(tmp_path, seed):
    showings = Showings(tmp_path)
    showings.start(0)
    showings.append((step, [Shown("käse 1.png", 0.5, None if step % 3 else 0.25, 0.125)]) for step in range(1, 40))
    showings.close()
    whole = list(read_showings(tmp_path))
    assert whole[2] == (3, [("käse 1.png", 0.5, 0.25, 0.125)]) and whole[3][1][0].inside is None
    content, kind = damaged((tmp_path / NAME).read_bytes(), seed)
    (tmp_path / NAME).write_bytes(content)
    found = list(read_showings(tmp_path))
    assert kind in ("noise", "empty", "cut", "zeros", "grown", "insert", "swap") or len(found) > 25
    # It can be gone on with, whatever it is.
    showings.start(2)
    showings.append([(3, [])])
    showings.close()
    assert next(reversed(list(read_showings(tmp_path)))) == (3, [])


def test_lines_of_another_form_are_left_out(tmp_path):
    good = '{"step":1,"shown":[["a",0.5,0.5,0.5],["b",1],[1,0.5,0.5,0.5],["c",0.5,"x",0.5],["d",true,null,1]]}'
    lines = [good, "[]", '{"step":"2","shown":[]}', '{"step":2,"shown":{}}', '{"step":3,"shown":[["e",1,NaN,1]]}']
    (tmp_path / NAME).write_text("\n".join(lines))
    assert list(read_showings(tmp_path)) == [(1, [("a", 0.5, 0.5, 0.5)]), (3, [("e", 1, None, 1)])]


def test_where_pictures_came_from_is_kept_and_survives_damage(tmp_path):
    sources = [Source("a.png", "a.png", "k", "/x/a.png"), Source("b", "b", "m", "")]
    keep_sources(tmp_path, sources)
    keep_sources(tmp_path, [])
    assert read_sources(tmp_path) == sources
    (tmp_path / "pictures.json").write_text('{"pictures": [["a", "b", "c", "d"], ["a"], 5, ["a", 1, "b", "c"]]}')
    assert read_sources(tmp_path) == [("a", "b", "c", "d")]
    (tmp_path / "pictures.json").write_text("[")
    assert read_sources(tmp_path) == []
