"""Folders of models that transformers reads, in ComfyUI's models tree, and the device they run on."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import comfy.model_management
import folder_paths
import torch

from ...errors import ConfigError
from ...generators.local_models import ModelKind

# Activations and a mask of the picture's size, beside the weights.
WORKING_BYTES = 2 << 30


def model_folders(kind: ModelKind) -> dict[str, Path]:
    """The folders of a kind by name, from `models/<kind>` and what extra_model_paths.yaml adds to it; sorted.

    A folder may be incomplete: the error of its use tells what is missing.
    """
    found: dict[str, Path] = {}
    for root in _roots(kind):
        for path in _children(root):
            if path.is_dir() and not path.name.startswith("."):
                found.setdefault(path.name, path)
    return dict(sorted(found.items(), key=lambda item: item[0].casefold()))


def find_model_folder(kind: ModelKind, name: str) -> Path:
    """The folder of that name; a name is only ever looked up, so that no text of a workflow becomes a path.

    Raises:
        ConfigError: There is none; tells which files go where.
    """
    found = model_folders(kind)
    if name not in found:
        there = f"There are: {', '.join(found)}." if found else "There is none yet."
        raise ConfigError(
            f"{kind.folder}: there is no {kind.title} model {name!r}. {there} {kind.instructions(_roots(kind)[0])}"
        )
    return found[name]


def prepare_device(folders: Iterable[Path]) -> torch.device:
    """ComfyUI's compute device, with room made on it for the weights of `folders`."""
    device: torch.device = comfy.model_management.get_torch_device()
    if device.type != "cpu":
        stored = sum(path.stat().st_size for folder in folders for path in folder.glob("*.safetensors"))
        # Files of half precision double in float32.
        comfy.model_management.free_memory(2 * stored + WORKING_BYTES, device)
    return device


def return_memory() -> None:
    """Give the memory of models that were let go of back to the device."""
    comfy.model_management.soft_empty_cache()


def _roots(kind: ModelKind) -> list[Path]:
    # Without effect where it is known already.
    folder_paths.add_model_folder_path(kind.folder, str(Path(folder_paths.models_dir) / kind.folder))
    return [Path(root) for root in folder_paths.get_folder_paths(kind.folder)]


def _children(root: Path) -> list[Path]:
    # The list of nodes must not fail because of a folder.
    try:
        return sorted(root.iterdir())
    except OSError:
        return []
