"""Runs a script of ours in the host's interpreter, with ComfyUI and the pack importable."""

import os
import signal
import subprocess
from pathlib import Path

from .host import PACK_NEEDS, TESTS_NEED, require
from .recipe import ROOT

# The tests' start-up file makes the pack and ComfyUI importable; the current folder would hide ComfyUI's nodes.py.
_START = """import runpy, sys
sys.path[:] = [place for place in sys.path if place]
runpy.run_path(sys.argv[1])
sys.argv[:] = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")"""


def script_command(python: Path, script: Path, *arguments):
    """The command line that runs `script`; COMFYUI_PATH must be set in its environment."""
    return [str(python), "-c", _START, str(ROOT / "tests" / "conftest.py"), str(script), *map(str, arguments)]


def train(host, arguments):
    """Exit status of train.py in the host's interpreter: a training without a page, see there.

    Signals are that process's to answer: those of a terminal reach it too, and one sent to this process is handed on.
    """
    require(host, PACK_NEEDS, file="requirements.txt")
    command = [str(host.python), str(ROOT / "train.py"), *arguments, "--comfyui", str(host.comfyui)]
    child = subprocess.Popen(command, env=dict(os.environ, PYTHONUTF8="1"))
    from_terminal = [getattr(signal, name) for name in ("SIGINT", "SIGBREAK") if hasattr(signal, name)]
    for number in from_terminal:
        signal.signal(number, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda number, _frame: child.send_signal(number))
    return child.wait()


def run_script(host, script, arguments):
    """Exit status of `script`, a path from the current folder or the repository's root."""
    require(host, PACK_NEEDS + TESTS_NEED, file="tests/requirements.txt")
    path = Path(script) if Path(script).is_file() else ROOT / script
    environment = dict(os.environ, COMFYUI_PATH=str(host.comfyui), PYTHONUTF8="1")
    return subprocess.run(script_command(host.python, path, *arguments), env=environment, check=False).returncode
