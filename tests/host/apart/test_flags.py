"""What processes apart are started with: this ComfyUI's folders, models and precision, and nothing of its server."""

import subprocess
import sys
from pathlib import Path

import comfy.cli_args
import comfy.options
import psutil
import pytest

from masklora.host.apart import flags
from masklora.host.apart.flags import _SERVER, command, environment, own_flags

PACK = Path(__file__).resolve().parents[3]


@pytest.fixture
def options():
    """ComfyUI's own, by name."""
    return {name: one for one in comfy.cli_args.parser._actions for name in one.option_strings}


def test_what_is_left_out_has_as_many_values_as_comfyui_gives_it(options):
    for name, values in _SERVER.items():
        expected = {None: 1}.get(options[name].nargs, options[name].nargs)
        assert values == expected, name


def test_folders_models_memory_and_precision_stay_and_the_server_s_go():
    kept = [
        *("--base-directory", "/data/Übung mit Masken", "--extra-model-paths-config", "a.yaml", "b.yaml", "--lowvram"),
        *("--fp8_e4m3fn-unet", "--reserve-vram", "1.5", "--disable-dynamic-vram", "--fast", "fp16_accumulation"),
        *("--disable-all-custom-nodes", "--whitelist-custom-nodes", "masked-lora", "another"),
    ]
    server = [
        "--listen",
        "0.0.0.0",
        "--port=8190",
        "--verbose",
        "DEBUG",
        "log.txt",
        "--cuda-device",
        "1",
        "--auto-launch",
    ]
    assert own_flags([*server, *kept]) == own_flags([*kept, *server]) == kept
    # Without a value, before one that is another flag's.
    assert own_flags(["--listen", "--cpu"]) == ["--cpu"]
    assert own_flags(["--verbose", "--cpu", "--enable-cors-header"]) == ["--cpu"]
    spaced = "--output-directory=D:/my pictures"
    assert own_flags(["--listen", spaced, "--verbose", spaced, "--lowvram"]) == [spaced, spaced, "--lowvram"]


def test_comfyui_s_own_parser_reads_what_is_left(options):
    given = ["--base-directory", "x", "--port", "1", "--whitelist-custom-nodes", "a", "b", "--listen", "--force-fp16"]
    read = comfy.cli_args.parser.parse_args(own_flags(given))
    assert (read.base_directory, read.whitelist_custom_nodes, read.force_fp16) == ("x", ["a", "b"], True)
    assert read.port == comfy.cli_args.parser.get_default("port")


def test_a_command_line_that_comfyui_did_not_read_is_none_of_its_flags(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["main.py", "--lowvram", "--port", "1"])
    monkeypatch.setattr(comfy.options, "args_parsing", False)
    assert own_flags() == []
    monkeypatch.setattr(comfy.options, "args_parsing", True)
    assert own_flags() == ["--lowvram"]


def test_one_process_starts_without_torchrun_and_several_with_it(monkeypatch):
    monkeypatch.setattr(flags, "own_flags", lambda: ["--cpu"])
    one, two = (command(Path("g.json"), count=n, cancel=Path("cancel"), pack=PACK) for n in (1, 2))
    assert one[:3] == [sys.executable, str(PACK / "train.py"), "g.json"] and one[-1] == "--cpu"
    assert two[1:3] == ["-m", "torch.distributed.run"] and two[-len(one) + 1 :] == one[1:]


def test_several_processes_share_the_cores_unless_a_person_has_shared_them_out(monkeypatch):
    monkeypatch.setattr(flags.os, "cpu_count", lambda: 16)
    folder = Path("x")
    assert (
        "OMP_NUM_THREADS" not in environment(1, folder, {"A": "b"}) and environment(1, folder, {"A": "b"})["A"] == "b"
    )
    assert environment(4, folder, {})["OMP_NUM_THREADS"] == "4"
    assert environment(32, folder, {})["OMP_NUM_THREADS"] == "1"
    assert environment(4, folder, {"OMP_NUM_THREADS": "2"})["OMP_NUM_THREADS"] == "2"


MEETS = """
import sys
sys.path.insert(0, {root!r})
import torch
from masklora.peers import joined

with joined(torch.device("cpu")) as peers:
    told = torch.tensor([peers.number + 1.0])
    peers.add_up(told)
    if peers.first:
        print(peers.count, float(told), flush=True)
    while not peers.first or sys.stdin.readline():
        peers.meet()
"""


def test_several_processes_meet_and_nothing_of_them_is_open_to_the_network(monkeypatch, tmp_path):
    folder, pack = tmp_path / "a folder", tmp_path / "pack"
    folder.mkdir()
    pack.mkdir()
    (pack / "train.py").write_text(MEETS.format(root=str(PACK)), encoding="utf-8")
    monkeypatch.setattr(flags, "own_flags", lambda: [])
    words = command(folder / "graph.json", count=2, cancel=folder / "cancel", pack=pack)
    process = subprocess.Popen(
        words, env=environment(2, folder), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        assert process.stdout.readline().split() == [b"2", b"3.0"]
        all_of_them = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        open_at = [one.laddr.ip for each in all_of_them for one in each.net_connections() if one.status == "LISTEN"]
        assert len(all_of_them) == 3 and open_at and set(open_at) <= {"127.0.0.1", "::1"}
    finally:
        for one in [*psutil.Process(process.pid).children(recursive=True), process]:
            one.kill()
        process.communicate()
