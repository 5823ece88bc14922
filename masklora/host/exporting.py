"""LoRA files from a finished training, and the socket object that carries it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import comfy.sd
from torch import Tensor

from ..adapters import to_diffusers
from ..config import DTYPES, EXPORT_FORMATS, ExportSettings, check_choice
from ..errors import ConfigError
from ..export import cast_tensors, lora_metadata, lora_model, write_lora
from ..files import write_text_atomically
from ..told import keep_told
from .outputs import shown_path
from .training import TrainedLora

_NOTE = "exported.json"


class LoraTensors(dict[str, Tensor]):
    """ComfyUI's LORA_MODEL (a dict of tensors), with the training it came from for our own export node."""

    def __init__(self, trained: TrainedLora) -> None:
        """Carry `trained`."""
        super().__init__(lora_model(trained.tensors))
        self.trained = trained


def export_lora(lora: dict[str, Tensor], path: Path, settings: ExportSettings) -> Path:
    """The path of the written file; see `export.write_lora`.

    Args:
        lora: From a LORA_MODEL socket; metadata and other formats need one of our own trainings.
        path: Wanted place.
        settings: Format, dtype, title, trigger.

    Raises:
        ConfigError: The format needs a LoRA trained by this pack, or a setting is unknown.
        AdapterError: The model's layers have no names in that format.
    """
    check_choice("format", settings.format, EXPORT_FORMATS)
    check_choice("dtype", settings.dtype, DTYPES)
    trained = getattr(lora, "trained", None)
    if trained is None:
        if settings.format != "comfyui":
            raise ConfigError("format: only a LoRA from Train Masked LoRA can be written as diffusers. Choose comfyui.")
        return write_lora(path, lora, metadata={}, dtype=settings.dtype)
    tensors: dict[str, Tensor] = dict(lora)
    if settings.format == "diffusers":
        tensors = to_diffusers(trained.factors, names=trained.names.diffusers, prefix="transformer")
    record = dataclasses.replace(
        trained.record,
        title=settings.title,
        trigger=settings.trigger or trained.record.trigger,
        name=path.name.removesuffix(".safetensors"),
    )
    ready = cast_tensors(tensors, dtype=settings.dtype)
    return write_lora(path, ready, metadata=lora_metadata(record, ready), dtype=settings.dtype)


def export_once(lora: LoraTensors, path: Path, settings: ExportSettings) -> Path:
    """The run's final file: written the first time, found again when the finished run is loaded."""
    result = lora.trained.result
    note = result.folder / _NOTE
    facts = {"steps": result.steps, **dataclasses.asdict(settings)}
    if note.exists():
        known: dict[str, Any] = json.loads(note.read_text(encoding="utf-8"))
        if {k: known.get(k) for k in facts} == facts and Path(known["path"]).is_file():
            return Path(known["path"])
    written = export_lora(lora, path, settings)
    write_text_atomically(note, json.dumps({**facts, "path": str(written)}))
    keep_told(result.folder, written=shown_path(written), taken=None if written == path else path.name)
    return written


def apply_lora(model: Any, lora: dict[str, Tensor]) -> Any:
    """A clone of MODEL `model` with the LoRA at strength 1, as core's loaders would make it."""
    return comfy.sd.load_lora_for_models(model, None, dict(lora), 1.0, 0.0)[0]
