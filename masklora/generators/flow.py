"""Masks of a few frames of a clip carried over all of it by dense optical flow.

Near its edges any flow is a mixture of what moves and what lies behind, and a mask that follows it leaves a trail. So
the movement of the mask is read deep inside of it and continued outwards: first as one affine movement of the whole,
then what parts of it do differently. The mask of a frame is never made from that of the frame before, whose edge would
get softer with each step: the ways are joined, and the mask of the key frame is moved once. Steps that are each a
little too short would add up to a lag, so every few frames the key frame, moved as far, is laid on the frame.

Flow alone does not see that what the mask was of is gone: a still wall moves just as it should. So what lies under a
mask is compared with what lay there in the key frame, by pattern and by colours, of which one is enough; and where no
part of a picture is found again in the next, the scene was cut, and nothing is carried further.

Source: Kroeger, Timofte, Dai, Van Gool, "Fast Optical Flow using Dense Inverse Search", ECCV 2016 (OpenCV's
implementation); the test for what is seen in both of two frames: Sundaram, Brox, Keutzer, "Dense Point Trajectories by
GPU-accelerated Large Displacement Optical Flow", ECCV 2010.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import cv2
import numpy as np

from ..errors import MaskError
from ..pictures.packed_mask import PackedFrames, PackedMask, pack_mask

# Frames in which the mask is lost by more than this are told.
DRIFTED = 0.25
# And those in which less than half of what the mask was of is seen under it.
GONE = 0.5
# The flow is looked for in a copy with at most this number squared of pixels.
_SIDE = 480
# Frames that are decoded together where a clip is gone through backwards.
_BLOCK = 32
# How deep inside a mask, in pixels of the small copy, its movement is read; edges mix movements about so far.
_DEPTH = 20
_POWER = 4
_STEPS = 3
# After how many steps the key frame is laid on, and up to which share of the mask may not be found then.
_ALIGNED, _UNLIKE = 4, 0.3
# Of a movement: how much larger than its length, squared, and by how many pixels, squared, it may miss the way back.
_MISS_SHARE, _MISS = 0.01, 0.5
_TINY = 1e-6
# A scene is cut where a smaller share of the picture than the first is found again along the flow, and of what is under
# the mask than the second; found is what correlates by the third. Set on made scenes: cuts had at most 0.16, and fast
# pans behind a subject that is followed at least 0.1, but nearly all of the subject.
_CUT, _KEPT, _ALIKE = 0.2, 0.5, 0.5
# Of the squares of pixels that are compared; flatter ones, in levels, tell nothing by their pattern.
_WINDOW, _FLAT = 15, 2.0
# Share of a picture that has to have a pattern for a cut to be seen.
_PATTERNED = 0.05
# By how many levels, as a spread, grain alone makes the means around each pixel differ at most.
_GRAIN = 3.0
# Bins of a colour model along each of three axes, and the share of pixels that every colour has of nothing.
_BINS, _RARE = 16, 2e-4
# By how much more certain inside the mask than outside of it colours must tell a subject to be asked about it.
_TELLING = 0.4
# Correlation with the key frame from which the pattern counts as found.
_FOUND = 0.6
# Share of a mask at the picture's border below which the rest of it has left.
_SLIVER = 0.2

Read = Callable[[Sequence[int]], Iterator[np.ndarray]]


@dataclass(frozen=True, eq=False)
class Carried:
    """Masks of all frames of a clip.

    Attributes:
        masks: Packed, one for each frame.
        drift: float32 (F,) in 0..1: about the share of the mask of which sight was lost on the way from its key frame,
            and that is not found again by laying the key frame on; 0 in key frames, 1 where nothing of it is left.
        gone: float32 (F,) in 0..1: about the share of the mask under which there is no longer what it was of, because
            that has left the picture or is hidden; 0 where neither pattern nor colours can tell.
        cut: Ascending numbers of the frames that a cut of the scene parts from every key frame; their masks are black.
    """

    masks: PackedFrames
    drift: np.ndarray
    gone: np.ndarray
    cut: tuple[int, ...] = ()

    def drifted(self) -> list[int]:
        """First frames of the stretches in which the drift is above `DRIFTED`."""
        bad = self.drift > DRIFTED
        return [n for n in range(len(bad)) if bad[n] and (n == 0 or not bad[n - 1])]


def carry(
    read: Read,
    count: int,
    keys: Mapping[int, np.ndarray],
    *,
    check_cancel: Callable[[], None] = lambda: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Carried:
    """The masks of all frames of a clip from those of its key frames.

    Before the first key frame and behind the last one the nearest is carried on; between two of them both are, and
    joined by distance. The masks are those of something in front of its surroundings. Only small grey copies of
    frames are kept, at most some dozens at a time.

    Args:
        read: Gives the frames of ascending numbers, uint8 (H, W, 3), one at a time.
        count: How many frames the clip has.
        keys: By the number of its frame, float32 (H, W) in 0..1 of the frames' size; at least one.
        check_cancel: Called between frames; raises to stop.
        progress: Called with the frames that are done and those to do.

    Returns:
        Masks of zeros and ones where those of the key frames are such, but for frames between two of them.

    Raises:
        ValueError: No key frame, or one that the clip does not have.
    """
    numbers = sorted(keys)
    if not numbers or not 0 <= numbers[0] <= numbers[-1] < count:
        raise ValueError(f"expected key frames from 0 to {count - 1}, got {numbers}")
    reader = _Reader(read, check_cancel, progress, total=_walked(numbers, count))
    levels = _levels(keys.values())
    packed = {number: pack_mask(keys[number]) for number in numbers}
    drift, gone = np.zeros(count, np.float32), np.zeros(count, np.float32)
    ends = [range(numbers[0], -1, -1), range(numbers[-1], count)]
    for way in [*ends, *(range(last, first, -1) for first, last in pairwise(numbers))]:
        for step in _walk(reader, keys[way[0]], way):
            packed[step.number] = pack_mask(levels(step.mask))
            drift[step.number], gone[step.number] = step.drift, step.gone
    for first, last in pairwise(numbers):
        for step in _walk(reader, keys[first], range(first, last)):
            at, mask = step.number, levels(step.mask)
            # A cut may keep one of the two away.
            share = (at - first) / (last - first) if at in packed else 0.0
            if share:
                mask = _rounded((1 - share) * mask + share * packed[at].unpack())
            packed[at] = pack_mask(mask)
            drift[at] = (1 - share) * step.drift + share * drift[at]
            gone[at] = (1 - share) * step.gone + share * gone[at]
    cut = tuple(number for number in range(count) if number not in packed)
    black = pack_mask(np.zeros_like(keys[numbers[0]]))
    return Carried(PackedFrames(tuple(packed.get(number, black) for number in range(count))), drift, gone, cut)


def carry_from(
    read: Read, key: np.ndarray, numbers: range, *, check_cancel: Callable[[], None] = lambda: None
) -> Iterator[tuple[int, PackedMask, float]]:
    """The mask of one key frame carried on in one direction, given frame by frame; see `carry`.

    Args:
        read: As for `carry`.
        key: Mask of the first of `numbers`, float32 (H, W) in 0..1 of the frames' size.
        numbers: Of neighbouring frames, ascending or descending.
        check_cancel: As for `carry`.

    Yields:
        Number, packed mask, and the larger of drift and gone as in `Carried`, of each frame but the first.

    Raises:
        MaskError: The scene is cut on the way; what lies before that was given.
    """
    reader = _Reader(read, check_cancel, lambda done, total: None, total=len(numbers))
    levels, reached = _levels([key]), numbers[0]
    for step in _walk(reader, key, numbers):
        reached = step.number
        yield reached, pack_mask(levels(step.mask)), max(step.drift, step.gone)
    if reached != numbers[-1]:
        raise MaskError(
            f"The scene is cut at frame {reached + numbers.step}, and a mask cannot be carried over that. Correct the "
            "mask of that frame by hand, then track on from there."
        )


def _walked(numbers: Sequence[int], count: int) -> int:
    """How many frames are carried to, all ways together."""
    return numbers[0] + count - 1 - numbers[-1] + 2 * sum(b - a - 1 for a, b in pairwise(numbers))


def _levels(masks: Iterator[np.ndarray] | Sequence[np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """What makes of a moved mask one of the levels that its key frames' masks have: a few bytes when packed."""
    seen = list(masks)
    if all(((mask == 0) | (mask == 1)).all() for mask in seen):
        return lambda mask: (mask > 0.5).astype(np.float32)
    eight = all(np.array_equal(_rounded(mask), mask) for mask in seen)
    return _rounded if eight else lambda mask: mask


