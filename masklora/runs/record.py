"""What a LoRA file needs besides a checkpoint's weights, kept in the run's folder: names, scaling, metadata.

With it a checkpoint becomes a file without the model that it was trained on.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..adapters import Factors, to_comfyui
from ..documents import fits, read_document
from ..errors import RunError
from ..files import write_text_atomically
from ..settings import (
    AdapterSettings,
    ExportSettings,
    LossSettings,
    MaskTransform,
    OptimizerSettings,
    TrainSettings,
)
from .lora_file import LoraRecord, ModelLabels, cast_tensors, lora_metadata, write_lora
from .run import Run

NAME = "record.json"
_NO_RECORD = (
    "This run's layer names are missing or damaged, or were not kept by the version that trained it. Queue its graph "
    "again, which loads the run, then export."
)
_PARTS = {
    "model": ModelLabels,
    "adapter": AdapterSettings,
    "loss": LossSettings,
    "optimizer": OptimizerSettings,
    "train": TrainSettings,
}


def keep_record(folder: Path, record: LoraRecord, *, scalings: Mapping[str, float], kohya: Mapping[str, str]) -> None:
    """Keep what `export_checkpoint` needs.

    Args:
        folder: of the run.
        record: as far as it is known before the training ends.
        scalings: factor before B·A by module path.
        kohya: stems of kohya's names by module path, where they are others than ComfyUI's.

    Raises:
        RunError: the folder cannot be written.
    """
    document = {"record": dataclasses.asdict(record), "scalings": dict(scalings), "kohya": dict(kohya)}
    write_text_atomically(folder / NAME, json.dumps(document))


def has_record(folder: Path) -> bool:
    """Whether checkpoints of this run can be exported."""
    return (folder / NAME).is_file()


def kept_trigger(folder: Path) -> str:
    """The word that asks for the subject of this run; empty where there is none, or no record."""
    record = (read_document(folder / NAME, {"record": dict}) or {"record": {}})["record"]
    return record["trigger"] if fits(record.get("trigger"), str) else ""


def kept_size(folder: Path) -> tuple[int, int]:
    """(width, height) of the training pictures' budget in px; 512 each where there is no record."""
    record = (read_document(folder / NAME, {"record": dict}) or {"record": {}})["record"]
    found = record.get("resolution")
    whole = isinstance(found, list) and len(found) == 2 and all(fits(side, int) for side in found)
    return (found[0], found[1]) if whole else (512, 512)


@dataclass(frozen=True)
class KeptLora:
    """A run's checkpoint as a LoRA in ComfyUI's names.

    Attributes:
        folder: of the run.
        record: for the metadata of files.
        tensors: float32, by ComfyUI's keys.
    """

    folder: Path
    record: LoraRecord
    tensors: dict[str, Tensor]

    def named(self, path: Path, settings: ExportSettings) -> LoraRecord:
        """The record of a file at `path`, with what a person wants it to tell."""
        trigger = settings.trigger or self.record.trigger
        name = path.name.removesuffix(".safetensors")
        return dataclasses.replace(self.record, name=name, title=settings.title, trigger=trigger)


def export_checkpoint(folder: Path, step: int | None, path: Path, settings: ExportSettings) -> Path:
    """The path of a LoRA file in ComfyUI's names, written from a run's checkpoint.

    Args:
        folder: of the run; it may be in training.
        step: of the checkpoint; None for the newest.
        path: wanted place, see `export.write_lora`.
        settings: dtype, title, trigger.

    Raises:
        RunError: there is no such checkpoint, it is damaged, or it cannot be exported without its model.
    """
    return write_kept(kept_lora(folder, step), path, settings)


def write_kept(kept: KeptLora, path: Path, settings: ExportSettings) -> Path:
    """The path of the written file; see `export_checkpoint`."""
    ready = cast_tensors(kept.tensors, dtype=settings.dtype)
    metadata = lora_metadata(kept.named(path, settings), ready)
    return write_lora(path, ready, metadata=metadata, dtype=settings.dtype)


def kept_lora(folder: Path, step: int | None) -> KeptLora:
    """What a run's checkpoint holds, the newest for None.

    Raises:
        RunError: see `export_checkpoint`.
    """
    document = _read(folder)
    record = _record(document["record"])
    run = Run(folder=folder, fingerprint="")
    checkpoint = run.load_checkpoint(step)
    if checkpoint is None:
        raise RunError("This run has no checkpoint yet. Press Save now while it trains, then export.")
    summary = (run.read_result() or {}).get("summary") or {}
    record = dataclasses.replace(record, steps=checkpoint.step, summary=summary)
    tensors = to_comfyui(_factors(checkpoint.adapter, document["scalings"]), names=document["kohya"])
    return KeptLora(folder, record, tensors)


def _read(folder: Path) -> dict[str, Any]:
    document = read_document(folder / NAME, {"record": dict, "scalings": dict, "kohya": dict})
    if document is None or not all(fits(value, float) for value in document["scalings"].values()):
        raise RunError(_NO_RECORD)
    return document


def _record(values: dict[str, Any]) -> LoraRecord:
    try:
        parts = {name: kind(**_tuples(kind, values[name])) for name, kind in _PARTS.items()}
        masks = [MaskTransform(**one) for one in values["masks"]]
        return LoraRecord(**{**values, **parts, "masks": masks, "resolution": tuple(values["resolution"])})
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise RunError(_NO_RECORD) from error


def _tuples(kind: type, values: dict[str, Any]) -> dict[str, Any]:
    """JSON knows lists only; fields whose default is a tuple get one back."""
    made = {f.name for f in dataclasses.fields(kind) if isinstance(f.default, tuple)}  # type: ignore[arg-type]
    return {key: tuple(value) if key in made else value for key, value in values.items()}


def _factors(adapter: Mapping[str, Tensor], scalings: Mapping[str, float]) -> dict[str, Factors]:
    if any(name.endswith(".magnitude") for name in adapter):
        raise RunError(
            "The magnitudes of a DoRA can only be written together with the model. Queue the run's graph again, which "
            "loads the run, and use Export Masked LoRA."
        )
    out = {}
    for name, scaling in scalings.items():
        if f"{name}.lora_A" not in adapter or f"{name}.lora_B" not in adapter:
            raise RunError(_NO_RECORD)
        down = adapter[f"{name}.lora_A"]
        out[name] = Factors(down, adapter[f"{name}.lora_B"], scaling * down.shape[0])
    return out
