"""LoRA files from a finished training, and the socket object that carries it."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import comfy.sd
from torch import Tensor

from ..adapters import to_diffusers
from ..adapters.text_encoders import NewWord, is_of_texts
from ..errors import AdapterError, ConfigError, PathError, RunError
from ..experts import files_of
from ..runs.history import began, read_run, run_folders, runs_called
from ..runs.lora_file import LoraRecord, cast_tensors, lora_metadata, lora_model, write_lora
from ..runs.own_files import FileMark, Written, mark_of, write_once
from ..runs.record import KeptLora, kept_lora, write_kept
from ..runs.run import checkpoint_steps
from ..runs.told import keep_told, read_told
from ..settings import ExportSettings, check
from .outputs import embeddings_folder, lora_path, runs_folder, shown_path
from .texts.trained import called
from .texts.word import tokenizer_with
from .training import TrainedLora

TRAIN, EXPORT, LOAD = "train", "export", "load"


class LoraTensors(dict[str, Tensor]):
    """ComfyUI's LORA_MODEL (a dict of tensors), with the training it came from for our own export node."""

    def __init__(self, trained: TrainedLora) -> None:
        """Carry `trained`; of two models the tensors are those for high noise, and `low` has the others."""
        super().__init__(lora_model(trained.tensors))
        self.trained = trained
        self.low = None if trained.low is None else LoraTensors(trained.low)


class KeptTensors(dict[str, Tensor]):
    """Likewise of a run's checkpoint, without the model."""

    def __init__(self, kept: KeptLora) -> None:
        """Carry `kept`."""
        super().__init__(lora_model(kept.tensors))
        self.kept = kept
        self.low = None if kept.low is None else KeptTensors(kept.low)


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


def export_lora(lora: dict[str, Tensor], path: Path, settings: ExportSettings) -> list[Path]:
    """The paths of the written files, see `export.write_lora`: one, or two of a LoRA of two models.

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
        written = [write_lora(path, lora, metadata={}, dtype=settings.dtype)]
    else:
        written = []
        for one, wanted in files_of(lora, path):
            ready = _ready(one.trained, one, settings)
            metadata = lora_metadata(_record(one.trained, wanted, settings), ready)
            written.append(write_lora(wanted, ready, metadata=metadata, dtype=settings.dtype))
    for file in written:
        GIVEN[EXPORT, path].add(mark_of(file))
    return written


def export_once(lora: LoraTensors, path: Path, settings: ExportSettings) -> list[Written]:
    """The run's final files, one or two: written where they are not there, found by their content where they are.

    Raises:
        RunError: The folder cannot be written, or the disk is full.
    """
    folder, written = lora.trained.result.folder, []
    for one, wanted in files_of(lora, path):
        ready = _ready(one.trained, one, settings)
        metadata = functools.partial(lora_metadata, _record(one.trained, wanted, settings), ready)
        written.append(write_once(folder, wanted, ready, metadata=metadata))
        GIVEN[TRAIN, path].add(written[-1].mark)
    # The file counts, not the note of it.
    with contextlib.suppress(RunError):
        note_files(folder, written)
    return written


def export_word(lora: LoraTensors | KeptTensors, given: tuple[str, Path]) -> Written | None:
    """The file of the new word that was learned, as ComfyUI reads embeddings; None where none was.

    It is written where it is not there, and found by its content where it is. What the LoRA's metadata call it is what
    the file is called.

    Args:
        lora: Of a training, or of a run's checkpoint.
        given: As what it is given out; see `GIVEN`.

    Raises:
        RunError: The folder cannot be written, or the disk is full.
    """
    holder: Any = lora.trained if isinstance(lora, LoraTensors) else lora.kept
    if holder.word is None:
        return None
    folder = holder.result.folder if isinstance(lora, LoraTensors) else holder.folder
    kind = f"{holder.record.model.architecture}/textual-inversion"
    about = {"modelspec.architecture": kind, "modelspec.title": holder.word.name}
    tail = "" if isinstance(lora, LoraTensors) else _tail(lora.kept)
    path = embeddings_folder() / f"{holder.word.name}{tail}.safetensors"
    written = write_once(folder, path, cast_tensors(holder.word.vectors, dtype="float32"), metadata=lambda: about)
    GIVEN[given].add(written.mark)
    named = called(holder.record, written.path.stem)
    if isinstance(lora, LoraTensors):
        lora.trained = dataclasses.replace(lora.trained, record=named)
    else:
        lora.kept = dataclasses.replace(lora.kept, record=named)
    return written


def note_files(folder: Path, written: Sequence[Written]) -> None:
    """Keep which files are the run's LoRA, for its list.

    Raises:
        RunError: The folder cannot be written.
    """
    shown = [shown_path(one.path) for one in written]
    taken = next((one.taken for one in written if one.taken), None)
    keep_told(folder, written=shown[0], written_low=shown[1] if len(shown) > 1 else "", taken=taken)


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


def loaded_files(lora: KeptTensors) -> list[Written]:
    """The checkpoint's files in `output/loras`: written where they are not there, and the run's own where it has them.

    One, or two of a run of two models.
    """
    kept, run, names = lora.kept, read_run(lora.kept.folder), read_told(lora.kept.folder).names
    path, settings = lora_path((names[-1] if names else run.name) + _tail(kept)), ExportSettings()
    written = []
    for one, wanted in files_of(kept, path):
        ready = cast_tensors(one.tensors, dtype=settings.dtype)
        metadata = functools.partial(lora_metadata, one.named(wanted, settings), ready)
        written.append(write_once(one.folder, wanted, ready, metadata=metadata))
        GIVEN[LOAD, kept.folder].add(written[-1].mark)
    return written


def _tail(kept: KeptLora) -> str:
    """What is put behind the name of a file of a checkpoint; nothing where the run ended with it."""
    run = read_run(kept.folder)
    return "" if run.state == "finished" and kept.record.steps == run.step else f"-step{kept.record.steps:06d}"


def loaded_state(chosen: str) -> list[int]:
    """Changes with the checkpoints of a run, and when a file that was given out of it is gone or another's."""
    try:
        folder = find_chosen(chosen)
    except RunError:
        return []
    return [*checkpoint_steps(folder), GIVEN[LOAD, folder].state()]


