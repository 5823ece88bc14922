"""Pictures and masks from files: orientation, bit depth, colours, palettes and alpha resolved, limits enforced.

Pillow identifies and decodes; every fault of a file comes out as an error that names it.
"""

from __future__ import annotations

import dataclasses
import io
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from ..errors import DataError, MaskError, MaskLoraError
from ..settings import MASK_CHANNELS, check_choice
from .colour_profiles import array_to_srgb, profile_mark, to_srgb
from .mask_values import MaskValues, understand, unit

MAX_PIXELS = 100_000_000
ORIENTATION_TAG = 0x0112
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_METADATA = {b"eXIf", b"iTXt", b"tEXt", b"zTXt"}
ALPHA_MODES = {"RGBA", "RGBa", "LA", "La", "PA"}
_WIDTH_TAG, _HEIGHT_TAG = 256, 257
# Upper eight bits below which a TIFF of sixteen is rather one in another scale.
_DARK = 16
WIDE_GREY_MODES = {"I", "I;16", "I;16L", "I;16B", "I;16N"}


@dataclass(frozen=True, eq=False)
class ImageData:
    """A decoded picture: `rgb` uint8 (H, W, 3); `alpha` float32 (H, W) in 0..1, None where all is opaque."""

    rgb: np.ndarray
    alpha: np.ndarray | None


@dataclass(frozen=True)
class Header:
    """What a file says of itself before decoding.

    Attributes:
        size: (width, height) after EXIF orientation.
        alpha: Whether it has an alpha band or a transparent colour.
        reading: Stands for what is done to the stored numbers that other versions of the pack did not do: colours
            brought to sRGB, a TIFF's orientation undone once, a 16-bit key colour. Usually empty.
    """

    size: tuple[int, int]
    alpha: bool
    reading: str = ""


@dataclass(frozen=True, eq=False)
class Bands:
    """Decoded bands (H, W, 1..4), upright, grey or RGB with an optional alpha last; full scale means 1.

    `orientation` is that of the file, EXIF 1..8; `profile` the colour profile of the colours, None for sRGB;
    `reading` as in `Header`, for the bands as numbers (a mask's are no colours).
    """

    values: np.ndarray
    scale: int
    orientation: int = 1
    profile: bytes | None = None
    reading: str = ""

    @property
    def alpha(self) -> np.ndarray | None:
        """(H, W), None without an alpha band."""
        return self.values[..., -1] if self.values.shape[2] in (2, 4) else None

    @property
    def colours(self) -> np.ndarray:
        """(H, W, 1) of a grey file, (H, W, 3) of any other."""
        return self.values[..., : 1 if self.values.shape[2] < 3 else 3]


def read_header(path: Path) -> Header:
    """Size after EXIF orientation and presence of an alpha band, without decoding the picture.

    Listing thousands of pictures must not decode them; only the header is read.

    Raises:
        DataError: the file is missing, empty, no picture, of 0 px or of 100 Mpx and more.
    """
    with _opened(path) as image:
        width, height = _stored_size(image)
        orientation = _orientation(path, image)
        if orientation >= 5:
            width, height = height, width
        alpha = image.mode in ALPHA_MODES or "transparency" in image.info
        marks = (profile_mark(image.info.get("icc_profile"), image.mode), _reading(image, orientation))
        return Header((width, height), alpha, " ".join(mark for mark in marks if mark))


def image_size(path: Path) -> tuple[int, int]:
    """(width, height) of a picture or mask after EXIF orientation, from its header only.

    Raises:
        DataError: as `read_header`.
    """
    return read_header(path).size


def read_image(path: Path) -> ImageData:
    """The picture as upright RGB, in sRGB, and its alpha.

    Colours of an embedded profile are brought to sRGB, as viewers show them.
    Colours under a transparent alpha are kept as they are: filling them is a choice made elsewhere.
    Animations give their first frame.

    Returns:
        `rgb` uint8 (H, W, 3), `alpha` float32 (H, W) in 0..1; alpha is None without a band or when it is
        opaque everywhere.

    Raises:
        DataError: the file is missing, truncated, no picture, of 0 px or of 100 Mpx and more.
    """
    return image_of(read_bands(path))


