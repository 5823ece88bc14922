"""Small clips for tests, each frame of which shows its own number."""

import contextlib
import os
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

SIZE = (64, 48)
BITS = 8
# Codec, pixel format and options of every kind of container that is read, by the file's name.
KINDS = {
    "h264 b-frames.mp4": ("libx264", "yuv420p", {"g": "12", "bf": "3"}),
    "open gop.mkv": ("libx264", "yuv420p", {"x264-params": "open-gop=1:keyint=10:bframes=3:b-pyramid=normal"}),
    "gradual refresh.mkv": ("libx264", "yuv420p", {"x264-params": "intra-refresh=1:keyint=10"}),
    "h264.m4v": ("libx264", "yuv444p", {"g": "1"}),
    "hevc.mp4": ("libx265", "yuv420p10le", {"x265-params": "log-level=none:open-gop=1:keyint=10:bframes=4"}),
    "mpeg4.mp4": ("mpeg4", "yuv420p", {"g": "10", "bf": "2", "b": "1M"}),
    "mpeg2.mkv": ("mpeg2video", "yuv420p", {"g": "10", "bf": "2", "b": "1M"}),
    "vp8.webm": ("libvpx", "yuv420p", {"auto-alt-ref": "1", "lag-in-frames": "16", "g": "12", "b": "1M"}),
    "vp9.webm": ("libvpx-vp9", "yuv420p", {"auto-alt-ref": "1", "lag-in-frames": "16", "g": "12", "b": "1M"}),
    "vp9 alpha.webm": ("libvpx-vp9", "yuva420p", {"g": "12", "b": "1M"}),
    "av1.webm": ("libsvtav1", "yuv420p", {"preset": "12", "g": "12", "svtav1-params": "fast-decode=0"}),
    "prores.mov": ("prores_ks", "yuva444p10le", {}),
    "qtrle.mov": ("qtrle", "argb", {"g": "10"}),
    "ffv1.mkv": ("ffv1", "bgr0", {"g": "10"}),
    "h264.avi": ("libx264", "yuv420p", {"g": "12", "bf": "3"}),
    "mpeg4 b-frames.avi": ("mpeg4", "yuv420p", {"g": "10", "bf": "2", "b": "1M"}),
    "mpeg4.avi": ("mpeg4", "yuv420p", {"g": "10", "b": "1M"}),
    "mjpeg.avi": ("mjpeg", "yuvj420p", {"b": "2M"}),
}


def numbered(number, size=SIZE):
    """A picture (H, W, 3) of vertical stripes, white where the number has a bit."""
    picture = np.zeros((size[1], size[0], 3), np.uint8)
    stripe = size[0] // BITS
    for bit in range(BITS):
        if number >> bit & 1:
            picture[:, bit * stripe : (bit + 1) * stripe] = 255
    return picture


