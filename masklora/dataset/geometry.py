"""One geometry for a picture and its mask: resize, crop box and flip, planned once and applied to both.

EXIF orientation is undone when a file is read, before any geometry. Nothing else in the library resizes a
mask: two code paths that each round a little differently drift apart by pixels, and the loss then looks at
the wrong place.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
from PIL import Image

from ..errors import DataError, MaskError

KERNELS = ("lanczos", "area", "bilinear", "nearest-exact")
ASPECT_TOLERANCE = 0.01
_TURNING = {
    "lanczos": cv2.INTER_LANCZOS4,
    "area": cv2.INTER_LINEAR,
    "bilinear": cv2.INTER_LINEAR,
    "nearest-exact": cv2.INTER_NEAREST,
}


@dataclass(frozen=True)
class Geometry:
    """How a source picture becomes a training picture; sizes are (width, height) in pixels.

    `crop` is (x, y, width, height) inside the resized picture, turned around its centre so that what it shows
    turns counter-clockwise by `angle` degrees; the flip comes last. Where a turned crop reaches beyond the
    picture, the picture is mirrored and the mask is 0.
    """

    source: tuple[int, int]
    resized: tuple[int, int]
    crop: tuple[int, int, int, int]
    flip: bool = False
    angle: float = 0.0

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of what comes out."""
        return self.crop[2], self.crop[3]

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready dict, the part of a cache key that stands for the geometry."""
        values = {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}
        if not self.angle:
            del values["angle"]
        return values

    def turn(self) -> np.ndarray:
        """The 2×3 matrix from coordinates of the crop to those of the resized picture, before the flip."""
        left, top, width, height = self.crop
        cos, sin = math.cos(math.radians(self.angle)), math.sin(math.radians(self.angle))
        mid_x, mid_y = (width - 1) / 2, (height - 1) / 2
        return np.array(
            [
                [cos, -sin, left + mid_x - cos * mid_x + sin * mid_y],
                [sin, cos, top + mid_y - sin * mid_x - cos * mid_y],
            ]
        )


def plan_geometry(
    source: tuple[int, int],
    bucket: tuple[int, int],
    *,
    crop: str = "centre",
    flip: bool = False,
    focus: tuple[float, float] | None = None,
    generator: np.random.Generator | None = None,
    upscale: bool = False,
) -> Geometry:
    """The geometry that fills `bucket` with as much of the source as possible, undistorted.

    The picture is scaled by one factor so that it covers the bucket, then cropped to it.

    Args:
        source: Width and height of the picture after EXIF orientation.
        bucket: Width and height wanted.
        crop: "centre", "mask-centred" (as close to `focus` as the borders allow) or "random".
        flip: Mirror left and right.
        focus: Centre of the mask in fractions of the source (see `mask_box`); None is the centre.
        generator: Draws the offset of a random crop.
        upscale: Whether the source may be enlarged.

    Raises:
        DataError: The source is smaller than the bucket and `upscale` is off.
    """
    (width, height), (out_w, out_h) = source, bucket
    if min(width, height, out_w, out_h) < 1:
        raise DataError(f"A picture of {width}×{height} cannot fill a bucket of {out_w}×{out_h}.")
    scale = max(out_w / width, out_h / height)
    if scale > 1 and not upscale:
        raise DataError(
            f"A picture of {width}×{height} is smaller than its bucket {out_w}×{out_h}. "
            "Allow upscaling or lower the resolution."
        )
    resized = max(out_w, round(width * scale)), max(out_h, round(height * scale))
    slack = resized[0] - out_w, resized[1] - out_h
    if crop == "random":
        if generator is None:
            raise ValueError("a random crop needs a generator")
        left, top = int(generator.integers(slack[0] + 1)), int(generator.integers(slack[1] + 1))
    else:
        centre = focus if crop == "mask-centred" and focus is not None else (0.5, 0.5)
        left = _offset(centre[0] * resized[0], out_w, slack[0])
        top = _offset(centre[1] * resized[1], out_h, slack[1])
    return Geometry(source, resized, (left, top, out_w, out_h), flip)


def plan_box_geometry(
    source: tuple[int, int],
    bucket: tuple[int, int],
    box: tuple[float, float, float, float],
    *,
    margin: float,
    angle: float = 0.0,
    upscale: bool = False,
) -> Geometry:
    """The geometry that fills `bucket` with a box of the source and a margin around it, undistorted.

    No pixel is enlarged for the sake of the box: a small box brings more of its surroundings. The crop stays
    inside the picture unless it is turned, and then leaves it only as far as the box needs to stay in sight.

    Args:
        source: Width and height of the picture after EXIF orientation.
        bucket: Width and height wanted.
        box: (left, top, right, bottom) in fractions of the source (see `mask_box`).
        margin: On every side, as a share of the box's longer side.
        angle: Degrees by which what the crop shows is turned counter-clockwise.
        upscale: Whether a source smaller than the bucket may be enlarged.

    Raises:
        DataError: The source is smaller than the bucket and `upscale` is off.
    """
    (width, height), (out_w, out_h) = source, bucket
    cover = plan_geometry(source, bucket, upscale=upscale).resized
    box_w, box_h = (box[2] - box[0]) * width, (box[3] - box[1]) * height
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    shown_w, shown_h = abs(cos) * box_w + abs(sin) * box_h, abs(sin) * box_w + abs(cos) * box_h
    around = 2 * margin * max(box_w, box_h)
    least = max(out_w / width, out_h / height)
    scale = min(out_w / max(shown_w + around, 1.0), out_h / max(shown_h + around, 1.0))
    scale = min(max(scale, least), max(least, 1.0))
    resized = max(cover[0], round(width * scale)), max(cover[1], round(height * scale))
    middle = (box[0] + box[2]) / 2 * resized[0], (box[1] + box[3]) / 2 * resized[1]
    left, top = _place(resized, bucket, middle, shown=(shown_w * scale, shown_h * scale), angle=angle)
    return Geometry(source, resized, (left, top, out_w, out_h), angle=angle)


def plan_cut_geometry(
    source: tuple[int, int],
    bucket: tuple[int, int],
    size: tuple[int, int],
    box: tuple[float, float, float, float],
    *,
    angle: float = 0.0,
    upscale: bool = False,
) -> Geometry:
    """The geometry that cuts `size` around a box out of the source at the scale at which it fills `bucket`.

    The crop stays inside the picture unless it is turned, and then leaves it only as far as the box needs to
    stay in sight.

    Args:
        source: Width and height of the picture after EXIF orientation.
        bucket: Width and height of the whole training picture, which give the scale.
        size: Width and height to cut out, at most the bucket's.
        box: (left, top, right, bottom) in fractions of the source (see `mask_box`).
        angle: Degrees by which what the crop shows is turned counter-clockwise.
        upscale: Whether a source smaller than the bucket may be enlarged.

    Raises:
        DataError: The source is smaller than the bucket and `upscale` is off.
    """
    resized = plan_geometry(source, bucket, upscale=upscale).resized
    left, top, right, bottom = pixel_box(box, resized)
    cos, sin = abs(math.cos(math.radians(angle))), abs(math.sin(math.radians(angle)))
    width, height = right - left, bottom - top
    shown = cos * width + sin * height, sin * width + cos * height
    x, y = _place(resized, size, ((left + right) / 2, (top + bottom) / 2), shown=shown, angle=angle)
    return Geometry(source, resized, (x, y, *size), angle=angle)


def pixel_box(box: tuple[float, float, float, float], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The smallest box of whole pixels of a picture of `size` that holds a box in fractions."""
    left, top = (math.floor(edge * length + 1e-6) for edge, length in zip(box[:2], size, strict=True))
    right, bottom = (math.ceil(edge * length - 1e-6) for edge, length in zip(box[2:], size, strict=True))
    return left, top, max(right, left + 1), max(bottom, top + 1)


