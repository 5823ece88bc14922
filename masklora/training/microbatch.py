"""From cache entries to the tensors of a micro-batch."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..loss.masks import mask_cells
from ..loss.presets import IGNORES_UNMASKED
from ..loss.tokens import count_mask_tokens
from ..settings import LossSettings
from .batches import EMPTY_CAPTION, ORIGINAL, Draw, EntryLike
from .job import CacheLike, Trainable, TrainEntry
from .read_ahead import ReadAhead

MASK_MEMO_BYTES = 256 * 2**20
TEXT_MEMO = 64


@dataclass(frozen=True)
class MicroBatch:
    """Tensors on the training device, one row per sample.

    Attributes:
        latents: (B, C, [F,] h, w) float32 in the model's space.
        masks: (B, 1, [F,] h, w) float32 on the latent grid, before the latent transforms.
        grid: ([F,] h, w).
        conditioning: whatever the collator made of the captions and geometries.
        multiplier: (B,) float32.
        names: of the pictures.
        whole: whether every mask is 1 everywhere, so that nothing lies outside.
        bicubic: the masks reduced with bicubic overshoot, like `masks`, where `prior_reduction` asks for them.
        replaced: (B,) bool, samples that show a replaced background; None where none does.
        plain: the conditioning of the captions without their trigger words, where it was asked for and any has one.
        triggered: (B,) float32, 1 for samples whose caption has a trigger word; only beside `plain`.
        shares: how much of each cell the mask covers, like `masks`, where tokens are routed and `masks` tells less.
        given: how many latent frames at the beginning the model is given, which are neither learned nor held.
    """

    latents: Tensor
    masks: Tensor
    grid: tuple[int, ...]
    conditioning: Any
    multiplier: Tensor
    names: tuple[str, ...]
    whole: bool = False
    bicubic: Tensor | None = None
    replaced: Tensor | None = None
    plain: Any = None
    triggered: Tensor | None = None
    shares: Tensor | None = None
    given: int = 0


class _Rows(NamedTuple):
    """What a micro-batch is made of, on the host; pinned where the device is a GPU.

    Attributes:
        latents: (B, C, [F,] h, w) in the VAE's space.
        masks: by the field of the batch, (B, 1, [F,] h, w) each.
        whole: whether every mask is 1 everywhere.
        texts: conditioning of each caption.
        plain: the same of those without trigger word, where they are asked for and any has one.
        starts: what the model is given of clips that it continues, like `latents`; None where it is nothing, or theirs.
        references: latents (B, C, h, w) of each reference picture of the samples, in the VAE's space.
        filled: what is to be filled in of the pictures, (B, 1, H, W) in pixels, where `starts` are these without it.
    """

    latents: Tensor
    masks: dict[str, Tensor]
    whole: bool
    texts: list[dict[str, Any]]
    plain: list[dict[str, Any]] | None
    starts: Tensor | None
    references: list[Tensor]
    filled: Tensor | None


class Feed:
    """Reads the samples of a micro-batch; reduced masks are remembered, within a bound."""

    def __init__(
        self,
        cache: CacheLike,
        loss: LossSettings,
        *,
        model: Trainable,
        regularisation_weight: float = 1.0,
        first_frames: str = "",
    ) -> None:
        """Read from `cache` what `model` is trained on; `first_frames` as in `TrainJob`."""
        self.cache, self.loss, self.model = cache, loss, model
        self._first_frames = first_frames
        self._regularisation_weight = regularisation_weight
        self._memo: dict[tuple[int, int], Tensor] = {}
        self._memo_bytes = 0
        self._texts: dict[str, dict[str, Any]] = {}
        self._most: dict[tuple[int, ...], int] = {}
        # Of what is remembered, which the thread that reads ahead uses too.
        self._lock = threading.RLock()
        self._ahead: ReadAhead[_Rows] = ReadAhead()
        # What the masks are reduced to beside the loss's own, by the field of the batch.
        self._extra: dict[str, tuple[str, LossSettings]] = {}
        if loss.prior_weight > 0 and loss.prior_reduction != "as the mask":
            self._extra["bicubic"] = loss.prior_reduction, loss
        if loss.routes and (loss.reduction != "area" or loss.reduction_binarize):
            self._extra["shares"] = "area", dataclasses.replace(loss, reduction_binarize=False)

    def read_ahead(self, draws: Sequence[Draw], *, plain: bool = False) -> None:
        """Begin to read, in a thread, what `make` will be asked for next.

        What cannot be read there `make` reads itself, so that an error comes when the batch is due.
        """
        cache = self.cache.untouched()
        self._ahead.start((tuple(draws), plain), lambda: self._read(draws, plain, cache))

    def close(self) -> None:
        """Wait until nothing is being read ahead; what was is dropped."""
        self._ahead.close()

    def make(self, draws: Sequence[Draw], *, plain: bool = False) -> MicroBatch:
        """The micro-batch of these draws, all of one bucket; `plain` asks for its captions without trigger too."""
        rows = self._ahead.take((tuple(draws), plain)) or self._read(draws, plain, self.cache)
        entries = [self.cache.entries[draw.entry] for draw in draws]
        keys, without = self._keys(draws), self._keys(draws, plain=True)
        geometries = [e.variants[draw.variant].geometry for e, draw in zip(entries, draws, strict=True)]
        replaced = [draw.infill != ORIGINAL for draw in draws]
        latents, given = self._to_device(rows.latents), self._given(entries[0])
        starts = latents if rows.starts is None else self._to_device(rows.starts)
        references = [self._to_device(each) for each in rows.references]
        filled = None if rows.filled is None else self._to_device(rows.filled)

        def collate(texts: list[dict[str, Any]], keys: list[str]) -> Any:
            made = self.model.collate(texts, geometries=geometries, shape=tuple(latents.shape[1:]), keys=keys)
            made = self.model.with_references(made, references) if references else made
            made = made if filled is None else self.model.with_cut_outs(made, starts, filled)
            return self.model.with_first_frames(made, starts) if given else made

        has = None if rows.plain is None else [torch.tensor(float(bool(key))) for key in without]
        return MicroBatch(
            latents=self.model.latent_in(latents),
            grid=self._grid_of(entries[0]),
            conditioning=collate(rows.texts, keys),
            multiplier=self._to_device(self._stacked([torch.tensor(self._multiplier(e)) for e in entries])),
            names=tuple(e.name for e in entries),
            whole=rows.whole,
            replaced=torch.tensor(replaced, device=self.model.device) if any(replaced) else None,
            plain=None if rows.plain is None else collate(rows.plain, _or_else(without, keys)),
            triggered=None if has is None else self._to_device(self._stacked(has)),
            given=given,
            **{field: self._to_device(masks) for field, masks in rows.masks.items()},
        )

    def _given(self, entry: TrainEntry) -> int:
        """How many latent frames of it the model is given: a picture's only one is to be learned."""
        return int(bool(self._first_frames and entry.latent_frames))

    def _read(self, draws: Sequence[Draw], plain: bool, cache: CacheLike) -> _Rows:
        """What these draws show, from `cache`."""
        entries = [cache.entries[draw.entry] for draw in draws]
        grid = self._grid_of(entries[0])
        latents = [cache.latent(e, draw.variant, draw.infill) for e, draw in zip(entries, draws, strict=True)]
        # Of shape (1, [F,] h, w), with a row more for each of `_extra`.
        reduced = [self._reduced(draw.entry, draw.variant, grid, cache) for draw in draws]
        if self.loss.preset in IGNORES_UNMASKED and any(entry.has_mask for entry in entries):
            reduced = [rows if e.has_mask else torch.zeros_like(rows) for e, rows in zip(entries, reduced, strict=True)]
        keys, without = self._keys(draws), self._keys(draws, plain=True)
        plain = plain and any(without)
        given = self._given(entries[0])
        starts = filled = None
        if (given and self._first_frames == "cache") or self.model.inpaints:
            each = zip(entries, draws, strict=True)
            starts = self._stacked([cache.start(entry, draw.variant, draw.infill) for entry, draw in each])
        if self.model.inpaints:
            each = zip(entries, draws, strict=True)
            filled = self._stacked([cache.mask(entry, draw.variant) for entry, draw in each])
        return _Rows(
            latents=self._stacked(latents),
            masks={
                field: self._stacked([rows[i : i + 1] for rows in reduced])
                for i, field in enumerate(("masks", *self._extra))
            },
            whole=all(bool((rows[:1, given:] >= 1).all()) for rows in reduced),
            texts=[self._read_text(key, cache) for key in keys],
            plain=[self._read_text(key, cache) for key in _or_else(without, keys)] if plain else None,
            starts=starts,
            references=self._references(draws, cache),
            filled=filled,
        )

    def _references(self, draws: Sequence[Draw], cache: CacheLike) -> list[Tensor]:
        if not cache.entries[draws[0].entry].reference_sizes:
            return []
        each = [cache.references(cache.entries[draw.entry], draw.variant, draw.infill) for draw in draws]
        return [self._stacked(list(latents)) for latents in zip(*each, strict=True)]

    def _keys(self, draws: Sequence[Draw], *, plain: bool = False) -> list[str]:
        """Of the draws' captions, or of these without their trigger word; an empty key is the empty caption's."""
        entries = [self.cache.entries[draw.entry] for draw in draws]
        if plain:
            chosen = zip(entries, draws, strict=True)
            return ["" if d.caption == EMPTY_CAPTION else e.captions[d.caption].plain_key for e, d in chosen]
        chosen = zip(entries, draws, strict=True)
        return [e.empty_key if d.caption == EMPTY_CAPTION else e.captions[d.caption].key for e, d in chosen]

    def _grid_of(self, entry: TrainEntry) -> tuple[int, ...]:
        return entry_grid(entry, self.model.grid_of)

    def most_mask_tokens(self, grid: tuple[int, ...], *, patch: int) -> int:
        """Mask tokens of the largest mask of this size, over all entries and variants; read once a size."""
        if grid not in self._most:
            entries = self.cache.entries
            alike = [i for i, entry in enumerate(entries) if self._grid_of(entry) == grid]
            each = [(i, variant) for i in alike for variant in range(len(entries[i].variants))]
            row = 1 + list(self._extra).index("shares") if "shares" in self._extra else 0
            masks = (self._reduced(i, variant, grid, self.cache)[row : row + 1] for i, variant in each)
            self._most[grid] = max((int(count_mask_tokens(m[None], patch=patch)) for m in masks), default=0)
        return self._most[grid]

    def _multiplier(self, entry: TrainEntry) -> float:
        return entry.multiplier * (self._regularisation_weight if entry.regularisation else 1.0)

    def _read_text(self, key: str, cache: CacheLike) -> dict[str, Any]:
        with self._lock:
            text = self._texts.pop(key, None)
            if text is None:
                text = cache.text(key) if key else cache.empty_text()
            self._texts[key] = text
            if len(self._texts) > TEXT_MEMO:
                del self._texts[next(iter(self._texts))]
            return text

    def _reduced(self, index: int, variant: int, grid: tuple[int, ...], cache: CacheLike) -> Tensor:
        with self._lock:
            known = self._memo.get((index, variant))
            if known is not None:
                return known
            mask = cache.mask(cache.entries[index], variant).to(torch.float32)
            kinds = [(self.loss.reduction, self.loss), *self._extra.values()]
            small = torch.cat([mask_cells(mask[None], loss, grid=grid, kind=kind)[0] for kind, loss in kinds])
            self._memo[(index, variant)] = small
            self._memo_bytes += small.nbytes
            while self._memo_bytes > MASK_MEMO_BYTES and len(self._memo) > 1:
                self._memo_bytes -= self._memo.pop(next(iter(self._memo))).nbytes
            return small

    def _stacked(self, rows: list[Tensor]) -> Tensor:
        batch = torch.stack([row.to(torch.float32) for row in rows])
        # Copying from pageable memory waits for the work queued before it.
        return batch.pin_memory() if self.model.device.type == "cuda" and batch.device.type == "cpu" else batch

    def _to_device(self, batch: Tensor) -> Tensor:
        return batch.to(self.model.device, non_blocking=batch.device.type == "cpu" and batch.is_pinned())


def entry_grid(entry: EntryLike, grid_of: Callable[[tuple[int, int]], tuple[int, int]]) -> tuple[int, ...]:
    """The latent grid ([F,] h, w) of a cache entry; `grid_of` gives (h, w) of a bucket."""
    return (*([entry.latent_frames] if entry.latent_frames else []), *grid_of(entry.bucket))


def _or_else(wanted: list[str], given: list[str]) -> list[str]:
    return [one or other for one, other in zip(wanted, given, strict=True)]