def _rounded(mask: np.ndarray) -> np.ndarray:
    return np.rint(mask * np.float32(255)).astype(np.float32) / np.float32(255)


class _Reader:
    """Small copies of frames, in either direction."""

    def __init__(
        self,
        read: Read,
        check_cancel: Callable[[], None],
        progress: Callable[[int, int], None],
        *,
        total: int,
    ) -> None:
        self._read, self._check_cancel, self._progress = read, check_cancel, progress
        self._done, self._total = 0, total

    def __call__(self, numbers: range) -> Iterator[np.ndarray]:
        if numbers.step > 0:
            yield from map(_small, self._read(numbers))
            return
        for start in range(0, len(numbers), _BLOCK):
            block = numbers[start : start + _BLOCK]
            yield from [_small(frame) for frame in self._read(block[::-1])][::-1]

    def step(self) -> None:
        """Called for each frame that is done."""
        self._check_cancel()
        self._done += 1
        self._progress(self._done, self._total)


def _small(frame: np.ndarray) -> np.ndarray:
    height, width = frame.shape[:2]
    scale = min(1.0, _SIDE / math.sqrt(height * width))
    # The flow needs some pixels for its patches.
    size = max(16, round(width * scale)), max(16, round(height * scale))
    return frame if size == (width, height) else cv2.resize(frame, size, interpolation=cv2.INTER_AREA)


