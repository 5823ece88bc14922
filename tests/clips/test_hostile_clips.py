"""Damaged, odd and hostile clips: each gives its right frames, or an error that names the file and what to do."""

import os
import struct
import threading
import zipfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from harness.clips import SIZE, number_of, numbered, numbered_clip, write_animation, write_clip, write_sequence
from masklora.clips.reading import frame_times, is_animated, read_clip_header, read_frames, read_mask_frames
from masklora.errors import DataError
from masklora.findings import printable

SECONDS = 20
MOST = 60
H264 = {"codec": "libx264", "pixels": "yuv420p", "options": {"g": "8", "bf": "2"}}
CASES = {}


def case(expected, name=None):
    """A hostile file by its name: a function that makes it, and what comes of it.

    `expected` is the list of the numbers that its frames show, or words of the error.
    """

    def add(make):
        CASES[name or make.__name__] = (make, expected)
        return make

    return add


def outcome(path):
    """What reading all of a clip gives: the numbers of its frames, or the first error."""
    try:
        header = read_clip_header(path)
        times = frame_times(path)
        assert times[0] == 0 and (np.diff(times) >= 0).all() and np.isfinite(times).all()
        assert header.frames >= 0 and np.isfinite([header.rate, header.duration]).all()
        shown = []
        for frame in read_frames(path, range(min(MOST, len(times)))):
            assert frame.rgb.shape[1::-1] == header.size
            shown.append(number_of(frame.rgb) if min(header.size) >= 8 else int(frame.rgb[0, 0, 0]))
        return shown
    except DataError as error:
        return str(error)


def in_time(call, *arguments):
    """The call's result; it fails where that takes longer than `SECONDS`, in whatever library."""
    found = []

    def run():
        try:
            found.append(call(*arguments))
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(SECONDS)
    assert found, f"no end after {SECONDS} s"
    if isinstance(found[0], BaseException):
        raise found[0]
    return found[0]


def clip(folder, name="clip.mp4", count=20, **given):
    return numbered_clip(folder / name, count, **(H264 | given))


def cut(path, share):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def patched(path, old, new, *, every=False):
    data = path.read_bytes()
    assert old in data, f"{old!r} is not in {path.name}"
    path.write_bytes(data.replace(old, new) if every else data.replace(old, new, 1))
    return path


def named(folder, name, data):
    path = folder / name
    path.write_bytes(data)
    return path


# Files that end too early.
for share in (0.02, 0.5, 0.95):
    CASES[f"mp4 cut at {share}"] = (lambda folder, share=share: cut(clip(folder), share), "truncated|no frame")
CASES["mp4 without its last bytes, which tell who wrote it"] = (lambda folder: cut(clip(folder), 0.999), [*range(20)])
FAST = {"container": {"movflags": "faststart"}}
for share in (0.5, 0.8, 0.99):
    made = lambda folder, share=share: cut(clip(folder, count=60, **FAST), share)  # noqa: E731
    CASES[f"mp4 with its index first cut at {share}"] = (made, "truncated")
for share in (0.01, 0.1):
    CASES[f"mkv cut at {share}"] = (lambda folder, share=share: cut(clip(folder, "c.mkv", 60), share), "c.mkv")
for name in ("c.mkv", "c.webm", "c.avi"):
    given = {"codec": "libvpx-vp9", "options": {"g": "8", "b": "1M"}} if name == "c.webm" else {}
    made = lambda folder, name=name, given=given: cut(clip(folder, name, 60, **given), 0.7)  # noqa: E731
    CASES[f"{name} cut in the middle"] = (made, "some")
PICTURES = [numbered(number) for number in range(12)]
for name in ("c.gif", "c.webp", "c.png"):
    made = lambda folder, name=name: cut(write_animation(folder / name, PICTURES), 0.6)  # noqa: E731
    CASES[f"{name} cut in the middle"] = (made, "either")


