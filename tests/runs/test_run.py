"""A run's folder: whole or absent files, the newest whole checkpoint, one owner at a time."""

import json
import math
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from harness.toy import same
from masklora.errors import RunError
from masklora.files import TRIES, pack, patiently, unpack
from masklora.runs.run import Run, fingerprint, has_optimizer

PRINT = "ab" * 32


def adapter(value=1.0):
    return {
        "layer.lora_A.weight": torch.full((3, 5), value),
        "layer.lora_B.weight": torch.full((4, 3), value),
    }


def state(step):
    moments = {"exp_avg": torch.arange(6.0).view(2, 3), "step": torch.tensor(float(step))}
    return {"optimizer": {"state": {0: moments}, "lr": 1e-4}, "best": None}


def open_run(root, name="cat", mark=PRINT):
    return Run.open(root, name, mark, settings={"loss": {"gamma": 1.0}})


def save(run, *steps, **options):
    for step in steps:
        run.save_checkpoint(step, adapter=adapter(step), state=state(step), **options)


def test_equal_settings_give_equal_fingerprints_in_any_order():
    one = fingerprint({"a": 1, "b": {"c": 2.5, "d": "ü"}})
    assert one == fingerprint({"b": {"d": "ü", "c": 2.5}, "a": 1})
    assert one != fingerprint({"a": 1, "b": {"c": 2.6, "d": "ü"}})
    assert len(one) == 64


def test_packed_state_comes_back_equal_in_value_and_type():
    value = {
        "group": [{"lr": 0.1, "betas": (0.9, 0.999), "k": 3, "growth": math.inf, "fused": True, "none": None}],
        3: {"t": torch.arange(4), "empty": {}, "list": [], "text": "x"},
        "small": 5e-324,
    }
    tensors, packed = pack(value)
    back = unpack(json.loads(json.dumps(packed, allow_nan=False)), tensors)
    assert torch.equal(back[3].pop("t"), value[3].pop("t"))
    assert back == value
    assert isinstance(back["group"][0]["betas"], tuple)


def test_a_packed_not_a_number_stays_one():
    tensors, packed = pack([math.nan, -0.0])
    nan, zero = unpack(packed, tensors)
    assert math.isnan(nan)
    assert math.copysign(1, zero) == -1


def test_state_of_an_unknown_type_is_refused():
    with pytest.raises(RunError, match="complex"):
        pack({"x": 1j})
    with pytest.raises(RunError, match="unknown entry"):
        unpack({"tensor": "7"}, {})


def test_a_checkpoint_comes_back_as_it_was_saved(tmp_path):
    with open_run(tmp_path) as run:
        save(run, 250)
        checkpoint = run.load_checkpoint()
    assert checkpoint.step == 250
    assert same(checkpoint.adapter, adapter(250))
    assert checkpoint.state["optimizer"]["lr"] == 1e-4
    assert torch.equal(checkpoint.state["optimizer"]["state"][0]["exp_avg"], torch.arange(6.0).view(2, 3))


def test_a_run_folder_holds_only_text_and_safetensors(tmp_path):
    with open_run(tmp_path) as run:
        save(run, 250)
        run.start_metrics(0)
        run.append_metrics([{"step": 1, "loss": 0.5}])
        run.write_result({"steps": 250, "completed": True})
        folder = run.folder
    names = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} - {"run.lock"}
    step = "checkpoints/step-000250"
    inner = {f"{step}/{name}" for name in ("adapter.safetensors", "state.safetensors", "state.json")}
    assert names == {"settings.json", "metrics.jsonl", "result.json"} | inner
    assert json.loads((folder / "settings.json").read_text(encoding="utf-8"))["fingerprint"] == PRINT


def test_views_and_shared_tensors_can_be_saved(tmp_path):
    base = torch.arange(12.0).view(3, 4)
    with open_run(tmp_path) as run:
        run.save_checkpoint(1, adapter={"a": base.T, "b": base, "c": base[:, 1]}, state={})
        checkpoint = run.load_checkpoint()
    assert torch.equal(checkpoint.adapter["a"], base.T)
    assert torch.equal(checkpoint.adapter["c"], base[:, 1])


def test_only_the_last_checkpoints_and_the_best_are_kept(tmp_path):
    with open_run(tmp_path) as run:
        save(run, 10, keep_last=2)
        save(run, 20, keep_last=2, best=True)
        save(run, 30, 40, 50, keep_last=2)
        assert run.checkpoints() == [20, 40, 50]
        assert run.best_step() == 20
        save(run, 60, keep_last=2, best=True)
        assert run.checkpoints() == [50, 60]


