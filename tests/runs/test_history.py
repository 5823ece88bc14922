"""What is read back of runs: the list, the curve since a step, and nothing from elsewhere."""

import json
import re
import shutil
from pathlib import Path

import pytest

from harness.toy import Recorder, toy_job, train_toy
from masklora.documents import metric_rows
from masklora.runs.history import CURVES, find_run, read_curve, read_run, run_folders, run_id, stopped_runs, thin
from masklora.runs.run_list import RunList


def list_runs(root):
    return [row.run for row in RunList().rows(root)]


def test_the_page_draws_the_curves_that_are_told_in_the_same_order_and_has_a_word_for_each():
    root = Path(__file__).resolve().parents[2]
    source = (root / "web/runs/series.mjs").read_text(encoding="utf-8")
    listed = re.search(r"export const CURVES = \[(.*?)\]", source, re.S).group(1)
    assert tuple(re.findall(r'"(\w+)"', listed)) == CURVES
    for path in (root / "locales").glob("*/main.json"):
        assert tuple(words_of_curves(json.loads(path.read_text(encoding="utf-8")))) == CURVES


def words_of_curves(words):
    found = [words["curve"]] if "curve" in words else []
    return next(iter(found + [c for w in words.values() if isinstance(w, dict) and (c := words_of_curves(w))]), None)


@pytest.fixture
def trained(tmp_path):
    train_toy(tmp_path, toy_job(steps=10))
    (folder,) = run_folders(tmp_path)
    return folder


def test_a_run_tells_its_name_state_and_steps(trained):
    run = read_run(trained)
    assert (run.name, run.state, run.step, run.total, run.checkpoints) == ("toy", "finished", 10, 10, [10])
    assert run.summary["loss"] > 0
    assert stopped_runs(trained.parent, "toy") == []
    assert run.id == run_id(trained)
    assert trained.name not in run.id


def test_a_stopped_and_an_interrupted_run_say_so(tmp_path):
    train_toy(tmp_path, toy_job(), Recorder(stop_at=4))
    (run,) = list_runs(tmp_path)
    assert (run.state, run.step, run.total) == ("stopped", 4, 10)
    assert [text.rpartition("/")[2] for text in stopped_runs(tmp_path, "toy")] == ["4"]
    assert stopped_runs(tmp_path, "another") == []
    with pytest.raises(KeyboardInterrupt):
        train_toy(tmp_path, toy_job(), Recorder(raise_at=6))
    (run,) = list_runs(tmp_path)
    assert (run.state, run.step, run.checkpoints, run.summary) == ("open", 6, [4, 6], {})


def test_the_curve_starts_with_the_step_that_is_named(trained):
    assert [row["step"] for row in read_curve(trained)] == list(range(1, 11))
    assert [row["step"] for row in read_curve(trained, since=7)] == [7, 8, 9, 10]
    assert read_curve(trained, since=11) == []
    row = read_curve(trained)[0]
    assert {"loss", "inside", "outside", "learning_rate"} <= row.keys()
    assert "samples" not in row


def test_a_held_out_loss_that_comes_later_is_told_with_its_step(trained):
    with (trained / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 10, "validation": 0.5}\n')
    last = read_curve(trained)[-1]
    assert (last["step"], last["validation"]) == (10, 0.5) and "loss" in last
    assert read_curve(trained, since=10) == [last]


def test_a_long_file_is_read_from_its_end_and_gives_the_same(trained, monkeypatch):
    whole = read_curve(trained, since=4)
    monkeypatch.setattr("masklora.runs.history._TAIL", 200)
    assert read_curve(trained, since=4) == whole
    assert read_run(trained).step == 10


def test_the_step_of_a_run_is_told_where_the_end_of_its_file_holds_held_out_losses_only(trained, monkeypatch):
    with (trained / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 10, "validation": 0.5}\n' * 3)
    monkeypatch.setattr("masklora.runs.history._TAIL", 70)
    assert read_run(trained).step == 10


def test_a_page_that_shows_one_run_reads_nothing_of_others_and_of_a_long_one_its_end_alone(trained, monkeypatch):
    for number in range(30):
        shutil.copytree(trained, trained.parent / f"other-{number:010x}")
    line = (trained / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[0]
    rows = (json.dumps(json.loads(line) | {"step": step}) for step in range(1, 2001))
    (trained / "metrics.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    asked, read, usual = [], [], Path.is_file

    def is_file(path):
        asked.append(path)
        return usual(path)

    def rows_of(lines):
        read.extend(lines)
        return metric_rows(lines)

    monkeypatch.setattr(Path, "is_file", is_file)
    monkeypatch.setattr("masklora.runs.history.metric_rows", rows_of)
    assert find_run(trained.parent, run_id(trained)) == trained
    assert asked == [trained / "settings.json"]
    assert read_run(trained).step == 2000
    assert [row["step"] for row in read_curve(trained, since=1999)] == [1999, 2000]
    assert len(read) < 100


def test_a_line_that_was_cut_short_is_left_out(trained):
    path = trained / "metrics.jsonl"
    path.write_text(path.read_text(encoding="utf-8")[:-9] + "\n[1]\n", encoding="utf-8")
    assert [row["step"] for row in read_curve(trained)] == list(range(1, 10))


def test_thinning_takes_means_and_keeps_the_last_step():
    rows = [{"step": i, "loss": float(i)} | ({"prior": 1.0} if i > 4 else {}) for i in range(1, 8)]
    assert thin(rows, most=10) == rows
    assert thin(rows, most=2) == [{"step": 4, "loss": 2.5}, {"step": 7, "loss": 6.0, "prior": 1.0}]


def test_a_run_without_any_step_is_listed(tmp_path):
    folder = tmp_path / "early-0123456789"
    folder.mkdir()
    (folder / "settings.json").write_text(json.dumps({}), encoding="utf-8")
    (run,) = list_runs(tmp_path)
    assert (run.name, run.state, run.step, run.total) == ("early", "open", 0, None)
    assert read_curve(folder) == []


def test_links_out_of_the_folder_and_strange_folders_are_no_runs(trained, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    root = tmp_path / "root"
    (root / "no run").mkdir(parents=True)
    trained.rename(elsewhere)
    try:
        (root / "linked-0123456789").symlink_to(elsewhere, target_is_directory=True)
    except OSError:
        pytest.skip("links need rights here")
    assert list_runs(root) == []
    assert find_run(root, run_id(root / "linked-0123456789")) is None
    assert list_runs(tmp_path / "absent") == []