# Nothing, or nearly nothing, in it.
case("empty", "an empty mp4")(lambda folder: named(folder, "e.mp4", b""))
case("empty", "an empty gif")(lambda folder: named(folder, "e.gif", b""))
case("expected", "one byte")(lambda folder: named(folder, "e.webm", b"\x1a"))
case([0], "one frame in mp4")(lambda folder: clip(folder, count=1))
case([0], "one frame in mkv")(lambda folder: clip(folder, "c.mkv", 1))
case([0], "one frame in gif")(lambda folder: write_animation(folder / "one.gif", PICTURES[:1]))
case("c.gif", "a gif without a picture")(
    lambda folder: named(folder, "c.gif", b"GIF89a" + struct.pack("<HHBBB", 8, 8, 0, 0, 0) + b";")
)
case("c.webp", "a webp animation without a frame")(
    lambda folder: named(
        folder, "c.webp", b"RIFF\x26\0\0\0WEBPVP8X\n\0\0\0\x02\0\0\0\x07\0\0\x07\0\0ANIM\x06\0\0\0\0\0\0\0\0\0"
    )
)


@case("no frame|no pictures|truncated|expected")
def a_header_without_frames(folder):
    path = folder / "none.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=24)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "bgr0"
        container.start_encoding()
    return path


def sound_file(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=48000)
        for number in range(10):
            frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), "fltp", "stereo")
            frame.sample_rate, frame.pts = 48000, number * 1024
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


case("no pictures", "sound alone in mp4")(lambda folder: sound_file(folder / "sound.mp4"))
case("no pictures", "sound alone in mkv")(lambda folder: sound_file(folder / "sound.mkv"))


@case("no pictures|expected")
def subtitles_alone(folder):
    text = b"1\n00:00:00,000 --> 00:00:02,000\nHello\n"
    source = named(folder, "text.srt", text)
    path = folder / "text.mkv"
    with av.open(str(source)) as read, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(read.streams[0])
        for packet in read.demux():
            if packet.size:
                packet.stream = stream
                container.mux(packet)
    return path


@case("cover picture")
def a_cover_alone(folder):
    path = folder / "song.mp4"
    with av.open(str(path), "w") as container:
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = *SIZE, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        frame = av.VideoFrame.from_ndarray(numbered(7), "rgb24")
        frame.pts = 0
        container.mux(cover.encode(frame))
        container.mux(cover.encode())
    return path


# Sizes, rates and times that make no sense, or just little.
def claims(folder, size):
    path = write_clip(folder / "wide.mkv", [np.zeros((258, 320, 3), np.uint8)])
    patched(path, b"\xb0\x82\x01\x40", b"\xb0\x82" + struct.pack(">H", size))
    return patched(path, b"\xba\x82\x01\x02", b"\xba\x82" + struct.pack(">H", size))


case("100 Mpx|0 px", "a header of 65535×65535")(lambda folder: claims(folder, 65535))
case("100 Mpx", "a header of 10000×10000")(lambda folder: claims(folder, 10000))
case("100 Mpx", "a gif of 65535×65535")(
    lambda folder: patched(
        write_animation(folder / "c.gif", PICTURES), b"\x40\0\x30\0", b"\xff\xff\xff\xff", every=True
    )
)
case(list(range(40)), "240 frames per second")(lambda folder: clip(folder, count=40, rate=240))
case(list(range(5)), "a frame each ten seconds")(
    lambda folder: clip(folder, count=5, times=range(0, 50, 10), time_base=Fraction(1, 1))
)
case(list(range(12)), "all frames at the same time")(
    lambda folder: patched(
        write_clip(folder / "c.mkv", PICTURES, options={"g": "1"}),
        b"\x2a\xd7\xb1\x83\x0f\x42\x40",
        b"\x2a\xd7\xb1\x83\0\0\1",
    )
)
case(list(range(12)), "a time scale of zero")(
    lambda folder: patched(
        write_clip(folder / "c.mkv", PICTURES), b"\x2a\xd7\xb1\x83\x0f\x42\x40", b"\x2a\xd7\xb1\x83\0\0\0"
    )
)
case(list(range(12)), "a time scale of sixteen times as much")(
    lambda folder: patched(
        write_clip(folder / "c.mkv", PICTURES), b"\x2a\xd7\xb1\x83\x0f\x42\x40", b"\x2a\xd7\xb1\x83\xff\xff\xff"
    )
)
case([200], "one pixel")(
    lambda folder: write_clip(folder / "1.mov", [np.full((1, 1, 3), 200, np.uint8)], "png", "rgb24")
)
case("0 px|expected", "no pixel")(
    lambda folder: patched(
        clip(folder, "c.mkv", codec="ffv1", pixels="bgr0", options={}), b"\xb0\x81\x40", b"\xb0\x81\0"
    )
)


