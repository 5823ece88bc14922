"""The cache: latents, masks and caption embeddings at the training geometry, made once and read per step.

Built bucket by bucket in batches, so that memory does not grow with the number of pictures. Entries are
found by content-hash keys (`keys`), wherever they are kept (`store`).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..dataset.sample import Dataset, Sample
from ..errors import CacheError, ConfigError
from ..findings import Finding, counted, of_kinds, warnings_of
from ..folder.subjects import parse_subjects
from ..goals import common_goal
from ..peers import here
from ..pictures.packed_mask import decode_mask
from ..settings import CacheSettings
from .buckets import resolutions
from .builder import Builder, Cancel, Encoder, TextEncoder
from .crops import MASKED, saving_note
from .keys import Memo, digest, text_key
from .mask_sense import mask_findings, require_weight
from .plan import ORIGINAL, Encoders, Entry, Progress, check_settings, plan_entries
from .store import DiskStore, MemoryStore, Store, Tensors, Values


@dataclass
class Cache:
    """A built cache; everything is read lazily from its store.

    Attributes:
        entries: One per sample in the data set's order, then those of further resolutions.
        settings: What it was built with.
        channels: Channels of the latents.
        encoders: What it was made with.
        fingerprint: Changes with any key, weight or caption; what a run's identity is made of.
        empty_key: Key of the empty caption, None without a text encoder.
        notes: What a person should know of the store: entries rebuilt, size over the limit.
        findings: What a person should know of the pictures and masks, as they are at the training size.
        weights: Mean weight at the training size by the mask's key, of pictures with a mask.
        built: How many entries of each kind were made by this build.
        sources: One JSON-able dict per data set: pictures, settings and mask transforms, for metadata.
        mend: Makes anew what was deleted or damaged since, and tells what it did; None where that cannot be done.
        mended: What was made anew, for people.
        leaves: Whether a read leaves what is damaged as it is.
    """

    entries: tuple[Entry, ...]
    settings: CacheSettings
    channels: int
    encoders: Encoders
    store: Store = field(repr=False)
    fingerprint: str = ""
    empty_key: str | None = None
    notes: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    weights: dict[str, float] = field(default_factory=dict, repr=False)
    built: dict[str, int] = field(default_factory=dict)
    sources: tuple[dict[str, Any], ...] = ()
    mend: Callable[[], str] | None = field(default=None, repr=False)
    mended: list[str] = field(default_factory=list)
    leaves: bool = False

    @property
    def stride(self) -> int:
        """Pixels per latent cell."""
        return self.encoders.stride

    @property
    def clips(self) -> bool:
        """Whether the VAE is one for clips."""
        return self.encoders.rule.clips

    @property
    def goal(self) -> str:
        """What the LoRA is to learn, one of `settings.GOALS`."""
        return common_goal(source["settings"]["goal"] for source in self.sources if not source["regularisation"])

    def untouched(self) -> Cache:
        """The same, for reading in a thread what may not be needed: nothing is removed or made anew."""
        return replace(self, mend=None, leaves=True)

    @property
    def samples(self) -> tuple[Sample, ...]:
        """The samples that it was made from, by `Entry.index`; none where they are not known any more."""
        return self.mend.dataset.samples if isinstance(self.mend, Mender) else ()

    @property
    def pictures(self) -> int:
        """How many samples it was made from."""
        return len({entry.index for entry in self.entries})

    def plan(self, dataset: Dataset, check_cancel: Cancel = lambda: None, *, memo: Memo | None = None) -> list[Entry]:
        """The entries that a cache of the same settings and encoders would have for `dataset`; nothing is made.

        Args:
            dataset: What it would be made from.
            check_cancel: Called between pictures; raises to stop.
            memo: Takes up what is learnt of files and masks; the store's own where none is given, which stays as it is.

        Raises:
            DataError: A picture or mask cannot be used.
        """
        return plan_entries(
            dataset,
            self.settings,
            memo=self.store.load_memo() if memo is None else memo,
            encoders=self.encoders,
            progress=lambda done, total, what: None,
            check_cancel=check_cancel,
            is_cached=self._is_latent,
        )

    def _is_latent(self, key: str) -> bool:
        return self.store.has("latent", key)

    def latent(self, entry: Entry, variant: int = 0, infill: int = ORIGINAL) -> torch.Tensor:
        """The latent of a variant: float32 (C, [f,] h, w) in the VAE's own space.

        Args:
            entry: Of this cache.
            variant: Which crop, turn or flip.
            infill: Which replaced background; `ORIGINAL` is the picture's own.

        Raises:
            CacheError: The entry is gone or damaged.
        """
        shown = entry.variants[variant]
        key = shown.latent if infill == ORIGINAL else shown.infills[infill]
        return self._read("latent", key)[0]["latent"]

    def references(self, entry: Entry, variant: int = 0, infill: int = ORIGINAL) -> list[torch.Tensor]:
        """The latents of the references that go with a variant: each float32 (C, h, w), in order.

        Args:
            entry: Of this cache.
            variant: Which crop, turn or flip.
            infill: With which replaced background, where references have it too.

        Raises:
            CacheError: An entry is gone or damaged.
        """
        keys = entry.variants[variant].references_behind(infill)
        return [self._read("reference", key)[0]["latent"] for key in keys]

    def start(self, entry: Entry, variant: int = 0, infill: int = ORIGINAL) -> torch.Tensor:
        """What a network is given of a clip to continue it, as `latent`: its first frame, followed by grey frames.

        Raises:
            CacheError: The entry is gone or damaged.
            KeyError: None is kept.
        """
        shown = entry.variants[variant]
        return self._read("latent", shown.starts[shown.latent if infill == ORIGINAL else shown.infills[infill]])[0][
            "latent"
        ]

    def mask(self, entry: Entry, variant: int = 0) -> torch.Tensor:
        """The mask of a variant at the pixels of the training picture: float32 (1, [F,] H, W) in 0..1.

        A clip's has frames where it moves. Stored in steps of 1/65535; 0 and 1 are exact.

        Raises:
            CacheError: The entry is gone or damaged.
        """
        tensors, values = self._read("mask", entry.variants[variant].mask)
        return decode_mask(tensors["data"], values)

    def ensure(self, check_cancel: Cancel = lambda: None) -> None:
        """Nothing if every entry is there; else the missing ones are made anew.

        Raises:
            CacheError: They cannot be, because the pictures have changed too.
        """
        for number, (kind, key) in enumerate(sorted(keys_of(self.entries, self.empty_key))):
            if number % 256 == 0:
                check_cancel()
            if not self.store.has(kind, key):
                self._mend(f"the cache entry {kind} {key} is gone")
                return

    def _read(self, kind: str, key: str) -> tuple[Tensors, Values]:
        if self.leaves:
            return self.store.read(kind, key, leave=True)
        try:
            return self.store.read(kind, key)
        except CacheError as error:
            self._mend(str(error))
        return self.store.read(kind, key)

    def _mend(self, fault: str) -> None:
        if self.mend is None:
            raise CacheError(f"{fault}. Queue the graph again; what is missing is made anew.")
        self.mended.append(self.mend())

    def first_variant(self, entry: Entry) -> tuple[np.ndarray, np.ndarray]:
        """Latent (C, h, w) and mask (H, W) of an entry's first variant, float32; of a clip those of its first frame."""
        latent, mask = self.latent(entry).numpy(), self.mask(entry)[0].numpy()
        return latent[:, 0] if latent.ndim == 4 else latent, mask[0] if mask.ndim == 3 else mask

    def text(self, key: str) -> dict[str, Any]:
        """The conditioning of one caption: tensors and plain values by name.

        Raises:
            CacheError: The entry is gone or damaged.
        """
        tensors, values = self._read("text", key)
        return {**tensors, **values}

    def empty_text(self, entry: Entry | None = None) -> dict[str, Any]:
        """The conditioning of the empty caption, for caption dropout; with `entry` as it is seen with its references.

        Raises:
            CacheError: The cache was built without a text encoder.
        """
        if self.empty_key is None:
            raise CacheError("The cache holds no captions. Connect a CLIP to the cache node and run it again.")
        return self.text(entry.empty_key if entry is not None and entry.empty_key else self.empty_key)

    def summary(self) -> str:
        """A few lines on what is in the cache and what was made."""
        sizes = Counter((*entry.bucket, len(entry.frames)) for entry in self.entries)
        sides = ", ".join(map(str, resolutions(self.settings)))
        at = f" at {sides}" if self.settings.more_resolutions.strip() else ""
        clips = len({entry.index for entry in self.entries if entry.frames})
        lines = [f"{of_kinds(self.pictures, clips)}{at} in {counted(len(sizes), '[bucket|buckets]')}:"]
        lines += [
            f"  {w}×{h}{f' × {frames} frames' if frames > 1 else ''}: {count}"
            for (w, h, frames), count in sorted(sizes.items())
        ]
        if self.settings.crop == MASKED:
            lines.append(saving_note(self.entries, self.settings))
        kinds = Counter(infill.kind for entry in self.entries for infill in entry.infills)
        if kinds:
            told = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
            lines.append(
                f"{counted(kinds.total(), 'replaced [background|backgrounds]')} ({told}); infill_probability in Masked "
                "Loss draws them"
            )
        made = Counter(self.built)
        lines.append(f"made now: {made['latent']} latent, {made['mask']} mask, {made['text']} text")
        if made["reference"]:
            lines.append(f"references made now: {made['reference']}")
        return "\n".join([*lines, *self.notes])


