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
from ..errors import AdapterError, ConfigError, PathError, RunError
from ..runs.history import began, read_run, run_folders, runs_called
from ..runs.lora_file import LoraRecord, cast_tensors, lora_metadata, lora_model, write_lora
from ..runs.own_files import FileMark, Written, mark_of, write_once
from ..runs.record import KeptLora, kept_lora, write_kept
from ..runs.run import checkpoint_steps
from ..runs.told import keep_told, read_told
from ..settings import ExportSettings, check
from .outputs import lora_path, runs_folder, shown_path
from .training import TrainedLora

TRAIN, EXPORT, LOAD = "train", "export", "load"


class LoraTensors(dict[str, Tensor]):
    """ComfyUI's LORA_MODEL (a dict of tensors), with the training it came from for our own export node."""

    def __init__(self, trained: TrainedLora) -> None:
        """Carry `trained`."""
        super().__init__(lora_model(trained.tensors))
        self.trained = trained


class KeptTensors(dict[str, Tensor]):
    """Likewise of a run's checkpoint, without the model."""

    def __init__(self, kept: KeptLora) -> None:
        """Carry `kept`."""
        super().__init__(lora_model(kept.tensors))
        self.kept = kept


@dataclasses.dataclass
class Given:
    """What a kind of node gave out under a wanted path or of a run's folder, and how often one had to be made again."""

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
        AdapterError: diffusers cannot load a LoRA of this model or of these layers in that format.
    """
    check(settings)
    trained, kept = (getattr(lora, name, None) for name in ("trained", "kept"))
    if trained is None and settings.format != "comfyui":
        raise ConfigError("format: only a LoRA from Train Masked LoRA can be written as diffusers. Choose comfyui.")
    if kept is not None:
        written = write_kept(kept, path, settings)
    elif trained is None:
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


def load_run(chosen: str, step: int) -> KeptTensors:
    """The LoRA of a run's checkpoint.

    Args:
        chosen: the name of the run's folder, or of the run: then of those called so the one that was begun last.
        step: of a checkpoint; 0 for the newest.

    Raises:
        RunError: there is no such run or checkpoint, or it cannot be read without its model; names the widget.
    """
    folder = find_chosen(chosen)
    known = checkpoint_steps(folder)
    if step and step not in known:
        raise RunError(
            f"step: {folder.name} has no checkpoint of step {step}, but of "
            f"{', '.join(map(str, known)) or 'none'}. Choose one of these, or 0 for the newest."
        )
    return KeptTensors(kept_lora(folder, step or None))


def find_chosen(chosen: str) -> Path:
    """The folder of the run that `load_run` is to load.

    Raises:
        RunError: there is none.
    """
    root = runs_folder()
    folders = {folder.name: folder for folder in run_folders(root)}
    called = [folders[chosen]] if chosen in folders else runs_called(root, chosen) if chosen.strip() else []
    if not called:
        raise RunError(f"run: there is no run {chosen!r} in {shown_path(root)}. Choose one of the list.")
    return max(called, key=began)


def file_of(lora: KeptTensors) -> Written:
    """The checkpoint's file in `output/loras`: written where it is not there, and the run's own where that is it."""
    kept, run, names = lora.kept, read_run(lora.kept.folder), read_told(lora.kept.folder).names
    tail = "" if run.state == "finished" and kept.record.steps == run.step else f"-step{kept.record.steps:06d}"
    path, settings = lora_path((names[-1] if names else run.name) + tail), ExportSettings()
    ready = cast_tensors(kept.tensors, dtype=settings.dtype)
    written = write_once(kept.folder, path, ready, metadata=lambda: lora_metadata(kept.named(path, settings), ready))
    GIVEN[LOAD, kept.folder].add(written.mark)
    return written


def loaded_state(chosen: str) -> list[int]:
    """Changes with the checkpoints of a run, and when a file that was given out of it is gone or another's."""
    try:
        folder = find_chosen(chosen)
    except RunError:
        return []
    return [*checkpoint_steps(folder), GIVEN[LOAD, folder].state()]


def _ready(trained: TrainedLora, lora: dict[str, Tensor], settings: ExportSettings) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = dict(lora)
    if settings.format == "diffusers":
        names = trained.names
        if not names.diffusers:
            raise AdapterError(
                "format: diffusers has no loader that takes this model's LoRA in its own format. Choose comfyui; "
                "docs/families.md tells which models' LoRAs diffusers reads in which format."
            )
        tensors = to_diffusers(trained.factors, names=names.diffusers, prefix=names.diffusers_prefix)
    return cast_tensors(tensors, dtype=settings.dtype)


def _record(trained: TrainedLora, path: Path, settings: ExportSettings) -> LoraRecord:
    trigger = settings.trigger or trained.record.trigger
    name = path.name.removesuffix(".safetensors")
    return dataclasses.replace(trained.record, title=settings.title, trigger=trigger, name=name)


def apply_lora(model: Any, lora: dict[str, Tensor], *, strength: float = 1.0) -> Any:
    """A clone of MODEL `model` with the LoRA at a strength, as core's loaders would make it."""
    return comfy.sd.load_lora_for_models(model, None, dict(lora), strength, 0.0)[0]