def mp4_number(path, box, offset, value):
    """Overwrite four bytes of a box's content."""
    data = bytearray(path.read_bytes())
    at = data.index(box) + 4 + offset
    data[at : at + 4] = struct.pack(">I", value)
    path.write_bytes(data)
    return path


case("clip.mp4", "a forged number of samples")(lambda folder: mp4_number(clip(folder), b"stsz", 8, 0x7FFFFFFF))
case("either", "a forged number of times")(lambda folder: mp4_number(clip(folder), b"stts", 8, 0xFFFFFFFF))
case("either", "a forged number of chunks")(lambda folder: mp4_number(clip(folder), b"stco", 4, 0x0FFFFFFF))
case("clip.mp4", "chunks that lie outside of the file")(lambda folder: mp4_number(clip(folder), b"stco", 8, 0x7FFFFFF0))
case("either", "a time scale of zero in mp4")(lambda folder: mp4_number(clip(folder), b"mdhd", 12, 0))
case("either", "boxes that claim to be longer than the file")(
    lambda folder: mp4_number(clip(folder), b"trak", -8, 1 << 30)
)
case(list(range(20)), "a forged number of frames in avi")(
    lambda folder: forged_total(clip(folder, "c.avi", codec="mpeg4", options={"b": "2M"}))
)


def forged_total(path):
    data = bytearray(path.read_bytes())
    at = data.index(b"avih") + 8 + 16
    data[at : at + 4] = b"\xff\xff\xff\x7f"
    path.write_bytes(data)
    return path


def nested(count=3000):
    inner = b""
    for _ in range(count):
        inner = struct.pack(">I", len(inner) + 8) + b"moov" + inner
    return inner


case("expected", "boxes in boxes without end")(
    lambda folder: named(folder, "deep.mp4", b"\0\0\0\x10ftypisom\0\0\0\0" + nested())
)
case(list(range(20)), "boxes in boxes behind a clip")(
    lambda folder: named(folder, "deep.mp4", clip(folder).read_bytes() + nested())
)


# Other files under the name of a clip.
TEXT = b"This is no clip. " * 99
case("expected", "text")(lambda folder: named(folder, "a.mp4", TEXT))
case("expected", "a web page")(lambda folder: named(folder, "a.webm", b"<!DOCTYPE html><html><body>404</body></html>"))
case("expected", "noise")(lambda folder: named(folder, "a.avi", np.random.default_rng(0).bytes(5000)))
case("expected", "noise as gif")(lambda folder: named(folder, "a.gif", np.random.default_rng(0).bytes(5000)))


@case("expected")
def an_archive(folder):
    with zipfile.ZipFile(folder / "a.mkv", "w") as archive:
        archive.writestr("clip.mp4", clip(folder).read_bytes())
    return folder / "a.mkv"


def picture_as(folder, name, kind):
    Image.fromarray(numbered(3)).save(folder / name, kind)
    return folder / name


case("expected", "a png")(lambda folder: picture_as(folder, "a.mp4", "PNG"))
case("expected", "a jpeg")(lambda folder: picture_as(folder, "a.avi", "JPEG"))
case("expected", "a webp, which is RIFF as avi is")(lambda folder: picture_as(folder, "a.avi", "WEBP"))
case("expected", "a gif")(lambda folder: write_animation(folder / "a.gif", PICTURES).rename(folder / "a.mp4"))
case("expected", "an mp4 as gif")(lambda folder: clip(folder).rename(folder / "a.gif"))
case(list(range(20)), "an mp4 as mkv")(lambda folder: clip(folder).rename(folder / "a.mkv"))
case(list(range(20)), "an avi as mp4")(
    lambda folder: clip(folder, "c.avi", codec="mjpeg", pixels="yuvj420p", options={}).rename(folder / "a.mp4")
)
case("expected", "a sound file as avi")(
    lambda folder: named(
        folder, "a.avi", b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x40\x1f\0\0\x80\x3e\0\0\2\0\x10\0data\0\0\0\0"
    )
)


# Scripts that name other files; the one beside them is a good clip, which none of them may show.
def script(text, name="list.mp4"):
    def make(folder):
        other = clip(folder, "other.mp4")
        return named(folder, name, text.replace("OTHER", str(other)).encode())

    return make


