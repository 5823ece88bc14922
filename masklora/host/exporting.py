"""LoRA files from a finished training, and the socket object that carries it."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections import defaultdict
from pathlib import Path
from typing import Any

import comfy.sd
from torch import Tensor

from ..adapters import to_diffusers
from ..errors import ConfigError, PathError, RunError
from ..runs.lora_file import LoraRecord, cast_tensors, lora_metadata, lora_model, write_lora
from ..runs.own_files import FileMark, Written, mark_of, write_once
from ..runs.told import keep_told
from ..settings import ExportSettings, check
from .outputs import lora_path, shown_path
from .training import TrainedLora

TRAIN, EXPORT = "train", "export"


class LoraTensors(dict[str, Tensor]):
    """ComfyUI's LORA_MODEL (a dict of tensors), with the training it came from for our own export node."""

    def __init__(self, trained: TrainedLora) -> None:
        """Carry `trained`."""
        super().__init__(lora_model(trained.tensors))
        self.trained = trained


@dataclasses.dataclass
class Given:
    """What a kind of node gave out under a wanted path: the files, and how often one had to be made again."""

    marks: dict[str, FileMark] = dataclasses.field(default_factory=dict)
    repairs: int = 0

    def add(self, mark: FileMark) -> None:
        """A file was given out, after those that are gone were missed."""
        there = {path: one for path, one in self.marks.items() if one.is_there()}
        self.repairs += len(self.marks) - len(there)
        self.marks = there | {mark.path: mark}

    def state(self) -> int:
        """Changes with every file that is gone or another's; making it again changes nothing more."""
        return self.repairs + sum(not mark.is_there() for mark in self.marks.values())


# ComfyUI remembers what its nodes gave out for as long as this process lives, and so does this.
GIVEN: defaultdict[tuple[str, Path], Given] = defaultdict(Given)


def given_state(node: str, name: str) -> int:
    """Changes when a file that a node of this kind gave out for `name` is gone or another's: it must run again."""
    try:
        return GIVEN[node, lora_path(name)].state()
    except PathError:
        # The run says what is wrong with the name.
        return 0


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
    check(settings)
    trained = getattr(lora, "trained", None)
    if trained is None:
        if settings.format != "comfyui":
            raise ConfigError("format: only a LoRA from Train Masked LoRA can be written as diffusers. Choose comfyui.")
        written = write_lora(path, lora, metadata={}, dtype=settings.dtype)
    else:
        ready = _ready(trained, lora, settings)
        metadata = lora_metadata(_record(trained, path, settings), ready)
        written = write_lora(path, ready, metadata=metadata, dtype=settings.dtype)
    GIVEN[EXPORT, path].add(mark_of(written))
    return written


def export_once(lora: LoraTensors, path: Path, settings: ExportSettings) -> Written:
    """The run's final file: written where it is not there, found by its content where it is.

    Raises:
        RunError: The folder cannot be written, or the disk is full.
    """
    trained = lora.trained
    folder = trained.result.folder
    ready = _ready(trained, lora, settings)
    metadata = functools.partial(lora_metadata, _record(trained, path, settings), ready)
    written = write_once(folder, path, ready, metadata=metadata)
    GIVEN[TRAIN, path].add(written.mark)
    # The file counts, not the note of it.
    with contextlib.suppress(RunError):
        keep_told(folder, written=shown_path(written.path), taken=written.taken)
    return written


def _ready(trained: TrainedLora, lora: dict[str, Tensor], settings: ExportSettings) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = dict(lora)
    if settings.format == "diffusers":
        tensors = to_diffusers(trained.factors, names=trained.names.diffusers, prefix="transformer")
    return cast_tensors(tensors, dtype=settings.dtype)


def _record(trained: TrainedLora, path: Path, settings: ExportSettings) -> LoraRecord:
    trigger = settings.trigger or trained.record.trigger
    name = path.name.removesuffix(".safetensors")
    return dataclasses.replace(trained.record, title=settings.title, trigger=trigger, name=name)


def apply_lora(model: Any, lora: dict[str, Tensor]) -> Any:
    """A clone of MODEL `model` with the LoRA at strength 1, as core's loaders would make it."""
    return comfy.sd.load_lora_for_models(model, None, dict(lora), 1.0, 0.0)[0]
