"""The drafts of moving masks that are open, and what they may hold altogether. They end with their data set."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence

from ....clips.reading import frame_times
from ....dataset.moving import times_of
from ....dataset.sample import Sample, source_path
from ....errors import BusyError, DataError
from ....findings import counted
from ....saving.drafts import Draft
from ....saving.moving_masks import SavedMasks, former_masks, save_moving, saved_masks, saved_token
from ...outputs import allow_writing
from ..edits import take_masks, versions
from ..opened import OPENED, OpenedDataset

MOST_DRAFTS = 8
MOST_BYTES = 512 << 20
# What a draft may add to the masks that it was started from, however many those are.
LEAST_BYTES = 64 << 20
# Two that are opened at once must not both take the last place.
_OPENING = threading.Lock()


def draft_of(opened: OpenedDataset, index: int, *, start: bool = False) -> Draft | None:
    """The draft of a clip's masks; None where there is none, unless one is to be started.

    One without changes is started anew where the clip or its saved masks are others by now.

    Raises:
        DataError, ConfigError, PathError: As `saved_masks`.
        BusyError: There are too many others with changes that are not saved.
    """
    found = opened.drafts.get(index)
    if not start or (found is not None and found.unsaved):
        return found
    with _OPENING:
        found = opened.drafts.get(index)
        if found is not None and not found.unsaved and _is_outdated(found, opened.source(index)):
            discard(opened, index)
        if index not in opened.drafts:
            _make_place()
            sample = opened.source(index)
            saved = saved_masks(sample, allowed=allow_writing)
            opened.drafts[index] = _made(saved, times_of(sample).tolist())
            _make_room(opened.drafts[index])
        return opened.drafts[index]


def discard(opened: OpenedDataset, index: int) -> None:
    """The draft ends, what is tracked in it too; nothing happens where there is none."""
    draft = opened.drafts.pop(index, None)
    if draft is not None:
        draft.close()


def _is_outdated(draft: Draft, sample: Sample) -> bool:
    """Whether a draft was started from another clip or other masks than there are now."""
    if draft.saved.frames[0].shape != sample.size[::-1] or len(draft) != len(frame_times(source_path(sample))):
        return True
    return draft.saved.token != saved_token(sample, allowed=allow_writing)


def save_over(opened: OpenedDataset, index: int, draft: Draft, seen: int) -> None:
    """The masks that others have saved meanwhile are what the next save replaces, and keeps.

    Raises:
        DataError, ConfigError, PathError, MaskError: As `saved_masks`.
        MaskConflictError, BusyError: As every change of a draft.
    """
    draft.save_over(saved_masks(opened.source(index), allowed=allow_writing), seen)


def put_former(opened: OpenedDataset, index: int, draft: Draft, seen: int) -> None:
    """The masks before the last save take the place of a draft's, as a step that can be undone.

    Raises:
        DataError, ConfigError, PathError, MaskError: As `former_masks`; or none are kept.
        MaskConflictError, BusyError: As every change of a draft.
    """
    sample = opened.source(index)
    masks = former_masks(sample, allowed=allow_writing, versions=versions())
    if masks is None:
        raise DataError(f"{sample.name}: no former version of its masks is kept. Save an edit first.")
    draft.put(masks, seen)


def save_draft(opened: OpenedDataset, index: int, draft: Draft, seen: int) -> list[int]:
    """Writes the masks of a draft, which every open data set takes over; gives the samples of `opened` that changed.

    Raises:
        MaskConflictError, BusyError: As every change of a draft; or the saved masks were changed elsewhere.
        DataError, ConfigError, PathError: As `save_moving`; or the mask's file is a picture's as well.
    """
    before = opened.source(index)
    with draft.saving(seen) as frames:
        _refuse_shared(before, (one.source(i) for one in OPENED.all() for i in range(len(one))))
        after = save_moving(before, frames, draft.saved.token, allowed=allow_writing, versions=versions())
        changed = take_masks(opened, before, after)
        draft.mark_saved(saved_masks(after, allowed=allow_writing, known=frames))
    return changed


def _refuse_shared(sample: Sample, others: Iterable[Sample]) -> None:
    """Raises where a file of masks that move would be the mask of a picture too."""
    for other in others:
        if other.moving is None and other.mask_path is not None and other.mask_path == sample.mask_path:
            raise DataError(
                f"{sample.name}: its mask {other.mask_path.name} is that of the picture {other.name} too, whose mask "
                "cannot move. Give the clip another name, or a mask of its own."
            )


def _all() -> list[tuple[OpenedDataset, int, Draft]]:
    return [(one, index, draft) for one in OPENED.all() for index, draft in list(one.drafts.items())]


def _make_place() -> None:
    """Drops drafts without changes, the oldest first, until there is a place for one more."""
    kept = _all()
    for opened, index, draft in list(kept):
        if len(kept) < MOST_DRAFTS:
            return
        if not draft.unsaved:
            discard(opened, index)
            kept.remove((opened, index, draft))
    if len(kept) >= MOST_DRAFTS:
        names = ", ".join(opened.source(index).name for opened, index, _ in kept)
        raise BusyError(
            f"{counted(len(kept), '[clip has|clips have]')} changed masks that are not saved: {names}. Save or discard "
            "one of them, then open this clip again."
        )


def _make_room(newest: Draft) -> None:
    """Drops other drafts without changes, the oldest first, as long as all of them take more than half of the room."""
    for opened, index, draft in _all():
        if sum(one.held for _, _, one in _all()) <= MOST_BYTES // 2:
            return
        if draft is not newest and not draft.unsaved:
            discard(opened, index)


def _made(saved: SavedMasks, times: Sequence[float]) -> Draft:
    def room() -> int:
        left = MOST_BYTES - sum(other.held for _, _, other in _all() if other is not draft)
        return max(left, own + LEAST_BYTES)

    draft = Draft(saved, times, room=room)
    own = draft.held
    return draft
