"""Pictures to which the loss gives no weight: what the cache cannot know, because it hangs on the loss settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch

from ..cache.cache import Cache
from ..cache.mask_sense import told
from ..cache.plan import Entry
from ..errors import MaskError
from ..findings import Finding, warning
from ..loss.masks import latent_weights, mask_cells, reduce_frames
from ..settings import LossSettings
from .microbatch import entry_grid

WEIGHTLESS = (
    "{which} [teaches|teach] nothing under {settings}, which leave no latent cell any weight: {names}. Change these in "
    "Masked Loss, or grow the masks.",
    "{which} [teaches|teach] nothing in some of [its|their] crops under {settings}, which leave no latent cell any "
    "weight: {names}. Change these in Masked Loss, or grow the masks.",
)
ONLY_IN_GIVEN = (
    "{which} [teaches|teach] nothing: the model is given the first frame of [this clip|these clips], and the "
    "[mask is|masks are] empty after it: {names}."
)


def weightless(
    cache: Cache,
    loss: LossSettings,
    *,
    grid_of: Callable[[tuple[int, int]], tuple[int, int]],
    check_cancel: Callable[[], None] = lambda: None,
    given: int = 0,
) -> list[Finding]:
    """Warnings of pictures that teach nothing, or nothing in some of their crops, under these settings.

    Args:
        cache: its masks are read only where the settings can take away what is there.
        loss: the loss settings.
        grid_of: bucket (width, height) to the latent grid (h, w).
        check_cancel: called between pictures; raises to stop.
        given: how many latent frames of each clip the model is given, so that they are not learned.

    Raises:
        MaskError: no picture that is to be learned has any weight.
    """
    found = _only_in_given(cache, given, check_cancel) if given else []
    if not _may_take_all(loss, moving=any(entry.moving for entry in cache.entries)):
        return found
    never: dict[tuple[int, tuple[int, ...]], str] = {}
    sometimes: dict[tuple[int, tuple[int, ...]], str] = {}
    taught = 0
    for entry in cache.entries:
        check_cancel()
        grid = entry_grid(entry, grid_of)
        has = [_has_weight(cache, entry, variant, loss, grid, given) for variant in range(len(entry.variants))]
        judged = [one for one in has if one is not None]
        taught += any(judged) and not entry.regularisation
        if judged and not any(judged):
            never.setdefault((entry.index, entry.frames), entry.name)
        elif not all(judged):
            sometimes.setdefault((entry.index, entry.frames), entry.name)
    settings = _named(loss)
    if not taught and never:
        raise MaskError(
            f"Nothing in the cache has a latent cell with weight under {settings}, beginning with "
            f"{next(iter(never.values()))}: nothing would be learned. Change these in Masked Loss, or grow the masks."
        )
    return found + [
        warning(told(list(names.values()), cache.entries, what, settings=settings))
        for names, what in zip((never, sometimes), WEIGHTLESS, strict=True)
        if names
    ]


def _only_in_given(cache: Cache, given: int, check_cancel: Callable[[], None]) -> list[Finding]:
    """A warning of clips whose masks end with the frames that the model is given.

    Raises:
        MaskError: nothing else is left to be learned.
    """
    names, taught = {}, 0
    for entry in cache.entries:
        check_cancel()
        if not entry.moving or not entry.latent_frames:
            taught += not entry.regularisation
            continue
        left = _left_after(cache, entry, given)
        taught += bool(left) and not entry.regularisation
        if left is False:
            names.setdefault((entry.index, entry.frames), entry.name)
    if names and not taught:
        raise MaskError(
            f"No clip has a mask beyond its first frame, beginning with {next(iter(names.values()))}: the model is "
            "given that frame, and nothing would be learned. Let the masks move with the clip, or set first_frame in "
            "Cache Dataset to never."
        )
    return [warning(told(list(names.values()), cache.entries, ONLY_IN_GIVEN))] if names else []


def _left_after(cache: Cache, entry: Entry, given: int) -> bool | None:
    """Whether a mask of a clip has weight after its first latent frames; None where all are empty throughout.

    That was told with the cache. One mask is in memory at a time, since they are large.
    """
    some = False
    for variant in range(len(entry.variants)):
        mask = cache.mask(entry, variant)[None].to(torch.float32)
        if bool(reduce_frames(mask, frames=entry.latent_frames, kind="max")[:, :, given:].any()):
            return True
        some = some or bool(mask.any())
    return False if some else None


def _may_take_all(loss: LossSettings, *, moving: bool) -> bool:
    """Whether a mask with weight may end without; one that has none is told with the cache."""
    # The threshold cuts after the floor has lifted.
    if loss.floor > 0 and loss.ceiling > 0 and loss.weight_threshold <= 0:
        return False
    takes = loss.mask_type == "hard" or loss.reduction in ("all", "nearest")
    # What moves by more than itself has no place in all frames of a latent one.
    takes = takes or (moving and loss.frame_reduction == "min")
    return takes or loss.weight_threshold > 0 or loss.ceiling <= 0


def _has_weight(
    cache: Cache, entry: Entry, variant: int, loss: LossSettings, grid: tuple[int, ...], given: int
) -> bool | None:
    """None for a mask that is empty as it is: it was told with the cache."""
    if not entry.has_mask and loss.ceiling > 0:
        return True
    mask = cache.mask(entry, variant)[None].to(torch.float32)
    if not bool(mask.any()):
        return None
    cells = mask_cells(mask, loss, grid=grid, kind=loss.reduction)
    cells = cells[:, :, given:] if entry.latent_frames else cells
    plain = dataclasses.replace(loss, edge_jitter=0.0, noise_blur=0.0)
    return bool(latent_weights(cells, plain).any())


def _named(loss: LossSettings) -> str:
    usual = LossSettings()
    names = ("mask_type", "reduction", "frame_reduction", "weight_threshold", "ceiling")
    return ", ".join(f"{name} {getattr(loss, name)}" for name in names if getattr(loss, name) != getattr(usual, name))
