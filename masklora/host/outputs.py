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
    target = (folder / f"{plain}.safetensors").resolve()
    if not plain or plain.endswith("/") or not target.is_relative_to(folder):
        raise PathError(f"name: {name!r} does not lie inside output/loras. Use a plain file name such as my-lora.")
    return target
