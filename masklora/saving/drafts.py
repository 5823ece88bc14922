"""Drafts of moving masks: every frame packed, changed step by step, each step undone and done again.

A person and another browser, or a mask that is being tracked, may change one draft: every change gets a stamp, and
whoever changes something says which stamp he has seen.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import BusyError, ConfigError, MaskConflictError, MaskLoraError
from ..loss.masks import feather_mask, grow_mask
from ..pictures.packed_mask import PackedMask, pack_mask
from .moving_masks import SavedMasks

MOST_STEPS = 100
# How many seconds one frame may take to be tracked until a wish to stop is only noted.
_PATIENCE = 20.0
OPERATIONS = ("clear", "fill", "invert", "grow", "shrink", "feather")
# Those that need a number of pixels.
SIZED = OPERATIONS[3:]

logger = logging.getLogger(__name__)

Change = Callable[[PackedMask], PackedMask]
# Gives (number, mask, drift) of each frame but the first of the numbers.
Tracker = Callable[[np.ndarray, range, "Watch"], Iterator[tuple[int, PackedMask, float | None]]]

# They rise over all drafts, and over restarts, so that none is ever taken for another's.
_STAMPS = itertools.count(time.time_ns() // 1_000_000)


@dataclass(frozen=True)
class Tracking:
    """A mask on its way from frame `start` to frame `end`, both included; `start` is the key frame.

    Of `total` frames `looked` were gone through, and `done` have their masks.
    """

    start: int
    end: int
    method: str
    done: int
    total: int
    looked: int = 0


@dataclass(frozen=True)
class Tracked:
    """How tracking ended: `done`, `stopped` or `failed` because of `problem`; `reached` is the last frame done."""

    start: int
    end: int
    method: str
    reached: int
    how: str
    problem: str = ""


@dataclass(frozen=True, eq=False)
class DraftState:
    """What is told of a draft; `stamps` and `drift` have one entry for each frame."""

    revision: int
    stamps: list[int]
    moving: bool
    key_frames: list[int]
    drift: list[float | None]
    unsaved: bool
    undo: int
    redo: int
    tracking: Tracking | None
    tracked: Tracked | None


@dataclass(frozen=True, eq=False)
class _Step:
    """What has to be put back: masks and drift of the frames that a step changed, and all key frames."""

    masks: dict[int, PackedMask]
    drift: dict[int, float | None]
    keys: frozenset[int]


class Watch:
    """What a tracker calls between two frames, which raises to stop it, and tells how many it has gone through."""

    def __init__(self, check: Callable[[], None], looked: Callable[[int], None]) -> None:
        """Both of a draft."""
        self._check, self.looked = check, looked

    def __call__(self) -> None:
        """Raises where the tracker is to stop."""
        self._check()


class _StoppedError(Exception):
    """Ends tracking because somebody wished so."""


class Draft:
    """The masks of one clip while they are edited.

    `seen` is everywhere the revision, or the stamp of a frame, that whoever asks for a change has seen; without that
    `MaskConflictError` is raised. While a mask is tracked every other change raises `BusyError`.

    Attributes:
        saved: What it was started from, or saved as.
        times: When each frame is shown, in seconds.
        held: How many bytes its packed masks take, those for undoing included.
    """

    def __init__(self, saved: SavedMasks, times: Sequence[float], *, room: Callable[[], int]) -> None:
        """Starts from what is saved; `room` tells how many bytes the draft may hold by now."""
        self.saved, self.times, self._room = saved, tuple(times), room
        self._frames = list(saved.frames)
        self._drift: list[float | None] = [None] * len(self._frames)
        self._keys: frozenset[int] = frozenset()
        self._revision = next(_STAMPS)
        self._stamps = [self._revision] * len(self._frames)
        self._undo: deque[_Step] = deque()
        self._redo: deque[_Step] = deque()
        self._tracking: Tracking | None = None
        self._tracked: Tracked | None = None
        self._stop = threading.Event()
        self._closed = False
        self._idle = threading.Event()
        self._idle.set()
        # One change at a time may take long; what is held for a moment only lets others read meanwhile.
        self._changing, self._lock = threading.Lock(), threading.Lock()
        self.held = self._size(self._frames)

    def __len__(self) -> int:
        """The number of frames."""
        return len(self._frames)

    def state(self) -> DraftState:
        """What is told of it."""
        with self._lock:
            return DraftState(
                revision=self._revision,
                stamps=list(self._stamps),
                moving=self.saved.moving,
                key_frames=sorted(self._keys),
                drift=list(self._drift),
                unsaved=self._unsaved(),
                undo=len(self._undo),
                redo=len(self._redo),
                tracking=self._tracking,
                tracked=self._tracked,
            )

    def frame(self, number: int) -> tuple[PackedMask, int]:
        """The mask of a frame and its stamp."""
        with self._lock:
            return self._frames[number], self._stamps[number]

    @property
    def unsaved(self) -> bool:
        """Whether anything would be lost with it."""
        with self._lock:
            return self._unsaved() or self._tracking is not None

    # -------------------------------------------------------------- changes

    def set(self, number: int, levels: np.ndarray, seen: int) -> None:
        """The mask of a frame, by hand: uint8 (H, W), 255 = learn. Finer values stay where they show the same level.

        Raises:
            MaskConflictError, BusyError: See the class; or there is no room.
        """

        def made(old: PackedMask) -> PackedMask:
            before = old.unpack()
            painted = levels.astype(np.float32) / np.float32(255)
            return pack_mask(np.where(_levels(before) == levels, before, painted))

        self._change([number], made, seen)

    def copy(self, number: int, numbers: range, seen: int) -> None:
        """The mask of a frame becomes that of others; raises as `set`."""
        with self._lock:
            mask = self._frames[number]
        self._change([one for one in numbers if one != number], lambda old: mask, seen, source=number)

    def apply(self, operation: str, numbers: range, seen: int, *, amount: float = 0.0) -> None:
        """One of `OPERATIONS` on the masks of frames, of `amount` pixels if it is one of `SIZED`; raises as `set`.

        Key frames among several stay what they are.
        """
        self._change(list(numbers), lambda old: _applied(old, operation, amount), seen, keeps=True)

    def make_still(self, number: int, seen: int) -> None:
        """All frames get the mask of one, which is the only key frame then; raises as `set`."""
        with self._one_change(seen):
            mask = self._frames[number]
            with self._lock:
                self._put(dict.fromkeys(range(len(self)), mask), frozenset({number}))

    def put(self, masks: Sequence[PackedMask], seen: int) -> None:
        """All frames get these masks as one step, and none is a key frame then; raises as `set`.

        Raises:
            MaskConflictError: Also where they are of another clip.
        """
        with self._one_change(seen):
            if [one.shape for one in masks] != [one.shape for one in self._frames]:
                raise MaskConflictError("This draft was discarded. Open the clip's masks again.")
            with self._lock:
                self._put(dict(enumerate(masks)), frozenset())

    def undo(self, seen: int) -> None:
        """The state before the last step; raises as `set`, and `BusyError` where there is none."""
        with self._one_change(seen), self._lock:
            if not self._undo:
                raise BusyError("There is nothing to undo in this draft.")
            self._redo.append(self._exchanged(self._undo.pop()))

    def redo(self, seen: int) -> None:
        """What was undone last; raises as `undo`."""
        with self._one_change(seen), self._lock:
            if not self._redo:
                raise BusyError("There is nothing to redo in this draft.")
            self._undo.append(self._exchanged(self._redo.pop()))

    # -------------------------------------------------------------- tracking

    def begin(self, start: int, end: int, method: str, seen: int) -> Callable[[Tracker], None]:
        """Makes `start` a key frame and gives what then tracks its mask to `end`, as one step for undoing.

        The next key frame on the way is where that ends. `run(tracker)` returns when it has ended, whichever way.

        Raises:
            MaskConflictError, BusyError: See the class.
            ConfigError: There is no frame on the way.
        """
        with self._one_change(seen), self._lock:
            way = self._way(start, end)
            total = len(way) - 1
            self._remember(self._before(way), self._frames)
            self._keys |= {start}
            self._drift[start] = None
            self._tracking, self._tracked = Tracking(start, way[-1], method, 0, total), None
            self._stop.clear()
            self._idle.clear()
            self._revision = next(_STAMPS)
            key = self._frames[start]
        return lambda tracker: self._track(tracker, key, way)

    def stop(self) -> None:
        """Ends the tracking, if there is any, and waits some time for that; what is tracked by then stays."""
        self._stop.set()
        self._idle.wait(_PATIENCE)

    def close(self) -> None:
        """Gives up: what is being tracked ends by itself, and no change is taken any more."""
        self._closed = True
        self._stop.set()

    def _way(self, start: int, end: int) -> range:
        step = 1 if end > start else -1
        way = range(start, end + step, step)
        key = next((number for number in way[1:] if number in self._keys), None)
        if key is not None:
            way = range(start, key, step)
        if len(way) < 2:
            raise ConfigError(
                f"There is no frame to track to from frame {start}: {end} is that frame itself."
                if key is None
                else f"There is no frame to track to from frame {start}: frame {key} beside it was made by hand. Track "
                "on from there."
            )
        return way

    def _track(self, tracker: Tracker, key: PackedMask, way: range) -> None:
        how, problem = "done", ""
        try:
            for number, mask, drift in tracker(key.unpack(), way, Watch(self._check_stop, self._look)):
                self._take(number, mask, drift)
        except _StoppedError:
            how = "stopped"
        except MaskLoraError as error:
            how, problem = "failed", str(error)
        except Exception:
            logger.exception("masked lora: a mask could not be tracked")
            how, problem = "failed", "The mask could not be tracked; ComfyUI's log tells more."
        finally:
            self._end(way, how, problem)

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise _StoppedError

    def _look(self, count: int) -> None:
        with self._lock:
            assert self._tracking is not None
            self._tracking = replace(self._tracking, looked=count)

    def _take(self, number: int, mask: PackedMask, drift: float | None) -> None:
        with self._lock:
            assert self._tracking is not None
            frames = [*self._frames]
            frames[number] = mask
            self._trim(frames, spared=1)
            self._frames, self._drift[number] = frames, drift
            self._revision = self._stamps[number] = next(_STAMPS)
            done = self._tracking.done + 1
            self._tracking = replace(self._tracking, done=done, looked=max(done, self._tracking.looked))

    def _end(self, way: range, how: str, problem: str) -> None:
        with self._lock:
            assert self._tracking is not None
            done = way[: self._tracking.done + 1]
            if len(done) < 2:
                # Nothing was changed but the key frame, which stays one.
                self._undo.pop()
            else:
                step = self._undo.pop()
                self._undo.append(_Step(_chosen(step.masks, done), _chosen(step.drift, done), step.keys))
            self._tracked = Tracked(way[0], way[-1], self._tracking.method, done[-1], how, problem)
            self._tracking = None
            self._revision = next(_STAMPS)
        self._idle.set()

    # -------------------------------------------------------------- saving

    @contextlib.contextmanager
    def saving(self, seen: int) -> Iterator[tuple[PackedMask, ...]]:
        """The masks of all frames, which nothing changes while the context lasts; raises as `set`."""
        with self._one_change(seen):
            yield tuple(self._frames)

    def mark_saved(self, saved: SavedMasks) -> None:
        """Note that its masks are in their file now, inside of `saving`."""
        with self._lock:
            self.saved = saved
            self._revision = next(_STAMPS)
            self.held = self._size(self._frames)

    def save_over(self, saved: SavedMasks, seen: int) -> None:
        """Note that others have saved these meanwhile, which the next save replaces; raises as `set`.

        Raises:
            MaskConflictError: Also where they are of another clip.
        """
        with self._one_change(seen), self._lock:
            if [one.shape for one in saved.frames] != [one.shape for one in self._frames]:
                raise MaskConflictError("This draft was discarded. Open the clip's masks again.")
            self.saved, self._revision = saved, next(_STAMPS)
            self.held = self._size(self._frames)

    # -------------------------------------------------------------- inside

    @contextlib.contextmanager
    def _one_change(self, seen: int, numbers: Iterable[int] | None = None) -> Iterator[None]:
        """No other change while the context lasts; of `numbers` none has changed since `seen`, else nothing has."""
        with self._changing:
            with self._lock:
                newest = self._revision if numbers is None else max(self._stamps[number] for number in numbers)
                if self._closed:
                    raise MaskConflictError("This draft was discarded. Open the clip's masks again.")
                if self._tracking is not None:
                    raise BusyError("A mask is being tracked in this draft. Wait until it is done, or stop it.")
                if seen > self._revision or seen < newest:
                    raise MaskConflictError(
                        "These masks were changed in another window since they were shown here. Look at them as they "
                        "are now, then repeat the change."
                    )
            yield

    def _change(
        self, numbers: list[int], made: Change, seen: int, *, source: int | None = None, keeps: bool = False
    ) -> None:
        """`made` of the masks of frames; one frame alone becomes a key frame, several are none unless it `keeps` them.

        `source` is a frame whose mask counts too.
        """
        looked_at = numbers if source is None else [*numbers, source]
        with self._one_change(seen, looked_at):
            new: dict[int, PackedMask] = {}
            known: dict[int, PackedMask] = {}
            for number in numbers:
                old = self._frames[number]
                # A mask that does not move is made once, and stays one object.
                if id(old) not in known:
                    known[id(old)] = made(old)
                new[number] = known[id(old)]
            with self._lock:
                if len(numbers) == 1:
                    self._put(new, self._keys | set(numbers))
                else:
                    self._put(new, self._keys if keeps else self._keys - set(numbers), drift=keeps)

    def _put(self, masks: dict[int, PackedMask], keys: frozenset[int], *, drift: bool = False) -> None:
        """Takes over new masks of frames as one step; what is as it was is no part of it. `drift` stays as it is."""
        frames, changed = [*self._frames], []
        for number, mask in masks.items():
            if frames[number] != mask or (self._drift[number] is not None and not drift):
                frames[number] = mask
                changed.append(number)
        if not changed and keys == self._keys:
            return
        self._remember(self._before(changed), frames)
        self._frames, self._keys, self._revision = frames, keys, next(_STAMPS)
        for number in changed:
            self._stamps[number] = self._revision
            self._drift[number] = self._drift[number] if drift else None

    def _remember(self, step: _Step, frames: Sequence[PackedMask]) -> None:
        """A step can be undone from now on, if there is room for what it makes, `frames`."""
        self._undo.append(step)
        try:
            self._trim(frames, spared=1)
        except BusyError:
            self._undo.pop()
            raise
        self._redo.clear()

    def _before(self, numbers: Iterable[int]) -> _Step:
        numbers = list(numbers)
        masks = {number: self._frames[number] for number in numbers}
        return _Step(masks, {number: self._drift[number] for number in numbers}, self._keys)

    def _exchanged(self, step: _Step) -> _Step:
        """Puts back what a step has, and gives the step that puts back what was there."""
        now = self._before(step.masks)
        self._keys, self._revision = step.keys, next(_STAMPS)
        for number, mask in step.masks.items():
            self._frames[number], self._drift[number] = mask, step.drift[number]
            self._stamps[number] = self._revision
        return now

    def _trim(self, frames: Sequence[PackedMask], spared: int = 0) -> None:
        """Forgets the oldest steps beyond what there is room for, all but the newest `spared`.

        Raises:
            BusyError: There is no room for the masks themselves.
        """
        while len(self._undo) > MOST_STEPS:
            self._undo.popleft()
        room = self._room()
        while (size := self._size(frames)) > room:
            if self._redo:
                self._redo.popleft()
            elif len(self._undo) > spared:
                self._undo.popleft()
            else:
                raise BusyError(
                    "There is no more memory for drafts of masks. Save or discard the drafts of other clips, or save "
                    "this one and discard it, then go on."
                )
        self.held = size

    def _size(self, frames: Sequence[PackedMask]) -> int:
        steps = (mask for step in (*self._undo, *self._redo) for mask in step.masks.values())
        held = {id(mask): len(mask.data) for mask in itertools.chain(frames, self.saved.frames, steps)}
        return sum(held.values())

    def _unsaved(self) -> bool:
        return any(now != before for now, before in zip(self._frames, self.saved.frames, strict=True))


def _chosen(values: dict[int, Any], numbers: Iterable[int]) -> dict[int, Any]:
    return {number: values[number] for number in numbers}


def _levels(weights: np.ndarray) -> np.ndarray:
    return np.rint(weights * np.float32(255)).astype(np.uint8)


def _applied(mask: PackedMask, operation: str, amount: float) -> PackedMask:
    if operation in ("clear", "fill"):
        return pack_mask(np.full(mask.shape, operation == "fill", np.float32))
    weights = mask.unpack()
    if operation == "invert":
        return pack_mask(1 - weights)
    if operation == "feather":
        # In steps of what is shown, else a still mask would lose what nobody sees when it is saved.
        return pack_mask(_levels(feather_mask(weights, sigma=amount)).astype(np.float32) / np.float32(255))
    if operation in ("grow", "shrink"):
        return pack_mask(grow_mask(weights, radius=amount if operation == "grow" else -amount))
    raise ConfigError(f"op: expected one of {', '.join(OPERATIONS)}, got {operation!r}.")
