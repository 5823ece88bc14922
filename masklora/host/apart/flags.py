"""The command line of a training apart: this ComfyUI's own, without what concerns its server.

Several processes find each other by files in its folder. torchrun's usual way opens ports to the whole network, and
unpickles what it is sent there.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import comfy.options
import folder_paths
import psutil

from ...torchrun import MEETING
from ..headless.bounds import FOLDER

TRAIN = "train.py"
# Files by which torchrun and the processes find each other, in the folder of the training apart.
_LAUNCHERS, _PROCESSES = "launchers", "processes"
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
    kept, rest = [], list(given)
    while rest:
        word = rest.pop(0)
        name, equals, _ = word.partition("=")
        if name not in _SERVER:
            kept.append(word)
        elif not equals:
            del rest[: _values(_SERVER[name], rest)]
    return kept


def _values(most: str | int, rest: list[str]) -> int:
    """How many of the words after a flag are its values, as argparse counts them."""
    if isinstance(most, int):
        return most
    free = next((number for number, word in enumerate(rest) if word.startswith("-")), len(rest))
    return min(free, 1) if most == "?" else free


def command(graph: Path, *, count: int, cancel: Path, pack: Path) -> list[str]:
    """What starts `count` processes that train a graph together; one starts without torchrun.

    Args:
        graph: the file.
        count: 1 or more.
        cancel: the file that ends it.
        pack: folder of this pack.
    """
    several = ["-m", "torch.distributed.run", "--nnodes", "1", "--nproc-per-node", str(count)]
    several += ["--rdzv-backend", "c10d", "--rdzv-conf", "store_type=file"]
    several += ["--rdzv-endpoint", str(graph.with_name(_LAUNCHERS)), "--local-addr", "127.0.0.1"]
    train = [str(pack / TRAIN), str(graph), "--json", "--cancel-file", str(cancel)]
    return [
        sys.executable,
        *(several if count > 1 else []),
        *train,
        "--comfyui",
        str(Path(folder_paths.__file__).resolve().parent),
        *own_flags(),
    ]


def environment(count: int, folder: Path, given: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment of `count` processes: this one's, how these share the machine, where they tell and meet.

    Args:
        count: 1 or more.
        folder: of this training apart.
        given: another environment.
    """
    own = {"PYTHONUTF8": "1", FOLDER: str(folder)}
    if sys.flags.no_user_site:
        # A flag of Python's own, which torchrun does not hand on.
        own["PYTHONNOUSERSITE"] = "1"
    if count > 1:
        # torchrun's own choice is one thread.
        own["OMP_NUM_THREADS"] = given.get("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 1) // count))
        # A store of torchrun's for them would be a port that all may reach.
        own |= {MEETING: str(folder / _PROCESSES), "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
        own |= {name: given.get(name) or value for name, value in _loopback().items()}
        if sys.platform == "win32":
            # torch for Windows is built without it, and torchrun asks for it.
            own["USE_LIBUV"] = given.get("USE_LIBUV") or "0"
    return {**given, **own}


def _loopback() -> dict[str, str]:
    """How Gloo and NCCL are told to stay on this machine; nothing on Windows, where Gloo chooses by itself."""
    if sys.platform == "win32":
        return {}
    found = (name for name, ways in psutil.net_if_addrs().items() if any(way.address == "127.0.0.1" for way in ways))
    name = next(found, None)
    return {} if name is None else {"GLOO_SOCKET_IFNAME": name, "NCCL_SOCKET_IFNAME": f"={name}"}
