"""Decoded frames to numbers: colour matrix, range, bit depth and subsampling of any pixel format.

FFmpeg's own conversion rounds whites of ten bits to 253 and, told to be exact, overflows at colours out of range;
it is used only to put numbers of odd layouts into planes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

from ..pictures.reading import Bands

# Weights of red and blue in luma by FFmpeg's AVColorSpace. Source: ITU-T H.273, table 4.
_MATRICES = {
    1: (0.2126, 0.0722),
    4: (0.30, 0.11),
    5: (0.299, 0.114),
    6: (0.299, 0.114),
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),
    10: (0.2627, 0.0593),
}
_BT601, _BT709 = 6, 1
_FULL_RANGE = 2
# Without a tag players take pictures above these sizes for HD and its matrix.
_SD = (1024, 576)
_PLANAR = ("yuv4", "yuvj4", "yuva4", "gray", "gbr")


@dataclass(frozen=True)
class Matrix:
    """How the numbers of a stream become colours: `weights` of red and blue, `full` range or limited."""

    weights: tuple[float, float]
    full: bool


def matrix_of(frame: Any) -> Matrix:
    """By a frame's tags; without them by its size, as players do."""
    tag = int(frame.colorspace)
    if tag not in _MATRICES:
        tag = _BT709 if frame.width > _SD[0] or frame.height > _SD[1] else _BT601
    full = int(frame.color_range) == _FULL_RANGE or frame.format.name.startswith("yuvj")
    return Matrix(_MATRICES[tag], full)


def bands_of_frame(frame: Any, matrix: Matrix) -> Bands:
    """A decoded frame as (H, W, 1..4), grey or RGB with an optional alpha last.

    Up to eight bits become uint8 of scale 255, more become uint16 of scale 65535.
    """
    frame = _planar(frame)
    bits = frame.format.components[0].bits
    planes = [_plane(frame, component) for component in frame.format.components]
    scale = 255 if bits <= 8 else 65535
    name = frame.format.name
    if name in ("rgb24", "rgba", "rgb48le", "rgba64le"):
        return Bands(np.dstack(planes), scale)
    if name.startswith("gbr"):
        # Components are told in the order of red, green and blue, whatever that of the planes.
        return Bands(np.dstack([_scaled(plane, bits, scale) for plane in planes]), scale)
    if name.startswith("gray"):
        return Bands(_grey(planes[0], bits, scale)[..., None], scale)
    colours = _colours(planes[:3], bits, scale, matrix)
    if len(planes) == 4:
        return Bands(np.dstack([colours, _scaled(planes[3], bits, scale)]), scale)
    return Bands(colours, scale)


def _planar(frame: Any) -> Any:
    """The same numbers in planes that are read here, or as red, green and blue beside each other."""
    layout = frame.format
    name = layout.name
    first = layout.components[0]
    alpha = any(component.is_alpha for component in layout.components) or name == "pal8"
    deep = first.bits > 8
    if name.startswith(_PLANAR) and not layout.is_big_endian and "f" not in name:
        return frame
    if first.is_luma and not layout.is_rgb:
        if len(layout.components) == 1:
            target = f"gray{first.bits}le" if deep else "gray"
        elif len(layout.components) == 2:
            # Grey with alpha.
            target = "rgba64le" if deep else "rgba"
        else:
            width, height = layout.chroma_width(64), layout.chroma_height(64)
            sampling = {(64, 64): "444", (32, 64): "422", (32, 32): "420", (16, 64): "411", (64, 32): "440"}
            sampling = sampling.get((width, height), "410" if (width, height) == (16, 16) else "444")
            target = f"yuv{'a' if alpha else ''}{sampling}p" + (f"{first.bits}le" if deep else "")
    else:
        target = ("rgba64le" if alpha else "rgb48le") if deep else ("rgba" if alpha else "rgb24")
    return _laid_out(frame, target) if target != name else frame


def _laid_out(frame: Any, name: str) -> Any:
    try:
        # With more threads a part of the odd frame comes out wrong.
        return VideoReformatter().reformat(frame, format=name, threads=1)
    except TypeError:
        # PyAV 16.0 has one anyway.
        return VideoReformatter().reformat(frame, format=name)


def _plane(frame: Any, component: Any) -> np.ndarray:
    """The numbers of one component: uint8 or uint16 (h, w)."""
    plane = frame.planes[component.plane]
    dtype = np.uint8 if component.bits <= 8 else np.dtype("<u2")
    rows = np.frombuffer(plane, np.uint8).reshape(-1, abs(plane.line_size))[: plane.height]
    values = rows.view(dtype)
    name = frame.format.name
    if name.startswith("rgb"):
        together = len(frame.format.components)
        return values[:, component.index : plane.width * together : together]
    return values[:, : plane.width]


def _scaled(plane: np.ndarray, bits: int, scale: int) -> np.ndarray:
    """Integers of `bits` in full range as integers of which `scale` is white."""
    most = 2**bits - 1
    if most == scale:
        return plane
    return ((plane.astype(np.uint32) * scale + most // 2) // most).astype(np.uint8 if scale == 255 else np.uint16)


def _grey(plane: np.ndarray, bits: int, scale: int) -> np.ndarray:
    # FFmpeg takes grey for full range, whatever its tag says.
    return _scaled(plane, bits, scale)


def _colours(planes: list[np.ndarray], bits: int, scale: int, matrix: Matrix) -> np.ndarray:
    """Luma and chroma planes as RGB (H, W, 3) of `scale`, by ITU-T H.273, 8.3."""
    height, width = planes[0].shape
    unit = 2.0 ** (bits - 8)
    black, luma_range, chroma_range = (0, 2**bits - 1, 2**bits - 1)
    if not matrix.full:
        black, luma_range, chroma_range = 16 * unit, 219 * unit, 224 * unit
    red, blue = matrix.weights
    green = 1 - red - blue
    chroma = np.array(
        [[0, 2 * (1 - red)], [-2 * (1 - blue) * blue / green, -2 * (1 - red) * red / green], [2 * (1 - blue), 0]]
    )
    factors = np.hstack([np.full((3, 1), 1 / luma_range), chroma / chroma_range]) * scale
    offset = factors @ [-black, -128 * unit, -128 * unit]
    stacked = np.empty((height, width, 3), np.float32)
    for band, plane in enumerate(planes):
        stacked[..., band] = _widened(plane, (width, height))
    mixed = cv2.transform(stacked, np.hstack([factors, offset[:, None]]))
    np.rint(np.clip(mixed, 0, scale, out=mixed), out=mixed)
    return mixed.astype(np.uint8 if scale == 255 else np.uint16)


def _widened(plane: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A chroma plane (h, w) over all the pixels of (width, height), which may end inside its last ones."""
    height, width = plane.shape
    if (width, height) == size:
        return plane
    across, down = -(-size[0] // width), -(-size[1] // height)
    wide = cv2.resize(plane.astype(np.float32), (width * across, height * down), interpolation=cv2.INTER_LINEAR)
    return wide[: size[1], : size[0]]