def box_centre(box: tuple[float, float, float, float] | None) -> tuple[float, float] | None:
    """Centre (x, y) of a box (left, top, right, bottom); None of None."""
    return None if box is None else ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)


def mask_box(mask: np.ndarray, *, least: float = 1.0) -> tuple[float, float, float, float] | None:
    """Bounding box (left, top, right, bottom) of a mask (H, W) in 0..1, as fractions of its size.

    The box counts pixels above half of the mask's maximum, so faint feathering does not move it.

    Args:
        mask: float32 (H, W).
        least: Relative weight, above 0 to 1, of the faintest part that must lie in the box.

    Returns:
        None for a mask that is zero everywhere.
    """
    peak = float(mask.max(initial=0.0))
    if peak <= 0:
        return None
    inside = mask > peak * least / 2
    columns, rows = np.flatnonzero(inside.any(axis=0)), np.flatnonzero(inside.any(axis=1))
    height, width = mask.shape
    return (
        float(columns[0] / width),
        float(rows[0] / height),
        float((columns[-1] + 1) / width),
        float((rows[-1] + 1) / height),
    )


def apply_image(image: np.ndarray, geometry: Geometry, *, resize: str = "lanczos") -> np.ndarray:
    """The training picture, same dtype and channels, (height, width[, C]) of `geometry.size`.

    Args:
        image: uint8 or float32, (H, W) or (H, W, C), of `geometry.source`'s size.
        geometry: From `plan_geometry`.
        resize: One of `KERNELS`; "area" turns into bilinear along an axis that grows.

    Raises:
        DataError: The picture is not of the size that the geometry was planned for.
    """
    if (image.shape[1], image.shape[0]) != geometry.source:
        raise DataError(
            f"the picture is {image.shape[1]}×{image.shape[0]}, not "
            f"{geometry.source[0]}×{geometry.source[1]}: it changed while it was read. Run again."
        )
    resized = _resize(image, geometry.resized, kernel=resize, grow="bilinear")
    return _crop(resized, geometry, kernel=resize, border=cv2.BORDER_REFLECT_101)