def _ready(trained: TrainedLora, lora: dict[str, Tensor], settings: ExportSettings) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = dict(lora)
    if settings.format == "diffusers" and any(map(is_of_texts, lora)):
        raise AdapterError("format: the LoRA of text encoders is written in ComfyUI's own format only. Choose comfyui.")
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
    own = {key: value for key, value in lora.items() if not is_of_texts(key)}
    return comfy.sd.load_lora_for_models(model, None, own, strength, 0.0)[0]


def apply_texts(clip: Any, lora: dict[str, Tensor], word: NewWord | None, *, strength: float = 1.0) -> Any:
    """A clone of CLIP `clip` with what of a LoRA is for text encoders at a strength, and with the new word.

    Raises:
        AdapterError: It is another model's text encoder.
    """
    own = {key: value for key, value in lora.items() if is_of_texts(key)}
    made = comfy.sd.load_lora_for_models(None, clip, own, 0.0, strength)[1]
    before = clip.patcher.patches
    if own and all(len(patches) == len(before.get(key, ())) for key, patches in made.patcher.patches.items()):
        raise AdapterError(
            "clip: it has none of the layers that this LoRA is for. Connect the text encoder that it was trained with."
        )
    if word is not None:
        vectors = word.vectors
        made.tokenizer = tokenizer_with(made.tokenizer, word.name, lambda: vectors)
    return made


def apply_all(clip: Any, lora: LoraTensors | KeptTensors) -> Any:
    """`apply_texts` of what a training, or a run's checkpoint, has of them; None where it has nothing, or no CLIP."""
    word = lora.trained.word if isinstance(lora, LoraTensors) else lora.kept.word
    if clip is None or (word is None and not any(map(is_of_texts, lora))):
        return None
    return apply_texts(clip, lora, word)
