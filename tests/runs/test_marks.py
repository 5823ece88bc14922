"""A person's name and star for a run: kept with it, harmless when damaged, and heeded by what makes room."""

import json

import pytest

from harness.toy import toy_job, train_toy
from masklora.runs.history import read_run, run_folders
from masklora.runs.marks import NAME, Marks, keep_favoured, keep_marks, read_favoured, read_marks
from masklora.runs.record import measured_at
from masklora.runs.retention import make_room
from masklora.runs.run import Run, has_optimizer
from masklora.runs.run_list import RunList


def test_what_is_noted_comes_back_and_each_keeps_the_other(tmp_path):
    assert read_marks(tmp_path) == Marks()
    keep_marks(tmp_path, label="  Anna,\nthe best \x07 ")
    assert keep_marks(tmp_path, starred=True) == Marks("Anna, the best \\x07", True) == read_marks(tmp_path)
    assert len(keep_marks(tmp_path, label="ü" * 500).label) == 80
    assert keep_marks(tmp_path, label=" ") == Marks("", True)


@pytest.mark.parametrize("damage", ["", "[]", "null", '{"label": 5}', '{"starred": "yes"}', "[" * 9000])
def test_damage_counts_as_nothing_noted(tmp_path, damage):
    (tmp_path / NAME).write_text(damage, encoding="utf-8")
    assert read_marks(tmp_path) == Marks()
    assert keep_marks(tmp_path, starred=True).starred and read_marks(tmp_path).starred


def test_the_list_tells_it_at_once(tmp_path):
    train_toy(tmp_path, toy_job(steps=2))
    (folder,) = run_folders(tmp_path)
    runs = RunList()
    assert not runs.rows(tmp_path)[0].run.starred
    keep_marks(folder, label="mine", starred=True)
    (row,) = runs.rows(tmp_path)
    assert (row.run.label, row.run.starred, row.run.name) == ("mine", True, "toy")
    assert json.loads(row.text)["label"] == "mine" == read_run(folder).label


def test_what_makes_room_spares_a_run_with_a_star(tmp_path):
    train_toy(tmp_path, toy_job(save_every=5))
    (folder,) = run_folders(tmp_path)
    keep_marks(folder, starred=True)
    make_room(tmp_path, keep=0)
    assert has_optimizer(folder, 10) and has_optimizer(folder, 5)
    keep_marks(folder, starred=False)
    make_room(tmp_path, keep=0)
    assert not has_optimizer(folder, 10) and not has_optimizer(folder, 5)


def test_the_favoured_checkpoint_is_told_as_long_as_it_is_kept(tmp_path):
    result = train_toy(tmp_path, toy_job(leak_every=4, keep_last=2))
    favoured = read_favoured(result.folder)
    assert read_run(result.folder).favoured == favoured and favoured in read_run(result.folder).checkpoints
    keep_favoured(result.folder, 7)
    assert read_favoured(result.folder) == 7 and read_run(result.folder).favoured is None
    (result.folder / "favoured.json").write_text('{"step": "eight"}', encoding="utf-8")
    assert read_favoured(result.folder) is None and read_run(result.folder).favoured is None


def test_a_checkpoint_s_file_tells_the_leak_of_its_own_step(tmp_path):
    result = train_toy(tmp_path, toy_job(leak_every=5, keep_last=9, save_every=3))
    with Run.open(tmp_path, "toy", "f" * 64, settings={}) as run:
        measured = {row["step"]: row["leak"] for row in run.read_metrics() if "leak" in row}
        at = {step: measured_at(run, step) for step in (3, 5, 10)}
    assert "leak" not in at[3] and at[3]["coverage"] == result.summary["coverage"]
    assert at[5]["leak"] == measured[5] != measured[10] == at[10]["leak"] == result.summary["leak"]
