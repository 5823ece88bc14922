"""From what a train node is given to a finished LoRA: the one place where host, trainer and files meet."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from ..adapters import Change, Learned, from_file, to_comfyui
from ..adapters.text_encoders import ENCODER_PREFIX, NewWord, kept_texts, kept_word
from ..cache.cache import Cache
from ..cache.keys import digest
from ..errors import AdapterError, RunError
from ..experts import EXPERTS, file_of, parted, steps_of
from ..files import clear_leftovers
from ..findings import Finding, counted, note, warning
from ..loss.noise import Schedule
from ..peers import LostPeerError, here
from ..runs.checks import Room, check_takes_files, room_notes, trigger_notes, warmup_notes
from ..runs.identity import lasting
from ..runs.lora_file import LoraRecord, ModelLabels, free_name, tag_frequency
from ..runs.record import keep_record
from ..runs.run import Run, fingerprint
from ..runs.sample_pictures import SampleFolder
from ..runs.told import failure_told, keep_told, read_told
from ..settings import EXISTING_RUNS, OFFLOADED, OTHER_ALGORITHMS, MaskTransform
from ..showings.sources import Source, keep_sources
from ..training.earlier import difference_note, find_source, go_on_from, length_bound, source_notes
from ..training.job import Hooks, TrainJob, TrainResult
from ..training.mask_check import weightless
from ..training.trainer import planned_steps, train
from .continuing import continuing
from .estimating import judged, training_of, with_texts_counted
from .experts import Models, models_of, starts_of
from .families import Resolved, families
from .likeness.measuring import likeness_notes, likeness_of
from .memory.plan import MemoryPlan, Training, optimizer_bytes, plan_memory
from .memory.remedies import remedies_for
from .model.blocks import counted_paths
from .model.encoders import patcher_identity
from .model.first_frame import first_frame_notes, read_from, settle_first_frame
from .model.fitting import batch_notes
from .model.layer_names import LayerNames, layer_names
from .model.trainable import TrainableModel
from .notes import cache_notes, model_notes, models_notes, opening_notes
from .references.checks import reference_notes
from .references.conditions import is_inpainting
from .references.filling import filling
from .references.inpainting import inpainting_notes
from .resolving import Request, goal_notes, resolve, triggers_of
from .sampling import Beginning, PictureSampler
from .swap.block_swap import BlockSwap
from .swap.choosing import choose_swap
from .swap.copies import copies_aside
from .texts.trained import with_texts

# Part of every run's identity: raise it when equal settings no longer ask for the same, so that runs of before must
# not be gone on with. That other noise is drawn is no reason.
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
        blocks: Paths of the model's blocks in their order.
        low: The LoRA of the second model where two were trained, the one for low noise; this is the other's then.
        word: The new word that was learned beside it.
    """

    factors: dict[str, Learned]
    tensors: dict[str, Tensor]
    names: LayerNames
    record: LoraRecord
    result: TrainResult
    plan: MemoryPlan
    blocks: Sequence[str] = ()
    low: TrainedLora | None = None
    word: NewWord | None = None


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
    models, settings = models_of(request, trainable, settings)
    adapters = models.adapters[0]
    names = layer_names(trainable.model, trainable.family)
    blocks = counted_paths(trainable.network, trainable.blocks)
    for number, file in enumerate(starts_of(request.start_from, models)):
        _begin_with(file, models, number, names)
    first_frame = settle_first_frame(trainable, request.cache, settings.loss)
    training = training_of(trainable, adapters, settings, request.cache, models=len(models), begins=bool(first_frame))
    training = with_texts_counted(training, request.texts)
    plan, swapped = _swapped(models, settings, plan_memory(training))
    begun, notes = _begun(trainable, first_frame, request)
    watched = likeness_of(request.samples, request.cache, triggers_of(request.cache), hooks)
    drawn = functools.partial(PictureSampler, models, hooks=hooks, plan=plan, beginning=begun, likeness=watched)
    texts = models.texts
    job = TrainJob(
        models.adapted[0],
        request.cache,
        loss=settings.loss,
        optim=settings.optimizer,
        train=settings.train,
        sampler=request.samples and drawn(request.samples),
        first_frames=read_from(first_frame),
        pair=models.pair(),
        parts=texts.parts(settings.plain_rate) if texts else (),
    )
    notes += [note(texts.told())] if texts else []
    notes += [*_notes(trainable, settings, request, job), *map(note, models_notes(models, job, request.train))]
    notes += map(note, opening_notes(models, job))
    notes += map(note, batch_notes(trainable, request.cache, batch_size=job.train.batch_size, targets=adapters.targets))
    notes += _learned_notes(trainable, request, job, first_frame, hooks)
    record = _record(trainable, settings, request, started=started)
    record = record if texts is None else with_texts(record, texts, job.parts)
    if request.destination is not None and job.peers.first:
        # Also of a run that is finished: it may have ended between its file and the temporary one beside it.
        clear_leftovers(request.destination.parent)
    with _opened(request, settings, models, runs, first_frame) as run, failure_told(run.folder):
        keep_sources(run.folder, _sources(request.cache))
        scalings = {n: adapters.scaling(n) for n in adapters.targets}
        kept = {"kohya": names.kohya, "blocks": blocks, "two": len(models) > 1}
        keep_record(run.folder, record, scalings=scalings, texts={} if texts is None else texts.kept(), **kept)
        steps = run.checkpoints()
        if not steps or not run.finished_at(steps[-1]):
            notes += _before_training(request, settings, run, job)
            _tell(run.folder, settings.train.name, notes, report)
            for finding in (*map(note, [*swapped, *_offloading(trainable, settings)]), *_fit(training, plan)):
                report(finding)
            request.cache.ensure(hooks.check_cancel)
            at_hand = models.loaded(plan, request.cache)
        else:
            for one in models.trainables:
                one.swap = BlockSwap()
            _tell(run.folder, settings.train.name, notes, report)
            at_hand = contextlib.nullcontext()
        with at_hand, models.session(tell=hooks.on_message):
            if trainable.swap.refused:
                hooks.on_message(_NOT_PINNED)
            result = train(job, run=run, hooks=hooks)
    while request.cache.mended:
        hooks.on_message(request.cache.mended.pop())
    if result.loaded and request.samples and not SampleFolder(result.folder).shows(request.samples.settings):
        hooks.on_message(_OTHER_PICTURES)
    ended = dataclasses.replace(record, steps=result.steps, summary=result.summary, finished=time.time())
    return _outcome(models, ended, result, names, plan, blocks)


