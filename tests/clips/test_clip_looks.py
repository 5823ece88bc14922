"""Frames look as players show them: turned, square, of the right colours and depth, without combs, with their alpha."""

import itertools
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from harness.clips import numbered, planes_frame, write_animation, write_clip, write_gif, write_sequence
from masklora.clips.pixels import bands_of_frame, matrix_of
from masklora.clips.reading import read_clip_header, read_frames
from masklora.errors import DataError

CORNERS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "white": (255, 255, 255)}
TURNS = {
    0: "red green blue white",
    90: "green white red blue",
    180: "white blue green red",
    270: "blue red white green",
}
# Weights of red and blue by AVColorSpace.
WEIGHTS = {1: (0.2126, 0.0722), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}


def first(path):
    return next(iter(read_frames(path, [0])))


def four_corners(width=64, height=48):
    picture = np.zeros((height, width, 3), np.uint8)
    for number, colour in enumerate(CORNERS.values()):
        down, across = divmod(number, 2)
        picture[down * height // 2 :, across * width // 2 :][: height // 2, : width // 2] = colour
    return picture


def corners(picture):
    height, width = picture.shape[:2]
    seen = [picture[y, x] for y, x in itertools.product((height // 4, 3 * height // 4), (width // 4, 3 * width // 4))]
    named = {colour: name for name, colour in CORNERS.items()}
    return " ".join(named[tuple(int(band > 127) * 255 for band in colour)] for colour in seen)


@pytest.mark.parametrize("container", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize("degrees", TURNS)
def test_rotation_flags_are_followed(tmp_path, container, degrees):
    given = {"codec": "libx264", "pixels": "yuv444p", "rotation": degrees}
    path = write_clip(tmp_path / f"turned.{container}", [four_corners()] * 3, **given)
    header, frame = read_clip_header(path), first(path)
    assert corners(frame.rgb) == TURNS[degrees]
    assert header.size == frame.rgb.shape[1::-1] == ((48, 64) if degrees in (90, 270) else (64, 48))
    assert header.reading == ("rotated" if degrees else "")


def test_pixels_are_made_square(tmp_path):
    for shape, size in (((2, 1), (128, 48)), ((1, 2), (64, 96)), ((16, 15), (68, 48)), ((1, 1), (64, 48))):
        given = {"codec": "libx264", "pixels": "yuv420p", "sample_aspect_ratio": Fraction(*shape)}
        path = write_clip(tmp_path / f"{size[0]}.mp4", [four_corners()] * 2, **given)
        header, frame = read_clip_header(path), first(path)
        assert header.size == frame.rgb.shape[1::-1] == size
        assert header.reading == ("square-pixels" if shape != (1, 1) else "")
        assert corners(frame.rgb) == TURNS[0]


def expected(luma, red_part, blue_part, tag, full, bits):
    """ITU-T H.273, 8.3, in floating point."""
    unit = 2 ** (bits - 8)
    red, blue = WEIGHTS[tag]
    black, span, chroma = (0, 2**bits - 1, 2**bits - 1) if full else (16 * unit, 219 * unit, 224 * unit)
    y, v, u = (luma - black) / span, (red_part - 128 * unit) / chroma, (blue_part - 128 * unit) / chroma
    r, b = y + 2 * (1 - red) * v, y + 2 * (1 - blue) * u
    g = (y - red * r - blue * b) / (1 - red - blue)
    return np.clip([r, g, b], 0, 1)


@pytest.mark.parametrize("pixels", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv444p12le", "yuv444p16le"])
@pytest.mark.parametrize("tag", WEIGHTS)
@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
def test_colours_follow_matrix_range_and_depth(pixels, tag, full):
    bits = av.VideoFormat(pixels).components[0].bits
    for values in ((16, 128, 128), (235, 128, 128), (81, 90, 240), (145, 54, 34), (41, 240, 110), (255, 255, 255)):
        deep = [value * 2 ** (bits - 8) for value in values]
        frame = planes_frame(pixels, *deep, matrix=tag, full=full)
        bands = bands_of_frame(frame, matrix_of(frame))
        wanted = expected(deep[0], deep[2], deep[1], tag, full, bits) * bands.scale
        assert bands.values.shape == (16, 16, 3)
        assert np.abs(bands.values.astype(float) - wanted).max() <= 0.5 + bands.scale * 1e-6


@pytest.mark.parametrize("pixels", ["nv12", "yuyv422", "p010le", "yuv420p10be", "uyvy422", "nv16", "y210le"])
def test_other_layouts_are_the_same_colours(pixels):
    plain = planes_frame("yuv420p", 120, 90, 170, matrix=1)
    wanted = bands_of_frame(plain, matrix_of(plain))
    other = plain.reformat(format=pixels, threads=1)
    bands = bands_of_frame(other, matrix_of(other))
    unit = bands.scale / 255
    assert np.abs(bands.values / unit - wanted.values.astype(float)).max() <= 1.01


def test_old_names_of_full_range_are_full_range():
    frame = planes_frame("yuvj420p", 255, 128, 128, matrix=6)
    assert (bands_of_frame(frame, matrix_of(frame)).values == 255).all()
    frame = planes_frame("yuvj420p", 16, 128, 128, matrix=6)
    assert (bands_of_frame(frame, matrix_of(frame)).values == 16).all()


@pytest.mark.parametrize("pixels", ["rgb24", "bgr24", "bgr0", "argb", "gbrp", "rgb8", "bgra"])
def test_stored_rgb_keeps_its_numbers(pixels):
    picture = np.zeros((8, 8, 3), np.uint8)
    picture[:, 4:] = (255, 0, 255)
    frame = av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format=pixels, threads=1)
    bands = bands_of_frame(frame, matrix_of(frame))
    assert bands.scale == 255
    # What has no alpha of its own gets none; three bits of red reach up to 252 in FFmpeg.
    np.testing.assert_allclose(bands.colours, picture, atol=3 if pixels == "rgb8" else 0)
    assert bands.alpha is None or (bands.alpha == 255).all()


@pytest.mark.parametrize(("pixels", "bits"), [("gbrp10le", 10), ("gbrp12le", 12), ("gbrp16le", 16), ("gbrap16le", 16)])
def test_stored_deep_rgb_keeps_its_numbers(pixels, bits):
    for white in (0, 2**bits // 3, 2**bits - 1):
        planes = [white, white // 2, white // 4] + [2**bits - 1] * (pixels == "gbrap16le")
        frame = planes_frame(pixels, *planes, matrix=0)
        wanted = np.rint(np.array([white // 4, white, white // 2]) * 65535 / (2**bits - 1))
        bands = bands_of_frame(frame, matrix_of(frame))
        assert bands.scale == 65535
        np.testing.assert_allclose(bands.colours[3, 3], wanted, atol=1)
        assert bands.alpha is None or (bands.alpha == 65535).all()


@pytest.mark.parametrize("order", ["rgb48le", "rgb48be", "rgba64le", "bgr48le"])
def test_deep_rgb_beside_each_other_keeps_its_numbers(order):
    frame = av.VideoFrame(16, 16, order)
    parts = [60000, 30000, 15000] if order.startswith("rgb") else [15000, 30000, 60000]
    parts += [65535] * order.startswith("rgba")
    values = np.tile(np.array(parts, ">u2" if order.endswith("be") else "<u2"), (16, 16))
    line = frame.planes[0].line_size
    rows = np.zeros((frame.planes[0].buffer_size // line, line), np.uint8)
    rows[:16, : values.nbytes // 16] = values.view(np.uint8)
    frame.planes[0].update(rows.tobytes())
    np.testing.assert_array_equal(bands_of_frame(frame, matrix_of(frame)).colours[5, 5], [60000, 30000, 15000])


@pytest.mark.parametrize(("pixels", "bits"), [("gray", 8), ("gray10le", 10), ("gray16le", 16), ("gray16be", 16)])
def test_grey_is_full_range(pixels, bits):
    native = pixels.replace("be", "le")
    for value in (0, 2**bits // 3, 2**bits - 1):
        frame = planes_frame(native, value)
        frame = frame if native == pixels else frame.reformat(format=pixels, threads=1)
        bands = bands_of_frame(frame, matrix_of(frame))
        assert bands.values.shape == (16, 16, 1)
        np.testing.assert_allclose(bands.values, value * bands.scale / (2**bits - 1), atol=0.51)


def test_without_tags_the_matrix_is_that_of_the_size(tmp_path):
    small, large = planes_frame("yuv444p", 81, 90, 240), planes_frame("yuv444p", 81, 90, 240, size=(1280, 720))
    assert matrix_of(small).weights == WEIGHTS[6]
    assert matrix_of(large).weights == WEIGHTS[1]


@pytest.mark.parametrize(("tag", "name"), [(1, "bt709"), (6, "smpte170m")])
@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
def test_a_stream_s_tags_reach_its_frames(tmp_path, tag, name, full):
    frames = [planes_frame("yuv444p", 100, 90, 200, size=(64, 48), matrix=tag, full=full) for _ in range(3)]
    options = {"x264-params": f"colormatrix={name}:fullrange={'on' if full else 'off'}", "qp": "0"}
    path = write_clip(tmp_path / "tagged.mp4", frames, "libx264", "yuv444p", options)
    wanted = expected(100, 200, 90, tag, full, 8) * 255
    assert np.abs(first(path).rgb - wanted).max() <= 0.51


def test_ten_bits_are_rounded_to_eight(tmp_path):
    path = write_clip(tmp_path / "deep.mkv", [planes_frame("yuv444p10le", 940, 512, 512)], "ffv1", "yuv444p10le")
    assert read_clip_header(path).reading == "10-bit"
    assert (first(path).rgb == 255).all()
    wide = np.full((8, 8, 3), 257 * 77 + 128, np.uint16)
    path = write_clip(tmp_path / "wide.mkv", [wide], "ffv1", "gbrp16le")
    assert (first(path).rgb == 77).all()


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (65, 49), (2, 1), (1, 64)])
@pytest.mark.parametrize(("codec", "pixels", "name"), [("png", "rgb24", "odd.mov"), ("mjpeg", "yuvj420p", "odd.avi")])
def test_odd_sizes(tmp_path, size, codec, pixels, name):
    path = write_clip(tmp_path / name, [np.full((*size[::-1], 3), 200, np.uint8)] * 2, codec, pixels)
    assert read_clip_header(path).size == size
    assert first(path).rgb.shape == (*size[::-1], 3)
    assert np.abs(first(path).rgb.astype(int) - 200).max() <= 3


def combs(picture):
    lines = picture[..., 0].astype(int)
    return np.abs(lines[1:-1] - (lines[:-2] + lines[2:]) / 2).max()


def interlaced(count=12, size=(128, 96), first=1):
    """A bar that moves between the fields of each frame; `first` 1 for the lower field, which their flags say."""
    frames = []
    for number in range(count):
        picture = np.zeros((size[1], size[0], 3), np.uint8)
        for field in (0, 1):
            place = 4 + (2 * number + (field != first)) * 4
            picture[field::2, place : place + 24] = 255
        frames.append(picture)
    return frames


INTERLACED = {"flags": "+ilme+ildct", "crf": "5", "g": "4"}


@pytest.mark.parametrize("count", [12, 2, 1])
def test_no_combs_stay_and_each_frame_stays_itself(tmp_path, count):
    path = write_clip(tmp_path / "fields.mp4", interlaced(count), "libx264", "yuv420p", INTERLACED)
    assert read_clip_header(path).reading == "deinterlaced"
    with av.open(str(path)) as container:
        stored = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert all(combs(picture) > 200 for picture in stored)
    frames = [frame.rgb for frame in read_frames(path, range(count))]
    assert [combs(picture) for picture in frames] == pytest.approx([0] * count, abs=12)
    assert [int(np.argmax(picture[40, :, 0] > 127)) for picture in frames] == [4 + 8 * i for i in range(count)]
    for number in range(count):
        (alone,) = read_frames(path, [number])
        np.testing.assert_array_equal(alone.rgb, frames[number])


def test_no_combs_stay_where_the_flag_tells_the_wrong_field(tmp_path):
    path = write_clip(tmp_path / "fields.mp4", interlaced(first=0), "libx264", "yuv420p", INTERLACED)
    assert [combs(frame.rgb) for frame in read_frames(path, range(12))] == pytest.approx([0] * 12, abs=12)


def test_whole_frames_are_left_as_they_are(tmp_path):
    frames = interlaced()
    path = write_clip(tmp_path / "whole.mkv", frames)
    assert read_clip_header(path).reading == ""
    for frame, read in zip(frames, read_frames(path, range(12)), strict=True):
        np.testing.assert_array_equal(read.rgb, frame)


def clear(number):
    """A picture (H, W, 4) of which the left part is transparent and a column half so."""
    picture = np.dstack([numbered(number), np.full((48, 64), 255, np.uint8)])
    picture[:, : 16 + number, 3] = 0
    picture[:, 60:, 3] = 128
    return picture


@pytest.mark.parametrize(
    ("name", "codec", "pixels", "near"),
    [
        ("a.webm", "libvpx-vp9", "yuva420p", 24),
        ("b.webm", "libvpx", "yuva420p", 40),
        ("a.mov", "prores_ks", "yuva444p10le", 2),
        ("b.mov", "qtrle", "argb", 0),
        ("c.mov", "png", "rgba", 0),
        ("a.mkv", "ffv1", "bgra", 0),
    ],
)
def test_alpha_of_videos(tmp_path, name, codec, pixels, near):
    options = {"b": "4M", "auto-alt-ref": "0"} if "vpx" in codec else {}
    path = write_clip(tmp_path / name, [clear(number) for number in range(6)], codec, pixels, options)
    assert read_clip_header(path).alpha
    for number, frame in zip((0, 3, 5), read_frames(path, [0, 3, 5]), strict=True):
        assert frame.alpha.dtype == np.float32
        wanted = clear(number)[..., 3] / np.float32(255)
        assert np.abs(frame.alpha - wanted).mean() * 255 <= near / 8
        assert np.abs(frame.alpha[:, :12] - wanted[:, :12]).max() * 255 <= near
        assert np.abs(frame.alpha[:, 30:56] - wanted[:, 30:56]).max() * 255 <= near


def test_opaque_alpha_is_none(tmp_path):
    opaque = np.dstack([numbered(5), np.full((48, 64), 255, np.uint8)])
    path = write_clip(tmp_path / "opaque.mov", [opaque] * 2, "qtrle", "argb")
    assert read_clip_header(path).alpha
    assert first(path).alpha is None


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp", "a folder"])
def test_alpha_of_animations_and_folders(tmp_path, name):
    pictures = [clear(number) for number in range(6)]
    for picture in pictures:
        picture[:, 60:, 3] = 255
    given = {"disposal": 2} if name == "a.gif" else {}
    write = write_animation if "." in name else write_sequence
    path = write(tmp_path / name, pictures, **given)
    assert read_clip_header(path).alpha
    for number, frame in zip((0, 2, 5), read_frames(path, [0, 2, 5]), strict=True):
        np.testing.assert_array_equal(frame.alpha, pictures[number][..., 3] / np.float32(255))
        seen = pictures[number][..., 3] > 0
        assert np.abs(frame.rgb[seen].astype(int) - pictures[number][seen][:, :3]).max() <= 1


@pytest.mark.parametrize(("disposal", "left"), [(0, "all"), (1, "all"), (2, "one"), (3, "one")])
def test_frames_of_a_gif_are_laid_over_the_ones_before(tmp_path, disposal, left):
    """A square in each frame, at a place of its own, of a colour of its own; a corner of it is clear."""
    square = np.ones((10, 10), np.uint8)
    square[:2, :2] = 0
    frames = [(0, 12 * number, disposal, square * (number + 1)) for number in range(3)]
    path = write_gif(tmp_path / "laid.gif", (40, 40), frames)
    for number, frame in enumerate(read_frames(path, range(3))):
        wanted = np.zeros((40, 40, 4), np.float32)
        for place in range(number + 1) if left == "all" else [number]:
            part = wanted[12 * place : 12 * place + 10, :10]
            part[square > 0] = [float(band == place) for band in range(3)] + [1]
        np.testing.assert_array_equal(frame.alpha, wanted[..., 3])
        np.testing.assert_array_equal(frame.rgb[frame.alpha > 0], wanted[frame.alpha > 0][:, :3] * 255)


def test_a_png_s_picture_for_other_readers_is_no_frame(tmp_path):
    pictures = [Image.fromarray(numbered(number)) for number in (200, 0, 1, 2)]
    path = tmp_path / "hidden.png"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], default_image=True, duration=100)
    assert read_clip_header(path).frames == 3
    for number, frame in enumerate(read_frames(path, [0, 1, 2])):
        np.testing.assert_array_equal(frame.rgb, numbered(number))


def test_short_times_are_those_of_browsers(tmp_path):
    header = read_clip_header(write_animation(tmp_path / "quick.gif", [numbered(i) for i in range(4)], 0))
    assert (header.rate, header.duration) == (pytest.approx(10), pytest.approx(0.4))


def test_pictures_of_a_folder_are_of_one_size(tmp_path):
    from masklora.clips.reading import frame_times

    folder = write_sequence(tmp_path / "shots", [numbered(0), numbered(1), numbered(2)])
    write_sequence(folder, [numbered(0, (32, 48))], "frame 1.png")
    for read in (frame_times, lambda path: list(read_frames(path, [0, 1]))):
        with pytest.raises(DataError, match=r"shots: frame 0\.png is 64×48, but frame 1\.png is 32×48") as error:
            read(folder)
        assert "one size" in str(error.value)
