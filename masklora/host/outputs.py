"""Where the pack writes: runs in the user folder, LoRA files under `output/loras`."""

from __future__ import annotations

from pathlib import Path

import folder_paths

from ..errors import PathError
from .paths import own_folder


def runs_folder() -> Path:
    """Folder of all runs: settings, metrics and checkpoints."""
    return own_folder() / "runs"


def lora_path(name: str) -> Path:
    """The file for a LoRA called `name`, which may hold folders.

    Raises:
        PathError: The name is empty or leads out of `output/loras`.
    """
    folder = (Path(folder_paths.get_output_directory()) / "loras").resolve()
    plain = name.strip().removesuffix(".safetensors").replace("\\", "/")
    # Decided on the text: resolving a Windows share would already ask another machine.
    leads_away = not plain or plain.startswith("/") or plain.endswith("/") or ":" in plain or "\0" in plain
    target = folder if leads_away else (folder / f"{plain}.safetensors").resolve()
    if leads_away or not target.is_relative_to(folder):
        raise PathError(f"name: {name!r} does not lie inside output/loras. Use a plain file name such as my-lora.")
    return target