case("expected", "a playlist")(script("#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nother.mp4\n#EXT-X-ENDLIST\n"))
case("expected", "a playlist of the network")(script("#EXTM3U\n#EXTINF:10,\nhttp://127.0.0.1:9/x.ts\n#EXT-X-ENDLIST\n"))
case("expected", "a list to join")(script("ffconcat version 1.0\nfile 'other.mp4'\n"))
case("expected", "a list to join, with a path")(script("ffconcat version 1.0\nfile 'OTHER'\n", "list.mkv"))
case("expected", "a description of a session")(
    script("v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n")
)
case("expected", "a manifest")(
    script(
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>OTHER</BaseURL></MPD>', "list.webm"
    )
)


@case("either")
def a_reference_to_another_file(folder):
    """An MP4 whose samples are said to lie in another file, by a flag of its data reference."""
    return patched(clip(folder), b"url \0\0\0\1", b"url \0\0\0\0")


# Damage inside.
@case("frame 13 cannot be decoded")
def a_damaged_packet_of_ffv1(folder):
    path = clip(folder, "c.mkv", 30, codec="ffv1", pixels="bgr0", options={"g": "4"})
    return overwritten(path, 13)


def overwritten(path, number, kept=0):
    """A packet's bytes replaced by others. Of a few wrong bits no decoder can tell: most codecs have no checksum."""
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][number]
        body, place = bytes(packet), packet.pos
    data = bytearray(path.read_bytes())
    at = data.index(body, place)
    lost = len(body) - int(len(body) * kept)
    data[at + len(body) - lost : at + len(body)] = b"\xff" * lost
    path.write_bytes(data)
    return path


@case("frame 14 cannot be decoded")
def a_damaged_packet_of_h264(folder):
    return overwritten(clip(folder, "c.mkv", 30, options={"g": "10", "bf": "0"}), 14)


@case("frame 14 cannot be decoded")
def a_packet_of_which_the_end_is_lost(folder):
    """FFmpeg would paint over it."""
    frames = [numbered(number) for number in range(20)]
    noise = np.random.default_rng(0)
    for frame in frames:
        frame[:16] = noise.integers(0, 256, (16, 64, 3), np.uint8)
    options = {"bf": "0", "x264-params": "cabac=0:keyint=30:scenecut=0", "crf": "15"}
    return overwritten(write_clip(folder / "c.mkv", frames, "libx264", "yuv420p", options), 14, kept=0.5)


@case("frame 0 cannot be decoded")
def no_key_frame_at_the_start(folder):
    source, path = clip(folder, "whole.mkv", options={"g": "8", "bf": "0"}), folder / "cut.mkv"
    with av.open(str(source)) as read, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(read.streams.video[0])
        for number, packet in enumerate(read.demux(video=0)):
            if packet.size and number >= 3:
                packet.stream = stream
                container.mux(packet)
    return path


@case(r"frame 6 is 128×96, but the clip is 64×48")
def another_size_in_the_middle(folder):
    path = folder / "sizes.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=24)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        coder = av.CodecContext.create("mjpeg", "w")
        coder.width, coder.height, coder.pix_fmt, coder.time_base = 128, 96, "yuvj420p", Fraction(1, 24)
        coder.open()
        for number in range(12):
            large = number >= 6
            picture = av.VideoFrame.from_ndarray(numbered(number, (128, 96) if large else SIZE), "rgb24")
            picture.pts = number
            for packet in coder.encode(picture.reformat(format="yuvj420p")) if large else stream.encode(picture):
                packet.stream = stream
                container.mux(packet)
    return path


case(list(range(20)), "an mp4 in fragments")(
    lambda folder: clip(folder, container={"movflags": "frag_keyframe+empty_moov"})
)
case(list(range(20)), "an mkv without an index")(lambda folder: clip(folder, "c.mkv", container={"live": "1"}))


# Names and kinds of files.
NAMES = (
    "grün – 花 🎬.mp4",
    "[a](b) {c} %d %03d.mp4",
    "line\nbreak.mp4",
    "-i.mp4",
    "file:x.mp4",
    "concat:a|b.mp4",
    "pipe:0.mp4",
)
for odd in (*NAMES, "http:x.mp4", "a" * 240 + ".mp4", "UPPER.MP4", "two..dots.mp4", "caf\udce9.mp4", " blanks .mp4"):
    made = lambda folder, odd=odd: clip(folder, count=3).rename(folder / odd)  # noqa: E731
    CASES[f"a name {odd[:20]!a}"] = (made, [0, 1, 2])