def apply_mask(mask: np.ndarray, geometry: Geometry, *, hard: bool = False, kernel: str | None = None) -> np.ndarray:
    """The training mask, float32 (height, width) of `geometry.size` in 0..1.

    Along an axis that shrinks, cells are averaged by exact area; along one that grows, a hard mask is
    copied (nearest-exact) and a soft one interpolated (bilinear). No kernel here overshoots.

    Args:
        mask: float32 (H, W) in 0..1; the size of the picture, or the same aspect at another scale.
        geometry: The picture's geometry.
        hard: Whether the mask is meant as 0 and 1.
        kernel: Force one of `KERNELS` instead, for comparison with `apply_image`.

    Raises:
        MaskError: The mask's aspect differs from the picture's by more than 1 %.
    """
    height, width = mask.shape
    _check_aspect((width, height), geometry.source)
    grow = "nearest-exact" if hard else "bilinear"
    resized = _resize(np.asarray(mask, np.float32), geometry.resized, kernel=kernel or "area", grow=grow)
    out = _crop(resized, geometry, kernel=kernel or ("nearest-exact" if hard else "area"), border=cv2.BORDER_CONSTANT)
    return out if kernel else np.clip(out, 0.0, 1.0)


def _check_aspect(mask: tuple[int, int], image: tuple[int, int]) -> None:
    (mask_w, mask_h), (width, height) = mask, image
    ratio = (mask_w * height) / (mask_h * width)
    if not 1 - ASPECT_TOLERANCE <= ratio <= 1 + ASPECT_TOLERANCE:
        raise MaskError(
            f"the mask is {mask_w}×{mask_h} but the image is {width}×{height}. Save the mask at the image's size."
        )


