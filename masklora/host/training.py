"""From what a train node is given to a finished LoRA: the one place where host, trainer and files meet."""

from __future__ import annotations

import dataclasses
import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from ..adapters import Factors, from_file, to_comfyui
from ..autograd.compiled import Compiler
from ..cache.cache import Cache
from ..cache.keys import digest
from ..errors import AdapterError
from ..files import clear_leftovers
from ..findings import Finding, counted, note, warning
from ..loss.noise import Schedule
from ..runs.checks import Room, check_takes_files, room_notes, trigger_notes, warmup_notes
from ..runs.identity import lasting
from ..runs.lora_file import LoraRecord, ModelLabels, free_name, tag_frequency
from ..runs.record import keep_record
from ..runs.run import Run, fingerprint
from ..runs.sample_pictures import SampleFolder
from ..runs.told import failure_told, keep_told, read_told
from ..settings import EXISTING_RUNS, OFFLOADED, MaskTransform
from ..showings.sources import Source, keep_sources
from ..training.earlier import difference_note, find_source, go_on_from, length_bound, source_notes
from ..training.job import Hooks, TrainJob, TrainResult
from ..training.mask_check import weightless
from ..training.trainer import planned_steps, train
from .estimating import judged, training_of
from .families import Resolved, families
from .memory.plan import MemoryPlan, Training, plan_memory
from .memory.remedies import remedies_for
from .model.adapted import AdaptedModel
from .model.encoders import patcher_identity
from .model.fitting import batch_notes
from .model.layer_names import LayerNames, layer_names
from .model.trainable import TrainableModel
from .notes import cache_notes, model_notes
from .resolving import Request, goal_notes, resolve
from .sampling import PictureSampler
from .swap.block_swap import BlockSwap
from .swap.choosing import choose_swap
from .swap.copies import copies_aside

# Part of every run's identity: raise it when equal settings would no longer give equal results.
FORMAT = 2
_OTHER_PICTURES = (
    "samples: this run is finished. It has no sample pictures, or they were drawn with other prompts or settings and "
    "stay as they are. Set if_a_run_exists to start anew to draw these, or sample with model_with_lora."
)
_NOT_PINNED = (
    "swap_blocks: the system has not enough main memory that it can keep in place, so blocks are brought while nothing "
    "is computed, which is slower. Swap fewer blocks, or close other programs."
)
_COMPILES = (
    "compile: the first step of each size of picture takes minutes longer than the others, because the model's blocks "
    "are compiled for it."
)


@dataclass(frozen=True)
class TrainedLora:
    """What came out.

    Attributes:
        factors: The adapters by module path.
        tensors: The same under ComfyUI's key names, float32, as the LORA_MODEL socket carries them.
        names: Names of the layers for other formats.
        record: For the metadata of files.
        result: Of the run.
        plan: The memory plan.
    """

    factors: dict[str, Factors]
    tensors: dict[str, Tensor]
    names: LayerNames
    record: LoraRecord
    result: TrainResult
    plan: MemoryPlan


