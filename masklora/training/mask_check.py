"""Pictures to which the loss gives no weight: what the cache cannot know, because it hangs on the loss settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch

from ..cache.cache import Cache
from ..cache.mask_sense import count, listed
from ..cache.plan import Entry
from ..errors import MaskError
from ..findings import Finding, warning
from ..loss.masks import latent_weights, mask_cells
from ..settings import LossSettings


def weightless(
    cache: Cache,
    loss: LossSettings,
    *,
    grid_of: Callable[[tuple[int, int]], tuple[int, int]],
    check_cancel: Callable[[], None] = lambda: None,
) -> list[Finding]:
    """Warnings of pictures that teach nothing, or nothing in some of their crops, under these settings.

    Args:
        cache: its masks are read only where the settings can take away what is there.
        loss: the loss settings.
        grid_of: bucket (width, height) to the latent grid (h, w).
        check_cancel: called between pictures; raises to stop.

    Raises:
        MaskError: no picture that is to be learned has any weight.
    """
    if not _may_take_all(loss):
        return []
    never, sometimes = [], []
    taught = 0
    for entry in cache.entries:
        check_cancel()
        grid = grid_of(entry.bucket)
        has = [_has_weight(cache, entry, variant, loss, grid) for variant in range(len(entry.variants))]
        judged = [one for one in has if one is not None]
        taught += any(judged) and not entry.regularisation
        if judged and not any(judged):
            never.append(entry.name)
        elif not all(judged):
            sometimes.append(entry.name)
    settings = _named(loss)
    if not taught and never:
        raise MaskError(
            f"No picture has a latent cell with weight under {settings}, beginning with {never[0]}: nothing would be "
            "learned. Change these in Masked Loss, or grow the masks."
        )
    told = [(never, "teach nothing"), (sometimes, "teach nothing in some of their crops")]
    return [
        warning(
            f"{count(names, len(cache.entries))} {what} under {settings}, which leave no latent cell any weight: "
            f"{listed(names)}. Change these in Masked Loss, or grow the masks."
        )
        for names, what in told
        if names
    ]


def _may_take_all(loss: LossSettings) -> bool:
    """Whether a mask with weight may end without; one that has none is told with the cache."""
    # The threshold cuts after the floor has lifted.
    if loss.floor > 0 and loss.ceiling > 0 and loss.weight_threshold <= 0:
        return False
    takes = loss.mask_type == "hard" or loss.reduction in ("all", "nearest")
    return takes or loss.weight_threshold > 0 or loss.ceiling <= 0


def _has_weight(cache: Cache, entry: Entry, variant: int, loss: LossSettings, grid: tuple[int, int]) -> bool | None:
    """None for a mask that is empty as it is: it was told with the cache."""
    if not entry.has_mask and loss.ceiling > 0:
        return True
    mask = cache.mask(entry, variant)[None].to(torch.float32)
    if not bool(mask.any()):
        return None
    cells = mask_cells(mask, loss, grid=grid, kind=loss.reduction)
    plain = dataclasses.replace(loss, edge_jitter=0.0, noise_blur=0.0)
    return bool(latent_weights(cells, plain).any())


def _named(loss: LossSettings) -> str:
    usual = LossSettings()
    names = ("mask_type", "reduction", "weight_threshold", "ceiling")
    return ", ".join(f"{name} {getattr(loss, name)}" for name in names if getattr(loss, name) != getattr(usual, name))
