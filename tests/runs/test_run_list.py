"""The list of runs: cheap where nothing changed, right where something did, and never emptied by one bad run."""

import json
import os
import shutil
import threading
import time
from pathlib import Path

import pytest

from harness.toy import Recorder, toy_job, train_toy
from masklora.documents import strict_json
from masklora.runs.history import read_curve, read_run, run_folders
from masklora.runs.run_list import _STAMPED, RunList
from masklora.runs.told import keep_told

BAD = ["", "{", "[]", "null", "5", '"x"', '{"steps": "4", "completed": 1}', "[" * 5000, "\x00\xff", '{"steps": NaN}']


def age(root, seconds=10):
    """Makes every file as old as those that a list may remember."""
    then = time.time() - seconds
    for path in [root, *root.rglob("*")]:
        os.utime(path, (then, then))


@pytest.fixture
def many(tmp_path):
    """Two hundred finished runs, copies of one."""
    root = tmp_path / "runs"
    train_toy(root, toy_job(steps=10))
    (first,) = run_folders(root)
    for number in range(199):
        shutil.copytree(first, root / f"toy{number}-{number:010x}")
    age(root)
    return root


def test_a_run_that_has_not_changed_is_not_read_again(many):
    runs = RunList()
    assert len(runs.rows(many)) == 200 == runs.reads
    rows = runs.rows(many)
    assert (len(rows), runs.reads) == (200, 200)
    assert json.loads(rows[0].text)["state"] == "finished"


def test_asking_again_for_two_hundred_runs_takes_little_more_than_the_stamps_of_their_files(many):
    """A few milliseconds, on machines where a stamp takes a few microseconds."""
    runs = RunList()
    runs.rows(many)
    stamped = [Path(f"{folder}{name}") for folder in run_folders(many) for name in _STAMPED]
    paths = [str(path) for path in stamped if path.exists()]
    costs = {"asked": [], "stamps alone": []}
    for _ in range(15):
        began = time.thread_time()
        text = ", ".join(row.text for row in runs.rows(many))
        between = time.thread_time()
        for path in paths:
            os.stat(path)  # noqa: PTH116
        costs["asked"].append(between - began)
        costs["stamps alone"].append(time.thread_time() - between)
    assert len(text) > 100_000 and len(paths) >= 3 * 200
    # The least: others share these processors.
    assert min(costs["asked"]) < 3 * min(costs["stamps alone"]), costs


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "result.json").unlink(),
        lambda folder: keep_told(folder, failed="the disk was full"),
        lambda folder: (folder / "metrics.jsonl").write_text('{"step": 12, "loss": 1.0, "total": 20}\n'),
        lambda folder: shutil.rmtree(folder / "checkpoints" / "step-000010"),
        lambda folder: (folder / "settings.json").unlink(),
    ],
    ids=["end", "failure", "steps", "checkpoint", "gone"],
)
def test_what_changed_is_told_at_once(many, change):
    runs = RunList()
    before = {row.run.id: row.run for row in runs.rows(many)}
    folder = run_folders(many)[7]
    changed = read_run(folder).id
    change(folder)
    after = {row.run.id: row.run for row in runs.rows(many)}
    assert [one for one in before if after.get(one) != before[one]] == [changed]
    assert runs.reads <= 201


def test_one_look_serves_all_who_ask_meanwhile(many):
    runs, found = RunList(), []
    threads = [threading.Thread(target=lambda: found.append(len(runs.rows(many)))) for _ in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [200] * 30
    # The first look, and one for all who came while it went on.
    assert runs.reads <= 400


@pytest.mark.parametrize(
    "name", ["result.json", "told.json", "metrics.jsonl", "settings.json", "checkpoints/best.json"]
)
@pytest.mark.parametrize("content", BAD, ids=range(len(BAD)))
def test_one_damaged_run_hides_no_other_and_the_answer_is_strict_json(tmp_path, name, content):
    train_toy(tmp_path, toy_job())
    (good,) = run_folders(tmp_path)
    bad = shutil.copytree(good, tmp_path / "bad-0000000000")
    (bad / name).write_bytes(content.encode("latin-1"))
    rows = RunList().rows(tmp_path)
    assert {row.run.name for row in rows} == {"toy", "bad"}

    def refuse(constant):
        raise AssertionError(constant)

    assert [json.loads(row.text, parse_constant=refuse)["id"] for row in rows]
    assert isinstance(read_curve(bad), list)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with names are a thing of POSIX")
@pytest.mark.parametrize("name", ["result.json", "metrics.jsonl", "settings.json"])
def test_a_pipe_in_a_run_s_folder_holds_nobody_up(tmp_path, name):
    train_toy(tmp_path, toy_job())
    (good,) = run_folders(tmp_path)
    bad = shutil.copytree(good, tmp_path / "bad-0000000000")
    (bad / name).unlink()
    os.mkfifo(bad / name)
    assert {row.run.name for row in RunList().rows(tmp_path)} == {"toy", "bad"}
    assert len(read_curve(bad)) == (0 if name == "metrics.jsonl" else 10)


def test_numbers_that_are_none_reach_the_page_as_null(tmp_path):
    train_toy(tmp_path, toy_job(), Recorder(stop_at=4))
    (folder,) = run_folders(tmp_path)
    ended = json.loads((folder / "result.json").read_text())
    ended["summary"]["loss"] = float("nan")
    (folder / "result.json").write_text(json.dumps(ended))
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "loss": NaN, "total": 10, "prior": Infinity}\n{"step": 6, "loss": 1e999}\n')
    (row,) = RunList().rows(tmp_path)
    assert json.loads(row.text)["summary"]["loss"] is None
    assert [one.get("loss") for one in read_curve(folder)][-1:] == [None]
    assert strict_json({"a": [float("inf"), {"b": float("nan")}], 1: 2.5}) == '{"a": [null, {"b": null}], "1": 2.5}'