def build_cache(
    dataset: Dataset,
    settings: CacheSettings,
    *,
    encoder: Encoder,
    text: TextEncoder | None = None,
    folder: Path | None = None,
    progress: Progress = lambda done, total, what: None,
    check_cancel: Cancel = lambda: None,
    fits: Callable[[Sequence[Entry]], None] = lambda entries: None,
) -> Cache:
    """A cache that holds everything the data set needs; only what is missing or stale is made.

    Args:
        dataset: The samples.
        settings: Training geometry and storage.
        encoder: The VAE.
        text: The text encoder; None caches no captions.
        folder: Where entries are kept with storage "disk".
        progress: Called with (done, total, what).
        check_cancel: Called between pictures and batches; what it raises ends the build. What was written
            stays and is found by the next build.
        fits: Asked before anything is encoded; what it raises ends the build.

    Raises:
        ConfigError: A setting is out of range or does not fit the VAE.
        DataError: A picture or mask cannot be used.
        MaskError: No picture has anything to learn at the training size.
        CacheError: The folder cannot be written or the disk is full.
        FamilyError: The VAE gives latents of another shape than it says, or values that are not finite.
    """
    check_settings(settings)
    store = _open_store(settings, folder)
    memo = store.load_memo()
    encoders = encoders_of(encoder, text)
    try:
        entries = plan_entries(
            dataset,
            settings,
            memo=memo,
            encoders=encoders,
            progress=progress,
            check_cancel=check_cancel,
            is_cached=lambda key: store.has("latent", key),
        )
    finally:
        store.save_memo(memo)
    # Before anything is encoded, as far as it can be known.
    require_weight(entries, {})
    fits(entries)
    builder = Builder(dataset, settings, encoder=encoder, store=store, progress=progress, check_cancel=check_cancel)
    notes = _make_own_share(builder, entries, text)
    builder.pictures(entries)
    weights = _mask_weights(entries, store, memo, made=builder.weights, check_cancel=check_cancel)
    store.save_memo(memo)
    require_weight(entries, weights)
    empty = None
    if text is not None:
        builder.texts(entries, text)
        empty = text_key("", encoder=text.identity)
    store.clean_up(limit=settings.max_gigabytes * 1e9, keep=keys_of(entries, empty))
    cache = Cache(
        entries=tuple(entries),
        settings=settings,
        channels=encoder.channels,
        encoders=encoders,
        store=store,
        fingerprint=_fingerprint(entries, empty),
        empty_key=empty,
        notes=(*notes, *store.notes),
        weights=weights,
        built=builder.built,
        sources=_sources(dataset),
        mend=Mender(dataset, tuple(entries), builder=builder, text=text),
    )
    told = warnings_of(dataset.report.findings())
    cache.findings = (*told, *mask_findings(entries, weights, cache.first_variant))
    return cache