def _grey(small: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)


@dataclass(frozen=True, eq=False)
class _Step:
    """A frame that a mask was carried to; the fields are those of `Carried`."""

    number: int
    mask: np.ndarray
    drift: float
    gone: float


def _walk(reader: _Reader, key: np.ndarray, numbers: range) -> Iterator[_Step]:
    """Each frame but the first of `numbers`, whose mask is `key`, up to where the scene is cut."""
    if len(numbers) < 2:
        return
    frames = reader(numbers)
    colours = next(frames)
    before = first = _grey(colours)
    small = cv2.resize(key, before.shape[::-1], interpolation=cv2.INTER_AREA)
    sight = _Sight(colours, small)
    mask, way, seen, gone = small, np.zeros((*before.shape, 2), np.float32), 1.0, 0.0
    for number, shown in zip(numbers[1:], frames, strict=True):
        frame = _grey(shown)
        if not np.array_equal(colours, shown):
            flows = _flows(before, frame)
            if _is_cut(before, frame, flows, mask):
                for _ in range(abs(numbers[-1] - number) + 1):
                    reader.step()
                return
            back, lost = _movement(flows, mask)
            way = back + _moved(way, back)
            seen *= 1 - lost
            if (number - numbers[0]) % _ALIGNED == 0:
                rest, lost = _movement(_flows(_moved(first, way), frame), _moved(small, way))
                # Else the frame does not look enough like the key frame to tell.
                if lost <= _UNLIKE:
                    way, seen = rest + _moved(way, rest), max(seen, 1 - lost)
            mask = _moved(small, way)
            gone = sight.gone(shown, mask, way)
        reader.step()
        if not mask.any():
            seen = 0.0
        before, colours = frame, shown
        yield _Step(number, _at_full_size(key, way), 1 - seen, gone)


def _at_full_size(key: np.ndarray, way: np.ndarray) -> np.ndarray:
    if not way.any():
        return key
    height, width = key.shape
    scale = np.float32([width / way.shape[1], height / way.shape[0]])
    return _moved(key, cv2.resize(way, (width, height), interpolation=cv2.INTER_LINEAR) * scale)


class _Flows(NamedTuple):
    """The flow from one frame to another (h, w, 2), and where it does not lead back to where it began: bool (h, w)."""

    onward: np.ndarray
    lost: np.ndarray
    back: np.ndarray


def _flows(before: np.ndarray, frame: np.ndarray) -> _Flows:
    # On the tests' moving pictures as exact as Farneback's flow in two thirds of the time; the faster presets lag.
    finder = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    onward, back = finder.calc(before, frame, None), finder.calc(frame, before, None)
    returned = _moved(back, onward)
    most = _MISS_SHARE * (_squared(onward) + _squared(returned)) + _MISS
    return _Flows(onward, _squared(onward + returned) > most, back)


def _movement(flows: _Flows, mask: np.ndarray) -> tuple[np.ndarray, float]:
    """The way of each pixel of a frame back into the one before, (h, w, 2), if it is of the mask (h, w) of that.

    The second is the share of the mask, its edges aside, that is not seen in both.
    """
    onward, lost = flows.onward, flows.lost
    depth = _depth(mask)
    inside = float((depth**2).sum())
    weights = (depth**_POWER * ~lost).astype(np.float32)
    if weights.sum() < 1:
        # Nothing tells how it moves: it stays where it is.
        return np.zeros_like(onward), 1.0 if inside else 0.0
    onward = _continued(onward, weights)
    way = -onward
    for _ in range(_STEPS):
        way = -_moved(onward, way)
    return way, float((depth**2 * lost).sum()) / inside


