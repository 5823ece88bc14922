"""Pictures and masks from files: orientation, bit depth, palettes, alpha, limits."""

import re
import struct
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from PIL import Image, ImageFile

from harness.odd_pictures import DAMAGED, write_damaged_pictures
from masklora.config import MASK_CHANNELS
from masklora.data.reading import image_size, read_header, read_image, read_mask
from masklora.errors import ConfigError, DataError, MaskError


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(size, colour_type, depth, rows, *, before=(), after=()):
    head = struct.pack(">IIBBBBB", *size, depth, colour_type, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = [(b"IHDR", head), *before, (b"IDAT", body), *after, (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def exif_bytes(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def coordinates(width, height):
    y, x = np.indices((height, width))
    return np.stack([x * 10, y * 10, x * 0 + 7], axis=2).astype(np.uint8)


# What a viewer shows of the stored pixel (row, column) for each EXIF orientation, by the tag's definition.
ORIENTED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", ORIENTED)
def test_exif_orientation_is_undone_for_picture_and_size(tmp_path, orientation):
    stored = coordinates(7, 4)
    path = tmp_path / "turned.png"
    Image.fromarray(stored).save(path, exif=exif_bytes(orientation))
    expected = ORIENTED[orientation](stored)
    np.testing.assert_array_equal(read_image(path).rgb, expected)
    assert image_size(path) == (expected.shape[1], expected.shape[0])


@pytest.mark.parametrize("orientation", ORIENTED)
def test_picture_and_mask_turn_alike(tmp_path, orientation):
    stored = coordinates(8, 16)
    for name in ("picture.png", "mask.png"):
        Image.fromarray(stored).save(tmp_path / name, exif=exif_bytes(orientation))
    red = read_image(tmp_path / "picture.png").rgb[..., 0]
    np.testing.assert_allclose(read_mask(tmp_path / "mask.png", "red"), red / 255, atol=1e-6)


def test_orientation_behind_the_pixels_of_a_png_is_seen(tmp_path):
    path = tmp_path / "late.png"
    rows = [bytes([9, 9, 9] * 5)] * 2
    path.write_bytes(png((5, 2), 2, 8, rows, after=[(b"eXIf", exif_bytes(6).removeprefix(b"Exif\0\0"))]))
    assert image_size(path) == (2, 5)
    assert read_image(path).rgb.shape == (5, 2, 3)


def test_header_does_not_decode(tmp_path):
    path = tmp_path / "cut.png"
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (64, 48, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:200])
    assert image_size(path) == (48, 64)
    with pytest.raises(DataError, match=r"cut\.png.*truncated"):
        read_image(path)


def test_sixteen_bit_alpha_keeps_all_its_bits(tmp_path):
    values = np.zeros((2, 3, 4), np.uint16)
    values[..., 3] = [[0, 1, 257], [32768, 65534, 65535]]
    values[..., 2] = 65535
    cv2.imwrite(str(tmp_path / "rgba16.png"), values)
    data = read_image(tmp_path / "rgba16.png")
    np.testing.assert_allclose(data.alpha, values[..., 3] / 65535, atol=1e-7)
    assert (data.rgb == (255, 0, 0)).all()


def test_sixteen_bit_grey_with_alpha(tmp_path):
    row = struct.pack(">4H", 1000, 32768, 65535, 12345)
    (tmp_path / "la16.png").write_bytes(png((2, 1), 4, 16, [row]))
    data = read_image(tmp_path / "la16.png")
    np.testing.assert_allclose(data.alpha, [[32768 / 65535, 12345 / 65535]], atol=1e-7)
    np.testing.assert_array_equal(data.rgb[0, :, 0], [round(1000 / 65535 * 255), 255])
    np.testing.assert_allclose(read_mask(tmp_path / "la16.png"), [[1000 / 65535, 1]], atol=1e-7)


@pytest.mark.parametrize(("mode", "extension"), [("RGBA", "png"), ("LA", "png"), ("RGBA", "webp"), ("RGBA", "tif")])
def test_alpha_of_every_kind_is_read(tmp_path, mode, extension):
    alpha = np.array([[0, 128], [200, 255]], np.uint8)
    image = Image.new(mode, (2, 2), (90,) if mode == "LA" else (90, 90, 90))
    image.putalpha(Image.fromarray(alpha))
    path = tmp_path / f"a.{extension}"
    image.save(path, lossless=True) if extension == "webp" else image.save(path)
    assert read_header(path).alpha
    np.testing.assert_allclose(read_image(path).alpha, alpha / 255, atol=1e-6)


def test_palette_with_transparency_gives_colours_and_alpha(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "p.png", transparency=bytes([0, 128]))
    assert read_header(tmp_path / "p.png").alpha
    data = read_image(tmp_path / "p.png")
    np.testing.assert_array_equal(data.rgb, [[[10, 20, 30], [200, 100, 50]]])
    np.testing.assert_allclose(data.alpha, [[0, 128 / 255]], atol=1e-6)


def test_a_transparent_colour_gives_alpha(tmp_path):
    image = Image.new("RGB", (2, 1), (5, 6, 7))
    image.putpixel((1, 0), (9, 9, 9))
    image.save(tmp_path / "key.png", transparency=(9, 9, 9))
    assert read_header(tmp_path / "key.png").alpha
    np.testing.assert_array_equal(read_image(tmp_path / "key.png").alpha, [[1, 0]])


def test_palette_mask_is_resolved_to_its_colours(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([255, 255, 255, 0, 0, 0])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "p.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "p.png"), [[1, 0]])


def test_first_frame_of_an_animation_is_taken(tmp_path):
    frames = [Image.new("RGBA", (4, 3), colour) for colour in ((255, 0, 0, 255), (0, 255, 0, 255))]
    for name in ("a.gif", "a.webp", "a.png"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], lossless=True)
        np.testing.assert_array_equal(read_image(tmp_path / name).rgb[0, 0], (255, 0, 0))


def test_opaque_alpha_is_no_alpha(tmp_path):
    Image.new("RGBA", (3, 2), (1, 2, 3, 255)).save(tmp_path / "o.png")
    assert read_header(tmp_path / "o.png").alpha
    assert read_image(tmp_path / "o.png").alpha is None


@pytest.mark.parametrize("mode", ["1", "L", "CMYK", "YCbCr", "I;16"])
def test_every_colour_mode_becomes_rgb(tmp_path, mode):
    path = tmp_path / ("x.jpg" if mode in ("CMYK", "YCbCr") else "x.png")
    if mode == "I;16":
        Image.fromarray(np.full((2, 3), 65535, np.uint16)).save(path)
    else:
        Image.new("RGB", (3, 2), (255, 255, 255)).convert(mode).save(path)
    data = read_image(path)
    assert data.rgb.dtype == np.uint8 and data.rgb.shape == (2, 3, 3) and data.alpha is None
    assert (data.rgb >= 253).all()


def test_colours_under_transparent_alpha_are_kept(tmp_path):
    Image.new("RGBA", (2, 2), (77, 88, 99, 0)).save(tmp_path / "t.png")
    assert (read_image(tmp_path / "t.png").rgb == (77, 88, 99)).all()


def test_mask_channels_are_what_they_are_called(tmp_path):
    path = tmp_path / "m.png"
    Image.new("RGBA", (1, 1), (200, 100, 50, 25)).save(path)
    got = {channel: float(read_mask(path, channel)[0, 0]) * 255 for channel in MASK_CHANNELS}
    luminance = 0.299 * 200 + 0.587 * 100 + 0.114 * 50
    expected = dict(zip(MASK_CHANNELS, (luminance, 200, 100, 50, 350 / 3, 25), strict=True))
    assert got == pytest.approx(expected, abs=1e-3)


def test_white_and_black_are_exactly_one_and_zero_in_every_channel(tmp_path):
    path = tmp_path / "m.png"
    Image.fromarray(np.array([[[255] * 4, [0, 0, 0, 255]]], np.uint8)).save(path)
    for channel in MASK_CHANNELS[:-1]:
        np.testing.assert_array_equal(read_mask(path, channel), np.array([[1, 0]], np.float32))


def test_alpha_channel_of_a_mask_without_alpha_is_an_error(tmp_path):
    Image.new("L", (2, 2)).save(tmp_path / "plain.png")
    with pytest.raises(MaskError, match=r"plain\.png.*no alpha channel"):
        read_mask(tmp_path / "plain.png", "alpha")


def test_unknown_channel_is_an_error_that_lists_the_known_ones(tmp_path):
    with pytest.raises(ConfigError, match="luminance"):
        read_mask(tmp_path / "m.png", "cyan")


def test_unreadable_mask_is_a_mask_error_that_names_it(tmp_path):
    (tmp_path / "m.png").write_bytes(b"not a picture")
    with pytest.raises(MaskError, match=r"mask m\.png"):
        read_mask(tmp_path / "m.png")


@pytest.mark.parametrize("content", [b"", b"plain text", png((0, 4), 2, 8, [])])
def test_files_that_are_no_picture_are_named(tmp_path, content):
    path = tmp_path / "Bild mit Ümlaut.png"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"Bild mit Ümlaut\.png.*(empty|0 px)"):
        image_size(path)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"gone\.png: the file does not exist"):
        read_image(tmp_path / "gone.png")


@pytest.mark.parametrize("size", [(10_000, 10_000), (9_999, 10_001), (20_000, 20_000)])
def test_hundred_megapixels_are_refused_before_decoding(tmp_path, size):
    path = tmp_path / "huge.png"
    path.write_bytes(png(size, 0, 1, []))
    start = time.perf_counter()
    if size[0] * size[1] < 100_000_000:
        assert image_size(path) == size
    else:
        with pytest.raises(DataError, match=r"huge\.png: expected less than 100 Mpx"):
            image_size(path)
    assert time.perf_counter() - start < 1


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("name", ["a.png", "p.png", "w.png", "a.jpg", "a.webp", "a.gif", "a.tif", "a.bmp"])
def test_damaged_files_raise_nothing_but_an_error_with_their_name(tmp_path, name):
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (40, 30, 3), dtype=np.uint8))
    path = tmp_path / name
    if name == "w.png":
        cv2.imwrite(str(path), rng.integers(0, 65536, (40, 30, 4), dtype=np.uint16))
    else:
        image = image.quantize(16) if name in ("p.png", "a.gif") else image
        image.save(path, **({} if name in ("a.bmp", "a.gif") else {"exif": exif_bytes(6)}))
    content = path.read_bytes()
    refused = 0
    for round_ in range(60):
        damaged = bytearray(content if round_ % 2 else content[: rng.integers(1, len(content))])
        for _ in range(int(rng.integers(0, 20))):
            damaged[int(rng.integers(min(len(damaged), 400)))] = int(rng.integers(256))
        path.write_bytes(damaged)
        for read in (read_header, read_image, read_mask):
            try:
                read(path)
            except DataError as error:
                assert name in str(error)
                refused += 1
    assert refused > 20