def _make_own_share(builder: Builder, entries: list[Entry], text: TextEncoder | None) -> list[str]:
    """Make what of the missing entries is this process's among several, until all have made theirs; a line about it.

    In memory each needs all of them.
    """
    peers = here()
    if peers.count == 1 or builder.settings.storage == "memory":
        return []
    with peers.watched():
        # What is planned depends on what is there already: nobody begins before all have looked.
        peers.meet()
        builder.pictures(entries, share=peers.local)
        if text is not None:
            builder.texts(entries, text, share=peers.local)
        peers.meet()
    return [f"shared out over {peers.local[1]} processes; the first one's are told"]


def encoders_of(encoder: Encoder, text: TextEncoder | None) -> Encoders:
    """What planning must know of these."""
    identity, pictures = (None, "") if text is None else (text.identity, text.pictures)
    return Encoders(encoder.identity, identity, encoder.stride, encoder.rule, pictures)


def _mask_weights(
    entries: list[Entry], store: Store, memo: Memo, *, made: dict[str, float], check_cancel: Cancel
) -> dict[str, float]:
    """Mean weight of each mask at the training size by its key: as it was made, noted, or read."""
    weights: dict[str, float] = {}
    for key in {variant.mask for entry in entries if entry.has_mask for variant in entry.variants}:
        about = digest("mask weight", key)
        known = memo.facts(about)
        if key in made or known is None:
            check_cancel()
            if key not in made:
                tensors, values = store.read("mask", key)
                made[key] = float(decode_mask(tensors["data"], values).double().mean())
            known = memo.note(about, mean=made[key])
        weights[key] = known["mean"]
    return weights