def _depth(mask: np.ndarray) -> np.ndarray:
    """How deep inside the mask each pixel is: 1 at `_DEPTH` pixels, and in the middle of parts that are thinner."""
    inside = (mask > 0.5 * mask.max(initial=0)).astype(np.uint8)
    distance = cv2.distanceTransform(inside, cv2.DIST_L2, cv2.DIST_MASK_5)
    if inside.all():
        return np.ones_like(distance)
    side = 2 * _DEPTH + 1
    most = cv2.dilate(distance, np.ones((side, side), np.uint8))
    return np.clip(distance / np.clip(most, 1, _DEPTH), 0, 1)


def _continued(flow: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The flow (h, w, 2) where the weights (h, w) are 1, and a continuation of it everywhere else."""
    whole = _affine(flow, weights)
    return whole + _spread(flow - whole, weights)


def _affine(flow: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The affine movement nearest to the flow, everywhere: float32 (h, w, 2)."""
    height, width = weights.shape
    share = weights / weights.sum()
    x, y = np.arange(width, dtype=np.float32)[None], np.arange(height, dtype=np.float32)[:, None]
    x, y = (x - (share * x).sum()) / height, (y - (share * y).sum()) / height
    mean = np.einsum("hw,hwc->c", share, flow)
    about = [share * x, share * y]
    # A little of nothing keeps a mask of one line from turning.
    spread = np.array([[(a * b).sum() for b in (x, y)] for a in about]) + 10 * _TINY * np.eye(2)
    slopes = np.linalg.solve(spread, np.stack([np.einsum("hw,hwc->c", a, flow - mean) for a in about]))
    return (mean + x[..., None] * slopes[0] + y[..., None] * slopes[1]).astype(np.float32)


def _spread(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Values (h, w, 2) where they weigh 1, elsewhere means of the nearest that weigh: a pyramid, pulled and pushed."""
    levels = [np.dstack([values * weights[..., None], weights])]
    while min(levels[-1].shape[:2]) > 4:
        levels.append(cv2.pyrDown(levels[-1]))
    top = levels[-1]
    spread = top[..., :2] / np.maximum(top[..., 2:], _TINY)
    for level in levels[-2::-1]:
        spread = cv2.resize(spread, level.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        weight = np.clip(level[..., 2:], 0, 1)
        own = level[..., :2] / np.maximum(weight, _TINY)
        spread += np.where(weight > _TINY, weight * (own - spread), 0)
    return spread


def _moved(values: np.ndarray, way: np.ndarray) -> np.ndarray:
    """Values (h, w, …) taken from where `way` (h, w, 2), x first, leads from each pixel."""
    height, width = way.shape[:2]
    x = way[..., 0] + np.arange(width, dtype=np.float32)[None]
    y = way[..., 1] + np.arange(height, dtype=np.float32)[:, None]
    return cv2.remap(values, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _squared(flow: np.ndarray) -> np.ndarray:
    return np.einsum("hwc,hwc->hw", flow, flow)


def _is_cut(before: np.ndarray, frame: np.ndarray, flows: _Flows, mask: np.ndarray) -> bool:
    """Whether next to nothing of a frame is found in the one before it, brighter or darker, along the flow.

    Where what the mask (h, w) is of is followed by the camera, its surroundings may be others with each frame.
    """
    laid, shown = _softened(_moved(before, flows.back)), _softened(frame)
    like, telling = _correlation(laid, shown)
    if telling.mean() < _PATTERNED:
        return False
    found = (like > _ALIKE) & ~(_moved(flows.lost.astype(np.float32), flows.back) > 0.5)
    if found[telling].mean() >= _CUT or _around(laid - shown).std() < _GRAIN:
        return False
    under = telling & (_moved(mask, flows.back) > 0.5 * mask.max(initial=0))
    return not under.any() or bool(found[under].mean() < _KEPT)


def _softened(grey: np.ndarray) -> np.ndarray:
    """Without the noise of a sensor: float32 (h, w)."""
    return cv2.GaussianBlur(grey.astype(np.float32), (0, 0), 1.5)


def _correlation(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Correlation of two grey pictures around each pixel, and where one of them has a pattern at all: both (h, w)."""
    mean_a, mean_b = _around(one), _around(other)
    spread_a = np.maximum(_around(one * one) - mean_a**2, 0)
    spread_b = np.maximum(_around(other * other) - mean_b**2, 0)
    shared = _around(one * other) - mean_a * mean_b
    # A picture without a pattern is like none that has one.
    both = np.sqrt(np.maximum(spread_a, _FLAT**2) * np.maximum(spread_b, _FLAT**2))
    return shared / both, np.maximum(spread_a, spread_b) > _FLAT**2


def _around(values: np.ndarray) -> np.ndarray:
    return cv2.blur(values, (_WINDOW, _WINDOW), borderType=cv2.BORDER_REFLECT)


class _Sight:
    """Whether what is under a mask is what was there in its key frame: by its pattern or by its colours."""

    def __init__(self, colours: np.ndarray, mask: np.ndarray) -> None:
        """The key frame's small copy, uint8 (h, w, 3), and its mask (h, w)."""
        self._first = _softened(_grey(colours))
        inside, outside = _sides(mask)
        bins = _binned(colours)
        self._subject, self._behind = _histogram(bins[inside]), _histogram(bins[outside])
        certain = self._certain(bins, self._behind)
        self._most = float(certain[inside].mean()) if inside.any() else 0.0
        self._least = float(certain[outside].mean()) if outside.any() else self._most
        _, telling = _correlation(self._first, self._first)
        self._size = float(inside.sum())
        self._patterned = bool(inside.any()) and float(telling[inside].mean()) > 0.5

    def gone(self, colours: np.ndarray, mask: np.ndarray, way: np.ndarray) -> float:
        """The share that is not seen any more, 0..1; 0 if nothing can tell."""
        inside, outside = _sides(mask)
        if not inside.any():
            return 1.0
        found = []
        if self._most - self._least > _TELLING:
            bins = _binned(colours)
            behind = self._behind if not outside.any() else np.maximum(self._behind, _histogram(bins[outside]))
            certain = float(self._certain(bins, behind)[inside].mean())
            found.append((certain - self._least) / (self._most - self._least))
        if self._patterned:
            like, telling = _correlation(_moved(self._first, way), _softened(_grey(colours)))
            there = inside & telling
            found.append(float(like[there].mean()) / _FOUND if there.any() else 0.0)
        if not found:
            return 0.0
        # What is left of a mask that goes out of the picture is too little to tell, and looks like anything.
        left = min(1.0, inside.sum() / (_SLIVER * self._size)) if _is_at_border(inside) else 1.0
        return 1 - left * min(1.0, max(0.0, *found))

    def _certain(self, bins: np.ndarray, behind: np.ndarray) -> np.ndarray:
        """How much more each pixel (h, w) is of the subject's colours than of those behind it, 0..1."""
        subject = self._subject + _RARE
        return (subject / (subject + behind + _RARE))[bins]


def _is_at_border(inside: np.ndarray) -> bool:
    near = slice(None, 4), slice(-4, None)
    return any(bool(inside[rows].any() or inside[:, rows].any()) for rows in near)


def _sides(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Inside and outside of a mask, its edges aside where something is left then: bool (h, w)."""
    hard = (mask > 0.5 * mask.max(initial=0)).astype(np.uint8)
    near = np.ones((5, 5), np.uint8)
    inside = cv2.erode(hard, near, borderType=cv2.BORDER_REPLICATE)
    return (inside if inside.any() else hard) > 0, cv2.dilate(hard, near) == 0


def _binned(colours: np.ndarray) -> np.ndarray:
    """The bin of each pixel's colour, (h, w), by lightness and hue."""
    step = 256 // _BINS
    # Grain would spread the colours of what is flat over all that are near.
    lab = (cv2.cvtColor(cv2.GaussianBlur(colours, (0, 0), 1.5), cv2.COLOR_RGB2Lab) // step).astype(np.int32)
    return (lab[..., 0] * _BINS + lab[..., 1]) * _BINS + lab[..., 2]


def _histogram(bins: np.ndarray) -> np.ndarray:
    """Shares of the bins, (bins,), each spread a little over its neighbours."""
    counts = np.bincount(bins, minlength=_BINS**3).reshape(_BINS, _BINS, _BINS).astype(np.float64)
    for axis in range(3):
        padded = np.pad(counts, [(1, 1) if a == axis else (0, 0) for a in range(3)], mode="edge")
        low, middle, high = (np.take(padded, range(k, k + _BINS), axis) for k in range(3))
        counts = (low + 2 * middle + high) / 4
    return (counts / max(counts.sum(), 1)).ravel()