def image_of(bands: Bands) -> ImageData:
    """Upright bands as a picture in sRGB; alpha is None without a band or where it is opaque everywhere."""
    alpha = None
    if bands.alpha is not None and bool((bands.alpha < bands.scale).any()):
        alpha = unit(bands.alpha, bands.scale)
    colours = bands.colours
    if bands.scale != 255:
        colours = ((colours.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    if bands.profile is not None:
        colours = array_to_srgb(colours, bands.profile)
    elif colours.shape[2] == 1:
        colours = np.repeat(colours, 3, axis=2)
    return ImageData(np.ascontiguousarray(colours), alpha)


def read_mask(path: Path, channel: str = "luminance") -> np.ndarray:
    """A mask file as weights: float32 (H, W) in 0..1, where 1 (white) means learn; see `read_mask_values`."""
    return read_mask_values(path, channel).weights


def read_mask_values(path: Path, channel: str = "luminance") -> MaskValues:
    """A mask file as weights, upright, with what was made of its numbers; see `mask_values.understand`.

    Sixteen-bit values are divided by 65535, so no weight is clipped. Luminance uses Rec. 601 weights and is
    exact for grey values.

    Returns:
        `stored` is the `reading` of `Header`, as far as it concerns a mask.

    Raises:
        MaskError: `channel` is "alpha" and the file has none, or the file cannot be read.
        ConfigError: `channel` is unknown.
    """
    check_choice("mask_channel", channel, MASK_CHANNELS)
    try:
        bands = read_bands(path)
    except MaskError:
        raise
    except DataError as error:
        raise MaskError(f"mask {error}") from error
    if channel == "alpha" and bands.alpha is None:
        raise MaskError(
            f"{path.name}: mask_channel is alpha, but the file has no alpha channel. "
            "Choose luminance, or save the mask with alpha."
        )
    bands = _wide_dark_tiff(path, bands) or bands
    values = understand(bands.colours, bands.alpha, bands.scale, channel)
    return dataclasses.replace(values, stored=bands.reading)


def read_grey_png(data: bytes, size: tuple[int, int]) -> np.ndarray | None:
    """The pixels of a whole grey PNG of 8 bits and `size` (width, height): uint8 (H, W); None if `data` is none."""
    try:
        with _WHOLE_PICTURES, Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            # Before anything is decoded, which for another size might be much.
            if image.mode != "L" or image.size != size or image.info.get("transparency") is not None:
                return None
            return np.array(image)
    except Exception:
        # Whatever a decoder makes of bytes that are no such picture.
        return None


class _WholePictures:
    """While any thread is inside, Pillow refuses truncated files, whatever other code of this process told it.

    Some node packs switch that off for the whole of ComfyUI; half a picture would then be learned in silence.
    """

    def __init__(self) -> None:
        self._lock, self._inside, self._before = threading.Lock(), 0, False

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                ImageFile.LOAD_TRUNCATED_IMAGES = self._before


_WHOLE_PICTURES = _WholePictures()


@contextmanager
def faults_named(path: Path) -> Iterator[None]:
    """While a picture is opened and decoded inside, every failure becomes a `DataError` that names its file."""
    try:
        with _WHOLE_PICTURES, warnings.catch_warnings():
            # Pillow only warns between its limit and twice that; ours is an error.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            yield
    except FileNotFoundError:
        raise DataError(f"{path.name}: the file does not exist in {path.parent}. Reload the dataset.") from None
    except UnidentifiedImageError:
        raise DataError(f"{path.name}: {_unidentified(path)}") from None
    except Image.DecompressionBombError:
        raise DataError(_too_large(path, "far more than 100")) from None
    except MaskLoraError:
        raise
    except Exception as error:
        # Decoders and the plugins of other packages raise what they like on damaged files.
        raise DataError(
            f"{path.name}: expected a complete picture, but it is truncated or unreadable ({error}). "
            "Save it again or remove it."
        ) from error


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The opened picture, limits checked; every failure inside becomes a `DataError` that names the file."""
    # By its path a file is mapped into memory, and Pillow then mixes up the sides of some turned TIFFs.
    with faults_named(path), path.open("rb") as file, Image.open(file) as image:
        check_pixels(path, image.size)
        yield image


def check_pixels(path: Path, size: tuple[int, int]) -> None:
    """Refuse pictures of (width, height) without a pixel, or of `MAX_PIXELS` and more, with a `DataError`."""
    width, height = size
    if width < 1 or height < 1:
        raise DataError(f"{path.name}: the picture is {width}×{height}, 0 px. Remove the file.")
    if width * height >= MAX_PIXELS:
        raise DataError(_too_large(path, f"{width}×{height} = {width * height / 1e6:.0f}"))


def _too_large(path: Path, megapixels: str) -> str:
    return f"{path.name}: expected less than 100 Mpx, got {megapixels} Mpx. Save a smaller copy of the picture."


def _unidentified(path: Path) -> str:
    if path.stat().st_size == 0:
        return "the file is empty (0 bytes). Save it again or remove it."
    return (
        "expected a picture, but the file is damaged, of 0 px, or of a format that Pillow does not know. "
        "Save it as PNG, JPEG or WebP, or remove it."
    )


def _orientation(path: Path, image: Image.Image) -> int:
    """EXIF orientation 1..8; 1 where there is none."""
    try:
        if image.format == "PNG" and "exif" not in image.info and not _png_tail_metadata(path):
            # The PNG reader's own getexif would decode the whole picture to look behind its pixels.
            exif = Image.Image.getexif(image)
        else:
            exif = image.getexif()
        value = exif.get(ORIENTATION_TAG, 1)
    except (SyntaxError, struct.error, ValueError, TypeError, LookupError):
        # Garbage in the metadata does not spoil the pixels; viewers show such a picture as it is stored.
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _png_tail_metadata(path: Path) -> bool:
    """Whether a PNG stores text or EXIF behind its pixels, where Pillow sees it only after decoding."""
    with path.open("rb") as file:
        if file.read(8) != PNG_SIGNATURE:
            return False
        pixels = False
        while len(head := file.read(8)) == 8:
            kind = head[4:]
            if pixels and kind in PNG_METADATA:
                return True
            pixels = pixels or kind == b"IDAT"
            file.seek(int.from_bytes(head[:4], "big") + 4, 1)
    return False


def read_bands(path: Path) -> Bands:
    """Every band of a file as it is stored, upright.

    Raises:
        DataError: as `read_image`.
    """
    with _opened(path) as image:
        reading = _reading(image, _orientation(path, image))
        if image.format == "TIFF":
            # Pillow turns a TIFF's pixels as it loads them, and takes the tag away; no other format's.
            image.load()
        orientation = _orientation(path, image)
        wide, key = _is_wide_colour_png(image), image.info.get("transparency")
        bands = bands_of(path, image)
    if wide:
        bands = _wide_colour_png(path, key, bands.profile) or bands
    return dataclasses.replace(
        bands, values=upright(bands.values, orientation), orientation=orientation, reading=reading
    )


def _stored_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) before orientation; Pillow gives a TIFF's after it."""
    tags = getattr(image, "tag_v2", None)
    if image.format == "TIFF" and tags is not None and tags.get(_WIDTH_TAG) and tags.get(_HEIGHT_TAG):
        return int(tags[_WIDTH_TAG]), int(tags[_HEIGHT_TAG])
    return image.size


def _reading(image: Image.Image, orientation: int) -> str:
    """The part of `Header.reading` that concerns numbers of any meaning."""
    if image.format == "TIFF" and orientation > 1:
        return f"tiff {orientation}"
    key = image.info.get("transparency")
    return "key colour" if key is not None and (_is_wide_colour_png(image) or image.mode in WIDE_GREY_MODES) else ""


def bands_of(path: Path, image: Image.Image) -> Bands:
    """The bands of an opened picture as they are stored, not turned.

    Raises:
        DataError: numbers that no mask and no picture has.
    """
    profile = image.info.get("icc_profile")
    profile = profile if profile_mark(profile, image.mode) else None
    if image.mode in WIDE_GREY_MODES:
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise DataError(f"{path.name}: 32-bit integer pictures are not supported. Save it as 8 or 16 bit.")
        grey = values.astype(np.uint16)[..., None]
        return Bands(_with_key(grey, image.info.get("transparency")), 65535, profile=profile)
    if image.mode == "F":
        values = np.asarray(image)
        if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
            raise DataError(f"{path.name}: expected floating-point values in 0..1. Save it as 8 or 16 bit.")
        return Bands(np.rint(values * 65535).astype(np.uint16)[..., None], 65535, profile=profile)
    if image.mode == "CMYK" and profile is not None:
        # Inks become colours only through their profile, so the other way round is too late.
        return Bands(np.asarray(to_srgb(image, profile)), 255)
    values = np.asarray(image.convert(_target_mode(image)))
    return Bands(values[..., None] if values.ndim == 2 else values, 255, profile=profile)


def _with_key(values: np.ndarray, key: Any) -> np.ndarray:
    """16-bit bands (H, W, 1 or 3); where there is a transparent colour `key`, with an alpha band that is 0 on it."""
    if key is None:
        return values
    hit = (values == np.array(key, np.uint16).reshape(-1)).all(axis=2, keepdims=True)
    return np.concatenate([values, np.where(hit, 0, 65535).astype(np.uint16)], axis=2)


def _target_mode(image: Image.Image) -> str:
    alpha = image.mode in ALPHA_MODES or "transparency" in image.info
    if image.mode in ("L", "1", "LA", "La"):
        return "LA" if alpha else "L"
    return "RGBA" if alpha else "RGB"


def _is_wide_colour_png(image: Image.Image) -> bool:
    if image.format != "PNG" or image.mode in WIDE_GREY_MODES or not image.tile:
        return False
    return str(image.tile[0][3]).endswith(";16B")


def _wide_colour_png(path: Path, key: Any, profile: bytes | None) -> Bands | None:
    """All 16 bits of a colour or alpha PNG, of which Pillow keeps the upper eight; None if OpenCV cannot."""
    values = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.uint16 or values.ndim != 3:
        return None
    order = [2, 1, 0, 3][: values.shape[2] if key is None else 3]
    return Bands(_with_key(values[..., order], key), 65535, profile=profile)


def _wide_dark_tiff(path: Path, bands: Bands) -> Bands | None:
    """All 16 bits of a mask in colour modes that lie in the lower ones, which Pillow leaves out; None of any other."""
    if bands.scale != 255 or bands.orientation > 1 or bands.reading or bands.colours.max(initial=0) >= _DARK:
        return None
    with path.open("rb") as file:
        if file.read(4) not in (b"II*\0", b"MM\0*"):
            return None
    values = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.uint16 or values.ndim != 3 or values.shape[2] not in (3, 4):
        return None
    wide = values[..., [2, 1, 0, 3][: values.shape[2]]]
    return Bands(wide, 65535, reading="wide tiff") if wide[..., :3].any() else None


def upright(values: np.ndarray, orientation: int) -> np.ndarray:
    """Bands (H, W, C) turned and mirrored as EXIF orientation 1..8 asks.

    Source: EXIF 2.3, tag 0x0112.
    """
    if orientation >= 5:
        values = values.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    return values


def as_stored(values: np.ndarray, orientation: int) -> np.ndarray:
    """Upright values (H, W, …) as a file of an EXIF orientation holds them."""
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    return values.swapaxes(0, 1) if orientation >= 5 else values
