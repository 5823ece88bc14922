"""Masks carried over the frames of a clip in a thread: by optical flow, or by SAM 3 where one is connected."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from server import PromptServer

from ....clips.reading import read_frames
from ....dataset.sample import Sample, naming, source_path
from ....errors import BusyError, FamilyError
from ....generators.flow import carry_from
from ....pictures.packed_mask import PackedMask
from ....saving.drafts import Draft, Tracker, Watch
from ...finders.tracking import check_tracker, track_from
from ..opened import OpenedDataset
from ..requests import RefusedError

FLOW, SAM3 = "flow", "sam3"
# SAM 3 gives the masks of many frames at once: so many are shown, and kept when it is stopped, at a time.
PIECE = 48
# A model works for one at a time.
MODEL = threading.Lock()

Check = Callable[[], None]
Found = Iterator[tuple[int, PackedMask, float | None]]


def methods(opened: OpenedDataset) -> list[str]:
    """What masks of this data set can be tracked with."""
    try:
        if opened.segmenter is not None:
            check_tracker(opened.segmenter)
            return [FLOW, SAM3]
    except FamilyError:
        pass
    return [FLOW]


def tracker_for(method: str, opened: OpenedDataset, sample: Sample) -> Tracker:
    """What tracks a mask over the frames of a clip.

    Raises:
        RefusedError: 400 for no method, 409 while ComfyUI works on its queue.
    """
    if method not in methods(opened):
        raise RefusedError(400, f"method: expected one of {', '.join(methods(opened))}.")
    path = source_path(sample)

    def read(numbers: Sequence[int], check_cancel: Check) -> Iterator[np.ndarray]:
        with naming(path, sample.name):
            for data in read_frames(path, numbers, check_cancel=check_cancel):
                yield data.rgb

    def flow(key: np.ndarray, way: range, watch: Watch) -> Found:
        return carry_from(lambda numbers: read(numbers, watch), key, way, check_cancel=watch)

    def sam3(key: np.ndarray, way: range, watch: Watch) -> Found:
        return _with_model(opened.segmenter, read, key, way, watch)

    if method == FLOW:
        return flow
    if _is_busy():
        raise RefusedError(409, "ComfyUI is busy with the queue. Track with SAM 3 when it is done, or choose flow.")
    return sam3


def start(draft: Draft, tracker: Tracker, begin: Callable[[], Callable[[Tracker], None]]) -> None:
    """Begins to track, and goes on in a thread; raises what `begin` raises."""
    run = begin()
    threading.Thread(target=run, args=(tracker,), name="masked-lora-track", daemon=True).start()


def _is_busy() -> bool:
    return PromptServer.instance.prompt_queue.get_tasks_remaining() > 0


def _with_model(
    model: Any, read: Callable[[Sequence[int], Check], Iterator[np.ndarray]], key: np.ndarray, way: range, watch: Watch
) -> Found:
    """Piece by piece, each from the last frame in which the thing was seen."""

    def check_cancel() -> None:
        watch()
        if _is_busy():
            raise BusyError(
                "ComfyUI began to work on its queue, which needs the memory. Track on from the last frame when it is "
                "done."
            )

    if not MODEL.acquire(blocking=False):
        raise BusyError("SAM 3 is at work already. Track when that is done, or choose flow.")
    try:
        first, mask = way[0], key
        for at in range(1, len(way), PIECE):
            piece, seen = way[at : at + PIECE], None

            def looked(done: int, total: int, before: int = at - 1, many: int = len(piece)) -> None:
                watch.looked(before + many * done // max(1, total))

            for number, found, lost in track_from(
                model,
                lambda wanted: read(wanted, check_cancel),
                mask,
                [first, *piece],
                check_cancel=check_cancel,
                progress=looked,
            ):
                seen = seen if lost else (number, found)
                yield number, found, lost
            if seen is not None:
                first, mask = seen[0], seen[1].unpack()
    finally:
        MODEL.release()