def keys_of(entries: Iterable[Entry], empty: str | None) -> set[tuple[str, str]]:
    """Kind and key of everything that a cache of these entries reads; `empty` is the key of the empty caption."""
    return {key for entry in entries for key in entry.cached} | ({("text", empty)} if empty else set())


@dataclass
class Mender:
    """Makes a cache's missing and damaged entries anew, from the very pictures, VAE and CLIP it was built with."""

    dataset: Dataset
    entries: tuple[Entry, ...]
    builder: Builder
    text: TextEncoder | None

    def __call__(self) -> str:
        """What was made.

        Raises:
            CacheError: A picture, mask or caption has changed since, so that what is missing is not to be had.
        """
        builder, before = self.builder, Counter(self.builder.built)
        entries = plan_entries(
            self.dataset,
            builder.settings,
            memo=builder.store.load_memo(),
            encoders=encoders_of(builder.encoder, self.text),
            progress=lambda done, total, what: None,
            check_cancel=builder.check_cancel,
            is_cached={key for kind, key in keys_of(self.entries, None) if kind == "latent"}.__contains__,
        )
        for old, new in zip(self.entries, entries, strict=True):
            if keys_of([old], None) != keys_of([new], None):
                raise CacheError(
                    f"{old.name} has changed since it was cached, and what was cached is gone or damaged. Queue the "
                    "graph again: the cache is then built from what is there now."
                )
        empty = None if self.text is None else text_key("", encoder=self.text.identity)
        for kind, key in sorted(keys_of(entries, empty)):
            builder.check_cancel()
            builder.store.is_whole(kind, key)
        builder.pictures(entries)
        if self.text is not None:
            builder.texts(entries, self.text)
        made = Counter(builder.built) - before
        told = (
            f"The cache was damaged or deleted; made anew: {made['latent']} latent, {made['mask']} mask, "
            f"{made['text']} text."
        )
        return f"{told} References made anew: {made['reference']}." if made["reference"] else told


def _sources(dataset: Dataset) -> tuple[dict[str, Any], ...]:
    found: dict[str, dict[str, Any]] = {}
    pictures: defaultdict[str, set[str]] = defaultdict(set)
    for sample in dataset.samples:
        settings, transform = asdict(sample.settings), asdict(sample.transform)
        # A folder is told by its last name: metadata travels with the LoRA, and paths hold people's names, as
        # those of subjects are.
        settings["folder"], settings["mask_folder"] = (Path(settings[k]).name for k in ("folder", "mask_folder"))
        settings["reference_folders"] = ", ".join(Path(one).name for one in settings["reference_folders"].splitlines())
        settings["subjects"] = ", ".join(f"{rule.weight:g}" for rule in parse_subjects(settings["subjects"]).values())
        key = digest("source", settings, transform, sample.made_by)
        info = found.setdefault(
            key,
            {
                "name": settings["folder"],
                "images": 0,
                "num_repeats": sample.settings.repeats * sample.weight,
                "regularisation": sample.settings.regularisation,
                "settings": settings,
                "mask_transforms": transform,
                "masks_made_by": sample.made_by,
            },
        )
        # The subjects of a picture are samples, not pictures.
        pictures[key].add(sample.picture_key)
        info["images"] = len(pictures[key])
    return tuple(found.values())


def _open_store(settings: CacheSettings, folder: Path | None) -> Store:
    if settings.storage == "memory":
        return MemoryStore()
    if folder is None:
        raise ConfigError("storage: a cache on disk needs a folder; choose memory or name one.")
    return DiskStore(folder)


def _fingerprint(entries: list[Entry], empty: str | None) -> str:
    parts = [
        [
            e.bucket,
            [v.latent for v in e.variants],
            [v.mask for v in e.variants],
            [v.infills for v in e.variants],
            [c.key for c in e.captions if c.key],
            [c.plain_key for c in e.captions if c.key],
            e.weight,
            e.multiplier,
            e.regularisation,
            e.caption_dropout,
            # Only where there are any: runs of before go on.
            *([[list(v.starts.values()) for v in e.variants]] if any(v.start for v in e.variants) else []),
            *([[[v.references, v.infill_references] for v in e.variants], e.empty_key] if e.references else []),
        ]
        for e in entries
    ]
    return digest("cache", parts, empty)
