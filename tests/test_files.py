"""Files appear whole, under a name of their own, whoever writes, fails or is killed at the same time."""

import errno
import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
import torch

from masklora.errors import RunError
from masklora.files import (
    clear_leftovers,
    free_bytes,
    temporary_beside,
    write_bytes_atomically,
    write_new_bytes,
    write_text_atomically,
)
from masklora.runs.lora_file import write_lora
from masklora.runs.run import Run

ROOT = Path(__file__).resolve().parents[1]
DEAD = 999_999_999


def in_process(code, *arguments):
    """Runs `code` in a process of its own, with `pack` as the pack."""
    begin = f"""
import importlib.util, pathlib, sys
root = pathlib.Path({str(ROOT)!r})
spec = importlib.util.spec_from_file_location("pack", root / "__init__.py", submodule_search_locations=[str(root)])
sys.modules["pack"] = importlib.util.module_from_spec(spec)
"""
    command = [sys.executable, "-c", begin + textwrap.dedent(code), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_a_temporary_name_is_short_its_own_each_time_and_hidden(tmp_path):
    target = tmp_path / ("n" * 255)
    names = {temporary_beside(target).name for _ in range(100)}
    assert len(names) == 100
    assert all(name.startswith(".mlt-") and len(name) < 60 for name in names)


@pytest.mark.parametrize("name", ["x" * 255, "影" * 85, "a.json"])
def test_a_name_as_long_as_the_disk_takes_can_be_written(tmp_path, name):
    write_text_atomically(tmp_path / name, "one")
    write_text_atomically(tmp_path / name, "two")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["two"]


def test_a_new_file_never_takes_the_place_of_another(tmp_path):
    write_new_bytes(tmp_path / "x", b"one")
    with pytest.raises(FileExistsError):
        write_new_bytes(tmp_path / "x", b"two")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x").read_bytes() == b"one"


def test_where_a_disk_knows_no_links_a_new_file_still_replaces_nothing(tmp_path, monkeypatch):
    def refuses(*_arguments, **_options):
        raise OSError(errno.EPERM, "not here")

    monkeypatch.setattr(os, "link", refuses)
    test_a_new_file_never_takes_the_place_of_another(tmp_path)


def test_many_exports_at_once_are_many_whole_files(tmp_path):
    paths, problems = [], []

    def export(number):
        try:
            tensors = {"w": torch.full((200, 200), float(number))}
            paths.append(write_lora(tmp_path / "cat", tensors, metadata={}, dtype="float32"))
        except Exception as error:
            problems.append(error)

    threads = [threading.Thread(target=export, args=(number,)) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert len(set(paths)) == 24 == len(list(tmp_path.iterdir()))
    assert len({path.read_bytes() for path in paths}) == 24


def test_exports_of_two_processes_are_all_there(tmp_path):
    code = """
        import pathlib, torch
        from pack.masklora.runs.lora_file import write_lora
        for number in range(8):
            write_lora(pathlib.Path(sys.argv[1]) / "cat", {"w": torch.zeros(50)}, metadata={}, dtype="float32")
    """
    done = []
    threads = [threading.Thread(target=lambda: done.append(in_process(code, tmp_path))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one.returncode for one in done] == [0, 0], done[0].stderr
    assert len(list(tmp_path.iterdir())) == 16


@pytest.mark.parametrize("call", ["link", "replace", "fsync", "unlink"])
def test_a_writer_that_is_killed_leaves_nothing_wrong_and_what_it_leaves_is_cleared(tmp_path, call):
    code = f"""
        import os, pathlib, torch
        from pack.masklora.runs.lora_file import write_lora
        from pack.masklora.files import write_text_atomically
        class Killed:
            def __call__(self, *a, **k): os._exit(9)
        os.{call} = Killed()
        folder = pathlib.Path(sys.argv[1])
        write_text_atomically(folder / "note.json", "whole")
        write_lora(folder / "mine", {{"w": torch.zeros(50)}}, metadata={{}}, dtype="float32")
    """
    done = in_process(code, tmp_path)
    assert done.returncode == 9, done.stderr
    left = [path for path in tmp_path.iterdir() if path.suffix == ".tmp"]
    assert left
    lora = tmp_path / "mine.safetensors"
    assert not lora.exists() or lora.stat().st_size > 200
    write_lora(tmp_path / "mine", {"w": torch.zeros(50)}, metadata={}, dtype="float32")
    assert [path for path in tmp_path.iterdir() if path.suffix == ".tmp"] == []


def mark(folder, name, *, age=0.0):
    path = folder / name
    path.write_bytes(b"x")
    os.utime(path, (time.time() - age, time.time() - age))
    return path


def test_only_our_own_leftovers_of_dead_writers_are_cleared(tmp_path):
    own = temporary_beside(tmp_path / "x").name
    host, pid = own.split("-")[1:3]
    gone = [
        mark(tmp_path, f".mlt-{host}-{DEAD}-0123abcd.tmp"),
        # Of an earlier process with this one's number, as in a container that was started again.
        mark(tmp_path, f".mlt-{host}-{pid}-0123abcd.tmp", age=40 * 86400),
        mark(tmp_path, f".mlt-ffffff-{DEAD}-0123abcd.tmp", age=2 * 86400),
        mark(tmp_path, f".anna.safetensors.{DEAD}.tmp", age=2 * 3600),
    ]
    stays = [
        mark(tmp_path, own),
        mark(tmp_path, f".mlt-ffffff-{DEAD}-0123abcd.tmp".replace("0123", "4567")),
        mark(tmp_path, f".anna.safetensors.{DEAD - 1}.tmp"),
        mark(tmp_path, ".tmpAb3xYz", age=40 * 86400),
        mark(tmp_path, f".notes.json.{DEAD}.tmp", age=40 * 86400),
        mark(tmp_path, "download.tmp", age=40 * 86400),
        mark(tmp_path, "anna.safetensors", age=40 * 86400),
    ]
    assert sorted(clear_leftovers(tmp_path)) == sorted(path.name for path in gone)
    assert sorted(tmp_path.iterdir()) == sorted(stays)


def test_a_run_s_folder_is_cleared_when_it_is_opened(tmp_path):
    def opened():
        return Run.open(tmp_path, "cat", "ab" * 32, settings={})

    with opened() as run:
        folder = run.folder
    (folder / "samples").mkdir()
    host = temporary_beside(folder / "x").name.split("-")[1]
    places = [folder, folder / "samples", folder / "checkpoints"]
    for place in places:
        mark(place, f".mlt-{host}-{DEAD}-0123abcd.tmp")
        mark(place, f".result.json.{DEAD}.tmp", age=2 * 3600)
    with opened():
        assert [path for place in places for path in place.glob("*.tmp")] == []


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on file sizes")
@pytest.mark.parametrize("write", [write_bytes_atomically, write_new_bytes])
def test_the_first_error_is_the_one_that_is_told(tmp_path, write):
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(RunError, match=r"x.bin: could not be written .* MiB are free there.*Make room"):
            write(tmp_path / "x.bin", bytes(5000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_a_file_is_told_as_that(tmp_path):
    (tmp_path / "evil.safetensors").write_bytes(b"")
    with pytest.raises(RunError, match=r"evil.safetensors.x.*could not be written"):
        write_lora(tmp_path / "evil.safetensors" / "x", {"w": torch.zeros(2)}, metadata={}, dtype="float32")


@pytest.mark.skipif(sys.platform == "win32", reason="needs a device that is always full")
def test_metrics_on_a_full_disk_are_a_clear_error_and_the_lock_is_free_again(tmp_path):
    run = Run.open(tmp_path, "cat", "ab" * 32, settings={})
    with pytest.raises(RunError, match=r"metrics.jsonl: could not be written .*Make room"), run:
        run.start_metrics(0)
        run._metrics.close()
        run._metrics = Path("/dev/full").open("a", encoding="utf-8")  # noqa: SIM115 - the run closes it
        run.append_metrics([{"step": 1, "loss": 0.5}])
    Run.open(tmp_path, "cat", "ab" * 32, settings={}).close()


def test_room_is_known_for_a_folder_that_is_not_there_yet(tmp_path):
    assert free_bytes(tmp_path / "a" / "b" / "c") > 0
