"""Frames of a video by their numbers: sought, decoded, freed from interlacing, one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from ..errors import DataError
from .containers import Video, opened, short
from .timeline import Timeline, packets, timeline

_TICK = Fraction(1, 1000)


def decoded_frames(
    path: Path, numbers: Sequence[int], check_cancel: Callable[[], None] = lambda: None
) -> Iterator[tuple[int, Any]]:
    """(number, PyAV's frame) of each of the ascending `numbers` once, as it is stored: not turned, not converted.

    Raises:
        DataError: there is no such frame, or it cannot be decoded; names the file and the number.
    """
    line = timeline(path, check_cancel)
    with ExitStack() as stack:
        source = _Source(stack, path, line, check_cancel)
        for number in dict.fromkeys(numbers):
            if number >= len(line.times):
                raise DataError(f"{path.name}: frame {number} is asked for, but it has only {len(line.times)} frames.")
            yield number, source.frame(number)


class _Source:
    """Frames by ascending numbers, of which each is decoded on from a key frame before it or from the last one."""

    def __init__(self, stack: ExitStack, path: Path, line: Timeline, check_cancel: Callable[[], None]) -> None:
        self._stack, self._path, self._line, self._check_cancel = stack, path, line, check_cancel
        self._run: _Run | None = None

    def frame(self, number: int) -> Any:
        start = self._line.start_for(number)
        if self._run is None or start > self._run.fed + 1:
            self._begin(start)
        frame = self._exact(number, start)
        if frame is None:
            fault = self._run.fault if self._run and self._run.fault else "nothing comes of it"
            raise DataError(
                f"{self._path.name}: frame {number} cannot be decoded, its data is damaged ({fault}). Save the clip "
                "again, or cut that part out."
            )
        if not frame.interlaced_frame:
            return frame
        before = self._run.before if self._run else None
        if before is None and number > 0:
            # Lines of the other field are made from the frames around.
            start = self._line.start_for(number - 1)
            self._begin(start)
            frame = self._exact(number, start) or frame
            before = self._run.before if self._run else None
        return _smooth(before, frame, self._run.peek() if self._run else None)

    def _begin(self, start: int, *, threads: bool = True) -> None:
        self._stack.close()
        video = self._stack.enter_context(opened(self._path))
        self._run = _Run(video, self._line, start, threads, self._check_cancel)

    def _exact(self, number: int, start: int) -> Any:
        """A frame of the present run; where that fails of others, without threads, which know what is damaged.

        What a file calls a key frame may be one from which not all can be decoded: that from the key frame before can.
        """
        assert self._run is not None
        frame = self._run.frame(number)
        for earlier in dict.fromkeys((start, self._line.key_before(start), 0)):
            if frame is not None:
                break
            self._begin(earlier, threads=False)
            frame = self._run.frame(number)
        return frame


class _Run:
    """Decoding onwards from one packet.

    Attributes:
        fed: The last packet that was given to the decoder.
        fault: What the decoder said of damaged data, empty where it said nothing.
        before: The frame that is shown before the one given last, None where it was not decoded.
    """

    def __init__(
        self, video: Video, line: Timeline, start: int, threads: bool, check_cancel: Callable[[], None]
    ) -> None:
        self.fed, self.fault = start, ""
        self.before: Any = None
        self._video, self._line, self._start = video, line, start
        self._threads, self._check_cancel = threads, check_cancel
        self._damaged: list[int] = []
        self._frames = self._decode()
        self._next: tuple[int, Any] | None = None
        self._last: tuple[int, Any] = (-2, None)

    def frame(self, number: int) -> Any:
        """The frame of a number above the last one asked; None where it cannot be decoded."""
        while (found := self._peeked()) is not None:
            if found[0] > number:
                return None
            self.before = self._last[1] if self._last[0] == found[0] - 1 else None
            self._last, self._next = found, None
            if found[0] == number:
                return found[1]
        return None

    def peek(self) -> Any:
        """The frame that is shown after the one given last; None where that was the last or it cannot be decoded."""
        found = self._peeked()
        return found[1] if found is not None and found[0] == self._last[0] + 1 else None

    def _peeked(self) -> tuple[int, Any] | None:
        if self._next is None:
            self._next = next(self._frames, None)
        return self._next

    def _decode(self) -> Iterator[tuple[int, Any]]:
        decoder = self._video.decoder(threads=self._threads)
        count = 0
        for number, packet in self._packets():
            self._check_cancel()
            try:
                frames = decoder.decode(packet)
            except (av.FFmpegError, ValueError) as error:
                frames = []
                self._note(number, short(error))
            for frame in frames:
                shown = count if self._line.counted else self._rank(frame)
                count += 1
                if frame.is_corrupt:
                    self._note(number if frame.opaque is None else frame.opaque[0], "a part of it is missing")
                elif shown >= 0 and self._is_sound(shown):
                    yield shown, frame
            if self._damaged and self._threads:
                # With threads the fault may be of a packet some way back.
                return

    def _note(self, packet: int, fault: str) -> None:
        self.fault = fault
        self._damaged.append(packet)

    def _rank(self, frame: Any) -> int:
        return -1 if frame.opaque is None else int(self._line.rank_of[frame.opaque[0]])

    def _is_sound(self, shown: int) -> bool:
        """Whether no damaged packet lies between a frame and the key frame that it goes back to."""
        if not self._damaged or shown >= len(self._line.packet_of):
            return not self._damaged
        first, last = self._line.start_for(shown), self._line.packet_of[shown]
        return not any(first <= packet <= last for packet in self._damaged)

    def _packets(self) -> Iterator[tuple[int, Any]]:
        """(number, packet) from the first one on, and at last the empty one that makes a decoder give all."""
        number = self._first()
        for packet in packets(self._video, flush=True):
            if not packet.size or self._is_of_use(number):
                if packet.size:
                    # PyAV knows these by their identity, which small numbers share with those of other runs.
                    packet.opaque, self.fed = [number], number
                yield number, packet
            number += 1

    def _is_of_use(self, number: int) -> bool:
        """Whether a packet is not before the first one, nor of frames shown before it, which need what is before it."""
        if number <= self._start or self._start == 0:
            return number >= self._start
        at = self._line.shown_at
        return number >= len(at) or bool(at[number] >= at[self._start])

    def _first(self) -> int:
        """Seek; the number of the packet that comes next."""
        if self._start == 0:
            return 0
        container, stream = self._video.container, self._video.stream
        for at in (int(self._line.seek_at[self._start]), int(self._line.seek_at.min())):
            try:
                container.seek(at, stream=stream)
                packet = next(packets(self._video), None)
                number = -1 if packet is None else self._line.number_of(packet)
                if 0 <= number <= self._start:
                    container.seek(at, stream=stream)
                    return number
            except (av.FFmpegError, DataError, OSError):
                continue
        container.seek(0)
        return 0


def _smooth(before: Any, frame: Any, after: Any) -> Any:
    """An interlaced frame with the lines of its first field, and between them what fits the frames around it."""
    around = [each for each in (before, frame, after) if each is not None and _alike(each, frame)]
    alone = len(around) == 1
    if not alone and around[0] is frame:
        # At the ends of a clip bwdif takes the frame itself for its missing neighbour, and leaves its combs.
        around.insert(0, around[1])
    elif not alone and around[-1] is frame:
        around.append(around[0])
    graph = av.filter.Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=_TICK)
    weave = graph.add("estdif", "mode=frame") if alone else graph.add("bwdif", "mode=send_frame:deint=interlaced")
    sink = graph.add("buffersink")
    source.link_to(weave)
    weave.link_to(sink)
    graph.configure()
    kept = [(each.pts, each.time_base) for each in around]
    try:
        for time, each in enumerate(around):
            each.pts, each.time_base = time, _TICK
            graph.push(each)
        graph.push(None)
        return [graph.pull() for _ in range(around.index(frame) + 1)][-1]
    finally:
        for each, (pts, base) in zip(around, kept, strict=True):
            each.pts, each.time_base = pts, base


def _alike(frame: Any, other: Any) -> bool:
    return (frame.width, frame.height, frame.format.name) == (other.width, other.height, other.format.name)
