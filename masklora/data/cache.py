"""The cache: latents, masks and caption embeddings at the training geometry, made once and read per step.

Built bucket by bucket in batches, so that memory does not grow with the number of pictures. Entries are
found by content-hash keys (`keys`), wherever they are kept (`store`).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from ..config import CacheSettings
from ..errors import CacheError, ConfigError, FamilyError
from .dataset import Dataset, LoadedSample, check_aspect, load_sample
from .fill import apply_fill
from .geometry import Geometry, apply_image, apply_mask
from .keys import digest, text_key
from .plan import Entry, Progress, check_settings, is_hard, plan_entries
from .store import DiskStore, MemoryStore, Store

Cancel = Callable[[], None]
_LEVELS = 65535


class Encoder(Protocol):
    """What turns pictures into latents."""

    identity: str
    channels: int
    stride: int

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Latents (B, C, h, w), float32, without chance, of images (B, H, W, 3) in 0..1."""
        ...


class TextEncoder(Protocol):
    """What turns captions into conditioning."""

    identity: str

    def encode(self, texts: list[str]) -> list[dict[str, Any]]:
        """Per text a flat dict of tensors and plain values."""
        ...


@dataclass
class Cache:
    """A built cache; everything is read lazily from its store.

    Attributes:
        entries: One per sample.
        settings: What it was built with.
        channels: Channels of the latents.
        stride: Pixels per latent cell.
        fingerprint: Changes with any key, weight or caption; what a run's identity is made of.
        empty_key: Key of the empty caption, None without a text encoder.
        notes: What a person should know: entries rebuilt, size over the limit.
        built: How many entries of each kind were made by this build.
    """

    entries: tuple[Entry, ...]
    settings: CacheSettings
    channels: int
    stride: int
    store: Store = field(repr=False)
    fingerprint: str = ""
    empty_key: str | None = None
    notes: tuple[str, ...] = ()
    built: dict[str, int] = field(default_factory=dict)

    def latent(self, entry: Entry, variant: int = 0) -> torch.Tensor:
        """The latent of a variant: float32 (C, h, w) in the VAE's own space.

        Raises:
            CacheError: The entry is gone or damaged.
        """
        return self.store.read("latent", entry.latent_keys[variant])[0]["latent"]

    def mask(self, entry: Entry, variant: int = 0) -> torch.Tensor:
        """The mask of a variant at the pixels of the training picture: float32 (1, H, W) in 0..1.

        Stored in steps of 1/65535; 0 and 1 are exact.

        Raises:
            CacheError: The entry is gone or damaged.
        """
        tensors, values = self.store.read("mask", entry.mask_keys[variant])
        return decode_mask(tensors["data"], values)

    def mask_image(self, entry: Entry, variant: int = 0) -> np.ndarray:
        """The mask as a grey picture: uint8 (H, W), white = learn."""
        return np.rint(self.mask(entry, variant)[0].numpy() * 255).astype(np.uint8)

    def text(self, key: str) -> dict[str, Any]:
        """The conditioning of one caption: tensors and plain values by name.

        Raises:
            CacheError: The entry is gone or damaged.
        """
        tensors, values = self.store.read("text", key)
        return {**tensors, **values}

    def empty_text(self) -> dict[str, Any]:
        """The conditioning of the empty caption, for caption dropout.

        Raises:
            CacheError: The cache was built without a text encoder.
        """
        if self.empty_key is None:
            raise CacheError(
                "The cache holds no captions. Connect a CLIP to the cache node and run it again."
            )
        return self.text(self.empty_key)

    def summary(self) -> str:
        """A few lines on what is in the cache and what was made."""
        sizes: dict[tuple[int, int], int] = {}
        for entry in self.entries:
            sizes[entry.bucket] = sizes.get(entry.bucket, 0) + 1
        lines = [f"{len(self.entries)} pictures in {len(sizes)} buckets:"]
        lines += [f"  {w}×{h}: {count}" for (w, h), count in sorted(sizes.items())]
        lines.append("made now: " + ", ".join(f"{count} {kind}" for kind, count in self.built.items()))
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
    multiple: int = 0,
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
        multiple: What bucket sides must divide by; 0 takes the encoder's stride.

    Raises:
        ConfigError: A setting is out of range or does not fit the VAE.
        DataError: A picture or mask cannot be used.
        CacheError: The folder cannot be written or the disk is full.
        FamilyError: The VAE gives latents of another shape than it says, or values that are not finite.
    """
    check_settings(settings)
    store = _open_store(settings, folder)
    memo = store.load_memo()
    try:
        entries = plan_entries(
            dataset,
            settings,
            memo=memo,
            encoder=encoder.identity,
            text=None if text is None else text.identity,
            multiple=multiple or encoder.stride,
            progress=progress,
            check_cancel=check_cancel,
        )
    finally:
        store.save_memo(memo)
    builder = _Builder(
        dataset, settings, encoder=encoder, store=store, progress=progress, check_cancel=check_cancel
    )
    builder.pictures(entries)
    empty = None
    if text is not None:
        builder.texts(entries, text)
        empty = text_key("", encoder=text.identity)
    keep = {("latent", k) for e in entries for k in e.latent_keys}
    keep |= {("mask", k) for e in entries for k in e.mask_keys}
    keep |= {("text", k) for e in entries for k in e.text_keys} | {("text", empty or "")}
    store.clean_up(limit=settings.max_gigabytes * 1e9, keep=keep)
    return Cache(
        entries=tuple(entries),
        settings=settings,
        channels=encoder.channels,
        stride=encoder.stride,
        store=store,
        fingerprint=_fingerprint(entries, empty),
        empty_key=empty,
        notes=tuple(store.notes),
        built=builder.built,
    )


class _Builder:
    """Makes what a store lacks."""

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
        self.dataset, self.settings, self.encoder, self.store = dataset, settings, encoder, store
        self.progress, self.check_cancel = progress, check_cancel
        self.built = {"latent": 0, "mask": 0, "text": 0}

    def pictures(self, entries: list[Entry]) -> None:
        """Make the missing latents and masks, one bucket after the other."""
        jobs = self._jobs(entries)
        done = 0
        for bucket in sorted({entry.bucket for entry, _, _ in jobs}):
            batch: list[tuple[str, str, np.ndarray]] = []
            for entry, latents, masks in (job for job in jobs if job[0].bucket == bucket):
                self.check_cancel()
                self.progress(done, len(jobs), f"encoding {entry.name}")
                loaded = self._load(entry)
                self._write_masks(entry, masks, loaded)
                for variant in latents:
                    batch.append(
                        (entry.latent_keys[variant], entry.name, self._picture(entry, variant, loaded))
                    )
                    if len(batch) == self.settings.batch_size:
                        self._encode(batch)
                        batch = []
                done += 1
            if batch:
                self._encode(batch)
        if jobs:
            self.progress(done, len(jobs), "pictures encoded")

    def texts(self, entries: list[Entry], text: TextEncoder) -> None:
        """Make the missing caption embeddings, and that of the empty caption."""
        wanted = {text_key("", encoder=text.identity): ""}
        for entry in entries:
            wanted.update(zip(entry.text_keys, entry.captions, strict=True))
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

    def _jobs(self, entries: list[Entry]) -> list[tuple[Entry, list[int], list[int]]]:
        """Entries with the variants whose latent or mask is missing; a key that occurs twice is made once."""
        seen: set[tuple[str, str]] = set()

        def lacking(kind: str, keys: tuple[str, ...]) -> list[int]:
            found = []
            for variant, key in enumerate(keys):
                if (kind, key) not in seen:
                    seen.add((kind, key))
                    if not self.store.has(kind, key):
                        found.append(variant)
            return found

        jobs = []
        for entry in entries:
            self.check_cancel()
            latents, masks = lacking("latent", entry.latent_keys), lacking("mask", entry.mask_keys)
            if latents or masks:
                jobs.append((entry, latents, masks))
        return jobs

    def _load(self, entry: Entry) -> LoadedSample:
        sample = self.dataset.samples[entry.index]
        loaded = load_sample(sample)
        check_aspect(sample.name, loaded.mask.shape[::-1], sample.size)
        return loaded

    def _write_masks(self, entry: Entry, variants: list[int], loaded: LoadedSample) -> None:
        hard = is_hard(self.dataset.samples[entry.index])
        for variant in variants:
            mask = apply_mask(loaded.mask, entry.geometries[variant], hard=hard)
            data, values = encode_mask(mask)
            self.store.write("mask", entry.mask_keys[variant], {"data": data}, values)
            self.built["mask"] += 1

    def _picture(self, entry: Entry, variant: int, loaded: LoadedSample) -> np.ndarray:
        sample = self.dataset.samples[entry.index]
        geometry = entry.geometries[variant]
        rgb = apply_image(loaded.rgb, geometry, resize=self.settings.resize)
        if sample.settings.fill == "keep" or not loaded.has_mask:
            return rgb
        mask = apply_mask(loaded.mask, geometry, hard=is_hard(sample))
        return apply_fill(rgb, mask, sample.settings.fill, seed=fill_seed(geometry))

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


def fill_seed(geometry: Geometry) -> int:
    """The seed of a random fill: fixed by the geometry, so that an entry is made alike every time."""
    return int(digest("fill", geometry.to_dict())[:8], 16)


def encode_mask(mask: np.ndarray) -> tuple[torch.Tensor, dict[str, Any]]:
    """A mask (H, W) in 0..1 as compressed bytes and what is needed to read them.

    Values become whole steps of 1/65535 (an error of at most 1/131070), stored in one byte each where all
    are multiples of 1/255; so masks of 8 and 16 bits, and 0 and 1 in any mask, are exact.
    """
    steps = np.rint(np.clip(mask, 0.0, 1.0).astype(np.float64) * _LEVELS).astype("<u2")
    small = not (steps % 257).any()
    packed = zlib.compress((steps // 257).astype("u1").tobytes() if small else steps.tobytes(), 1)
    with torch.inference_mode(False):
        data = torch.frombuffer(bytearray(packed), dtype=torch.uint8)
    return data, {"shape": list(mask.shape), "bits": 8 if small else 16}


def decode_mask(data: torch.Tensor, values: dict[str, Any]) -> torch.Tensor:
    """The mask of `encode_mask`'s result as float32 (1, H, W) in 0..1.

    Raises:
        CacheError: The bytes do not fit the shape.
    """
    height, width = values["shape"]
    small = values["bits"] == 8
    size = height * width * (1 if small else 2)
    raw = zlib.decompressobj().decompress(data.numpy().tobytes(), size + 1)
    if len(raw) != size:
        raise CacheError("A cached mask does not fit its size. Empty the cache folder and run again.")
    steps = np.frombuffer(raw, "u1" if small else "<u2").astype(np.float32)
    scaled = (steps / np.float32(255 if small else _LEVELS)).reshape(1, height, width)
    with torch.inference_mode(False):
        return torch.from_numpy(scaled)


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
            e.latent_keys,
            e.mask_keys,
            e.text_keys,
            e.weight,
            e.multiplier,
            e.regularisation,
            e.caption_dropout,
        ]
        for e in entries
    ]
    return digest("cache", parts, empty)
