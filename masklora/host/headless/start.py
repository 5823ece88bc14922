"""ComfyUI as a library: everything that its own start-up does, but no socket is opened.

Its `main.py` is executed as it executes itself, with its own flag for checks that ends the start-up where the server
would begin to listen. So devices, folders, memory settings and other packs' nodes are set up by ComfyUI alone, whatever
its version, and its queue's thread waits for a graph.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
import tempfile
import traceback
from collections.abc import Iterator
from importlib.abc import Loader
from pathlib import Path
from types import ModuleType
from typing import Any

from ...findings import counted
from ...torchrun import Place, place
from .problems import RefusedError

_UP_TO_LISTENING = "--quick-test-for-ci"
_TRAIN_NODE = "MLT_TrainLoRA"
_CARDS = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")


def find_comfyui(given: str | None, pack: Path) -> Path:
    """ComfyUI's folder: `given`, else COMFYUI_PATH, else the one in whose custom_nodes the folder `pack` lies.

    Raises:
        RefusedError: it is not there, or this Python is not the one that starts it.
    """
    named = given or os.environ.get("COMFYUI_PATH")
    around = pack.parent.parent if pack.parent.name == "custom_nodes" else None
    folder = Path(named).expanduser().resolve() if named else around
    if folder is None or not _is_comfyui(folder):
        what = f"{folder} is not ComfyUI's folder" if folder else "ComfyUI was not found around the pack"
        raise RefusedError(f"{what}: name the one that holds main.py and comfy by --comfyui PATH.")
    if importlib.util.find_spec("torch") is None:
        raise RefusedError(f"{sys.executable} lacks torch. Use the Python that starts {folder}, as its venv's.")
    return folder


def _is_comfyui(folder: Path) -> bool:
    return (folder / "main.py").is_file() and (folder / "comfy").is_dir()


@contextlib.contextmanager
def start_comfyui(folder: Path, flags: list[str]) -> Iterator[ModuleType]:
    """ComfyUI is ready to execute graphs while this lasts; its main module.

    Args:
        folder: its own.
        flags: of its command line. Where they say nothing else, the log tells warnings only, and temporary files and
            the data base of assets are this process's own: another ComfyUI may be running.

    Raises:
        RefusedError: it refused its flags or could not start; it has said why.
    """
    with tempfile.TemporaryDirectory(prefix="masked-lora-", ignore_cleanup_errors=True) as scratch:
        defaults = {
            "--temp-directory": scratch,
            # Only a page would be shown from there.
            "--front-end-root": scratch,
            "--database-url": "sqlite:///:memory:",
            "--verbose": "WARNING",
        }
        if (own := place()) is not None:
            # What the first one says, the others need not.
            defaults |= card_of(own, flags) | ({"--verbose": "ERROR"} if own.number else {})
        for name, value in defaults.items():
            if not _given(name, flags):
                flags = [*flags, name, value]
        sys.argv = [str(folder / "main.py"), *flags, _UP_TO_LISTENING]
        sys.path.insert(0, str(folder))
        spec = importlib.util.spec_from_file_location("__main__", folder / "main.py")
        assert spec is not None and spec.loader is not None
        main = importlib.util.module_from_spec(spec)
        _execute(main, spec.loader, folder)
        # ComfyUI's streams look at the last line of its log for every bar, and fail where there is none.
        sys.stderr.write(f"ComfyUI in {folder}\n")
        # The queue's thread lives in it.
        yield main


def card_of(own: Place, flags: list[str]) -> dict[str, str]:
    """The flag that gives a process a card of its own, of those that the environment leaves.

    Raises:
        RefusedError: one card is asked for by all of a machine, or there are fewer cards than processes.
    """
    if "--cpu" in flags or own.there == 1:
        return {}
    if _given("--cuda-device", flags):
        raise RefusedError(
            f"--cuda-device gives all {own.there} processes of this machine one card. Leave it out: each takes one of "
            "its own. CUDA_VISIBLE_DEVICES chooses which."
        )
    # ComfyUI's flag overwrites these.
    left = next((os.environ[name] for name in _CARDS if name in os.environ), None)
    cards = [one.strip() for one in left.split(",") if one.strip()] if left is not None else range(own.there)
    if own.local >= len(cards):
        raise RefusedError(
            f"This machine has {own.there} processes, and CUDA_VISIBLE_DEVICES leaves "
            f"{counted(len(cards), '[card|cards]')}. Start as many processes as there are cards."
        )
    return {"--cuda-device": str(cards[own.local])}


def _given(name: str, flags: list[str]) -> bool:
    return any(flag == name or flag.startswith(f"{name}=") for flag in flags)


def _execute(main: ModuleType, loader: Loader, folder: Path) -> None:
    try:
        loader.exec_module(main)
    except SystemExit as end:
        if end.code in (0, None) and "server" in sys.modules:
            return
        raise RefusedError(f"ComfyUI in {folder} did not start; it has said why.") from end
    except Exception as error:
        traceback.print_exc()
        raise RefusedError(
            f"ComfyUI in {folder} could not start ({type(error).__name__}: {error}). Use the Python that starts it, "
            "and try whether its page comes up."
        ) from error


def pack_package(pack: Path) -> str:
    """The package under which ComfyUI has loaded this pack; it loads the folder `pack` where it has none yet.

    Raises:
        RefusedError: that failed; ComfyUI's log says why.
    """
    from server import PromptServer

    import nodes

    if _TRAIN_NODE not in nodes.NODE_CLASS_MAPPINGS:
        server: Any = PromptServer.instance
        known = set(nodes.NODE_CLASS_MAPPINGS)
        server.loop.run_until_complete(nodes.load_custom_node(str(pack), known))
    found = nodes.NODE_CLASS_MAPPINGS.get(_TRAIN_NODE)
    if found is None:
        raise RefusedError("ComfyUI could not load the pack; the reason is above. Often a package is missing.")
    return found.__module__.rpartition(".nodes.")[0]
