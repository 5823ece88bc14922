"""Makes the cache entries that a store lacks: pictures bucket by bucket in batches, captions in batches."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from ..dataset.geometry import Geometry, apply_image, apply_mask
from ..dataset.moving import load_frames
from ..dataset.references import load_reference
from ..dataset.sample import Dataset, LoadedSample, Sample, check_aspect, load_sample
from ..errors import FamilyError
from ..loss.masks import shrink_to_circle
from ..pictures.packed_mask import encode_mask
from ..settings import CacheSettings
from .fill import apply_fill, fill_clip
from .infill import apply_infill, infill_clip
from .keys import digest, text_key
from .plan import ORIGINAL, Entry, Progress, Shrink, Variant, is_hard
from .references import reference_pixels
from .shots import ClipRule
from .store import Store

Cancel = Callable[[], None]
# Key, name and pixels of a picture that waits for the VAE.
_Pixels = tuple[str, str, np.ndarray]
# Which part of how many.
Share = tuple[int, int]
WHOLE: Share = (0, 1)
# What one job holds in memory at most, originals and infills together; more variants are made in several jobs.
PICTURES_OF_A_JOB = 32


class Encoder(Protocol):
    """What turns pictures into latents."""

    identity: str
    channels: int
    stride: int
    rule: ClipRule

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Latents (B, C, h, w), float32, without chance, of images (B, H, W, 3) in 0..1."""
        ...

    def encode_clip(self, frames: torch.Tensor) -> torch.Tensor:
        """The latent (C, f, h, w), float32, without chance, of a clip's frames (F, H, W, 3) in 0..1."""
        ...


class TextEncoder(Protocol):
    """What turns captions into conditioning.

    Attributes:
        identity: Changes with everything on its side.
        pictures: In which way it sees the references of a picture with its caption; "" where it does not.
    """

    identity: str
    pictures: str

    def encode(self, texts: list[str]) -> list[dict[str, Any]]:
        """Per text a flat dict of tensors and plain values."""
        ...

    def encode_with(self, texts: list[str], pictures: list[list[torch.Tensor]]) -> list[dict[str, Any]]:
        """The same for texts that are seen with pictures, each float32 (1, H, W, 3) in 0..1; only with `pictures`."""
        ...


@dataclass(frozen=True)
class _Reference:
    """A missing latent: of reference `number` of a variant, before its replaced background `infill`."""

    variant: Variant
    number: int
    infill: int

    @property
    def key(self) -> str:
        return self.variant.references_behind(self.infill)[self.number]


@dataclass(frozen=True)
class _Job:
    """A sample, its variants whose latent or mask is missing, and the missing (variant, infill) pairs by infill."""

    entry: Entry
    latents: tuple[Variant, ...]
    masks: tuple[Variant, ...]
    infills: tuple[tuple[Variant, int], ...]
    references: tuple[_Reference, ...] = ()


@dataclass(frozen=True, eq=False)
class _Prepared:
    """A job's pictures uint8 ([F,] H, W, 3) and masks float32 ([F,] H, W) at the training size, by key."""

    entry: Entry
    pictures: list[tuple[str, np.ndarray]]
    masks: list[tuple[str, np.ndarray]]
    references: list[tuple[str, np.ndarray]] = dataclasses.field(default_factory=list)


class _View:
    """A picture, or a clip's frame, at the training geometries, each made when it is first asked for."""

    def __init__(self, loaded: LoadedSample, *, hard: bool, resize: str) -> None:
        self._loaded, self._hard, self._resize = loaded, hard, resize
        self._made: dict[tuple[str, Geometry], np.ndarray] = {}

    def picture(self, geometry: Geometry) -> np.ndarray:
        """uint8 (H, W, 3)."""
        return self._once("picture", geometry, lambda: apply_image(self._loaded.rgb, geometry, resize=self._resize))

    def mask(self, geometry: Geometry) -> np.ndarray:
        """What is learned, float32 (H, W)."""
        return self._once("mask", geometry, lambda: apply_mask(self._loaded.mask, geometry, hard=self._hard))

    def shown(self, geometry: Geometry) -> np.ndarray:
        """What is kept of the picture where the rest is replaced, float32 (H, W)."""
        if self._loaded.shown is self._loaded.mask:
            return self.mask(geometry)
        return self._once("shown", geometry, lambda: apply_mask(self._loaded.shown, geometry, hard=self._hard))

    def _once(self, kind: str, geometry: Geometry, make: Callable[[], np.ndarray]) -> np.ndarray:
        if (kind, geometry) not in self._made:
            self._made[kind, geometry] = make()
        return self._made[kind, geometry]