def train_lora(request: Request, *, runs: Path, hooks: Hooks, report: Callable[[Finding], None]) -> TrainedLora:
    """The LoRA that `request` describes: trained, resumed, or loaded if the same request was finished before.

    Args:
        request: See `Request`.
        runs: Folder of the runs.
        hooks: For progress, cancel and stop.
        report: Receives what a person should know before the first step; the list of runs shows it too.

    Raises:
        FamilyError: The model cannot be trained, or the cache's VAE or CLIP does not fit it.
        ConfigError: A setting is out of range.
        AdapterError: No layer matches, or `start_from` belongs to another model.
        RunError: The run folder cannot be used, there is no room; NonFiniteLossError if the loss is no number.
    """
    started = time.time()
    trainable, settings = resolve(request)
    adapters = trainable.make_adapters(settings.adapter, seed=settings.train.seed)
    names = layer_names(trainable.model, trainable.family)
    if request.start_from is not None:
        adapters.load(read_lora(request.start_from, names=names))
    training = training_of(trainable, adapters, settings, request.cache)
    plan = plan_memory(training)
    plan, swapped = _swapped(trainable, settings, plan)
    sampler = request.samples and PictureSampler(trainable, adapters, request.samples, hooks=hooks, plan=plan)
    job = TrainJob(
        AdaptedModel(trainable, adapters),
        request.cache,
        loss=settings.loss,
        optim=settings.optimizer,
        train=settings.train,
        sampler=sampler,
    )
    notes = _notes(trainable, settings, request, job)
    batch = settings.train.batch_size
    notes += map(note, batch_notes(trainable, request.cache, batch_size=batch, targets=adapters.targets))
    notes += weightless(request.cache, settings.loss, grid_of=job.model.grid_of, check_cancel=hooks.check_cancel)
    record = _record(trainable, settings, request, started=started)
    if request.destination is not None:
        # Also of a run that is finished: it may have ended between its file and the temporary one beside it.
        clear_leftovers(request.destination.parent)
    with _opened(request, settings, trainable, runs) as run, failure_told(run.folder):
        keep_sources(run.folder, _sources(request.cache))
        keep_record(run.folder, record, scalings={n: adapters.scaling(n) for n in adapters.targets}, kohya=names.kohya)
        steps = run.checkpoints()
        if not steps or not run.finished_at(steps[-1]):
            notes += _before_training(request, settings, run, job)
            _tell(run.folder, settings.train.name, notes, report)
            for finding in (*map(note, [*swapped, *_offloading(trainable, settings)]), *_fit(training, plan)):
                report(finding)
            request.cache.ensure(hooks.check_cancel)
            trainable.load(activation_bytes=plan.activations + plan.trained)
        else:
            trainable.swap = BlockSwap()
            _tell(run.folder, settings.train.name, notes, report)
        compiler = Compiler(tell=hooks.on_message) if settings.train.compile else None
        trainable.inputs.tell = hooks.on_message
        with trainable.session(adapters, checkpointing=settings.train.checkpointing, compiler=compiler):
            if trainable.swap.refused:
                hooks.on_message(_NOT_PINNED)
            result = train(job, run=run, hooks=hooks)
    while request.cache.mended:
        hooks.on_message(request.cache.mended.pop())
    if result.loaded and request.samples and not SampleFolder(result.folder).shows(request.samples.settings):
        hooks.on_message(_OTHER_PICTURES)
    factors = adapters.factors(result.adapter)
    return TrainedLora(
        factors=factors,
        tensors=to_comfyui(factors, names=names.kohya),
        names=names,
        record=dataclasses.replace(record, steps=result.steps, summary=result.summary, finished=time.time()),
        result=result,
        plan=plan,
    )


def _opened(request: Request, settings: Resolved, trainable: TrainableModel, runs: Path) -> Run:
    identity = _identity(request, settings, trainable)
    anew = settings.train.if_a_run_exists == EXISTING_RUNS[1]
    return Run.open(runs, settings.train.name, fingerprint(identity), settings=identity, anew=anew)


def _sources(cache: Cache) -> list[Source]:
    """Where each entry's picture came from, as far as that is known."""
    kept = [(entry, cache.samples[entry.index]) for entry in cache.entries] if cache.samples else []
    return [Source(e.name, s.name, s.key, str(s.image_path) if s.image_path else "") for e, s in kept]


