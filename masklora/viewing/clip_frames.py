"""What a person sees of a clip's frames: when each is shown, which are learned together, and what their cells weigh."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Generator, Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..cache.plan import is_hard
from ..cache.shots import Frames, shots_of
from ..clips.reading import frame_times, key_frames
from ..dataset.geometry import Geometry, apply_mask
from ..dataset.moving import examine_frames, load_frames, times_of
from ..dataset.sample import LoadedSample, Sample, load_mask, source_path
from ..errors import MaskLoraError
from ..loss.masks import effective_weights
from ..pictures.packed_mask import decode_mask, encode_mask
from ..settings import CacheSettings
from .browsing import Lens

# Frames a second where neither a clip nor the settings tell a rate.
USUAL_RATE = 16.0
# So many frames are rather decoded than sought over, and a run through a long clip is begun anew.
_AHEAD, _RUN = 24, 480


@dataclass(frozen=True, eq=False)
class ClipFrames:
    """The frames of one clip.

    Attributes:
        times: float64 (N,), seconds at which each is shown, ascending, the first 0.
        rate: Frames per second on average; 0 where the clip tells none, and `times` are what is assumed.
        keys: Numbers of the frames from which the file can be decoded.
        parts: Numbers of the frames that are learned together, part by part; none where that is not known.
        step: How many frames become one latent frame, the first of a part alone.
    """

    times: np.ndarray
    rate: float
    keys: Sequence[int]
    parts: Sequence[Frames]
    step: int

    def group_of(self, number: int) -> Frames:
        """The frames whose latent frame holds this one, in the first part that has it; itself where none has."""
        for part in self.parts:
            if number in part:
                place = part.index(number)
                first = 0 if place == 0 else 1 + (place - 1) // self.step * self.step
                return part[first : first + (self.step if place else 1)]
        return (number,)

    def part_of(self, number: int) -> Frames | None:
        """The first part that holds this frame; None where it is not learned."""
        return next((part for part in self.parts if number in part), None)


def clip_frames(sample: Sample, settings: CacheSettings, lens: Lens) -> ClipFrames:
    """What there is to know of a clip's frames; nothing of them is decoded.

    Args:
        sample: Of a clip.
        settings: Which frames count.
        lens: With the rule of the VAE; without one for clips, and more than one frame, the parts are not known.

    Raises:
        DataError: The clip cannot be read.
        MaskError: Its mask has another number of frames.
        ConfigError: Nothing is left of it.
    """
    times, header = times_of(sample), sample.moving
    rate = 0.0 if header is None else header.rate
    if rate <= 0:
        times = times / (settings.clip_rate or USUAL_RATE)
    parts: list[Frames] = []
    if lens.rule.clips or settings.clip_frames == 1:
        shots = shots_of([sample], settings, rule=lens.rule)
        parts = [shot.frames for shot in shots if shot.frames]
    return ClipFrames(times, max(rate, 0.0), key_frames(source_path(sample)), parts, lens.rule.step)


def frame_mask(sample: Sample, number: int) -> np.ndarray | None:
    """The mask of a frame after all transforms, float32 (H, W) in 0..1; None without one.

    Raises:
        DataError, MaskError: The mask cannot be read.
    """
    if not sample.moves:
        return load_mask(sample)
    return next(examine_frames(sample, [number])).mask


def frame_weights(sample: Sample, numbers: Sequence[int], geometry: Geometry, lens: Lens) -> np.ndarray:
    """The weight in the loss of every cell of one latent frame: float32 (h, w) in 0..1.

    As `browsing.picture_weights`, for a mask that moves.

    Args:
        sample: Of a clip whose mask moves.
        numbers: Of the frames that become that latent frame, ascending, repeats allowed.
        geometry: Where their pixels go.
        lens: How the loss looks at them.

    Raises:
        DataError, MaskError: A mask cannot be read.
    """
    once = sorted(set(numbers))
    found: dict[int, np.ndarray] = {}
    for number, one in zip(once, examine_frames(sample, once), strict=True):
        raw = np.ones(sample.size[::-1], np.float32) if one.mask is None else one.mask
        found[number] = apply_mask(raw, geometry, hard=is_hard(sample))
    # A latent frame of several is reduced behind the one that stands alone, which here is any.
    chosen = [found[number] for number in ((numbers[0],) if len(numbers) > 1 else ()) + tuple(numbers)]
    stored = decode_mask(*encode_mask(np.stack(chosen)))
    width, height = geometry.size
    settled = dataclasses.replace(lens.loss, mask_probability=1.0, edge_jitter=0.0, noise_blur=0.0)
    grid = (2 if len(numbers) > 1 else 1, height // lens.stride, width // lens.stride)
    with torch.inference_mode(False), torch.no_grad():
        weights = effective_weights(stored[None], settled, grid=grid)
    return weights[0, 0, -1].numpy()


class FrameReader:
    """Frames of the clip that somebody looks at, one in memory: going forwards each is decoded once.

    A frame elsewhere is sought. May be used by several threads, of which one reads at a time.
    """

    def __init__(self) -> None:
        """Nothing is open."""
        self._lock = threading.Lock()
        self._key: Hashable = None
        self._frames: Iterator[LoadedSample] | None = None
        self._last: tuple[int, LoadedSample] | None = None
        self._used = 0.0

    def read(self, key: Hashable, sample: Sample, number: int) -> LoadedSample:
        """One frame with its mask; see `moving.load_frames`.

        Args:
            key: Stands for the clip and its mask: another one begins anew.
            sample: Of the clip.
            number: Of the frame.

        Raises:
            DataError, MaskError: It cannot be read.
        """
        with self._lock:
            self._used = time.monotonic()
            if key != self._key:
                self._close()
                self._key = key
            if self._last is not None and self._last[0] == number:
                return self._last[1]
            try:
                return self._read_on(sample, number)
            except MaskLoraError:
                passed = self._last is not None and self._last[0] < number - 1
                self._close()
                if not passed:
                    raise
            # What is damaged may have been a frame on the way.
            self._key = key
            return self._read_on(sample, number)

    def close_if_idle(self, seconds: float) -> None:
        """Let go of the files where nothing was read for so long."""
        # Who reads now will ask again.
        if not self._lock.acquire(blocking=False):
            return
        try:
            if time.monotonic() - self._used >= seconds:
                self._close()
        finally:
            self._lock.release()

    def _read_on(self, sample: Sample, number: int) -> LoadedSample:
        at = -1 if self._last is None else self._last[0]
        if self._frames is None or not 0 < number - at <= _AHEAD:
            self._begin(sample, number)
            at = number - 1
        while at < number:
            assert self._frames is not None
            loaded = next(self._frames, None)
            if loaded is None:
                self._begin(sample, at + 1)
                continue
            at += 1
            self._last = at, loaded
        assert self._last is not None
        return self._last[1]

    def _begin(self, sample: Sample, number: int) -> None:
        key = self._key
        self._close()
        self._key = key
        count = len(frame_times(source_path(sample)))
        # Beyond the end reading tells what is wrong.
        numbers = range(number, max(number + 1, min(count, number + _RUN)))
        self._frames = load_frames(sample, numbers)

    def _close(self) -> None:
        if isinstance(self._frames, Generator):
            self._frames.close()
        self._key, self._frames, self._last = None, None, None
