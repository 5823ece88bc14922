"""Masks of a few frames of a clip followed over all of it by ComfyUI's own SAM 3.

The tracker asks for one frame after the other and for each only once or twice, so it is handed frames that are decoded
when it asks, instead of the whole clip as one batch.
"""

from __future__ import annotations

import functools
import itertools
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import comfy.model_management
import cv2
import numpy as np
import torch
from comfy.ldm.sam3.tracker import unpack_masks

from ...errors import FamilyError
from ...generators.clips import CARRIED, ClipWay
from ...generators.finding import Things
from ...generators.flow import Carried, Read
from ...pictures.packed_mask import PackedFrames, PackedMask, pack_mask
from .borrowed import as_image
from .sam3 import at_size, check_model

# SAM 3 looks at squares of this side, and its masks have it.
SIDE = 1008
# Frames that are decoded together where a clip is gone through backwards: 100 MB.
_BLOCK = 32
# What the tracker asks for again: its first frame while it has the second, and the one it is at.
_KEPT_FRAMES = 3
# Share of the smaller of two things from which they are one.
_OVERLAP = 0.1
# Bytes of answers that the tracker keeps until it comes to the end; while it joins them it needs twice as many.
_KEPT_ANSWERS = 512 << 20


def track(
    model: Any,
    read: Read,
    count: int,
    keys: Mapping[int, np.ndarray],
    *,
    things: Mapping[int, Things] | None = None,
    check_cancel: Callable[[], None] = lambda: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Carried:
    """The masks of all frames of a clip from those of its key frames, by SAM 3's video tracking.

    Each key frame's mask is followed backwards and forwards, half the way to the next key frame or to the end of the
    clip. The mask of a key frame comes back as it is.

    Memory does not grow with the clip's length or size but for the packed masks: frames are decoded when the tracker
    asks for them, in pieces of at most 32 where it goes backwards, and kept no larger than the 1008×1008 that it looks
    at; what it has answered takes at most 1 GiB. Where one thing's answers would take more, which they do in 4000
    frames with SAM 3.1 and in 130 with SAM 3, the tracker starts anew from the last frame in which it saw the thing.

    Args:
        model: ComfyUI's MODEL of a SAM 3. It stays on the compute device.
        read: Gives the frames of ascending numbers, uint8 (H, W, 3), one at a time.
        count: How many frames the clip has.
        keys: By the number of its frame, float32 (H, W) in 0..1 of the frames' size; at least one. What is above a half
            is followed, as one thing. From a mask that is empty the frames around get empty ones, without drift.
        things: Of some of the key frames, what is followed instead of their masks: each thing by itself, those that
            overlap as one, and what is taken out in a second pass.
        check_cancel: Called between frames; raises to stop.
        progress: Called with the frames that are done and those to do.

    Returns:
        Masks of zeros and ones but for the key frames' own. The drift is 1 where nothing is found any more, else 0.

    Raises:
        ValueError: No key frame, or one that the clip does not have.
        FamilyError: The model is no SAM 3, or ComfyUI is too old to track with it.
    """
    numbers = sorted(keys)
    if not numbers or not 0 <= numbers[0] <= numbers[-1] < count:
        raise ValueError(f"expected key frames from 0 to {count - 1}, got {numbers}")
    check_tracker(model)
    tracker = _Tracker(model, read, size=keys[numbers[0]].shape, check_cancel=check_cancel)
    walks = [
        (walk, _small_things((things or {}).get(key) or _thing(keys[key])))
        for key, walk in _walks(numbers, count)
        if len(walk) > 1
    ]
    tracker.count(progress, sum(tracker.steps(walk, seen) for walk, seen in walks))
    packed = {number: pack_mask(keys[number]) for number in numbers}
    drift = np.zeros(count, np.float32)
    for walk, seen in walks:
        for number, mask, lost in tracker.follow(walk, seen):
            packed[number], drift[number] = pack_mask(mask), float(lost)
    return Carried(PackedFrames(tuple(packed[number] for number in range(count))), drift, drift)


def track_from(
    model: Any,
    read: Read,
    key: np.ndarray,
    numbers: Sequence[int],
    *,
    check_cancel: Callable[[], None] = lambda: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[tuple[int, PackedMask, float]]:
    """The mask of one key frame followed in one direction; see `track`.

    ComfyUI's tracker answers at the end of its way, so all frames come together; `progress` is called before.

    Args:
        model: As for `track`.
        read: As for `track`.
        key: Mask of the first of `numbers`, float32 (H, W) in 0..1 of the frames' size.
        numbers: Of frames, ascending or descending; behind the first, whose mask is known, some may be left out.
        check_cancel: As for `track`.
        progress: As for `track`.

    Yields:
        Number, packed mask, and drift as in `Carried`, of each frame but the first.

    Raises:
        FamilyError: As `track`.
    """
    check_tracker(model)
    if len(numbers) < 2:
        return
    tracker, things = _Tracker(model, read, size=key.shape, check_cancel=check_cancel), _small_things(_thing(key))
    tracker.count(progress, tracker.steps(numbers, things))
    for number, mask, lost in tracker.follow(numbers, things):
        yield number, pack_mask(mask), float(lost)


def tracked(model: Any, key_frames: tuple[int, ...]) -> ClipWay:
    """Key frames of clips are searched, and what is found is followed with SAM 3.

    Raises:
        FamilyError: As `track`.
    """
    check_tracker(model)
    return ClipWay(CARRIED, key_frames, track=functools.partial(track, model))


def check_tracker(model: Any) -> None:
    """Nothing if `model` is a SAM 3 with which this ComfyUI can track; else raises `FamilyError`."""
    check_model(model)
    if not hasattr(model.model.diffusion_model, "forward_video"):
        raise FamilyError("This ComfyUI cannot follow things through clips with SAM 3. Update ComfyUI.")


def _walks(numbers: Sequence[int], count: int) -> list[tuple[int, range]]:
    """(key frame, frames from it on) of all ways; each frame but the key frames is in one of them."""
    found = []
    ends = [-1, *((first + last) // 2 for first, last in itertools.pairwise(numbers)), count - 1]
    for key, (before, last) in zip(numbers, itertools.pairwise(ends), strict=True):
        found += [(key, range(key, before, -1)), (key, range(key, last + 1))]
    return found


def _thing(mask: np.ndarray) -> Things:
    return Things(mask[None] > 0.5, np.zeros((0, *mask.shape), bool))


def _small_things(things: Things) -> Things:
    """The things that are there, those that overlap as one, no larger than SAM 3 looks at them."""
    return Things(_apart(things.wanted), _apart(things.unwanted))


def _apart(masks: np.ndarray) -> np.ndarray:
    """Of things that are followed at once the tracker gives each pixel to one, and drops what gets too few of its own.

    So what overlaps is followed as one thing.
    """
    size = min(masks.shape[1], SIDE), min(masks.shape[2], SIDE)
    found: list[np.ndarray] = []
    for mask in (_smaller(mask, size) for mask in masks if mask.any()):
        with_it = [other for other in found if (other & mask).sum() > _OVERLAP * min(other.sum(), mask.sum())]
        # By identity: arrays have no truth.
        found = [other for other in found if all(other is not one for one in with_it)]
        found.append(np.logical_or.reduce([mask, *with_it]))
    return np.stack(found) if found else np.zeros((0, *size), bool)


def _smaller(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if mask.shape == size:
        return mask
    share = cv2.resize(mask.astype(np.float32), size[::-1], interpolation=cv2.INTER_AREA)
    # What is thinner than a pixel must not vanish.
    return share > 0.5 if (share > 0.5).any() else share > 0


class _Tracker:
    """Follows things along ways through one clip."""

    def __init__(self, model: Any, read: Read, *, size: tuple[int, int], check_cancel: Callable[[], None]) -> None:
        self._model, self._read, self._size, self._check_cancel = model, read, size, check_cancel
        tracker = model.model.diffusion_model.tracker
        # SAM 3.1 follows many things at once and keeps bits; SAM 3 one after the other, and keeps numbers.
        self._together = hasattr(tracker, "track_video_with_detection")
        itemsize = torch.empty(0, dtype=model.model.get_dtype()).element_size()
        self._bytes = SIDE * SIDE // 8 if self._together else SIDE * SIDE * itemsize
        self._done, self._total = 0, 0
        self._progress: Callable[[int, int], None] = lambda done, total: None

    def count(self, progress: Callable[[int, int], None], total: int) -> None:
        """Tells `progress` from now on, of `total` steps."""
        self._progress, self._total = progress, total

    def update(self, steps: int) -> None:
        """Called by ComfyUI after each frame, as it calls its own bars."""
        self._check_cancel()
        self._done += steps
        self._progress(min(self._done, self._total), self._total)

    def steps(self, walk: Sequence[int], things: Things) -> int:
        """How many frames the tracker goes through."""
        passes = sum(len(self._groups(walk, len(masks))) for masks in (things.wanted, things.unwanted))
        return len(walk) * (passes if len(things.wanted) else 1)

    def follow(self, walk: Sequence[int], things: Things) -> Iterator[tuple[int, np.ndarray, bool]]:
        """(number, mask, whether it is lost) of each frame but the first of `walk`, in which the things are.

        The mask is bool (H, W) at the clip's size.
        """
        if not len(things.wanted):
            for number in walk[1:]:
                self.update(1)
                yield number, np.zeros(self._size, np.float32), False
            self.update(1)
            return
        wanted, unwanted = _Unions(), _Unions()
        # What is taken out lies in what is wanted, so it has a pass of its own.
        for union, masks in ((wanted, things.wanted), (unwanted, things.unwanted)):
            for group in self._groups(walk, len(masks)):
                for number, seen in self._group(walk, masks[group.start : group.stop]):
                    union.add(number, seen)
        for number in walk[1:]:
            mask = wanted.pop(number)
            yield number, at_size(mask & ~unwanted.pop(number), self._size), not mask.any()

    def _groups(self, walk: Sequence[int], many: int) -> list[range]:
        """Which of so many things are followed at once, so that the answers fit."""
        fit = max(1, _KEPT_ANSWERS // (self._bytes * len(walk))) if self._together else 1
        return [range(first, min(first + fit, many)) for first in range(0, many, fit)]

    def _group(self, walk: Sequence[int], masks: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """(number, masks of the things, bool (N, S, S)) of each frame but the first of `walk`."""
        longest = max(2, _KEPT_ANSWERS // (self._bytes * len(masks)))
        start, at = walk[0], 1
        while at < len(walk):
            numbers = [start, *walk[at : at + longest - 1]]
            for index, seen in enumerate(self._piece(numbers, masks)):
                if index:
                    yield numbers[index], seen
                if seen.any():
                    start, last = numbers[index], seen
            masks, at = (last if start != numbers[0] else masks), at + longest - 1

    def _piece(self, numbers: Sequence[int], masks: np.ndarray) -> Iterator[np.ndarray]:
        """The masks of the things, bool (N, S, S), in each of these frames; `masks` are those of the first."""
        comfy.model_management.load_model_gpu(self._model)
        device, dtype = comfy.model_management.get_torch_device(), self._model.model.get_dtype()
        with torch.inference_mode():
            answer = self._model.model.diffusion_model.forward_video(
                images=_Frames(self._read, numbers, size=(min(self._size[0], SIDE), min(self._size[1], SIDE))),
                initial_masks=torch.from_numpy(masks)[:, None].to(device=device, dtype=dtype),
                pbar=self,
                target_device=device,
                target_dtype=dtype,
            )
        found = answer["packed_masks"] if isinstance(answer, dict) else answer
        for index in range(len(numbers)):
            seen = unpack_masks(found[index]) if isinstance(answer, dict) else found[index] > 0
            yield seen.cpu().numpy()


class _Unions:
    """Of each frame what any of several masks of SAM 3's size holds, kept in a few bytes."""

    def __init__(self) -> None:
        self._packed: dict[int, bytes] = {}

    def add(self, number: int, masks: np.ndarray) -> None:
        """Joins bool (N, S, S) with what the frame has."""
        union = masks.any(axis=0) | self.pop(number)
        self._packed[number] = zlib.compress(np.packbits(union).tobytes(), 1)

    def pop(self, number: int) -> np.ndarray:
        """Bool (S, S), which is no longer kept."""
        packed = self._packed.pop(number, None)
        if packed is None:
            return np.zeros((SIDE, SIDE), bool)
        return np.unpackbits(np.frombuffer(zlib.decompress(packed), np.uint8)).reshape(SIDE, SIDE) > 0


class _Frames:
    """Frames as the tracker takes them, float32 (N, 3, h, w) in 0..1, of which it takes one at a time.

    Attributes:
        shape: Of all of them together.
        device: Where they are.
        dtype: Of their values.
    """

    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, read: Read, numbers: Sequence[int], *, size: tuple[int, int]) -> None:
        self.shape = (len(numbers), 3, *size)
        self._read, self._numbers = read, list(numbers)
        self._kept: dict[int, np.ndarray] = {}
        self._start(0)

    def __getitem__(self, span: slice) -> torch.Tensor:
        """One frame, (1, 3, h, w)."""
        index = range(len(self._numbers))[span][0]
        if index not in self._kept and index != self._next:
            self._start(index)
        while index not in self._kept:
            self._kept[self._next] = next(self._frames)
            self._next += 1
            self._kept.pop(self._next - 1 - _KEPT_FRAMES, None)
        return as_image(self._kept[index]).movedim(-1, 1)

    def _start(self, index: int) -> None:
        self._next, self._frames = index, self._decoded(self._numbers[index:])

    def _decoded(self, numbers: Sequence[int]) -> Iterator[np.ndarray]:
        if numbers[0] <= numbers[-1]:
            yield from map(self._small, self._read(numbers))
            return
        for first in range(0, len(numbers), _BLOCK):
            yield from [self._small(frame) for frame in self._read(numbers[first : first + _BLOCK][::-1])][::-1]

    def _small(self, frame: np.ndarray) -> np.ndarray:
        size = self.shape[2:]
        return frame if frame.shape[:2] == size else cv2.resize(frame, size[::-1], interpolation=cv2.INTER_AREA)
