"""Every frame asked for is that frame: in every container, from the start and from the middle."""

import os
from fractions import Fraction

import av
import numpy as np
import pytest

from harness.clips import (
    KINDS,
    SIZE,
    number_of,
    numbered,
    numbered_clip,
    threads,
    write_animation,
    write_clip,
    write_sequence,
)
from masklora.clips import video
from masklora.clips.reading import frame_times, is_animated, read_clip_header, read_frames
from masklora.errors import DataError

COUNT = 30
ASKED = ([*range(COUNT)], [17], [9], [10], [29], [0, 0, 3, 3, 20, 21, 29], [11, 12, 13], [5, 28])
ANIMATIONS = ("a.gif", "a.png", "a.apng", "a.webp")


def shown(path, numbers):
    return [number_of(frame.rgb) for frame in read_frames(path, numbers)]


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    made = {name: numbered_clip(folder / name, COUNT) for name in KINDS}
    pictures = [numbered(number) for number in range(COUNT)]
    made |= {name: write_animation(folder / name, pictures, 40) for name in ANIMATIONS}
    made["a folder"] = write_sequence(folder / "a folder with blanks", pictures, "shot (1) {}.png")
    return made


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="this system has no such priorities")
def test_writing_clips_leaves_the_process_its_priority(tmp_path):
    numbered_clip(tmp_path / "av1.webm", 3)
    assert {os.sched_getscheduler(thread) for thread in threads()} == {os.SCHED_OTHER}


@pytest.mark.parametrize("name", [*KINDS, *ANIMATIONS, "a folder"])
def test_each_number_gives_its_frame(clips, name):
    for numbers in ASKED:
        assert shown(clips[name], numbers) == list(numbers), numbers
    for frame in read_frames(clips[name], [4]):
        assert frame.rgb.shape == (SIZE[1], SIZE[0], 3)
        assert frame.rgb.dtype == np.uint8


@pytest.mark.parametrize("name", [*KINDS, *ANIMATIONS, "a folder"])
def test_header_and_times_agree_with_the_frames(clips, name):
    header, times = read_clip_header(clips[name]), frame_times(clips[name])
    assert header.size == SIZE
    assert header.frames == len(times) == COUNT
    assert times.dtype == np.float64
    rate = {".gif": 25, ".png": 25, ".apng": 25, ".webp": 25}.get(clips[name].suffix, 24)
    if name == "a folder":
        assert (header.rate, header.duration) == (0, 0)
        assert times.tolist() == list(range(COUNT))
        return
    assert header.rate == pytest.approx(rate)
    assert header.duration == pytest.approx(COUNT / rate, abs=0.002)
    np.testing.assert_allclose(times, np.arange(COUNT) / rate, atol=0.00051)


def test_a_lossless_clip_gives_the_very_numbers(tmp_path):
    pictures = np.random.default_rng(0).integers(0, 256, (7, 24, 32, 3), np.uint8)
    path = write_clip(tmp_path / "exact.mkv", pictures)
    for number, frame in enumerate(read_frames(path, range(7))):
        np.testing.assert_array_equal(frame.rgb, pictures[number])
        assert frame.alpha is None


def test_frames_shown_for_different_times(tmp_path):
    times = [0, 100, 150, 400, 401, 900, 1000, 1300]
    given = {"times": times, "time_base": Fraction(1, 1000), "codec": "libx264", "pixels": "yuv420p"}
    for name in ("vfr.mkv", "vfr.mp4"):
        path = numbered_clip(tmp_path / name, len(times), **given)
        np.testing.assert_allclose(frame_times(path), np.array(times) / 1000, atol=0.0006)
        assert shown(path, range(len(times))) == list(range(len(times)))
        assert shown(path, [4]) == [4]


def test_times_before_zero_are_counted_from_the_first_frame(tmp_path):
    base = Fraction(1, 24)
    for name in ("early.mkv", "early.mp4"):
        path = numbered_clip(
            tmp_path / name,
            12,
            codec="libx264",
            pixels="yuv420p",
            times=range(-5, 7),
            time_base=base,
            container={"avoid_negative_ts": "disabled"},
        )
        times = frame_times(path)
        assert times[0] == 0
        np.testing.assert_allclose(times, np.arange(len(times)) / 24, atol=0.0011)
        # What an edit list cuts off is no frame of the clip.
        first = 12 - len(times)
        assert read_clip_header(path).frames == len(times)
        assert shown(path, range(len(times))) == list(range(first, 12))
        assert shown(path, [3]) == [first + 3]


def test_a_late_start_is_counted_from_the_first_frame(tmp_path):
    path = numbered_clip(tmp_path / "late.mp4", 12, codec="libx264", pixels="yuv420p", times=range(48, 60))
    np.testing.assert_allclose(frame_times(path), np.arange(12) / 24, atol=0.001)
    assert shown(path, [0, 5, 11]) == [0, 5, 11]


