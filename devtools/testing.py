"""Runs the tests: pytest in the host's interpreter, then the web modules' tests in node."""

import os
import shutil
import subprocess

from .console import DevError, say
from .frontend import VERSION, newest_frontend
from .host import PACK_NEEDS, TESTS_NEED, require
from .recipe import ROOT

# `python -m pytest` would put the current folder on sys.path, where nodes/ hides ComfyUI's nodes.py,
# and the option against it, -P, is new in Python 3.11.
_PYTEST = """import sys
sys.path[:] = [place for place in sys.path if place]
import pytest
sys.exit(pytest.main())"""

# Which web frontend a session of tests shows, see tests/harness/frontends.py.
FRONTEND = "MASKLORA_FRONTEND"
_NOTHING_SELECTED = 5
# A test that hangs fails after so many seconds, with what it was at, and the others still run.
_HANGS = 600


def run_tests(host, arguments):
    """Exit status of the whole: zero only if pytest and the web tests passed."""
    require(host, PACK_NEEDS + TESTS_NEED, file="tests/requirements.txt")
    environment = _environment(host)
    everything = "--all" in arguments
    if everything:
        # What takes long, or tries a thousand cases where a usual run tries some.
        arguments = [argument for argument in arguments if argument != "--all"]
        environment["MASKLORA_ALL"] = environment["MASKLORA_EVERY_MODE"] = "1"
    command = [str(host.python), "-c", _PYTEST, "--import-mode=importlib", "--durations=15", "-rfER"]
    command += [*_workers(arguments), *([] if everything else [f"--timeout={_HANGS}"]), *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, check=False)
    pages = _run_with_newest_frontend(host, command, environment) if everything else 0
    selected = any(not argument.startswith("-") for argument in arguments)
    web = 0 if selected else run_web_tests()
    return done.returncode or pages or web


def _run_with_newest_frontend(host, command, environment):
    """Exit status of the page tests in the newest web frontend; zero, with a word about it, where it cannot be had."""
    if environment.get(FRONTEND):
        # One frontend was asked for, and is done.
        return 0
    try:
        newest_frontend(host.python)
    except DevError as error:
        say(f"page tests in the web frontend {VERSION}: SKIPPED, because it cannot be had: {error}")
        return 0
    say(f"page tests in the web frontend {VERSION}")
    done = subprocess.run(command, cwd=ROOT, env={**environment, FRONTEND: "newest"}, check=False)
    return 0 if done.returncode == _NOTHING_SELECTED else done.returncode


def take_pictures(host, arguments):
    """Exit status of taking the pictures of the help pages anew, in a real page: those of files `take_*.py`.

    Args:
        host: From `find_host`.
        arguments: For pytest, such as a file or `-k node`; all of them where they name no file.
    """
    require(host, PACK_NEEDS + TESTS_NEED, file="tests/requirements.txt")
    environment = _environment(host)
    command = [str(host.python), "-c", _PYTEST, "--import-mode=importlib"]
    command += ["-o", "python_files=take_*.py", "-o", "python_functions=take_*"]
    selected = any(argument.endswith(".py") for argument in arguments)
    command += [*arguments, *([] if selected else ["tests/nodes"])]
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


def _environment(host):
    """That of this process, with the host, and one thread a process.

    Threads of two processes on two cores wait for one another: a training beside the page's browser, or beside
    another test, takes thirty times as long.
    """
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    return dict(os.environ, COMFYUI_PATH=str(host.comfyui), PYTHONUTF8="1", **threads)


def _workers(arguments):
    chosen = any(a.startswith(("-n", "--numprocesses", "--pdb")) or a == "no:xdist" for a in arguments)
    return [] if chosen else ["-n", "2", "--dist", "loadfile"]


def web_test_files():
    """The web tests; they lie outside web/, where only what the page needs lies."""
    return sorted((ROOT / "tests" / "web").glob("**/*.test.*js"))


def run_web_tests():
    """Exit status of `node --test`; zero, with a word about it, where there is nothing to run or no node."""
    files = web_test_files()
    if not files:
        say("web module tests: there are none yet")
        return 0
    node = shutil.which("node")
    if node is None:
        say(f"web module tests: SKIPPED {len(files)} files, because node is not installed")
        return 0
    say(f"web module tests: {len(files)} files")
    return subprocess.run([node, "--test", *map(str, files)], cwd=ROOT, check=False).returncode