def test_every_so_many_steps_a_checkpoint_stays_with_its_weights_alone(tmp_path):
    with open_run(tmp_path) as run:
        for step in (5, 10, 15, 20, 23, 25, 30):
            state = {"optimizer": {"m": torch.ones(500)}, "live": None, "best": None}
            run.save_checkpoint(step, adapter=adapter(float(step)), state=state, keep_last=2, keep_every=10)
        assert run.checkpoints() == [10, 20, 25, 30]
        assert [has_optimizer(run.folder, step) for step in run.checkpoints()] == [False, False, True, True]
        kept = run.load_checkpoint(10)
        assert kept.adapter["layer.lora_A.weight"].unique() == 10 and kept.state["optimizer"] is None
        # Of another state than trainings have; it cannot be taken apart and stays whole.
        (run.folder / "checkpoints" / "step-000025" / "state.json").write_text("{}")
        save(run, 35, 40, keep_last=1, keep_every=5)
        assert run.checkpoints() == [10, 20, 25, 30, 35, 40]
        assert run.load_checkpoint().step == 40


def test_saving_a_step_again_replaces_it(tmp_path):
    with open_run(tmp_path) as run:
        save(run, 10)
        run.save_checkpoint(10, adapter=adapter(99.0), state={})
        assert same(run.load_checkpoint().adapter, adapter(99.0))
        assert [p.name for p in (run.folder / "checkpoints").iterdir()] == ["step-000010"]


def truncate(path):
    path.write_bytes(path.read_bytes()[:-3])


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("damage", [truncate, flip_a_bit, Path.unlink, lambda p: p.write_bytes(b"")])
@pytest.mark.parametrize("name", ["adapter.safetensors", "state.safetensors", "state.json"])
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(tmp_path, damage, name):
    with open_run(tmp_path) as run:
        save(run, 10, 20)
        damage(run.folder / "checkpoints" / "step-000020" / name)
        assert run.load_checkpoint().step == 10
        assert "step-000020" in run.messages[0]
        assert "damaged" in run.messages[0]
        with pytest.raises(RunError, match="damaged"):
            run.load_checkpoint(20)


def test_no_checkpoint_is_none_and_all_damaged_is_none(tmp_path):
    with open_run(tmp_path) as run:
        assert run.load_checkpoint() is None
        save(run, 10)
        truncate(run.folder / "checkpoints" / "step-000010" / "state.json")
        assert run.load_checkpoint() is None


def test_a_checkpoint_that_was_cut_off_while_being_written_is_ignored_and_cleared(tmp_path):
    with open_run(tmp_path) as run:
        save(run, 10)
        half = run.folder / "checkpoints" / ".tmp-step-000020-123"
        half.mkdir()
        (half / "adapter.safetensors").write_bytes(b"half")
    with open_run(tmp_path) as run:
        assert run.checkpoints() == [10]
        assert not half.exists()


def test_other_settings_give_another_folder(tmp_path):
    with open_run(tmp_path) as one, open_run(tmp_path, mark="cd" * 32) as other:
        assert one.folder != other.folder
        assert one.folder.name == f"cat-{PRINT[:10]}"


@pytest.mark.parametrize("name", ["../../etc", "a/b\\c:d*?", "..", "", "Mütze 3", "x" * 300])
def test_a_name_cannot_leave_the_root(tmp_path, name):
    with open_run(tmp_path / "runs", name=name) as run:
        assert run.folder.parent == tmp_path / "runs"
        assert len(run.folder.name) < 100


def test_a_folder_has_one_owner_at_a_time(tmp_path):
    with open_run(tmp_path), pytest.raises(RunError, match="being trained by another"):
        open_run(tmp_path)
    open_run(tmp_path).close()


def other_process(root, *, die):
    code = f"""
        import importlib.util, os, pathlib, sys
        root = pathlib.Path({str(Path(__file__).resolve().parents[2])!r})
        spec = importlib.util.spec_from_file_location("pack", root / "__init__.py",
                                                      submodule_search_locations=[str(root)])
        sys.modules["pack"] = importlib.util.module_from_spec(spec)
        from pack.masklora.runs.run import Run
        run = Run.open(pathlib.Path({str(root)!r}), "cat", {PRINT!r}, settings={{}})
        sys.stdout.write("open\\n")
        sys.stdout.flush()
        if {die}:
            os._exit(1)
        sys.stdin.read()
    """
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], **pipes)


def test_another_process_keeps_us_out_until_it_ends(tmp_path):
    with other_process(tmp_path, die=False) as process:
        assert process.stdout.readline() == "open\n"
        with pytest.raises(RunError, match="Wait for it to end"):
            open_run(tmp_path)
        process.stdin.close()
        process.wait(20)
    open_run(tmp_path).close()