def _notes(trainable: TrainableModel, settings: Resolved, request: Request, job: TrainJob) -> list[Finding]:
    """What a person should know before the first step, and later of the run."""
    triggers = [s["settings"]["caption"]["trigger"] for s in request.cache.sources if not s["regularisation"]]
    return [
        # What was left out of the pictures comes with the cache.
        *request.cache.findings,
        *map(note, goal_notes(request, settings)),
        *map(note, model_notes(trainable)),
        *map(note, trainable.family.notes_for(trainable.network)),
        *_unknown_notes(trainable, job),
        *map(note, _guidance_notes(trainable, request.cache)),
        *map(note, cache_notes(settings.loss, request.cache)),
        *trigger_notes(request.cache.entries, triggers),
        *warmup_notes(settings.optimizer, planned_steps(job)),
        *([note(_COMPILES)] if settings.train.compile else []),
    ]


def _unknown_notes(trainable: TrainableModel, job: TrainJob) -> list[Finding]:
    family = trainable.family
    if family in families():
        return []
    layers = counted(sum(name.endswith("lora_A") for name in job.model.params), "[layer|layers]")
    return [
        warning(
            f"model: this pack does not know {family.title}. It trains {layers} of its repeated blocks, with defaults "
            "that no one has tried for it; look at the first sample pictures before you trust it."
        )
    ]


def _guidance_notes(trainable: TrainableModel, cache: Cache) -> list[str]:
    given, usual = trainable.guidance, trainable.family.defaults.guidance
    if given == usual or not trainable.reads_guidance(cache.empty_text()):
        return []
    title = trainable.family.title
    return [f"guidance: trained with {given:g}; usual for {title} is {usual:g}, which -1 stands for."]


def _before_training(request: Request, settings: Resolved, run: Run, job: TrainJob) -> list[Finding]:
    """What must be known of the places that are written to, and of runs that are there, before the first step."""
    found = []
    lora = request.destination or run.folder / "lora.safetensors"
    if request.destination is not None:
        check_takes_files(request.destination)
        if os.path.lexists(request.destination):
            name, free = request.destination.name, free_name(request.destination).name
            found.append(warning(f"name: {name} is there already and stays. This LoRA will be written as {free}."))
    found += room_notes(_room(job, settings), lora=lora, run=run.folder / "x")
    if settings.train.if_a_run_exists == EXISTING_RUNS[0] and not run.checkpoints():
        found += _go_on(settings, run, planned_steps(job))
    return found


def _go_on(settings: Resolved, run: Run, total: int) -> list[Finding]:
    """Go on from a run that differs in its length only, or say which run of this name differs in what."""
    root, bound = run.folder.parent, length_bound(settings.loss, settings.optimizer)
    source = find_source(root, run.identity, total=total, exact=not bound)
    checkpoint = source and go_on_from(run, source)
    if source and checkpoint:
        told = source_notes(source, checkpoint, total=total, bound=bound, optim=settings.optimizer)
        keep_told(run.folder, origin=tuple(told))
        return []
    return difference_note(root, settings.train.name, run.identity, but=run.folder)


def _room(job: TrainJob, settings: Resolved) -> Room:
    numbers = sum(p.numel() for p in job.model.params.values())
    # 16 bits in the file; 32 in a checkpoint, with the optimizer's two moments, and the average where there is one.
    parts = 2 + (settings.optimizer.optimizer != "lion") + (settings.optimizer.ema_decay > 0)
    every = settings.train.keep_every
    lasting = planned_steps(job) // every if every else 0
    return Room(2 * numbers, 4 * numbers * parts, kept=settings.train.keep_last, lasting=4 * numbers * lasting)


def _tell(folder: Path, name: str, notes: list[Finding], report: Callable[[Finding], None]) -> None:
    before = read_told(folder)
    for finding in (*before.origin, *notes):
        report(finding)
    names = [one for one in before.names if one != name]
    keep_told(folder, notes=tuple(notes), failed="", names=(*names, name))


def read_lora(path: Path, *, names: LayerNames) -> dict[str, Factors]:
    """The factors in a LoRA file.

    Raises:
        AdapterError: The file is unreadable or made for another model.
    """
    try:
        tensors = safetensors.torch.load_file(path)
    except (OSError, SafetensorError) as error:
        raise AdapterError(
            f"start_from: {path.name} cannot be read as safetensors ({error}). Choose another LoRA file."
        ) from error
    return from_file(tensors, aliases=names.aliases, file=path.name)


