"""Makes the cache entries that a store lacks: pictures bucket by bucket in batches, captions in batches."""

from __future__ import annotations

import functools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from ..dataset.geometry import Geometry, apply_image, apply_mask
from ..dataset.sample import Dataset, LoadedSample, check_aspect, load_sample
from ..errors import FamilyError
from ..loss.masks import shrink_to_circle
from ..pictures.packed_mask import encode_mask
from ..settings import CacheSettings
from .fill import apply_fill
from .infill import apply_infill
from .keys import digest, text_key
from .plan import Entry, Progress, Shrink, Variant, is_hard
from .store import Store

Cancel = Callable[[], None]
# What one job holds in memory at most, originals and infills together; more variants are made in several jobs.
PICTURES_OF_A_JOB = 32


class Encoder(Protocol):
    """What turns pictures into latents."""

    identity: str
    channels: int
    stride: int
    clips: bool

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Latents (B, C, h, w), float32, without chance, of images (B, H, W, 3) in 0..1."""
        ...


class TextEncoder(Protocol):
    """What turns captions into conditioning."""

    identity: str

    def encode(self, texts: list[str]) -> list[dict[str, Any]]:
        """Per text a flat dict of tensors and plain values."""
        ...


@dataclass(frozen=True)
class _Job:
    """A sample, its variants whose latent or mask is missing, and the missing (variant, infill) pairs by infill."""

    entry: Entry
    latents: tuple[Variant, ...]
    masks: tuple[Variant, ...]
    infills: tuple[tuple[Variant, int], ...]


@dataclass(frozen=True, eq=False)
class _Prepared:
    """A job's pictures uint8 (H, W, 3) and masks float32 (H, W) at the training size, by key."""

    entry: Entry
    pictures: list[tuple[str, np.ndarray]]
    masks: list[tuple[str, np.ndarray]]


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
        self.built = {"latent": 0, "mask": 0, "text": 0}
        self.weights: dict[str, float] = {}

    def pictures(self, entries: list[Entry]) -> None:
        """Make the missing latents and masks, bucket by bucket, a few pictures in memory at a time."""
        jobs = self._jobs(entries)
        batch: list[tuple[str, str, np.ndarray]] = []
        for done, prepared in enumerate(_ahead(self._prepare, jobs)):
            self.check_cancel()
            self.progress(done, len(jobs), f"encoding {prepared.entry.name}")
            for key, mask in prepared.masks:
                data, values = encode_mask(mask)
                self.store.write("mask", key, {"data": data}, values)
                self.weights[key] = float(mask.mean(dtype=np.float64))
                self.built["mask"] += 1
            for key, picture in prepared.pictures:
                if batch and (len(batch) == self.settings.batch_size or batch[0][2].shape != picture.shape):
                    self._encode(batch)
                    batch = []
                batch.append((key, prepared.entry.name, picture))
        if batch:
            self._encode(batch)
        if jobs:
            self.progress(len(jobs), len(jobs), "pictures encoded")

    def texts(self, entries: list[Entry], text: TextEncoder) -> None:
        """Make the missing caption embeddings, and that of the empty caption."""
        wanted = {text_key("", encoder=text.identity): ""}
        for entry in entries:
            wanted.update((caption.key, caption.text) for caption in entry.captions)
            wanted.update((caption.plain_key, caption.plain) for caption in entry.captions if caption.plain is not None)
        missing = [(key, caption) for key, caption in wanted.items() if not self.store.has("text", key)]
        size = self.settings.batch_size
        for start in range(0, len(missing), size):
            self.check_cancel()
            self.progress(start, len(missing), "encoding captions")
            part = missing[start : start + size]
            for (key, _), values in zip(part, text.encode([caption for _, caption in part]), strict=True):
                tensors = {name: v for name, v in values.items() if isinstance(v, torch.Tensor)}
                plain = {name: v for name, v in values.items() if name not in tensors}
                self.store.write("text", key, tensors, plain)
                self.built["text"] += 1
        if missing:
            self.progress(len(missing), len(missing), "captions encoded")

    def _jobs(self, entries: list[Entry]) -> list[_Job]:
        """What is missing, in order of buckets; a key that occurs twice is made once."""
        seen: set[tuple[str, str]] = set()

        def lacking(kind: str, key: str) -> bool:
            fresh = (kind, key) not in seen
            seen.add((kind, key))
            return fresh and not self.store.has(kind, key)

        jobs = []
        for entry in sorted(entries, key=lambda entry: entry.bucket):
            self.check_cancel()
            views = max(1, PICTURES_OF_A_JOB // (1 + len(entry.infills)))
            for start in range(0, len(entry.variants), views):
                part = entry.variants[start : start + views]
                job = _Job(
                    entry,
                    tuple(v for v in part if lacking("latent", v.latent)),
                    tuple(v for v in part if lacking("mask", v.mask)),
                    tuple(
                        (v, number)
                        for number in range(len(entry.infills))
                        for v in part
                        if lacking("latent", v.infills[number])
                    ),
                )
                if job.latents or job.masks or job.infills:
                    jobs.append(job)
        return jobs

    def _prepare(self, job: _Job) -> _Prepared:
        """Runs in a worker thread: reads the sample and brings it to the training size."""
        entry, sample = job.entry, self.dataset.samples[job.entry.index]
        loaded = load_sample(sample)
        check_aspect(sample.name, (loaded.mask.shape[1], loaded.mask.shape[0]), sample.size)

        @functools.cache
        def mask_of(geometry: Geometry) -> np.ndarray:
            return apply_mask(loaded.mask, geometry, hard=is_hard(sample))

        @functools.cache
        def shown_of(geometry: Geometry) -> np.ndarray:
            if loaded.shown is loaded.mask:
                return mask_of(geometry)
            return apply_mask(loaded.shown, geometry, hard=is_hard(sample))

        @functools.cache
        def picture_of(geometry: Geometry) -> np.ndarray:
            return apply_image(loaded.rgb, geometry, resize=self.settings.resize)

        # The pairs come infill by infill, so each donor is decoded once and then forgotten.
        @functools.lru_cache(maxsize=1)
        def donor_of(index: int) -> LoadedSample:
            return load_sample(self.dataset.samples[index])

        pictures, fill = [], sample.settings.fill
        for variant in job.latents:
            rgb = picture_of(variant.geometry)
            if fill != "keep" and loaded.has_mask:
                rgb = apply_fill(rgb, shown_of(variant.geometry), fill, seed=fill_seed(variant.geometry))
            pictures.append((variant.latent, rgb))
        for variant, number in job.infills:
            geometry, infill = variant.geometry, entry.infills[number]
            donor = None if infill.donor is None else donor_of(infill.donor)
            rgb = apply_infill(picture_of(geometry), shown_of(geometry), infill, donor=donor)
            pictures.append((variant.infills[number], rgb))
        masks = [(v.mask, shrink_mask(mask_of(v.geometry), v.shrink)) for v in job.masks]
        return _Prepared(entry, pictures, masks)

    def _encode(self, batch: list[tuple[str, str, np.ndarray]]) -> None:
        self.check_cancel()
        images = torch.from_numpy(np.stack([picture for _, _, picture in batch])).float() / 255
        latents = self.encoder.encode(images)
        stride, shape = self.encoder.stride, images.shape
        expected = (shape[0], self.encoder.channels, shape[1] // stride, shape[2] // stride)
        if tuple(latents.shape) != expected:
            raise FamilyError(f"The VAE gave latents of shape {tuple(latents.shape)}, expected {expected}.")
        for (key, name, _), latent in zip(batch, latents, strict=True):
            if not bool(torch.isfinite(latent).all()):
                raise FamilyError(
                    f"{name}: the VAE gave values that are not finite. Start ComfyUI with --fp32-vae or "
                    "choose another VAE."
                )
            self.store.write("latent", key, {"latent": latent.float()})
            self.built["latent"] += 1


def shrink_mask(mask: np.ndarray, shrink: Shrink | None) -> np.ndarray:
    """What a variant keeps of its mask, float32 (H, W) at the training size; all of it without a shrink."""
    return mask if shrink is None else shrink_to_circle(mask, factor=shrink.factor, seed=shrink.seed)


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
