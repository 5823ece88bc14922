"""The command line as a person types it, before ComfyUI is started."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
GRAPH = {"1": {"class_type": "A", "inputs": {}}}


def train(*arguments, cwd=None):
    command = [sys.executable, str(ROOT / "train.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", cwd=cwd, check=False)


def test_help_tells_every_exit_code_and_wrong_usage_is_one_of_them():
    done = train("--help")
    assert done.returncode == 0
    for line in ("  0 ", "  1 ", "  2 ", "  3 ", "  130"):
        assert f"\n{line}" in done.stdout
    wrong = train("--cpu", "graph.json")
    assert wrong.returncode == 2 and "GRAPH.json comes first" in wrong.stderr


def test_a_refusal_is_a_line_for_people_and_lines_of_json_for_machines(tmp_path):
    done = train(tmp_path / "none.json")
    assert done.returncode == 2 and "none.json cannot be read" in done.stdout
    lines = [json.loads(line) for line in train(tmp_path / "none.json", "--json").stdout.splitlines()]
    assert [line["event"] for line in lines] == ["refused", "end"]
    assert "none.json cannot be read" in lines[0]["problems"][0]["text"]
    assert (lines[1]["state"], lines[1]["code"]) == ("refused", 2)


@pytest.mark.parametrize("folder", ["nowhere", "."], ids=["missing", "another"])
def test_a_folder_that_is_not_comfyui_s_is_told(folder, tmp_path):
    path = tmp_path / "graph.json"
    path.write_text(json.dumps(GRAPH), encoding="utf-8")
    done = train(path, "--comfyui", tmp_path / folder)
    assert done.returncode == 2 and "is not ComfyUI's folder" in done.stdout and "--comfyui PATH" in done.stdout


@pytest.mark.parametrize(
    ("main", "words"),
    [
        ("import sys\nsys.exit(1)", "did not start; it has said why"),
        ("print('features')\nraise SystemExit(0)", "did not start; it has said why"),
        ("import nobody_has_this", "could not start (ModuleNotFoundError: No module named 'nobody_has_this')"),
    ],
    ids=["refused", "only told", "lacks a package"],
)
def test_a_comfyui_that_does_not_start_is_a_refusal_and_not_a_node_that_failed(main, words, tmp_path):
    folder, path = tmp_path / "Comfy UI", tmp_path / "graph.json"
    (folder / "comfy").mkdir(parents=True)
    (folder / "main.py").write_text(main, encoding="utf-8")
    path.write_text(json.dumps(GRAPH), encoding="utf-8")
    done = train(path, "--json", "--comfyui", folder)
    refused, end = map(json.loads, done.stdout.splitlines())
    assert done.returncode == 2 and words in refused["problems"][0]["text"] and "Comfy UI" in done.stdout
    assert (end["event"], end["code"]) == ("end", 2)


def test_a_missing_tensorboard_is_told_by_name_before_anything_starts(tmp_path):
    path = tmp_path / "graph.json"
    path.write_text(json.dumps(GRAPH), encoding="utf-8")
    # Isolated from what is installed: only the standard library can be found.
    bare = [sys.executable, "-I", "-S", str(ROOT / "train.py"), str(path), "--tensorboard"]
    done = subprocess.run(bare, capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.returncode == 2 and "needs the package tensorboard" in done.stdout and "pip install" in done.stdout