def _swapped(trainable: TrainableModel, settings: Resolved, plan: MemoryPlan) -> tuple[MemoryPlan, list[str]]:
    """Let the model's blocks wait in main memory as the settings say: the plan with them, and a line about them."""
    asked = settings.train.swap_blocks
    if not asked:
        return plan, []
    trainable.swap, saved, line = choose_swap(
        trainable.network, trainable.blocks, asked, device=trainable.device, needed=plan.total
    )
    return dataclasses.replace(plan, weights=plan.weights - saved), [line]


def _offloading(trainable: TrainableModel, settings: Resolved) -> list[str]:
    """A line where the inputs of blocks shall wait in main memory and cannot."""
    if settings.train.checkpointing != OFFLOADED or copies_aside(trainable.device):
        return []
    return [f"checkpointing: a training on the {trainable.device.type} computes in main memory; no inputs are moved."]


def _fit(training: Training, plan: MemoryPlan) -> list[Finding]:
    """What is told of the memory before the first step; an error where the card has too little."""
    remedies = remedies_for(training, plan) if plan.too_large or plan.close else []
    return judged(plan, remedies, over_memory=training.settings.train.over_memory)


def _identity(request: Request, settings: Resolved, trainable: TrainableModel) -> dict[str, Any]:
    start = request.start_from
    return {
        "format": FORMAT,
        "family": trainable.family.name,
        "model": patcher_identity(trainable.patcher),
        "dtype": str(trainable.dtype),
        "sampling": _sampling_identity(trainable.schedule),
        "cache": request.cache.fingerprint,
        "loss": lasting(settings.loss),
        "adapter": lasting(settings.adapter),
        "optimizer": lasting(settings.optimizer),
        "train": lasting(settings.train),
        "names": _split_names(request.cache) if settings.train.validate_every > 0 else None,
        "start_from": [start.name, start.stat().st_size, start.stat().st_mtime_ns] if start else None,
    }


def _split_names(cache: Cache) -> list[Any]:
    """What decides which entries are held out: names, and where pictures are shared, which entries share one."""
    counts = Counter(e.picture for e in cache.entries)
    return [[e.name, e.picture] if counts[e.picture] > 1 else e.name for e in cache.entries]


def _sampling_identity(schedule: Schedule) -> list[Any]:
    """What a ModelSampling node may change, which `patcher_identity` knows by name only."""
    table = schedule.alphas_cumprod
    return [schedule.prediction, schedule.shift, None if table is None else digest("table", table.tolist())]


def _record(trainable: TrainableModel, settings: Resolved, request: Request, *, started: float) -> LoraRecord:
    cache, family = request.cache, trainable.family
    side = cache.settings.resolution
    triggers = [s["settings"]["caption"]["trigger"] for s in cache.sources if not s["regularisation"]]
    captions = [(e.name.rpartition("/")[0] or "pictures", c.text) for e in cache.entries for c in e.captions[:1]]
    return LoraRecord(
        name=settings.train.name,
        model=ModelLabels(
            base_version=family.base_model_version,
            architecture=family.architecture,
            prediction=trainable.schedule.prediction,
        ),
        rank=settings.adapter.rank,
        alpha=settings.adapter.alpha,
        steps=0,
        learning_rate=settings.optimizer.learning_rate,
        resolution=(side, side),
        trigger=next((t for t in triggers if t), ""),
        adapter=settings.adapter,
        loss=settings.loss,
        optimizer=settings.optimizer,
        train=settings.train,
        masks=[MaskTransform(**s["mask_transforms"]) for s in cache.sources],
        datasets=cache.sources,
        tag_frequency=tag_frequency(captions),
        extra={"cache": dataclasses.asdict(cache.settings)},
        started=started,
    )