def _outcome(
    models: Models,
    record: LoraRecord,
    result: TrainResult,
    names: LayerNames,
    plan: MemoryPlan,
    blocks: Sequence[str],
) -> TrainedLora:
    """What came out, of two models both."""
    made, both = [], len(models) > 1
    for number, one in enumerate(models.adapters):
        factors = one.factors(parted(result.adapter, EXPERTS[number]) if both else result.adapter)
        told = record.of_expert(EXPERTS[number]) if both else record
        made.append(TrainedLora(factors, to_comfyui(factors, names=names.kohya), names, told, result, plan, blocks))
    if models.texts is not None:
        kept = models.texts.kept()
        tensors = made[0].tensors | kept_texts(result.adapter, kept)
        return dataclasses.replace(made[0], tensors=tensors, word=kept_word(result.adapter, kept))
    return dataclasses.replace(made[0], low=made[1]) if both else made[0]


def _begin_with(file: Path, models: Models, number: int, names: LayerNames) -> None:
    """Let the adapters of a model, and of the text encoders beside it, begin with a file's."""
    texts = models.texts
    found = read_lora(file, names=names, texts=texts.aliases if texts else {})
    own = {path: one for path, one in found.items() if path.startswith(ENCODER_PREFIX)}
    other = next((path for path, one in own.items() if isinstance(one, Change)), None)
    if other is not None:
        raise AdapterError(
            f"start_from: {file.name} has {own[other].kind} weights of the text encoder, such as those of {other}, "  # type: ignore[union-attr]
            "and only a LoRA of it can be continued. Choose another file, or put this one on MODEL and CLIP with Load "
            "LoRA and start anew."
        )
    models.adapters[number].load({path: one for path, one in found.items() if path not in own})
    if texts and texts.adapters and own:
        texts.adapters.load({path.removeprefix(ENCODER_PREFIX): one for path, one in own.items()})


