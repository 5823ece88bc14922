"""What people were told of a run is kept with it: notes, the reason of a failure, the file."""

import pytest

from harness.toy import Recorder, open_run, toy_job, train_toy
from masklora.findings import note, warning
from masklora.runs.history import read_run, run_folders
from masklora.runs.told import failure_told, keep_told, read_told
from masklora.training.trainer import train


def test_what_is_kept_comes_back(tmp_path):
    keep_told(tmp_path, notes=(warning("two masks are black"), note("café \udce9")), names=("anna",))
    keep_told(tmp_path, written="output/loras/anna.safetensors")
    told = read_told(tmp_path)
    assert [(one.text, one.level) for one in told.notes] == [
        ("two masks are black", "warning"),
        ("café \\xe9", "note"),
    ]
    assert (told.written, told.taken, told.failed) == ("output/loras/anna.safetensors", None, "")


@pytest.mark.parametrize("damage", ["", "[]", "null", '{"notes": 5}', '{"notes": [{"text": 1}], "x": NaN}', "[" * 9000])
def test_damage_counts_as_nothing_told(tmp_path, damage):
    (tmp_path / "told.json").write_text(damage, encoding="utf-8")
    assert read_told(tmp_path).notes == ()
    assert keep_told(tmp_path, failed="disk full").failed == "disk full"
    assert read_told(tmp_path).failed == "disk full"


def failing(tmp_path, error):
    with pytest.raises(error), open_run(tmp_path) as run, failure_told(run.folder):
        train(toy_job(), run=run, hooks=Recorder(raise_at=3, error=error))
    (folder,) = run_folders(tmp_path)
    return read_run(folder)


def test_a_run_that_failed_says_why_and_is_not_a_cancelled_one(tmp_path):
    run = failing(tmp_path, ValueError)
    assert (run.state, run.failed, run.step) == ("failed", "as asked", 3)


def test_a_cancelled_run_has_not_failed(tmp_path):
    run = failing(tmp_path, KeyboardInterrupt)
    assert (run.state, run.failed) == ("open", "")


def test_a_run_that_never_failed_has_nothing_to_tell(tmp_path):
    train_toy(tmp_path, toy_job())
    run = read_run(run_folders(tmp_path)[0])
    assert (run.written, run.taken, run.failed, run.notes, run.state) == ("", None, "", [], "finished")