def test_garbage_in_the_metadata_does_not_spoil_the_pixels(tmp_path):
    path = tmp_path / "a.jpg"
    Image.new("RGB", (20, 10), (200, 100, 50)).save(path, exif=b"Exif\0\0garbage")
    assert image_size(path) == (20, 10) and read_image(path).rgb.shape == (10, 20, 3)


def test_truncated_pictures_are_refused_although_another_pack_lets_pillow_fill_them(tmp_path, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    write_damaged_pictures(tmp_path)
    for name in DAMAGED:
        with pytest.raises(DataError, match=re.escape(name)):
            read_image(tmp_path / name)
        with pytest.raises(MaskError, match=re.escape(name)):
            read_mask(tmp_path / name)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


def test_what_other_code_told_pillow_is_restored_after_reads_in_many_threads(tmp_path, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    write_damaged_pictures(tmp_path)

    def refused(_):
        with pytest.raises(DataError):
            read_image(tmp_path / DAMAGED[0])
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(refused, range(200)))
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


def test_float_pictures_outside_the_unit_range_are_refused(tmp_path):
    Image.fromarray(np.array([[0, 300]], np.float32)).save(tmp_path / "f.tif")
    with pytest.raises(DataError, match=r"f\.tif.*0\.\.1"):
        read_image(tmp_path / "f.tif")
