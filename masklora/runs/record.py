"""What a LoRA file needs besides a checkpoint's weights, kept in the run's folder: names, scaling, metadata.

With it a checkpoint becomes a file without the model that it was trained on.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ..adapters import Learned, from_weights, to_comfyui
from ..adapters.text_encoders import NewWord, is_whole, kept_texts, kept_word
from ..documents import fits, read_document
from ..errors import RunError
from ..experts import EXPERTS, files_of, parted
from ..files import write_text_atomically
from ..loss.leak import MEASURES
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


def keep_record(
    folder: Path,
    record: LoraRecord,
    *,
    scalings: Mapping[str, float],
    kohya: Mapping[str, str],
    blocks: Sequence[str] = (),
    two: bool = False,
    texts: Mapping[str, Any] | None = None,
) -> None:
    """Keep what `kept_lora` needs.

    Args:
        folder: of the run.
        record: as far as it is known before the training ends.
        scalings: factor before B·A, or before another change, by module path.
        kohya: stems of kohya's names by module path, where they are others than ComfyUI's.
        blocks: paths of the model's blocks, in their order.
        two: whether it trains two models by turns, alike in all of this.
        texts: of text encoders that are trained too, see `about_texts`.

    Raises:
        RunError: the folder cannot be written.
    """
    document = {"record": dataclasses.asdict(record), "scalings": dict(scalings), "kohya": dict(kohya)}
    document |= {"blocks": list(blocks)}
    document |= {"two": True} if two else {}
    document |= {"texts": dict(texts)} if texts else {}
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
        factors: the same by module path.
        kohya: stems of kohya's names by module path, where they are others than ComfyUI's.
        blocks: paths of the model's blocks in their order; none of runs that did not keep them.
        low: that of the second model where two were trained by turns, the one for low noise.
        word: the new word that was learned beside it.
    """

    folder: Path
    record: LoraRecord
    tensors: dict[str, Tensor]
    factors: Mapping[str, Learned] = field(default_factory=dict)
    kohya: Mapping[str, str] = field(default_factory=dict)
    blocks: Sequence[str] = ()
    low: KeptLora | None = None
    word: NewWord | None = None

    def named(self, path: Path, settings: ExportSettings) -> LoraRecord:
        """The record of a file at `path`, with what a person wants it to tell."""
        trigger = settings.trigger or self.record.trigger
        name = path.name.removesuffix(".safetensors")
        return dataclasses.replace(self.record, name=name, title=settings.title, trigger=trigger)


def write_kept(kept: KeptLora, path: Path, settings: ExportSettings) -> list[Path]:
    """The paths of the written files of what `kept_lora` gave, in ComfyUI's names; of two models both.

    Args:
        kept: of a checkpoint.
        path: wanted place, see `lora_file.write_lora`.
        settings: dtype, title, trigger.
    """
    written = []
    for one, wanted in files_of(kept, path):
        ready = cast_tensors(one.tensors, dtype=settings.dtype)
        metadata = lora_metadata(one.named(wanted, settings), ready)
        written.append(write_lora(wanted, ready, metadata=metadata, dtype=settings.dtype))
    return written


def kept_lora(folder: Path, step: int | None) -> KeptLora:
    """What a run's checkpoint holds, the newest for None; the run may be in training.

    Raises:
        RunError: there is no such checkpoint, it is damaged, or it cannot be read without its model.
    """
    document = _read(folder)
    record = _record(document["record"])
    run = Run(folder=folder, fingerprint="")
    checkpoint = run.load_checkpoint(step)
    if checkpoint is None:
        raise RunError("This run has no checkpoint yet. Press Save now while it trains, then export.")
    summary = measured_at(run, checkpoint.step)
    record = dataclasses.replace(record, steps=checkpoint.step, summary=summary)
    names = EXPERTS if document.get("two") else ("",)
    made = []
    for expert in names:
        adapter = parted(checkpoint.adapter, expert) if expert else checkpoint.adapter
        learned, kohya = _learned(adapter, document["scalings"]), document["kohya"]
        told = record.of_expert(expert) if expert else record
        blocks = document.get("blocks") or ()
        made.append(KeptLora(folder, told, to_comfyui(learned, names=kohya), learned, kohya, blocks))
    if len(made) > 1:
        return dataclasses.replace(made[0], low=made[1])
    return _with_texts(made[0], checkpoint.adapter, document.get("texts") or {})


def _with_texts(kept: KeptLora, adapter: Mapping[str, Tensor], about: dict[str, Any]) -> KeptLora:
    try:
        tensors = kept.tensors | kept_texts(adapter, about)
    except KeyError as error:
        raise RunError(_NO_RECORD) from error
    return dataclasses.replace(kept, tensors=tensors, word=kept_word(adapter, about))


def measured_at(run: Run, step: int) -> dict[str, Any]:
    """The summary of a run that has ended, else nothing; of what was measured what belongs to the step."""
    summary = (run.read_result() or {}).get("summary") or {}
    rows = [row for row in run.read_metrics() if row["step"] == step and "leak" in row]
    kept = {name: value for name, value in summary.items() if name not in MEASURES}
    return {**kept, **{name: row[name] for row in rows for name in MEASURES if name in row}}


def _read(folder: Path) -> dict[str, Any]:
    kinds = {"record": dict, "scalings": dict, "kohya": dict}
    document = read_document(folder / NAME, kinds, optional={"two": bool, "texts": dict, "blocks": list})
    if document is None or not is_whole(document.get("texts") or {}):
        raise RunError(_NO_RECORD)
    if not all(fits(value, float) for value in document["scalings"].values()):
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


def _learned(adapter: Mapping[str, Tensor], scalings: Mapping[str, float]) -> dict[str, Learned]:
    if any(name.endswith(".magnitude") for name in adapter):
        raise RunError(
            "The magnitudes of a DoRA can only be written together with the model. Queue the run's graph again, which "
            "loads the run, and use Export Masked LoRA."
        )
    try:
        return from_weights(adapter, scalings)
    except KeyError as error:
        raise RunError(_NO_RECORD) from error