def number_of(picture):
    """The number that a picture (H, W, 3 or more) shows."""
    stripe = picture.shape[1] // BITS
    middle = picture[picture.shape[0] // 2 - 4 : picture.shape[0] // 2 + 4, :, :3]
    return sum(int(middle[:, bit * stripe + stripe // 2].mean() > 127) << bit for bit in range(BITS))


@contextlib.contextmanager
def usual_priority():
    """SVT-AV1 gives root's process real-time priority, and so all that it starts: browsers beside it stand still."""
    try:
        yield
    finally:
        if hasattr(os, "sched_getscheduler") and os.sched_getscheduler(0) != os.SCHED_OTHER:
            for thread in threads():
                with contextlib.suppress(OSError):
                    os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))


def threads():
    """Of this process, as Linux numbers them."""
    return [int(one.name) for one in Path("/proc/self/task").iterdir()]


@usual_priority()
def write_clip(path, frames, codec="ffv1", pixels="bgr0", options=None, **given):
    """A clip of pictures uint8 or uint16 (H, W, 1, 3 or 4), or of PyAV's frames.

    Args:
        path: Its file, whose extension says which container.
        frames: What it shows.
        codec: An encoder of FFmpeg's.
        pixels: Its pixel format.
        options: For the encoder.
        given: `rate`; `times`, one for each frame in units of `time_base`; `rotation` in degrees against the clock;
            `container` options; and what else is set on the codec's context.
    """
    frames = list(frames)
    rate, times = given.pop("rate", 24), given.pop("times", range(len(frames)))
    base, rotation = given.pop("time_base", Fraction(1, rate)), given.pop("rotation", None)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format=given.pop("format", None), options=given.pop("container", {})) as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        first = as_frame(frames[0])
        stream.width, stream.height, stream.pix_fmt = first.width, first.height, pixels
        stream.codec_context.time_base = base
        for name, value in given.items():
            setattr(stream.codec_context, name, value)
        if rotation:
            stream.set_display_rotation(rotation)
        for picture, time in zip(frames, times, strict=True):
            # The encoder would do it with threads, which now and then spoil a part of a frame.
            frame = as_frame(picture).reformat(format=pixels, threads=1)
            frame.pts, frame.time_base = time, base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def as_frame(picture):
    if isinstance(picture, av.VideoFrame):
        return picture
    kinds = {1: ("gray", "gray16le"), 3: ("rgb24", "rgb48le"), 4: ("rgba", "rgba64le")}
    kind = kinds[picture.shape[2]][int(picture.dtype == np.uint16)]
    values = picture[..., 0] if picture.shape[2] == 1 else picture
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(values), format=kind)


def numbered_clip(path, count=30, size=SIZE, **given):
    """A clip whose frames show their numbers; coded as `KINDS` says of its name, or as `given` does."""
    if path.name in KINDS and "codec" not in given:
        codec, pixels, options = KINDS[path.name]
        given = {"codec": codec, "pixels": pixels, "options": options} | given
    return write_clip(path, [numbered(number, size) for number in range(count)], **given)


def write_animation(path, pictures, durations=100, **options):
    """An animated GIF, PNG or WebP by Pillow."""
    images = [Image.fromarray(picture) for picture in pictures]
    if path.suffix == ".webp":
        options = {"lossless": True} | options
    kind = {"format": "PNG"} if path.suffix == ".apng" else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    images[0].save(path, save_all=True, append_images=images[1:], duration=durations, **kind, **options)
    return path


def write_sequence(folder, pictures, name="frame {}.png"):
    """A folder of numbered pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / name.format(number))
    return folder


def planes_frame(pixels, *values, size=(16, 16), matrix=2, full=False):
    """PyAV's frame of a planar format with each plane filled with one value."""
    frame = av.VideoFrame(*size, pixels)
    wide = frame.format.components[0].bits > 8
    for plane, value in zip(frame.planes, values, strict=True):
        dtype = np.uint16 if wide else np.uint8
        plane.update(np.full(plane.buffer_size // dtype().itemsize, value, dtype).tobytes())
    frame.colorspace, frame.color_range = matrix, 2 if full else 1
    return frame


def write_gif(path, size, frames, delay=5):
    """A GIF by hand, so that no writer decides how its frames are laid over one another.

    Args:
        path: Its file.
        size: (width, height).
        frames: For each one its left and top edge, its disposal and its colours 0..3 (h, w), of which 0 is clear.
        delay: Of each frame, in hundredths of a second.
    """
    palette = bytes([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    data = b"GIF89a" + struct.pack("<HHBBB", *size, 0x81, 0, 0) + palette
    for left, top, disposal, colours in frames:
        height, width = colours.shape
        data += b"!\xf9\x04" + struct.pack("<BHBB", disposal << 2 | 1, delay, 0, 0)
        data += b"," + struct.pack("<HHHHB", left, top, width, height, 0) + b"\2"
        # Codes of three bits: clear the table, one colour, and so on, so that none ever gets longer.
        bits = sum(code << 3 * place for place, code in enumerate([c for v in colours.flat for c in (4, int(v))] + [5]))
        packed = bits.to_bytes((6 * colours.size + 3 + 7) // 8, "little")
        for start in range(0, len(packed), 255):
            block = packed[start : start + 255]
            data += bytes([len(block)]) + block
        data += b"\0"
    path.write_bytes(data + b";")
    return path