def test_a_crashed_process_leaves_no_stale_lock(tmp_path):
    with other_process(tmp_path, die=True) as process:
        process.wait(60)
    open_run(tmp_path).close()


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on file sizes")
def test_a_full_disk_is_a_clear_error_and_leaves_the_last_checkpoint(tmp_path):
    import resource

    with open_run(tmp_path) as run:
        save(run, 10)
        run.start_metrics(0)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
        try:
            big = {"layer": torch.zeros(10_000)}
            with pytest.raises(RunError, match="could not be written"):
                run.save_checkpoint(20, adapter=big, state={})
            with pytest.raises(RunError, match="could not be written"):
                run.append_metrics([{"step": i, "loss": 0.123456} for i in range(2000)])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert run.checkpoints() == [10]
        assert run.load_checkpoint().step == 10
        assert [p.name for p in (run.folder / "checkpoints").iterdir()] == ["step-000010"]


def test_a_root_that_is_a_file_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(RunError, match="could not be written"):
        open_run(tmp_path / "file")


def test_metrics_go_on_after_the_resumed_step_and_drop_what_came_later(tmp_path):
    with open_run(tmp_path) as run:
        run.start_metrics(0)
        run.append_metrics([{"step": i, "loss": i / 10} for i in range(1, 6)])
    path = run.folder / "metrics.jsonl"
    path.write_text(path.read_text(encoding="utf-8") + '{"step": 6, "lo', encoding="utf-8")
    with open_run(tmp_path) as run:
        run.start_metrics(3)
        run.append_metrics([{"step": 4, "loss": 9.0}])
        assert [r["loss"] for r in run.read_metrics()] == [0.1, 0.2, 0.3, 9.0]


def test_metrics_must_be_started(tmp_path):
    with open_run(tmp_path) as run, pytest.raises(RunError, match="not started"):
        run.append_metrics([{"step": 1}])


def test_a_result_is_there_when_the_run_has_ended_and_can_be_taken_back(tmp_path):
    with open_run(tmp_path) as run:
        assert run.read_result() is None
        run.write_result({"steps": 4, "completed": True})
        assert run.read_result() == {"steps": 4, "completed": True}
        run.clear_result()
        assert run.read_result() is None


def test_settings_are_written_once(tmp_path):
    with open_run(tmp_path) as run:
        before = (run.folder / "settings.json").stat().st_mtime_ns
    with open_run(tmp_path) as run:
        assert (run.folder / "settings.json").stat().st_mtime_ns == before


def test_closing_twice_is_fine(tmp_path):
    run = open_run(tmp_path)
    run.close()
    run.close()


@pytest.mark.parametrize("refusals", [0, 3])
def test_a_file_that_is_in_use_for_a_moment_is_waited_for(refusals):
    asked = []

    def act():
        asked.append(1)
        if len(asked) <= refusals:
            raise PermissionError

    patiently(act)
    assert len(asked) == refusals + 1


def test_a_file_that_stays_in_use_is_an_error_and_another_error_is_one_at_once(monkeypatch):
    monkeypatch.setattr("masklora.files.WAIT_SECONDS", 0.001)
    asked = []

    def refuse(error):
        asked.append(error)
        raise error

    for error, tries in ((PermissionError, TRIES), (FileNotFoundError, 1)):
        asked.clear()
        with pytest.raises(error):
            patiently(lambda error=error: refuse(error))
        assert len(asked) == tries


def test_a_result_that_cannot_be_taken_back_is_a_clear_error(tmp_path):
    with open_run(tmp_path) as run:
        (run.folder / "result.json").mkdir()
        with pytest.raises(RunError, match=r"result.json: could not be written"):
            run.clear_result()


@pytest.mark.parametrize("name", ["影" * 80, "😀" * 80, "CON", "x" * 300, "\udcff"])
def test_any_name_gives_a_folder_that_any_disk_takes(tmp_path, name):
    with open_run(tmp_path, name=name) as run:
        assert len(run.folder.name.encode("utf-8", "surrogatepass")) < 200


def test_a_run_is_found_again_whatever_it_is_called(tmp_path):
    with open_run(tmp_path, name="anna") as run:
        folder = run.folder
    with open_run(tmp_path, name="bella") as run:
        assert run.folder == folder
    (folder / "settings.json").write_text("")
    with open_run(tmp_path, name="clara") as run:
        assert run.folder == folder


def test_another_run_whose_fingerprint_begins_alike_is_another(tmp_path):
    other = PRINT[:10] + "0" * 54
    with open_run(tmp_path, name="anna") as one, open_run(tmp_path, name="bella", mark=other) as two:
        assert one.folder != two.folder


def test_starting_anew_takes_a_folder_of_its_own(tmp_path):
    names = []
    for _ in range(3):
        with Run.open(tmp_path, "cat", PRINT, settings={}, anew=True) as run:
            names.append(run.folder.name)
            save(run, 10)
    assert names == [f"cat-{PRINT[:10]}", f"cat~2-{PRINT[:10]}", f"cat~3-{PRINT[:10]}"]
    with open_run(tmp_path) as run:
        assert run.folder.name == names[-1]
