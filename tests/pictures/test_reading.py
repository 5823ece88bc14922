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
from masklora.errors import ConfigError, DataError, MaskError
from masklora.pictures.reading import image_size, read_header, read_image, read_mask
from masklora.settings import MASK_CHANNELS


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


@pytest.mark.parametrize("extension", ["jpg", "tif"])
def test_inks_without_a_profile_are_the_colours_they_were_made_of(tmp_path, extension):
    """Of viewers, those that know no profile show the same; JPEG rounds."""
    colours = np.array([(210, 60, 50), (60, 170, 60), (20, 30, 200), (128, 128, 128)], np.uint8)
    image = Image.fromarray(colours.repeat(16, 0).reshape(4, 16, 3).repeat(16, 0)).convert("CMYK")
    image.save(tmp_path / f"x.{extension}", **({"quality": 95, "subsampling": 0} if extension == "jpg" else {}))
    found = read_image(tmp_path / f"x.{extension}").rgb[8::16, 8]
    np.testing.assert_allclose(found.astype(int), colours, atol=3)


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


@pytest.mark.parametrize("form", ["WEBP", "PNG", "GIF", "BMP"])
def test_a_picture_is_known_by_its_bytes_and_not_by_its_extension(tmp_path, form):
    stored = np.random.default_rng(6).integers(0, 256, (6, 8), np.uint8)
    Image.fromarray(stored).convert("RGB" if form == "WEBP" else "L").save(
        tmp_path / "x.jpg", format=form, **({"lossless": True} if form == "WEBP" else {})
    )
    np.testing.assert_array_equal(read_image(tmp_path / "x.jpg").rgb[..., 0], stored)
    assert image_size(tmp_path / "x.jpg") == (8, 6)


