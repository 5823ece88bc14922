"""From cache entries to the tensors of a micro-batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..loss.masks import mask_cells
from ..loss.presets import IGNORES_UNMASKED
from ..loss.tokens import count_mask_tokens
from ..settings import LossSettings
from .batches import EMPTY_CAPTION, ORIGINAL, Draw
from .job import CacheLike, Trainable, TrainEntry

MASK_MEMO_BYTES = 256 * 2**20
TEXT_MEMO = 64


@dataclass(frozen=True)
class MicroBatch:
    """Tensors on the training device, one row per sample.

    Attributes:
        latents: (B, C, [F,] h, w) float32 in the model's space.
        masks: (B, 1, [F,] h, w) float32 on the latent grid, before the latent transforms.
        grid: (h, w).
        conditioning: whatever the collator made of the captions and geometries.
        multiplier: (B,) float32.
        names: of the pictures.
        whole: whether every mask is 1 everywhere, so that nothing lies outside.
        bicubic: the masks reduced with bicubic overshoot, like `masks`, where `prior_reduction` asks for them.
        replaced: (B,) bool, samples that show a replaced background; None where none does.
        plain: the conditioning of the captions without their trigger words, where it was asked for and any has one.
        triggered: (B,) float32, 1 for samples whose caption has a trigger word; only beside `plain`.
        shares: how much of each cell the mask covers, like `masks`, where tokens are routed and `masks` tells less.
    """

    latents: Tensor
    masks: Tensor
    grid: tuple[int, int]
    conditioning: Any
    multiplier: Tensor
    names: tuple[str, ...]
    whole: bool = False
    bicubic: Tensor | None = None
    replaced: Tensor | None = None
    plain: Any = None
    triggered: Tensor | None = None
    shares: Tensor | None = None


class Feed:
    """Reads the samples of a micro-batch; reduced masks are remembered, within a bound."""

    def __init__(
        self,
        cache: CacheLike,
        loss: LossSettings,
        *,
        model: Trainable,
        regularisation_weight: float = 1.0,
    ) -> None:
        """Read from `cache` what `model` is trained on."""
        self.cache, self.loss, self.model = cache, loss, model
        self._regularisation_weight = regularisation_weight
        self._memo: dict[tuple[int, int], Tensor] = {}
        self._memo_bytes = 0
        self._texts: dict[str, dict[str, Any]] = {}
        self._most: dict[tuple[int, int], int] = {}
        # What the masks are reduced to beside the loss's own, by the field of the batch.
        self._extra: dict[str, tuple[str, LossSettings]] = {}
        if loss.prior_weight > 0 and loss.prior_reduction != "as the mask":
            self._extra["bicubic"] = loss.prior_reduction, loss
        if loss.routes and (loss.reduction != "area" or loss.reduction_binarize):
            self._extra["shares"] = "area", dataclasses.replace(loss, reduction_binarize=False)

    def make(self, draws: Sequence[Draw], *, plain: bool = False) -> MicroBatch:
        """The micro-batch of these draws, all of one bucket; `plain` asks for its captions without trigger too."""
        pairs = [(self.cache.entries[draw.entry], draw) for draw in draws]
        entries = [entry for entry, _ in pairs]
        grid = self.model.grid_of(entries[0].bucket)
        latents = [self.cache.latent(entry, draw.variant, draw.infill) for entry, draw in pairs]
        # Of shape (1, [F,] h, w), with a row more for each of `_extra`.
        reduced = [self._reduced(draw.entry, draw.variant, grid) for draw in draws]
        if self.loss.preset in IGNORES_UNMASKED and any(entry.has_mask for entry in entries):
            reduced = [rows if e.has_mask else torch.zeros_like(rows) for e, rows in zip(entries, reduced, strict=True)]
        masks = [rows[:1] for rows in reduced]
        captions = [None if d.caption == EMPTY_CAPTION else e.captions[d.caption] for e, d in pairs]
        keys = [caption.key if caption else "" for caption in captions]
        without = [caption.plain_key if caption else "" for caption in captions] if plain else []
        geometries = [entry.variants[draw.variant].geometry for entry, draw in pairs]
        has = [bool(key) for key in without]
        replaced = [draw.infill != ORIGINAL for draw in draws]
        shape = tuple(latents[0].shape)
        return MicroBatch(
            latents=self.model.latent_in(self._to_device(latents)),
            masks=self._to_device(masks),
            grid=grid,
            conditioning=self._conditioning(keys, geometries, shape),
            multiplier=self._to_device([torch.tensor(self._multiplier(e)) for e in entries]),
            names=tuple(e.name for e in entries),
            whole=all(bool((mask >= 1).all()) for mask in masks),
            replaced=torch.tensor(replaced, device=self.model.device) if any(replaced) else None,
            plain=self._conditioning(_or_else(without, keys), geometries, shape) if any(has) else None,
            triggered=self._to_device([torch.tensor(float(one)) for one in has]) if any(has) else None,
            **{
                field: self._to_device([rows[i : i + 1] for rows in reduced])
                for i, field in enumerate(self._extra, start=1)
            },
        )

    def most_mask_tokens(self, grid: tuple[int, int], *, patch: int) -> int:
        """Mask tokens of the largest mask of this size, over all entries and variants; read once a size."""
        if grid not in self._most:
            entries = self.cache.entries
            alike = [i for i, entry in enumerate(entries) if self.model.grid_of(entry.bucket) == grid]
            each = [(i, variant) for i in alike for variant in range(len(entries[i].variants))]
            row = 1 + list(self._extra).index("shares") if "shares" in self._extra else 0
            masks = (self._reduced(i, variant, grid)[row : row + 1] for i, variant in each)
            self._most[grid] = max((int(count_mask_tokens(m[None], patch=patch)) for m in masks), default=0)
        return self._most[grid]

    def _multiplier(self, entry: TrainEntry) -> float:
        return entry.multiplier * (self._regularisation_weight if entry.regularisation else 1.0)

    def _conditioning(self, keys: list[str], geometries: list[Any], shape: tuple[int, ...]) -> Any:
        """Of the captions of these keys, one a sample; an empty key is the empty caption's."""
        return self.model.collate([self._read_text(key) for key in keys], geometries, shape, keys=keys)

    def _read_text(self, key: str) -> dict[str, Any]:
        text = self._texts.pop(key, None)
        if text is None:
            text = self.cache.text(key) if key else self.cache.empty_text()
        self._texts[key] = text
        if len(self._texts) > TEXT_MEMO:
            del self._texts[next(iter(self._texts))]
        return text

    def _reduced(self, index: int, variant: int, grid: tuple[int, int]) -> Tensor:
        known = self._memo.get((index, variant))
        if known is not None:
            return known
        mask = self.cache.mask(self.cache.entries[index], variant).to(torch.float32)
        kinds = [(self.loss.reduction, self.loss), *self._extra.values()]
        small = torch.cat([mask_cells(mask[None], loss, grid=grid, kind=kind)[0] for kind, loss in kinds])
        self._memo[(index, variant)] = small
        self._memo_bytes += small.nbytes
        while self._memo_bytes > MASK_MEMO_BYTES and len(self._memo) > 1:
            self._memo_bytes -= self._memo.pop(next(iter(self._memo))).nbytes
        return small

    def _to_device(self, rows: list[Tensor]) -> Tensor:
        batch = torch.stack([row.to(torch.float32) for row in rows])
        if self.model.device.type == "cuda" and batch.device.type == "cpu":
            # Copying from pageable memory waits for the work queued before it.
            return batch.pin_memory().to(self.model.device, non_blocking=True)
        return batch.to(self.model.device)


def _or_else(wanted: list[str], given: list[str]) -> list[str]:
    return [one or other for one, other in zip(wanted, given, strict=True)]
