"""Models of transformers from local folders: checked files, named classes, no network, no remote code."""

from __future__ import annotations

import importlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import DataError, MaskLoraError
from ..findings import counted, worded

PACKAGE = "transformers"
SINCE = "4.56"


@dataclass(frozen=True)
class ModelKind:
    """A kind of model that is kept as a folder of files.

    Attributes:
        folder: Name of its folder in ComfyUI's models tree, and of the widget that chooses one.
        title: The model's name, for people.
        source: Where a person finds the files.
        types: What `model_type` of config.json may say.
        files: What a folder must hold; of each group one file is enough.
    """

    folder: str
    title: str
    source: str
    types: tuple[str, ...]
    files: tuple[tuple[str, ...], ...]

    def instructions(self, root: Path | str) -> str:
        """Which files go where, below the folder `root` of this kind."""
        listed = ", ".join(" or ".join(group) for group in self.files)
        place = Path(root) / "<a name of your choice>"
        return f"Download {self.source} yourself and put these files into {place}: {listed}."


def library_classes(*names: str, package: str = PACKAGE) -> tuple[Any, ...]:
    """The named classes of an installed package.

    Args:
        names: Public names of the classes.
        package: What to import.

    Raises:
        MaskLoraError: The package is missing, damaged or lacks a class; tells what to install.
    """
    install = f'Install it into the Python that runs ComfyUI: python -m pip install -U "{package}>={SINCE}"'
    try:
        module = importlib.import_module(package)
    except ImportError as error:
        raise MaskLoraError(f"Python package {package} {SINCE} or newer is needed ({error}). {install}") from error
    try:
        return tuple(getattr(module, name) for name in names)
    except (AttributeError, ImportError) as error:
        version = getattr(module, "__version__", "of unknown version")
        raise MaskLoraError(
            f"Python package {package} {SINCE} or newer is needed, installed is {version} ({error}). {install}"
        ) from error


def require_files(folder: Path, kind: ModelKind) -> Path:
    """`folder`, if it holds every file that `kind` needs and says that it is of that kind; weights stay unread.

    Raises:
        DataError: The folder or a file is missing, or it is another model; tells which files go where.
    """
    if not folder.is_dir():
        raise DataError(f"{kind.folder}: there is no folder {folder}. {kind.instructions(folder.parent)}")
    missing = [group for group in kind.files if not any((folder / name).is_file() for name in group)]
    if missing:
        named = ", ".join(" or ".join(group) for group in missing)
        raise DataError(
            f"{kind.folder}: {folder} lacks {named}. {kind.instructions(folder.parent)} Weights in other formats "
            "(.bin, .pt) are not read, because such files can run code."
        )
    declared = declared_type(folder, kind)
    if declared not in kind.types:
        raise DataError(
            f"{kind.folder}: {folder} holds a model of type {declared!r}, expected {' or '.join(kind.types)}. "
            f"{kind.instructions(folder.parent)}"
        )
    return folder


def load_model(
    model_class: Any, folder: Path, kind: ModelKind, *, device: torch.device | str, dtype: torch.dtype
) -> Any:
    """The model of a folder, in evaluation mode on `device`, its weights all from the folder's safetensors file.

    A weight that the file lacks would otherwise stay random, and only the log would tell.

    Args:
        model_class: A class of transformers.
        folder: Checked by `require_files`.
        kind: For messages.
        device: Where it runs.
        dtype: Of weights and computation.

    Raises:
        DataError: The files are damaged, or belong to another model or to another library's layout.
    """
    try:
        model, info = model_class.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            # A config may name a kernel to be fetched from a hub.
            attn_implementation="sdpa",
            output_loading_info=True,
        )
    except Exception as error:
        raise _unreadable(folder, kind, error) from error
    missing = sorted([*info["missing_keys"], *(str(key) for key in info["mismatched_keys"])])
    if missing:
        raise DataError(
            f"{kind.folder}: {folder}: {counted(len(missing), '[weight|weights]')} of {kind.title} "
            f"{worded(len(missing), '[is|are]')} missing or of another name or size, first of all {missing[0]}. The "
            f"folder holds another model, or the layout of another library. Use {kind.source}."
        )
    return model.to(device=device, dtype=dtype).eval()


def load_processor(processor_class: Any, folder: Path, kind: ModelKind) -> Any:
    """What turns pictures and text into a model's input and back, as the folder's files describe it.

    Raises:
        DataError: The files are damaged or do not fit.
    """
    try:
        return processor_class.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise _unreadable(folder, kind, error) from error


def image_inputs(rgb: np.ndarray) -> dict[str, Any]:
    """A picture as the arguments with which transformers takes it without guessing.

    Unasked it would take the rows of a picture of 1 or 3 rows for its colours, and it divides by 255 what is
    in 0..1 already.

    Args:
        rgb: uint8 (H, W, 3), 0..255.

    Raises:
        DataError: Another dtype or shape.
    """
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
        raise DataError(f"A picture is expected as uint8 (height, width, 3), got {rgb.dtype} {rgb.shape}.")
    return {"images": np.require(rgb, requirements="W"), "input_data_format": "channels_last"}


def declared_type(folder: Path, kind: ModelKind) -> Any:
    """What config.json says of the model's type, of whatever kind that is; None where it says nothing.

    Raises:
        DataError: The file cannot be read.
    """
    try:
        config: Any = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _unreadable(folder, kind, error) from error
    return config.get("model_type") if isinstance(config, dict) else None


def _unreadable(folder: Path, kind: ModelKind, error: Exception) -> DataError:
    told = (str(error) or type(error).__name__).splitlines()[0][:300]
    return DataError(
        f"{kind.folder}: {folder} cannot be loaded as {kind.title} ({type(error).__name__}: {told}). "
        f"{kind.instructions(folder.parent)}"
    )