case("does not exist", "no file")(lambda folder: folder / "none.mp4")
case("does not exist", "a link to nothing")(lambda folder: linked(folder / "link.mp4", folder / "none.mp4"))
case(list(range(20)), "a link to a clip")(lambda folder: linked(folder / "link.mp4", clip(folder)))
case("a pipe or a device", "a device")(lambda folder: linked(folder / "zero.mp4", Path("/dev/zero")))
case("numbered pictures", "an empty folder named as a clip")(lambda folder: made_folder(folder / "x.mp4"))
case([0, 1, 2], "a folder of pictures named as a clip")(lambda folder: write_sequence(folder / "x.mp4", PICTURES[:3]))
case("frame 1", "a folder with a broken picture")(
    lambda folder: named(write_sequence(folder / "x", PICTURES[:3]), "frame 1.png", TEXT).parent
)


def linked(path, target):
    path.symlink_to(target)
    return path


def made_folder(path):
    path.mkdir()
    return path


@case("a pipe or a device")
def a_pipe(folder):
    os.mkfifo(folder / "pipe.mp4")
    return folder / "pipe.mp4"


@pytest.mark.parametrize("name", CASES)
def test_hostile_clips(tmp_path, name):
    make, expected = CASES[name]
    path = make(tmp_path)
    found = in_time(outcome, path)
    if isinstance(found, str):
        assert printable(path.name) in found
        assert found.rstrip().endswith("."), found
        assert any(word in found for word in ("Save", "Remove", "Reload", "Put", "Cut", "remove", "scale", "Check"))
    if isinstance(expected, list):
        assert found == expected
    elif expected in ("some", "either"):
        assert (isinstance(found, str) and expected == "either") or (found and found == [*range(len(found))]), found
    else:
        assert isinstance(found, str), found
        assert any(words in found for words in expected.split("|")), found
    in_time(is_animated, path)


@pytest.mark.parametrize("read", [frame_times, lambda path: next(read_frames(path, [0])), read_clip_header])
def test_a_clip_that_was_cut_off_is_refused_by_whatever_reads_it(tmp_path, read):
    path = cut(clip(tmp_path, count=60, **FAST), 0.8)
    with pytest.raises(DataError, match=r"clip\.mp4: the video is truncated"):
        read(path)


def test_what_is_sound_around_damage_is_read(tmp_path):
    """Frames before a damaged one, and from the next key frame on, are right; those between name their numbers."""
    for name in ("c.mkv", "c.mp4"):
        path = overwritten(clip(tmp_path, name, 40, options={"g": "10", "bf": "0", "sc_threshold": "0"}), 14)
        for number in (0, 13, 20, 39):
            (frame,) = read_frames(path, [number])
            assert number_of(frame.rgb) == number
        for number in (14, 15, 19):
            with pytest.raises(DataError, match=f"frame {number} cannot be decoded"):
                list(read_frames(path, [number]))
            with pytest.raises(DataError, match=f"mask {name}: frame {number} cannot be decoded"):
                list(read_mask_frames(path, [number]))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="to root every file is readable")
def test_a_file_without_rights_names_them(tmp_path):
    path = clip(tmp_path)
    path.chmod(0)
    assert "permissions" in outcome(path)


@pytest.mark.parametrize("name", ["http:x.mp4", "concat:a|b.mp4", "pipe:0.mp4", "data:x.mp4", "-i.mp4"])
def test_a_name_is_never_an_address(tmp_path, monkeypatch, name):
    clip(tmp_path, count=3).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert in_time(outcome, Path(name)) == [0, 1, 2]


def test_more_frames_than_bytes_are_no_number_of_frames(tmp_path):
    path = clip(tmp_path, "c.avi", codec="mpeg4", options={"b": "2M"})
    data = bytearray(path.read_bytes())
    at = data.index(b"strh") + 8 + 32
    assert data[at : at + 4] == struct.pack("<I", 20)
    data[at : at + 4] = b"\xff\xff\xff\x7f"
    path.write_bytes(data)
    assert read_clip_header(path).frames == len(frame_times(path)) == 20