@contextlib.contextmanager
def _opened(request: Request, settings: Resolved, models: Models, runs: Path, first_frame: str) -> Iterator[Run]:
    """The run's folder; of a process that is not the first, a folder that goes with it."""
    identity = _identity(request, settings, models)
    if first_frame:
        # Only then: runs of before go on.
        identity["first_frame"] = first_frame
    anew = settings.train.if_a_run_exists == EXISTING_RUNS[1]
    mark, own = fingerprint(identity), runs
    with contextlib.ExitStack() as ends:
        if not here().first:
            scratch = tempfile.TemporaryDirectory(prefix="masked-lora-run-", ignore_cleanup_errors=True)
            own = Path(ends.enter_context(scratch))
        run = Run.open(own, settings.train.name, mark, settings=identity, anew=anew)
        ends.enter_context(run)
        try:
            yield run
        except LostPeerError:
            if not here().first and not anew and run.checkpoints():
                # If it was the first one, nobody has the run's folder any more.
                with (
                    contextlib.suppress(RunError, OSError),
                    Run.open(runs, settings.train.name, mark, settings=identity) as left,
                ):
                    left.take_over(run)
            raise


def _sources(cache: Cache) -> list[Source]:
    """Where each entry's picture came from, as far as that is known."""
    kept = [(entry, cache.samples[entry.index]) for entry in cache.entries] if cache.samples else []
    return [Source(e.name, s.name, s.key, str(s.image_path) if s.image_path else "") for e, s in kept]


def _begun(trainable: TrainableModel, first_frame: str, request: Request) -> tuple[Beginning | None, list[Finding]]:
    """What sample pictures begin with beside noise, and what a person should know of it."""
    if is_inpainting(trainable):
        return filling(request.cache, request.samples)
    return continuing(first_frame, request.cache, request.samples, latent_out=trainable.model.process_latent_out)


def _notes(trainable: TrainableModel, settings: Resolved, request: Request, job: TrainJob) -> list[Finding]:
    """What a person should know before the first step, and later of the run."""
    triggers = [s["settings"]["caption"]["trigger"] for s in request.cache.sources if not s["regularisation"]]
    return [
        # What was left out of the pictures comes with the cache.
        *request.cache.findings,
        *map(note, goal_notes(request, settings)),
        *map(note, model_notes(trainable)),
        *map(note, [] if job.pair else trainable.family.notes_for(trainable.network)),
        *_unknown_notes(trainable, job),
        *map(note, _guidance_notes(trainable, request.cache)),
        *map(note, cache_notes(settings.loss, request.cache)),
        *trigger_notes(request.cache.entries, triggers),
        *warmup_notes(settings.optimizer, _fewest_steps(job)),
        *([note(_COMPILES)] if settings.train.compile else []),
    ]


def _fewest_steps(job: TrainJob) -> int:
    """Steps of the run; of two models those of the one that takes fewer, by which its learning rate goes."""
    total = planned_steps(job)
    return steps_of(1, total, job.pair.every) if job.pair else total


def _learned_notes(
    trainable: TrainableModel, request: Request, job: TrainJob, first_frame: str, hooks: Hooks
) -> list[Finding]:
    """What a person should know of what is learned of the pictures and clips, and what is not."""
    grid_of, given = job.model.grid_of, int(bool(first_frame))
    cache, shown = request.cache, request.samples and request.samples.references > 0
    return [
        *first_frame_notes(trainable, cache, first_frame),
        *inpainting_notes(trainable, cache.entries),
        *reference_notes(trainable, cache.entries, samples=shown),
        *weightless(cache, job.loss, grid_of=grid_of, check_cancel=hooks.check_cancel, given=given),
    ]


def _unknown_notes(trainable: TrainableModel, job: TrainJob) -> list[Finding]:
    family = trainable.family
    if family in families():
        return []
    layers = counted(len({name.rpartition(".")[0] for name in job.model.params}), "[layer|layers]")
    return [
        warning(
            f"model: this pack does not know {family.title}. It trains {layers} of its repeated blocks, with defaults "
            "that no one has tried for it; look at the first sample pictures before you trust it."
        )
    ]


