"""Which frames of a clip are learned: numbers from times, without a file."""

from __future__ import annotations

import numpy as np

from ..errors import ConfigError
from ..settings import CHUNKINGS, check_choice

# Shares of a frame: by how much a time may miss a regular one and still be meant as it, and by how much a frame may
# come after the time it is wanted at. The second lies off the steps between usual rates, such as 3/4 and 4/5.
_JITTER, _LATE = 0.2, 0.14
# The same where times follow no regular grid.
_LATE_FREE = 0.05


def choose_frames(
    times: np.ndarray,
    *,
    rate: float,
    frames: int,
    step: int,
    chunking: str,
    chunks: int = 1,
    start: float = 0.0,
    end: float = 0.0,
) -> list[tuple[int, ...]]:
    """Frame numbers of each chunk of a clip.

    Args:
        times: float64 (N,), seconds at which the frames are shown, ascending, as `reading.frame_times` gives them.
        rate: Frames per second to take; 0 takes the clip's own frames one by one.
        frames: Largest number of frames of a chunk.
        step: Temporal stride r of the VAE: a chunk has r·n + 1 frames. 1 allows any number.
        chunking: "head": one chunk from the start. "uniform": `chunks` of them, evenly spaced, the first at the start
            and the last at the end. "slide": back to back; what does not fill a chunk is left out. "whole": one chunk
            of all frames, which `frames` does not limit.
        chunks: How many chunks "uniform" gives.
        start: Seconds that are left out at the beginning.
        end: Seconds that are left out at the end.

    Returns:
        Ascending numbers in 0..N − 1; repeated where `rate` is above the clip's own. A clip shorter than `frames`
        gives its largest r·n + 1.

    Raises:
        ConfigError: a setting is out of range, or `start` and `end` leave nothing; names the widget.
    """
    if step < 1 or times.ndim != 1 or len(times) == 0:
        raise ValueError(f"step must be at least 1 and times (N,), got {step} and {times.shape}")
    check_choice("clip_chunking", chunking, CHUNKINGS)
    for name, value, least in (
        ("clip_frames", frames, 1),
        ("clip_rate", rate, 0),
        ("clip_chunks", chunks, 1),
        ("clip_start", start, 0),
        ("clip_end", end, 0),
    ):
        if not (np.isfinite(value) and value >= least):
            raise ConfigError(f"{name}: expected at least {least}, got {value}.")
    grid, gap, late = _regular(np.asarray(times, np.float64))
    numbers = _sampled(grid, gap, late, _kept(grid, gap, start, end), rate)
    return [
        tuple(numbers[first:last].tolist()) for first, last in _bounds(len(numbers), frames, step, chunking, chunks)
    ]


def _regular(times: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Times freed from jitter, the seconds of a usual frame, and how late a frame may be for its time.

    Containers round times, many to milliseconds, so that a frame would be now before, now after the time it is wanted
    at. Times that lie near a grid, which may have holes, are moved onto it.
    """
    gaps = np.diff(times)
    gap = float(np.median(gaps)) if len(gaps) else 0.0
    if gap <= 0:
        return times, gap, 0.0
    places = np.concatenate([[0.0], np.cumsum(np.rint(gaps / gap))])
    if (np.diff(places) < 1).any():
        return times, gap, _LATE_FREE * gap
    slope, first = np.polyfit(places, times, 1)
    if slope <= 0 or np.abs(first + slope * places - times).max() > _JITTER * slope:
        return times, gap, _LATE_FREE * gap
    return slope * places, float(slope), _LATE * float(slope)


def _kept(times: np.ndarray, gap: float, start: float, end: float) -> np.ndarray:
    """Numbers of the frames that begin neither before `start` nor in the last `end` seconds."""
    last = times[-1] + gap - end
    near = _LATE * gap
    kept = np.flatnonzero((times >= times[0] + start - near) & ((times < last - near) | (end == 0)))
    if len(kept) == 0:
        name, cut = ("clip_start", start) if start >= end else ("clip_end", end)
        raise ConfigError(
            f"{name}: {cut:g} s are left out of a clip of {times[-1] - times[0] + gap:.2f} s, with "
            f"clip_start {start:g} and clip_end {end:g} nothing is left. Lower {name}."
        )
    return kept


def _sampled(times: np.ndarray, gap: float, late: float, kept: np.ndarray, rate: float) -> np.ndarray:
    """Numbers of `kept` frames at `rate` per second, each the frame that is shown at its time."""
    if rate == 0:
        return kept
    shown = times[kept]
    count = max(1, int(np.ceil((shown[-1] + gap - late - shown[0]) * rate - 1e-9)))
    wanted = shown[0] + np.arange(count) / rate
    return kept[np.maximum(np.searchsorted(shown, wanted + late, side="right") - 1, 0)]


def _bounds(count: int, frames: int, step: int, chunking: str, chunks: int) -> list[tuple[int, int]]:
    """First and behind the last place of each chunk among `count` frames."""
    most = count if chunking == "whole" else min(count, frames)
    size = (most - 1) // step * step + 1
    firsts = [0]
    if chunking == "slide":
        firsts = list(range(0, count - size + 1, size))
    elif chunking == "uniform":
        # More chunks than places give each place once.
        firsts = sorted(set(np.rint(np.linspace(0, count - size, chunks)).astype(int).tolist()))
    return [(first, first + size) for first in firsts]
