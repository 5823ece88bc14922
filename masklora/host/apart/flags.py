"""The command line of a training apart: this ComfyUI's own, without what concerns its server."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import comfy.options
import folder_paths

TRAIN = "train.py"
# What tells how the server listens and what its page is like, which cards it sees (it has told its environment, which
# is handed on) and what is each process's own; with the number of values of each as ComfyUI has it.
_SERVER: dict[str, str | int] = {
    "--listen": "?",
    "--port": 1,
    "--tls-keyfile": 1,
    "--tls-certfile": 1,
    "--enable-cors-header": "?",
    "--max-upload-size": 1,
    "--enable-compress-response-body": 0,
    "--auto-launch": 0,
    "--disable-auto-launch": 0,
    "--dont-print-server": 0,
    "--quick-test-for-ci": 0,
    "--multi-user": 0,
    "--feature-flag": 1,
    "--front-end-version": 1,
    "--front-end-root": 1,
    "--enable-manager": 0,
    "--disable-manager-ui": 0,
    "--enable-manager-legacy-ui": 0,
    "--enable-assets": 0,
    "--enable-asset-hashing": 0,
    "--cuda-device": 1,
    "--default-device": 1,
    "--temp-directory": 1,
    "--database-url": 1,
    "--verbose": "*",
    "--log-stdout": 0,
    "--debug-hang": 0,
}


def own_flags(given: list[str] | None = None) -> list[str]:
    """Of the command line by which this ComfyUI was started, what tells folders, models, memory and precision.

    Args:
        given: another command line, without the program's name.
    """
    if given is None:
        given = sys.argv[1:] if comfy.options.args_parsing else []
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name, values in _SERVER.items():
        if values == 0:
            parser.add_argument(name, action="store_true")
        else:
            parser.add_argument(name, nargs=None if values == 1 else values)
    return parser.parse_known_args(given)[1]


def command(graph: Path, *, count: int, cancel: Path, pack: Path) -> list[str]:
    """What starts `count` processes that train a graph together; one starts without torchrun.

    Args:
        graph: the file.
        count: 1 or more.
        cancel: the file that ends it.
        pack: folder of this pack.
    """
    several = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    train = [str(pack / TRAIN), str(graph), "--json", "--cancel-file", str(cancel)]
    return [
        sys.executable,
        *(several if count > 1 else []),
        *train,
        "--comfyui",
        str(Path(folder_paths.__file__).resolve().parent),
        *own_flags(),
    ]


def environment(count: int, given: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment of `count` processes: this one's, and how these share the machine."""
    own = {"PYTHONUTF8": "1"}
    if sys.flags.no_user_site:
        # A flag of Python's own, which torchrun does not hand on.
        own["PYTHONNOUSERSITE"] = "1"
    if count > 1:
        # torchrun's own choice is one thread.
        own["OMP_NUM_THREADS"] = given.get("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 1) // count))
        if sys.platform == "win32":
            # torch for Windows is built without it, and torchrun asks for it.
            own["USE_LIBUV"] = given.get("USE_LIBUV") or "0"
    return {**given, **own}