def test_of_several_pages_the_first_is_taken_and_lab_is_brought_to_rgb(tmp_path):
    pages = [Image.fromarray(np.full((6, 8, 3), value, np.uint8)) for value in (200, 10)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    assert (read_image(tmp_path / "pages.tif").rgb == 200).all()
    assert (read_mask(tmp_path / "pages.tif") == np.float32(200 / 255)).all()
    # Half light and without colour in Lab.
    Image.frombytes("LAB", (8, 6), bytes([128, 0, 0]) * 48).save(tmp_path / "lab.tif")
    assert np.abs(read_image(tmp_path / "lab.tif").rgb.astype(int) - 119).max() <= 3


@pytest.mark.parametrize("content", [b"<html>404</html>", b"version https://git-lfs.github.com/spec/v1\noid sha256:a"])
def test_what_was_downloaded_in_a_picture_s_place_is_named(tmp_path, content):
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(DataError, match=r"x\.png: expected a picture.*remove it"):
        read_image(tmp_path / "x.png")


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


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "I;16"])
@pytest.mark.parametrize("orientation", ORIENTED)
def test_a_tiff_is_turned_once(tmp_path, orientation, mode):
    stored = coordinates(7, 4)
    array = stored[..., 0].astype(np.uint16) * 257 if mode == "I;16" else stored
    image = Image.fromarray(array) if mode == "I;16" else Image.fromarray(array).convert(mode)
    expected = ORIENTED[orientation](np.asarray(image.convert("RGB")) if mode != "I;16" else stored[..., [0, 0, 0]])
    path = tmp_path / "turned.tif"
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(path, exif=exif)
    header = read_header(path)
    assert header.size == (expected.shape[1], expected.shape[0])
    assert header.reading == (f"tiff {orientation}" if orientation > 1 else "")
    np.testing.assert_array_equal(read_image(path).rgb, expected)
    np.testing.assert_allclose(read_mask(path, "red"), expected[..., 0] / 255, atol=1e-6)


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("colour_type", [0, 2], ids=["grey", "colours"])
def test_a_transparent_colour_gives_alpha_in_every_depth(tmp_path, colour_type, depth):
    bands, top = (1, 3)[colour_type > 0], 2**depth - 1
    # In sixteen bits the second colour differs from the key in its lower byte only.
    values = [[top // 3] * bands, [top // 3 + 1] * bands, [top] * bands]
    letter = "H" if depth == 16 else "B"
    row = struct.pack(f">{3 * bands}{letter}", *(number for value in values for number in value))
    key = struct.pack(f">{bands}H", *values[0])
    (tmp_path / "key.png").write_bytes(png((3, 1), colour_type, depth, [row], before=[(b"tRNS", key)]))
    assert read_header(tmp_path / "key.png").alpha
    data = read_image(tmp_path / "key.png")
    np.testing.assert_array_equal(data.alpha, [[0, 1, 1]])
    np.testing.assert_array_equal(data.rgb[0, 2], [255] * 3)
    np.testing.assert_array_equal(read_mask(tmp_path / "key.png", "alpha"), [[0, 1, 1]])


def wide_gamut(primaries, gamma):
    """A matrix profile as Display P3 and Adobe RGB have them, made by the colour engine from primaries."""
    curve = struct.pack(">4sIIH", b"curv", 0, 1, round(gamma * 256)) + b"\0\0"
    white = np.array([0.9505, 1.0, 1.0891])
    xyz = np.array([[x / y, 1, (1 - x - y) / y] for x, y in primaries]).T
    columns = xyz * np.linalg.solve(xyz, white)
    bradford = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
    pcs = np.array([0.9642, 1.0, 0.8249])
    adapt = np.linalg.inv(bradford) @ np.diag((bradford @ pcs) / (bradford @ white)) @ bradford
    columns = adapt @ columns

    def fixed(values):
        return struct.pack(">4sI3i", b"XYZ ", 0, *(round(v * 65536) for v in values))

    text = b"a profile\0"
    tags = {b"wtpt": fixed(pcs), b"rXYZ": fixed(columns[:, 0]), b"gXYZ": fixed(columns[:, 1])}
    tags |= {b"bXYZ": fixed(columns[:, 2]), b"rTRC": curve, b"gTRC": curve, b"bTRC": curve}
    tags |= {b"desc": struct.pack(">4sII", b"desc", 0, len(text)) + text + b"\0" * 80, b"cprt": b"text\0\0\0\0none\0"}
    place, table, data = 128 + 4 + 12 * len(tags), b"", b""
    for name, content in tags.items():
        content += b"\0" * (-len(content) % 4)
        table += struct.pack(">4sII", name, place + len(data), len(content))
        data += content
    size = place + len(data)
    head = struct.pack(">I4sI4s4s4s", size, b"lcms", 0x02100000, b"mntr", b"RGB ", b"XYZ ")
    head = head.ljust(36, b"\0") + b"acsp"
    head = head.ljust(68, b"\0") + struct.pack(">3i", *(round(v * 65536) for v in pcs))
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + data


P3 = wide_gamut([(0.68, 0.32), (0.265, 0.69), (0.15, 0.06)], 2.2)
ADOBE = wide_gamut([(0.64, 0.33), (0.21, 0.71), (0.15, 0.06)], 2.2)


def shown(colour, primaries):
    """What sRGB shows of a colour with gamma 2.2 in other primaries, from the definition of both spaces."""

    def matrix(points):
        xyz = np.array([[x / y, 1, (1 - x - y) / y] for x, y in points]).T
        return xyz * np.linalg.solve(xyz, [0.9505, 1.0, 1.0891])

    linear = (np.array(colour) / 255) ** 2.2
    srgb = np.linalg.solve(matrix([(0.64, 0.33), (0.3, 0.6), (0.15, 0.06)]), matrix(primaries) @ linear).clip(0, 1)
    return 255 * np.where(srgb <= 0.0031308, 12.92 * srgb, 1.055 * srgb ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("extension", ["png", "jpg", "webp", "tif"])
@pytest.mark.parametrize(
    ("profile", "primaries"),
    [
        (P3, [(0.68, 0.32), (0.265, 0.69), (0.15, 0.06)]),
        (ADOBE, [(0.64, 0.33), (0.21, 0.71), (0.15, 0.06)]),
    ],
    ids=["Display P3", "Adobe RGB"],
)
def test_pictures_with_a_colour_profile_are_read_as_viewers_show_them(tmp_path, extension, profile, primaries):
    path = tmp_path / f"wide.{extension}"
    for colour in ((210, 60, 50), (60, 170, 60), (128, 128, 128)):
        options = {"lossless": True} if extension == "webp" else {"quality": 100} if extension == "jpg" else {}
        Image.new("RGB", (16, 16), colour).save(path, icc_profile=profile, **options)
        assert read_header(path).reading.startswith("profile ")
        np.testing.assert_allclose(read_image(path).rgb[8, 8], shown(colour, primaries), atol=4)


def test_a_profile_leaves_alpha_masks_and_srgb_as_they_are(tmp_path):
    from PIL import ImageCms

    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    array = np.random.default_rng(1).integers(0, 256, (9, 11, 4), dtype=np.uint8)
    Image.fromarray(array).save(tmp_path / "a.png", icc_profile=P3)
    np.testing.assert_allclose(read_image(tmp_path / "a.png").alpha, array[..., 3] / 255, atol=1e-6)
    np.testing.assert_allclose(read_mask(tmp_path / "a.png", "green"), array[..., 1] / 255, atol=1e-6)
    Image.fromarray(array[..., :3]).save(tmp_path / "s.png", icc_profile=srgb)
    assert read_header(tmp_path / "s.png").reading == ""
    np.testing.assert_array_equal(read_image(tmp_path / "s.png").rgb, array[..., :3])
    Image.fromarray(array[..., :3]).save(tmp_path / "b.png", icc_profile=b"no profile at all")
    np.testing.assert_array_equal(read_image(tmp_path / "b.png").rgb, array[..., :3])


@pytest.mark.parametrize("mode", ["P", "RGBA", "16 bit"])
def test_profiles_reach_palettes_alpha_and_sixteen_bits(tmp_path, mode):
    path, colour = tmp_path / "wide.png", (210, 60, 50)
    if mode == "16 bit":
        row = struct.pack(">9H", *(257 * v for v in colour * 3))
        profile = (b"iCCP", b"wide\0\0" + zlib.compress(P3))
        path.write_bytes(png((3, 2), 2, 16, [row, row], before=[profile]))
    else:
        image = Image.new("RGB", (3, 2), colour)
        (image.quantize(4) if mode == "P" else image.convert("RGBA")).save(path, icc_profile=P3)
    wanted = shown(colour, [(0.68, 0.32), (0.265, 0.69), (0.15, 0.06)])
    np.testing.assert_allclose(read_image(path).rgb[1, 1], wanted, atol=4)


def test_damage_that_a_decoder_reports_in_its_own_way_is_an_error_with_the_name(tmp_path):
    if ".avif" not in Image.registered_extensions():
        pytest.skip("this Pillow reads no AVIF")
    path, rng = tmp_path / "a.avif", np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    content = path.read_bytes()
    for _ in range(80):
        damaged = bytearray(content)
        for place in rng.integers(0, len(content), 12):
            damaged[int(place)] = int(rng.integers(256))
        path.write_bytes(damaged[: rng.integers(40, len(content) + 1)])
        try:
            read_image(path)
        except DataError as error:
            assert "a.avif" in str(error)
