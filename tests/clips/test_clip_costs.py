"""Listing clips decodes nothing and is quick; reading them takes little memory."""

import gc
import os
import shutil
import time
import weakref
from pathlib import Path

import av
import numpy as np
import pytest

from harness.clips import numbered_clip
from masklora.clips.reading import frame_times, read_clip_header, read_frames, read_mask_frames

ALL = bool(os.environ.get("MASKLORA_ALL"))
NAMES = ("h264 b-frames.mp4", "vp9.webm", "vp9 alpha.webm", "prores.mov", "ffv1.mkv", "mpeg4.avi", "hevc.mp4")


class Counted:
    """How often PyAV's own decoding was asked for while inside."""

    def __init__(self, monkeypatch):
        self.count = 0
        real = av.open

        def counting(*arguments, **given):
            container = real(*arguments, **given)
            return _Container(container, self)

        monkeypatch.setattr(av, "open", counting)


class _Container:
    def __init__(self, container, counted):
        self._container, self._counted = container, counted

    def __getattr__(self, name):
        if name == "decode":
            self._counted.count += 1
        return getattr(self._container, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._container.close()


def test_a_thousand_headers_are_quick_and_decode_nothing(tmp_path, monkeypatch):
    clips = []
    for name in NAMES:
        made = numbered_clip(tmp_path / name, 30)
        for copy in range(1000 // len(NAMES) + 1):
            clips.append(shutil.copy(made, tmp_path / f"{copy} {name}"))
    counted = Counted(monkeypatch)
    start = time.perf_counter()
    headers = [read_clip_header(clip) for clip in clips[:1000]]
    seconds = time.perf_counter() - start
    assert {header.size for header in headers} == {(64, 48)}
    assert counted.count == 0
    assert seconds < 10
    print(f"1000 headers: {seconds:.2f} s")  # noqa: T201 (told with -s)


def test_what_is_remembered_of_clips_keeps_nothing_of_who_asked(tmp_path):
    class Asker:
        def check(self):
            pass

    asker = Asker()
    alive = weakref.ref(asker)
    path = numbered_clip(tmp_path / "ffv1.mkv", 3)
    list(read_mask_frames(path, [0], check_cancel=asker.check))
    list(read_frames(path, [0], check_cancel=asker.check))
    del asker
    gc.collect()
    assert alive() is None


def memory():
    """Bytes of this process in main memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def moving(count, size):
    """A ramp that moves."""
    ramp = np.tile(np.arange(size[0], dtype=np.uint16) * 255 // size[0], (size[1], 1)).astype(np.uint8)
    for number in range(count):
        yield np.repeat(np.roll(ramp, 8 * number, axis=1)[..., None], 3, axis=2)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
@pytest.mark.parametrize(
    ("size", "count"),
    [
        ((640, 360), 240),
        pytest.param((1920, 1080), 500, marks=pytest.mark.skipif(not ALL, reason="some 20 s, with --all")),
    ],
)
def test_memory_stays_flat(tmp_path, size, count):
    """One frame in ten of a long clip, which as a whole would take some hundred megabytes, or gigabytes."""
    path = tmp_path / "long.mp4"
    frames = (av.VideoFrame.from_ndarray(picture, "rgb24") for picture in moving(count, size))
    write_stream(path, frames, size)
    list(read_frames(path, range(0, count // 4, 10)))
    frame, most = size[0] * size[1] * 3, 0
    before = memory()
    numbers = range(0, count, 10)
    start = time.perf_counter()
    seen = 0
    for _ in read_frames(path, numbers):
        seen += 1
        most = max(most, memory() - before)
    print(f"{size}: {most / 1e6:.0f} MB more, {time.perf_counter() - start:.1f} s")  # noqa: T201
    assert seen == len(numbers)
    # Frames in work in as many threads, one as floats.
    assert most < 12 * frame
    assert len(frame_times(path)) == count


def write_stream(path, frames, size):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for number, frame in enumerate(frames):
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