def _guidance_notes(trainable: TrainableModel, cache: Cache) -> list[str]:
    given, usual = trainable.guidance, trainable.family.defaults.guidance
    if given == usual or not trainable.reads("guidance", cache.empty_text()):
        return []
    title = trainable.family.title
    return [f"guidance: trained with {given:g}; usual for {title} is {usual:g}, which -1 stands for."]


def _before_training(request: Request, settings: Resolved, run: Run, job: TrainJob) -> list[Finding]:
    """What must be known of the places that are written to, and of runs that are there, before the first step."""
    found: list[Finding] = []
    if not job.peers.first:
        return found
    wanted, lora = request.destination, request.destination or run.folder / "lora.safetensors"
    files = [] if wanted is None else [file_of(wanted, one) for one in EXPERTS] if job.pair else [wanted]
    for file in files:
        check_takes_files(file)
        if os.path.lexists(file):
            free = free_name(file).name
            found.append(warning(f"name: {file.name} is there already and stays. This LoRA will be written as {free}."))
    found += room_notes(_room(job, settings), lora=lora, run=run.folder / "x")
    found += likeness_notes(request.samples, request.cache, triggers_of(request.cache))
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
    shapes = [p.shape for course in job.courses() for p in course.model.params.values()]
    numbers, every = sum(map(math.prod, shapes)), settings.train.keep_every
    lasting = planned_steps(job) // every if every else 0
    # 16 bits in the file; 32 in a checkpoint, with the optimizer's state, and the average where there is one.
    checkpoint = 4 * numbers + optimizer_bytes(settings.optimizer, shapes)
    return Room(2 * numbers, checkpoint, kept=settings.train.keep_last, lasting=4 * numbers * lasting)


def _tell(folder: Path, name: str, notes: list[Finding], report: Callable[[Finding], None]) -> None:
    before = read_told(folder)
    for finding in (*before.origin, *notes):
        report(finding)
    names = [one for one in before.names if one != name]
    keep_told(folder, notes=tuple(notes), failed="", names=(*names, name))


def read_lora(path: Path, *, names: LayerNames, texts: Mapping[str, str] | None = None) -> dict[str, Learned]:
    """What a LoRA file changes; of text encoders, whose names are given, behind `ENCODER_PREFIX`.

    Raises:
        AdapterError: The file is unreadable or made for another model.
    """
    try:
        tensors = safetensors.torch.load_file(path)
    except (OSError, SafetensorError) as error:
        raise AdapterError(
            f"start_from: {path.name} cannot be read as safetensors ({error}). Choose another LoRA file."
        ) from error
    aliases = {**names.aliases, **{stem: ENCODER_PREFIX + layer for stem, layer in (texts or {}).items()}}
    return from_file(tensors, aliases=aliases, file=path.name)


def _swapped(models: Models, settings: Resolved, plan: MemoryPlan) -> tuple[MemoryPlan, list[str]]:
    """Let blocks of each model wait in main memory as the settings say: the plan with them, and a line about them."""
    asked = settings.train.swap_blocks
    if not asked:
        return plan, []
    saved, line = 0, ""
    for one in models.trainables:
        one.swap, saved, line = choose_swap(one.network, one.blocks, asked, device=one.device, needed=plan.total)
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


def _identity(request: Request, settings: Resolved, models: Models) -> dict[str, Any]:
    trainable, starts = models.trainables[0], starts_of(request.start_from, models)
    stamps = [[one.name, one.stat().st_size, one.stat().st_mtime_ns] for one in starts]
    low = [[patcher_identity(one.patcher), _sampling_identity(one.schedule)] for one in models.trainables[1:]]
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
        "start_from": stamps[0] if len(stamps) == 1 else stamps or None,
        # Of a run of one model there is nothing, as before there were two.
        **({"low": low[0]} if low else {}),
        **({"texts": lasting(request.texts.settings)} if request.texts else {}),
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
        trigger=next(iter(triggers_of(cache)), ""),
        network_module="lycoris.kohya" if settings.adapter.algorithm in OTHER_ALGORITHMS else "networks.lora",
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