class Builder:
    """Makes what a store lacks, counts it in `built`, and notes the mean weight of the masks that it made."""

    def __init__(
        self,
        dataset: Dataset,
        settings: CacheSettings,
        *,
        encoder: Encoder,
        store: Store,
        progress: Progress,
        check_cancel: Cancel,
    ) -> None:
        """Nothing happens before `pictures` or `texts`."""
        self.dataset, self.settings, self.encoder, self.store = dataset, settings, encoder, store
        self.progress, self.check_cancel = progress, check_cancel
        self.built = {"latent": 0, "mask": 0, "text": 0, "reference": 0}
        self.weights: dict[str, float] = {}

    def pictures(self, entries: list[Entry], *, share: Share = WHOLE) -> None:
        """Make the missing latents and masks, bucket by bucket, a few pictures in memory at a time.

        Args:
            entries: Whose they are.
            share: Which part of them is made; the parts are the same whatever is missing.
        """
        jobs = self._jobs(entries, share)
        batches: dict[str, list[_Pixels]] = {"latent": [], "reference": []}
        still, moving = ([j for j in jobs if bool(j.entry.latent_frames) is moves] for moves in (False, True))
        # A clip is much of the memory, and most of the time goes into encoding it: it is not read ahead.
        for done, prepared in enumerate(itertools.chain(_ahead(self._prepare, still), map(self._prepare, moving))):
            self.check_cancel()
            self.progress(done, len(jobs), f"encoding {prepared.entry.name}")
            for key, mask in prepared.masks:
                data, values = encode_mask(mask)
                self.store.write("mask", key, {"data": data}, values)
                self.weights[key] = float(mask.mean(dtype=np.float64))
                self.built["mask"] += 1
            for key, picture in prepared.pictures:
                if picture.ndim == 4:
                    self._clip(key, prepared.entry, picture)
                    continue
                self._gather(batches["latent"], (key, prepared.entry.name, picture), kind="latent")
            for key, picture in prepared.references:
                self._gather(batches["reference"], (key, prepared.entry.name, picture), kind="reference")
        for kind, batch in batches.items():
            if batch:
                self._encode(batch, kind)
        if jobs:
            self.progress(len(jobs), len(jobs), "pictures encoded")

    def _gather(self, batch: list[_Pixels], pixels: _Pixels, *, kind: str) -> None:
        """Put a picture to those that wait for the VAE, which are encoded first if it does not go with them."""
        if batch and (len(batch) == self.settings.batch_size or batch[0][2].shape != pixels[2].shape):
            self._encode(batch, kind)
            batch.clear()
        batch.append(pixels)

    def texts(self, entries: list[Entry], text: TextEncoder, *, share: Share = WHOLE) -> None:
        """Make the missing caption embeddings, and that of the empty caption."""
        wanted: dict[str, tuple[str, Entry | None]] = {text_key("", encoder=text.identity): ("", None)}
        for entry in entries:
            owner = entry if entry.empty_key else None
            wanted.update((caption.key, (caption.text, owner)) for caption in entry.captions)
            wanted.update((c.plain_key, (c.plain, owner)) for c in entry.captions if c.plain is not None)
            if owner is not None:
                wanted[entry.empty_key] = "", owner
        own = itertools.islice(wanted.items(), share[0], None, share[1])
        missing = [(key, *what) for key, what in own if not self.store.has("text", key)]
        # Those with pictures come last, each call with as many pictures for a text as for the others.
        missing.sort(key=lambda one: -1 if one[2] is None else len(one[2].references))
        size = self.settings.batch_size
        for start in range(0, len(missing), size):
            self.check_cancel()
            self.progress(start, len(missing), "encoding captions")
            part = missing[start : start + size]
            for (key, _, _), values in zip(part, self._encode_texts(part, text), strict=True):
                tensors = {name: v for name, v in values.items() if isinstance(v, torch.Tensor)}
                plain = {name: v for name, v in values.items() if name not in tensors}
                self.store.write("text", key, tensors, plain)
                self.built["text"] += 1
        if missing:
            self.progress(len(missing), len(missing), "captions encoded")

    def _encode_texts(self, part: list[tuple[str, str, Entry | None]], text: TextEncoder) -> list[dict[str, Any]]:
        alone = [caption for _, caption, owner in part if owner is None]
        out = text.encode(alone) if alone else []
        seen = [(caption, owner) for _, caption, owner in part if owner is not None]
        if seen:
            pictures = [self._seen(owner) for _, owner in seen]
            out = out + text.encode_with([caption for caption, _ in seen], pictures)
        return out

    def _seen(self, entry: Entry) -> list[torch.Tensor]:
        """The references of an entry as a text encoder is given them: whole, float32 (1, H, W, 3) in 0..1."""
        loaded = (load_reference(one).rgb for one in self.dataset.samples[entry.index].references)
        return [torch.from_numpy(rgb.astype(np.float32))[None] / 255 for rgb in loaded]

    def _jobs(self, entries: list[Entry], share: Share) -> list[_Job]:
        """What is missing, in order of buckets; a key that occurs twice is made once."""
        seen: set[tuple[str, str]] = set()

        def lacking(kind: str, key: str) -> bool:
            fresh = (kind, key) not in seen
            seen.add((kind, key))
            return fresh and not self.store.has(kind, key)

        def lacks_start(variant: Variant, latent: str) -> bool:
            return bool(variant.start) and lacking("latent", variant.starts[latent])

        jobs = []
        for number, entry in enumerate(sorted(entries, key=lambda entry: entry.bucket)):
            self.check_cancel()
            own = number % share[1] == share[0]
            views = max(1, PICTURES_OF_A_JOB // ((1 + len(entry.infills)) * (1 + len(entry.references))))
            for start in range(0, len(entry.variants), views):
                part = entry.variants[start : start + views]
                job = _Job(
                    entry,
                    tuple(v for v in part if lacking("latent", v.latent) | lacks_start(v, v.latent)),
                    tuple(v for v in part if lacking("mask", v.mask)),
                    tuple(
                        (v, number)
                        for number in range(len(entry.infills))
                        for v in part
                        if lacking("latent", v.infills[number]) | lacks_start(v, v.infills[number])
                    ),
                    tuple(one for one in _all_references(part) if lacking("reference", one.key)),
                )
                # What another one makes was asked for all the same, so that it counts as seen.
                if own and (job.latents or job.masks or job.infills or job.references):
                    jobs += _one_by_one(job) if entry.latent_frames else [job]
        return jobs

    def _prepare(self, job: _Job) -> _Prepared:
        """Runs in a worker thread: reads the sample and brings it to the training size."""
        entry, sample = job.entry, self.dataset.samples[job.entry.index]

        # The pairs come infill by infill, so each donor is decoded once and then forgotten.
        @functools.lru_cache(maxsize=1)
        def donor_of(index: int) -> LoadedSample:
            return load_sample(self.dataset.samples[index])

        if entry.latent_frames:
            return self._prepare_clip(job, donor_of)
        (loaded,) = load_frames(sample, entry.frames, self.check_cancel) if entry.frames else [load_sample(sample)]
        view, fill = self._view(sample, loaded), sample.settings.fill
        pictures = []
        for variant in job.latents:
            rgb, geometry = view.picture(variant.geometry), variant.geometry
            if fill != "keep" and loaded.has_mask:
                rgb = apply_fill(rgb, view.shown(geometry), fill, seed=fill_seed(geometry))
            pictures.append((variant.latent, rgb))
        for variant, number in job.infills:
            geometry, infill = variant.geometry, entry.infills[number]
            donor = None if infill.donor is None else donor_of(infill.donor)
            rgb = apply_infill(view.picture(geometry), view.shown(geometry), infill, donor=donor)
            pictures.append((variant.infills[number], rgb))
        masks = [(v.mask, shrink_mask(view.mask(v.geometry), v.shrink)) for v in job.masks]
        if entry.variants[0].start:
            pictures = self._with_cut_outs(job, view, pictures)
        return _Prepared(entry, pictures, masks, list(self._prepare_references(job, view, donor_of)))

    def _with_cut_outs(
        self, job: _Job, view: _View, pictures: list[tuple[str, np.ndarray]]
    ) -> list[tuple[str, np.ndarray]]:
        """These pictures and each without what its variant's mask covers, as far as they are missing."""
        found = dict(pictures)
        owners = [*job.latents, *(variant for variant, _ in job.infills)]
        for variant, (key, rgb) in zip(owners, pictures, strict=True):
            found[variant.starts[key]] = cut_out(rgb, shrink_mask(view.mask(variant.geometry), variant.shrink))
        return [(key, picture) for key, picture in found.items() if not self.store.has("latent", key)]

    def _prepare_references(
        self, job: _Job, view: _View, donor_of: Callable[[int], LoadedSample]
    ) -> Iterator[tuple[str, np.ndarray]]:
        sample = self.dataset.samples[job.entry.index]

        # They come reference by reference, background by background.
        @functools.lru_cache(maxsize=1)
        def bare(number: int, geometry: Geometry) -> np.ndarray:
            return reference_pixels(
                sample.references[number],
                geometry,
                resize=self.settings.resize,
                fill=sample.settings.fill,
                seed=fill_seed(geometry),
            )

        for one in job.references:
            rgb = bare(one.number, one.variant.reference_geometries[one.number])
            if one.infill != ORIGINAL:
                infill = job.entry.infills[one.infill]
                donor = None if infill.donor is None else donor_of(infill.donor)
                rgb = apply_infill(rgb, view.shown(one.variant.geometry), infill, donor=donor)
            yield one.key, rgb

    def _prepare_clip(self, job: _Job, donor_of: Callable[[int], LoadedSample]) -> _Prepared:
        """A clip's job: what replaces its background is made of all its frames, once they are at the training size."""
        entry, sample = job.entry, self.dataset.samples[job.entry.index]
        fill, has_mask = sample.settings.fill, False
        shown = dict.fromkeys(v.geometry for v in (*job.latents, *(variant for variant, _ in job.infills)))
        frames: dict[Geometry, list[np.ndarray]] = {geometry: [] for geometry in shown}
        outlines: dict[Geometry, list[np.ndarray]] = {geometry: [] for geometry in shown}
        masks: dict[str, list[np.ndarray]] = {}
        for number, loaded in enumerate(load_frames(sample, entry.frames, self.check_cancel)):
            view, has_mask = self._view(sample, loaded), loaded.has_mask
            for geometry in shown:
                frames[geometry].append(view.picture(geometry))
                if job.infills or (fill != "keep" and has_mask):
                    outlines[geometry].append(view.shown(geometry))
            # Of a mask that does not move only the first frame's is kept.
            for v in job.masks if not number or entry.moving else ():
                masks.setdefault(v.mask, []).append(shrink_mask(view.mask(v.geometry), v.shrink))
        clips = {geometry: np.stack(each) for geometry, each in frames.items()}
        pictures = []
        for variant in job.latents:
            geometry = variant.geometry
            clip = clips[geometry]
            if fill != "keep" and has_mask:
                clip = fill_clip(clip, np.stack(outlines[geometry]), fill, seed=fill_seed(geometry))
            pictures.append((variant.latent, clip))
        for variant, number in job.infills:
            geometry, infill = variant.geometry, entry.infills[number]
            donor = None if infill.donor is None else donor_of(infill.donor)
            clip = infill_clip(clips[geometry], np.stack(outlines[geometry]), infill, donor=donor)
            pictures.append((variant.infills[number], clip))
        kept = [(key, np.stack(each) if len(each) > 1 else each[0]) for key, each in masks.items()]
        return _Prepared(entry, pictures, kept)

    def _view(self, sample: Sample, loaded: LoadedSample) -> _View:
        check_aspect(sample.name, (loaded.mask.shape[1], loaded.mask.shape[0]), sample.size)
        return _View(loaded, hard=is_hard(sample), resize=self.settings.resize)

    def _encode(self, batch: list[_Pixels], kind: str) -> None:
        self.check_cancel()
        images = torch.from_numpy(np.stack([picture for _, _, picture in batch])).float() / 255
        latents = self.encoder.encode(images)
        stride, shape = self.encoder.stride, images.shape
        expected = (shape[0], self.encoder.channels, shape[1] // stride, shape[2] // stride)
        if tuple(latents.shape) != expected:
            raise FamilyError(f"The VAE gave latents of shape {tuple(latents.shape)}, expected {expected}.")
        for (key, name, _), latent in zip(batch, latents, strict=True):
            self._keep(key, name, latent, kind=kind)

    def _clip(self, key: str, entry: Entry, frames: np.ndarray) -> None:
        """Make what is missing of a clip's latent and that of its first frame."""
        if not self.store.has("latent", key):
            self._encode_clip(key, entry.name, torch.from_numpy(frames).float() / 255)
        start = next((v.starts[key] for v in entry.variants if key in v.starts), "")
        if start and not self.store.has("latent", start):
            # Grey between two values of a byte, as ComfyUI's own nodes give it.
            begun = torch.full(frames.shape, 0.5)
            begun[0] = torch.from_numpy(frames[0]).float() / 255
            self._encode_clip(start, entry.name, begun)

    def _encode_clip(self, key: str, name: str, frames: torch.Tensor) -> None:
        self.check_cancel()
        latent = self.encoder.encode_clip(frames)
        stride, (count, height, width, _) = self.encoder.stride, frames.shape
        expected = (self.encoder.channels, 1 + (count - 1) // self.encoder.rule.step, height // stride, width // stride)
        if tuple(latent.shape) != expected:
            raise FamilyError(f"The VAE gave a latent of shape {tuple(latent.shape)} for {name}, expected {expected}.")
        self._keep(key, name, latent)

    def _keep(self, key: str, name: str, latent: torch.Tensor, *, kind: str = "latent") -> None:
        if not bool(torch.isfinite(latent).all()):
            raise FamilyError(
                f"{name}: the VAE gave values that are not finite. Start ComfyUI with --fp32-vae or choose another VAE."
            )
        self.store.write(kind, key, {"latent": latent.float()})
        self.built[kind] += 1


def _all_references(variants: Iterable[Variant]) -> Iterator[_Reference]:
    """Each reference of each variant, with its own background and with the replaced ones."""
    for variant in variants:
        for number in range(len(variant.references)):
            for infill in (ORIGINAL, *range(len(variant.infill_references))):
                yield _Reference(variant, number, infill)


def _one_by_one(job: _Job) -> list[_Job]:
    """A clip's job as several of one latent each, so that one version of it is in memory at a time."""
    first = [dataclasses.replace(job, latents=(), infills=())] if job.masks and not job.latents else []
    latents = [
        dataclasses.replace(job, latents=(variant,), masks=job.masks if not number else (), infills=())
        for number, variant in enumerate(job.latents)
    ]
    infills = [dataclasses.replace(job, latents=(), masks=(), infills=(one,)) for one in job.infills]
    return first + latents + infills


def shrink_mask(mask: np.ndarray, shrink: Shrink | None) -> np.ndarray:
    """What a variant keeps of its mask, float32 (H, W) at the training size; all of it without a shrink."""
    return mask if shrink is None else shrink_to_circle(mask, factor=shrink.factor, seed=shrink.seed)


def cut_out(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A picture uint8 (H, W, 3) as float32 in 0..255, grey where the mask (H, W) is more than a half.

    Grey between two values of a byte, as ComfyUI's own node gives it.
    """
    return np.where(np.rint(mask)[..., None] > 0, np.float32(127.5), picture.astype(np.float32))


def fill_seed(geometry: Geometry) -> int:
    """The seed of a random fill: fixed by the geometry, so that an entry is made alike every time."""
    return int(digest("fill", geometry.to_dict())[:8], 16)


def _ahead(function: Callable[[_Job], _Prepared], jobs: Iterable[_Job]) -> Iterator[_Prepared]:
    """Results in order, a few of them worked out in advance, so that decoding overlaps with encoding.

    At most four are in memory, however many jobs there are.
    """
    workers = min(2, os.cpu_count() or 1)
    with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="masked-lora-read") as pool:
        waiting: deque[Future[_Prepared]] = deque()
        try:
            for job in jobs:
                waiting.append(pool.submit(function, job))
                if len(waiting) > 2 * workers - 1:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
