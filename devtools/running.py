"""Runs a script of ours in the host's interpreter, with ComfyUI and the pack importable."""

import os
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


def run_script(host, script, arguments):
    """Exit status of `script`, a path from the current folder or the repository's root."""
    require(host, PACK_NEEDS + TESTS_NEED, file="tests/requirements.txt")
    path = Path(script) if Path(script).is_file() else ROOT / script
    environment = dict(os.environ, COMFYUI_PATH=str(host.comfyui), PYTHONUTF8="1")
    return subprocess.run(script_command(host.python, path, *arguments), env=environment, check=False).returncode
