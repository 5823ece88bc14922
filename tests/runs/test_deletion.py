"""Deleting a run: all of its folder and nothing else, and never one that is being trained."""

import os

import filelock
import pytest

from masklora.errors import RunError
from masklora.runs.deletion import delete_run, folder_size
from masklora.runs.history import find_run, run_id
from masklora.runs.run import Run


@pytest.fixture
def run(tmp_path):
    """The folder of a run that rests, with a checkpoint's file and a picture."""
    with Run.open(tmp_path / "runs", "probe", "f" * 64, settings={}) as opened:
        folder = opened.folder
    (folder / "checkpoints" / "step-000004").mkdir()
    (folder / "checkpoints" / "step-000004" / "state.safetensors").write_bytes(b"x" * 5000)
    (folder / "samples").mkdir()
    (folder / "samples" / "step_000000_0.png").write_bytes(b"y" * 300)
    return folder


def test_the_whole_folder_goes_and_what_it_took_is_told(run):
    beside = run.with_name("other-0123456789")
    beside.mkdir()
    size = folder_size(run)
    assert size > 5300
    assert delete_run(run) == size
    assert not run.exists() and list(run.parent.iterdir()) == [beside]


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_links_in_it_go_and_what_they_lead_to_stays(run, tmp_path):
    outside = tmp_path / "outside"
    (outside / "checkpoints").mkdir(parents=True)
    kept = outside / "checkpoints" / "kept.safetensors"
    kept.write_bytes(b"z" * 100_000)
    (run / "linked").symlink_to(outside, target_is_directory=True)
    (run / "checkpoints" / "linked").symlink_to(outside / "checkpoints", target_is_directory=True)
    (run / "file.safetensors").symlink_to(kept)
    assert delete_run(run) < 100_000
    assert not run.exists() and kept.read_bytes() == b"z" * 100_000


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_link_to_a_run_elsewhere_is_none_that_could_be_deleted(run, tmp_path):
    link = tmp_path / "other runs" / run.name
    link.parent.mkdir()
    link.symlink_to(run, target_is_directory=True)
    assert find_run(link.parent, run_id(link)) is None
    assert find_run(run.parent, run_id(run)) == run


def test_a_run_in_training_stays_whole(run):
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with filelock.FileLock(run / "run.lock"), pytest.raises(RunError, match="is being trained"):
        delete_run(run)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="nothing is refused there")
def test_what_cannot_be_deleted_is_told_with_its_place(run):
    (run / "samples").chmod(0o500)
    try:
        with pytest.raises(RunError, match="could not be deleted whole"):
            delete_run(run)
    finally:
        (run / "samples").chmod(0o700)


def test_a_run_can_be_trained_again_where_one_was_deleted(run):
    delete_run(run)
    with Run.open(run.parent, "probe", "f" * 64, settings={}) as again:
        assert again.folder == run and again.checkpoints() == []
