"""When each frame of a video is shown, and from which packet it comes: read from the packets, none decoded."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

from ..errors import DataError
from .containers import Video, opened, torn

# What is left of a torn file is its whole packets; more of them than this cannot be meant.
_MOST_PACKETS = 10_000_000
# Frames per second where a file tells neither times nor a rate.
_USUAL_RATE = 25


@dataclass(frozen=True, eq=False)
class Timeline:
    """The packets of a video and the frames that come out of them.

    Attributes:
        times: float64 (N,), seconds at which each frame is shown, ascending, the first 0.
        packet_of: int64 (N,), the packet of each frame, counted in the order of the file.
        rank_of: int64 (P,), the frame of each packet, −1 for one that shows none.
        keys: int64 (K,), packets at which decoding can begin, ascending.
        shown_at: int64 (P,), when each packet's frame is shown, in units of the stream.
        seek_at: int64 (P,), where the container looks for each packet, in units of the stream.
        positions: int64 (P,), where in the file each packet lies.
        sizes: int64 (P,), its bytes.
        counted: Whether frames have no times of showing, or the same ones, and decoded frames are counted instead.
    """

    times: np.ndarray
    packet_of: np.ndarray
    rank_of: np.ndarray
    keys: np.ndarray
    shown_at: np.ndarray
    seek_at: np.ndarray
    positions: np.ndarray
    sizes: np.ndarray
    counted: bool

    def start_for(self, frame: int) -> int:
        """The packet from which a frame can be decoded.

        The frames that follow a key frame in the file, but are shown before it, may need what lies before the key.
        """
        if self.counted or len(self.keys) == 0:
            return 0
        packet = self.packet_of[frame]
        fits = self.keys[(self.keys <= packet) & (self.shown_at[self.keys] <= self.shown_at[packet])]
        return int(fits[-1]) if len(fits) else 0

    def key_before(self, packet: int) -> int:
        """The last packet before this one at which decoding can begin."""
        before = self.keys[self.keys < packet]
        return int(before[-1]) if len(before) else 0

    def number_of(self, packet: Any) -> int:
        """Which one a packet is after seeking, −1 where that is not clear.

        It is known by its place: times that a container lacks are made up anew after each seek.
        """
        found = np.flatnonzero((self.positions == (packet.pos or 0)) & (self.sizes == packet.size))
        return int(found[0]) if len(found) == 1 else -1


def timeline(path: Path, check_cancel: Callable[[], None] = lambda: None) -> Timeline:
    """The timeline of a video file; of the last ones read it is remembered.

    Raises:
        DataError: the file is no video, or there is no frame in it.
    """
    try:
        found = path.stat()
        mark = (found.st_mtime_ns, found.st_size)
    except OSError:
        # Opening it tells what is wrong.
        mark = (0, 0)
    with Unhashed(check_cancel) as unhashed:
        return _remembered(path, mark, unhashed)


class Unhashed:
    """A call that makes no difference to what is remembered, and that is let go of when its block ends."""

    def __init__(self, call: Callable[[], None]) -> None:
        self.call = call

    def __enter__(self) -> Unhashed:
        return self

    def __exit__(self, *_: object) -> None:
        # What is remembered keeps this, and with the call would keep whatever that belongs to.
        self.call = _nothing

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Unhashed)

    def __hash__(self) -> int:
        return 0


def _nothing() -> None:
    pass


@functools.lru_cache(maxsize=16)
def _remembered(path: Path, mark: tuple[int, int], check_cancel: Unhashed) -> Timeline:
    with opened(path) as video:
        return _read(video, check_cancel.call)


def _read(video: Video, check_cancel: Callable[[], None]) -> Timeline:
    shown: list[int] = []
    seek: list[int] = []
    visible: list[bool] = []
    keys: list[int] = []
    places: list[tuple[int, int]] = []
    video.check_whole(thoroughly=True)
    timeless = False
    codec, by_showing = video.codec, "matroska" in video.container.format.name
    for number, packet in enumerate(packets(video)):
        if number % 256 == 0:
            check_cancel()
        if number >= _MOST_PACKETS:
            raise DataError(f"{video.path.name}: more than {_MOST_PACKETS} frames. Cut the clip into shorter ones.")
        if packet.is_corrupt:
            # Read in part: the file ends inside of it.
            raise DataError(torn(video.path))
        timeless = timeless or packet.pts is None
        shown.append(_first_known(packet.pts, packet.dts, shown[-1] if shown else 0))
        seek.append(_first_known(shown[-1] if by_showing else packet.dts, shown[-1]))
        visible.append(not packet.is_discard and _shows(codec, packet))
        places.append((packet.pos or 0, packet.size))
        if packet.is_keyframe:
            keys.append(number)
    if not any(visible):
        raise DataError(f"{video.path.name}: there is no frame in it. Save it again or remove it.")
    order, rank_of, times = _ordered(video, np.array(visible), np.array(shown, np.int64))
    counted = timeless or bool((np.diff(times) <= 0).any()) or _stores_no_times(video)
    if len(times) > 1 and (timeless or times[-1] <= 0):
        times = np.arange(len(times)) / float(video.stream.average_rate or _USUAL_RATE)
    return Timeline(
        times,
        order,
        rank_of,
        np.array(keys, np.int64),
        np.array(shown, np.int64),
        np.array(seek, np.int64),
        *np.array(places, np.int64).T,
        counted,
    )


def _first_known(*values: int | None) -> int:
    return next(value for value in values if value is not None)


def packets(video: Video, *, flush: bool = False) -> Iterator[Any]:
    """The packets of a video in the order of the file; those without bytes show nothing and are left out.

    Args:
        video: An opened one, at its beginning or sought.
        flush: Whether the empty packet at the end comes too, which makes a decoder give what it holds.
    """
    try:
        for packet in video.container.demux(video.stream):
            if packet.size or (flush and packet.dts is None and packet.pts is None):
                yield packet
    except (av.FFmpegError, OSError) as error:
        raise DataError(torn(video.path, error)) from error


def _stores_no_times(video: Video) -> bool:
    """AVI stores when frames are decoded; with frames that refer to later ones that is not the order of showing."""
    context = video.stream.codec_context
    return video.container.format.name == "avi" and (context.has_b_frames or video.codec in ("h264", "hevc"))


def _ordered(video: Video, visible: np.ndarray, shown_at: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The packets in the order of showing, each packet's rank in it, and the seconds."""
    showing = np.flatnonzero(visible)
    order = showing[np.argsort(shown_at[showing], kind="stable")]
    rank_of = np.full(len(visible), -1, np.int64)
    rank_of[order] = np.arange(len(order))
    at, first = shown_at[order], int(shown_at[order[0]])
    times = (at - first).astype(np.float64) * float(video.stream.time_base or 0)
    if int(at[-1]) - first >= 2**62 or not np.isfinite(times).all():
        raise DataError(f"{video.path.name}: the times of its frames make no sense. Save the clip again.")
    return order, rank_of, times


def _shows(codec: str, packet: Any) -> bool:
    """Whether a packet shows a frame: VP8 and VP9 have some that only later ones refer to."""
    if codec not in ("vp8", "vp9"):
        return True
    data = memoryview(packet)
    if codec == "vp8":
        # RFC 6386, 9.1: the frame tag's fifth bit.
        return bool(data[0] & 0x10)
    return _is_superframe(data) or _shows_vp9(data[0])


def _is_superframe(data: memoryview) -> bool:
    """Whether these are several VP9 frames, of which one is shown; VP9 specification, annex B."""
    marker = data[-1]
    index = 2 + ((marker >> 3 & 3) + 1) * ((marker & 7) + 1)
    return marker & 0xE0 == 0xC0 and len(data) >= index and data[-index] == marker


def _shows_vp9(first: int) -> bool:
    """By the first byte of its uncompressed header; VP9 specification, 6.2."""
    # Two bits of marker, two of profile and with profile 3 a third: then show_existing_frame, frame_type, show_frame.
    last = 2 if first & 0x30 == 0x30 else 3
    return bool(first >> last & 1 or first >> (last - 2) & 1)