def test_sound_beside_the_pictures_changes_nothing(tmp_path):
    path = tmp_path / "with sound.mp4"
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=48000)
        video = container.add_stream("libx264", rate=24, options={"g": "8", "bf": "2"})
        video.width, video.height, video.pix_fmt = *SIZE, "yuv420p"
        for number in range(COUNT):
            frame = av.VideoFrame.from_ndarray(numbered(number), "rgb24")
            frame.pts = number
            container.mux(video.encode(frame))
            silence = av.AudioFrame.from_ndarray(np.zeros((2, 2000), np.float32), "fltp", "stereo")
            silence.sample_rate, silence.pts = 48000, number * 2000
            container.mux(sound.encode(silence))
        container.mux(video.encode())
        container.mux(sound.encode())
    assert read_clip_header(path).frames == COUNT
    assert shown(path, range(COUNT)) == list(range(COUNT))
    assert shown(path, [13, 27]) == [13, 27]


def test_frames_that_only_others_refer_to_are_no_frames():
    from masklora.clips.timeline import _shows

    class Packet(bytes):
        """Its bytes, as PyAV's packet."""

    # VP8: the fifth bit of the frame tag. VP9: marker, profile 0, no frame shown again, a frame that is not shown.
    assert [_shows("vp8", Packet([tag, 0, 0])) for tag in (0x10, 0x00)] == [True, False]
    assert [_shows("vp9", Packet([head, 0, 0])) for head in (0b10000010, 0b10000000, 0b10001000)] == [True, False, True]
    assert _shows("vp9", Packet([0b10110001, 0, 0])) and not _shows("vp9", Packet([0b10110000, 0, 0]))
    superframe = Packet([0b10000000, 1, 2, 0b11000001, 1, 2, 0b11000001])
    assert _shows("vp9", superframe)


def test_a_number_that_is_not_there_names_file_and_number(clips):
    for name in ("ffv1.mkv", "a.gif", "a folder"):
        with pytest.raises(DataError, match="frame 30") as error:
            shown(clips[name], [3, 30])
        assert clips[name].name in str(error.value)


@pytest.mark.parametrize("numbers", [[3, 2], [-1]])
def test_numbers_ascend(clips, numbers):
    with pytest.raises(ValueError, match="ascending"):
        read_frames(clips["ffv1.mkv"], numbers)


def test_reading_stops_when_told(clips):
    class StoppedError(Exception):
        pass

    for name in ("h264 b-frames.mp4", "a.gif", "a folder"):
        calls = []

        def stop(calls=calls):
            calls.append(1)
            if len(calls) > 5:
                raise StoppedError

        with pytest.raises(StoppedError):
            list(read_frames(clips[name], range(COUNT), check_cancel=stop))


def test_only_animations_are_animated(clips, tmp_path):
    assert all(is_animated(clips[name]) for name in ANIMATIONS)
    still = write_sequence(tmp_path, [numbered(1)], "still{}.png") / "still0.png"
    empty = tmp_path / "empty.gif"
    empty.write_bytes(b"")
    assert not any(map(is_animated, (still, empty, tmp_path / "none.webp", tmp_path, clips["ffv1.mkv"])))
    for kind in ("gif", "webp"):
        assert not is_animated(write_animation(tmp_path / f"one.{kind}", [numbered(1)]))


def test_readers_side_by_side_do_not_mix_their_frames(clips):
    readers = [read_frames(clips[name], range(COUNT)) for name in KINDS for _ in range(2)]
    for number in range(COUNT):
        assert [number_of(next(reader).rgb) for reader in readers] == [number] * len(readers)


@pytest.mark.parametrize("name", [name for name in KINDS if name not in ("h264.avi", "mpeg4 b-frames.avi")])
def test_a_frame_in_the_middle_is_sought(tmp_path, name):
    """Called once for each packet that is decoded, and by the timeline; the whole clip has 120."""
    path = numbered_clip(tmp_path / name, 120)
    frame_times(path)
    for numbers in ([107], [0, 107]):
        calls = []
        frames = list(read_frames(path, numbers, check_cancel=lambda calls=calls: calls.append(1)))
        assert [number_of(frame.rgb) for frame in frames] == numbers
        assert len(calls) < 60


def test_the_whole_clip_is_decoded_once(tmp_path):
    for name in KINDS:
        path = numbered_clip(tmp_path / name, 60)
        frame_times(path)
        calls = []
        assert len(list(read_frames(path, range(60), check_cancel=lambda calls=calls: calls.append(1)))) == 60
        assert len(calls) <= 61, name


@pytest.mark.parametrize("name", ["h264.mp4", "open gop.mkv", "vp9.webm", "ffv1.mkv", "qtrle.mov"])
def test_a_header_counts_frames_that_are_shown_for_longer_and_shorter(tmp_path, name):
    times = [0, 40, 80, 120, 1000, 2000, 2040, 2080, 2120, 5000, 5040, 5080]
    given = {"codec": "libx264", "pixels": "yuv420p"} if name == "h264.mp4" else {}
    path = numbered_clip(tmp_path / name, 12, times=times, time_base=Fraction(1, 1000), rate=25, **given)
    header = read_clip_header(path)
    assert header.frames == len(frame_times(path)) == 12
    assert header.rate == pytest.approx(12 / 5.12, rel=0.01)


def test_a_header_of_a_large_file_that_tells_no_count_does_not_read_all_of_it(tmp_path, monkeypatch):
    path = numbered_clip(tmp_path / "long.mkv", 30)
    monkeypatch.setattr(video, "_COUNTED_BYTES", 0)
    monkeypatch.setattr(video, "timeline", None)
    assert read_clip_header(path).frames == 30