def _place(
    resized: tuple[int, int],
    size: tuple[int, int],
    middle: tuple[float, float],
    *,
    shown: tuple[float, float],
    angle: float,
) -> tuple[int, int]:
    """Left and top of a crop as close around `middle` as the borders allow; `shown` is what must stay in view."""
    (width, height), (mid_x, mid_y) = size, middle
    left, top = _offset(mid_x, width, resized[0] - width), _offset(mid_y, height, resized[1] - height)
    if not angle:
        return left, top
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    room = (width - shown[0]) / 2, (height - shown[1]) / 2
    away = mid_x - left - width / 2, mid_y - top - height / 2
    kept = _turned_into_view(away, room, cos=cos, sin=sin)
    return round(mid_x - kept[0] - width / 2), round(mid_y - kept[1] - height / 2)


def _turned_into_view(
    away: tuple[float, float], room: tuple[float, float], *, cos: float, sin: float
) -> tuple[float, float]:
    """How far a box may lie from a turned crop's middle, at most `away` and with `room` along the crop's own axes."""
    x, y = cos * away[0] + sin * away[1], cos * away[1] - sin * away[0]
    x, y = (min(max(v, -max(0.0, r)), max(0.0, r)) for v, r in zip((x, y), room, strict=True))
    return cos * x - sin * y, sin * x + cos * y


def _offset(centre: float, length: int, slack: int) -> int:
    return min(max(int(np.floor(centre - length / 2 + 1e-9)), 0), slack)


def _crop(array: np.ndarray, geometry: Geometry, *, kernel: str, border: int) -> np.ndarray:
    left, top, width, height = geometry.crop
    if geometry.angle:
        # OpenCV turns pictures of at most 32767 px a side: only the part that the crop touches goes in.
        matrix = geometry.turn()
        reach = math.hypot(width, height) / 2 + 8
        middle = matrix @ [(width - 1) / 2, (height - 1) / 2, 1]
        x, y = (max(0, math.floor(centre - reach)) for centre in middle)
        part = array[y : math.ceil(middle[1] + reach), x : math.ceil(middle[0] + reach)]
        matrix[:, 2] -= x, y
        flags = _TURNING[kernel] | cv2.WARP_INVERSE_MAP
        out = cv2.warpAffine(part, matrix, (width, height), flags=flags, borderMode=border)
    else:
        out = array[top : top + height, left : left + width]
    return np.ascontiguousarray(out[:, ::-1] if geometry.flip else out)


def _resize(array: np.ndarray, size: tuple[int, int], *, kernel: str, grow: str) -> np.ndarray:
    """`array` at `size` (width, height); "area" treats each axis by whether it shrinks or grows."""
    if (array.shape[1], array.shape[0]) == size:
        return array
    if kernel == "lanczos":
        return _lanczos(array, size)
    for axis in (1, 0):
        step = (size[0], array.shape[0]) if axis == 1 else (array.shape[1], size[1])
        if step[1 - axis] == array.shape[axis]:
            continue
        shrinks = step[1 - axis] < array.shape[axis]
        how = ("area" if shrinks else grow) if kernel == "area" else kernel
        array = _along(array, step, axis=axis, kernel=how)
    return array


def _along(array: np.ndarray, size: tuple[int, int], *, axis: int, kernel: str) -> np.ndarray:
    if kernel == "nearest-exact":
        n_in, n_out = array.shape[axis], size[1 - axis]
        index = np.minimum(((np.arange(n_out) + 0.5) * n_in / n_out).astype(np.int64), n_in - 1)
        return np.take(array, index, axis=axis)
    if kernel not in ("area", "bilinear"):
        raise ValueError(f"unknown kernel {kernel!r}; known: {', '.join(KERNELS)}")
    mode = cv2.INTER_AREA if kernel == "area" else cv2.INTER_LINEAR
    return cv2.resize(array, size, interpolation=mode)


def _lanczos(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if array.dtype == np.uint8:
        return np.asarray(Image.fromarray(array).resize(size, Image.Resampling.LANCZOS))
    planes = array[..., None] if array.ndim == 2 else array
    out = [
        np.asarray(Image.fromarray(np.ascontiguousarray(planes[..., c])).resize(size, Image.Resampling.LANCZOS))
        for c in range(planes.shape[-1])
    ]
    return out[0] if array.ndim == 2 else np.stack(out, axis=-1)
