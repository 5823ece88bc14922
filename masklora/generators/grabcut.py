"""GrabCut: the subject inside a box, a margin or a rough mask, told from its surroundings by colour.

The cut runs on a small copy of the subject's neighbourhood, which is as good and many times faster than on all of
a large picture; a guided filter then lays the edge along the edges of the picture at its full size.

Source: Rother, Kolmogorov, Blake, "GrabCut", SIGGRAPH 2004 (OpenCV's implementation); He, Sun, "Fast Guided
Filter", arXiv 1505.00996.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from ..errors import ConfigError, MaskError
from ..loss.masks import grow_mask
from ..settings import check, chosen, ranged
from .clips import CARRIED, ClipWay, parse_key_frames
from .finding import Finding, Maker, Picture
from .places import Box, box_in, check_box

ROUGH_MASK = "rough mask"
STARTS = ("margin", "box", ROUGH_MASK)
# Of the box, on every side: what is just outside tells the background best.
CONTEXT = 0.5
# A box over everything leaves no background, where OpenCV raises: then this many pixels of the border are.
_RIM = 2
_LEAST_BACKGROUND = 0.01
# Five Gaussians each for subject and background need as many pixels.
_FEWEST_PIXELS = 5
_NEAR_EMPTY = 0.02
_CORE = 0.2
_GUIDE_RADIUS = 3
_GUIDE_EPSILON = 1e-3

Region = tuple[slice, slice]


@dataclass(frozen=True)
class GrabCutSettings:
    """Where GrabCut starts and how hard it works.

    Attributes:
        start: One of `STARTS`: from a margin that is background, from a box around the subject, or from the mask
            that is there.
        margin: Share of width and height that is background on every side, 0 to 0.45.
        box: "x, y, width, height" in pixels or shares of the picture.
        rough_band: How far off the rough mask's edge may be, as a share of the mask's shorter side, 0.01 to 1.
        iterations: Rounds of cutting and learning colours, 1 to 20.
        working_side: Side of the square with as many pixels as the small copy that is cut has at most, 64 to 2048;
            time grows with more than its square.
        key_frames: Numbers of the frames of a clip that are cut, "0, 40"; the cuts are carried over the others.
    """

    start: str = chosen("margin", STARTS)
    margin: float = ranged(0.1, 0.0, 0.45)
    box: str = ""
    rough_band: float = ranged(0.15, 0.01, 1.0)
    iterations: int = ranged(3, 1, 20)
    working_side: int = ranged(320, 64, 2048)
    key_frames: str = "0"


def check_grabcut(settings: GrabCutSettings) -> GrabCutSettings:
    """`settings` if they are usable, else a `ConfigError` that names the widget."""
    check(settings)
    if settings.start == "box" or settings.box.strip():
        check_box(settings.box)
    parse_key_frames(settings.key_frames)
    return settings


def grabcut_way(settings: GrabCutSettings) -> ClipWay:
    """What GrabCut does with clips: it cuts key frames, or where a rough mask moves, each frame.

    Raises:
        ConfigError: `key_frames` are no numbers.
    """
    return ClipWay(CARRIED, parse_key_frames(settings.key_frames), of_mask=settings.start == ROUGH_MASK)


def check_grabcut_combine(settings: GrabCutSettings, combine: str) -> None:
    """Nothing if the choice of combining can change a mask, else a `ConfigError` that names the choice to take."""
    if settings.start == ROUGH_MASK and combine == "fill missing only":
        raise ConfigError(
            f"combine: {combine} leaves every mask as it is, but start is {ROUGH_MASK}, which refines the mask that is "
            "there. Choose replace."
        )


def grabcut_maker(settings: GrabCutSettings) -> Maker:
    """A maker of GrabCut masks.

    Raises:
        ConfigError: a setting is out of range.
    """
    check_grabcut(settings)

    def make(picture: Picture) -> Finding:
        size = picture.rgb.shape[:2]
        if settings.start == ROUGH_MASK:
            return cut_rough(picture.rgb, _rough(picture), settings=settings)
        if settings.start == "box":
            return cut_box(picture.rgb, box_in(settings.box, size, name=picture.name), settings=settings)
        x, y = settings.margin * size[1], settings.margin * size[0]
        return cut_box(picture.rgb, Box(x, y, size[1] - 2 * x, size[0] - 2 * y), settings=settings)

    return make


def cut_box(rgb: np.ndarray, box: Box, *, settings: GrabCutSettings) -> Finding:
    """The subject in a box.

    Where the cut leaves next to nothing it is repeated with the middle of the box as certain subject.

    Args:
        rgb: uint8 (H, W, 3).
        box: Around the subject; what is outside is background.
        settings: `iterations` and `working_side` are used.

    Returns:
        A mask of zeros and ones at the picture's size, nothing outside the box; None and the reason in the note
        where no subject was found.
    """
    region = _neighbourhood(rgb.shape[:2], box)
    small = _reduced(rgb[region], settings.working_side)
    inner = _box_within(box, region, small.shape[:2])
    rim = _rim(inner, small.shape[:2])
    labels = _labels_from_box(small.shape[:2], inner, rim=rim)
    reason = _reason_not_to_cut(small, labels)
    if reason:
        return Finding(None, reason)
    smallest = _NEAR_EMPTY * labels[inner].size
    cut, note = _cut(small, labels, settings.iterations), "from the box"
    if cut.sum() < smallest:
        core = labels[_core(inner)]
        core[:] = cv2.GC_FGD
        cut, note = _cut(small, labels, settings.iterations), "from the middle of the box"
        # The middle alone is what was put in, not what was found.
        if cut.sum() - core.size < smallest:
            return Finding(None, "the subject cannot be told from its surroundings by colour")
    return _at_full_size(rgb, _fill_rim(cut, rim), region, note=note, allowed=_outer_pixels(box, rgb.shape[:2]))


def cut_rough(rgb: np.ndarray, rough: np.ndarray, *, settings: GrabCutSettings) -> Finding:
    """The subject that a rough mask means.

    Deeper inside the mask than the band is certain subject, farther outside certain background; the rest is cut.

    Args:
        rgb: uint8 (H, W, 3).
        rough: float32 (H, W), above 0.5 subject.
        settings: `rough_band`, `iterations` and `working_side` are used.

    Returns:
        A mask of zeros and ones at the picture's size; None and the reason in the note where no subject was found.
    """
    subject = rough > 0.5
    if not subject.any():
        return Finding(None, "the mask that is there has no pixel above 0.5")
    if subject.all():
        return Finding(None, "the mask that is there covers the whole picture, so there is no background to tell from")
    box = _bounds(subject)
    band = settings.rough_band * min(box.width, box.height)
    region = _neighbourhood(rgb.shape[:2], Box(box.x - band, box.y - band, box.width + 2 * band, box.height + 2 * band))
    small = _reduced(rgb[region], settings.working_side)
    scale = max(small.shape[:2]) / max(rgb[region].shape[:2])
    start = _fitted(subject[region].astype(np.float32), small.shape[:2]) > 0.5
    labels = _labels_from_rough(start.astype(np.float32), radius=max(1.0, band * scale))
    reason = _reason_not_to_cut(small, labels)
    if reason:
        return Finding(None, reason)
    cut = _cut(small, labels, settings.iterations)
    if cut.sum() < _NEAR_EMPTY * start.sum():
        return Finding(None, "the subject cannot be told from its surroundings by colour")
    return _at_full_size(rgb, cut, region, note="from the rough mask")


def _rough(picture: Picture) -> np.ndarray:
    if picture.mask is None:
        raise MaskError(
            f"{picture.name}: start is {ROUGH_MASK}, but the picture has no mask. Make a rough one first, or choose "
            "margin or box."
        )
    return picture.mask


def _bounds(subject: np.ndarray) -> Box:
    rows, columns = np.flatnonzero(subject.any(axis=1)), np.flatnonzero(subject.any(axis=0))
    return Box(float(columns[0]), float(rows[0]), float(columns[-1] - columns[0] + 1), float(rows[-1] - rows[0] + 1))


def _neighbourhood(size: tuple[int, int], box: Box) -> Region:
    """Rows and columns of the box and its surroundings, within the picture; at least one pixel."""
    x, y = CONTEXT * box.width, CONTEXT * box.height
    rows = _span(box.y - y, box.y + box.height + y, size[0])
    columns = _span(box.x - x, box.x + box.width + x, size[1])
    return rows, columns


def _outer_pixels(box: Box, size: tuple[int, int]) -> Region:
    """Rows and columns of every pixel that the box touches."""
    return _span(box.y, box.y + box.height, size[0]), _span(box.x, box.x + box.width, size[1])


def _span(low: float, high: float, extent: int) -> slice:
    start = min(max(0, math.floor(low)), extent - 1)
    return slice(start, max(start + 1, min(extent, math.ceil(high))))


def _reduced(rgb: np.ndarray, side: int) -> np.ndarray:
    height, width = rgb.shape[:2]
    scale = min(1.0, side / math.sqrt(height * width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.ascontiguousarray(rgb) if scale == 1 else cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)


def _fitted(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return cv2.resize(values, size[::-1], interpolation=cv2.INTER_AREA)


def _box_within(box: Box, region: Region, size: tuple[int, int]) -> Region:
    """The box's rows and columns in the small copy (height, width) of a region."""
    found = []
    for low, length, span, extent in (
        (box.y, box.height, region[0], size[0]),
        (box.x, box.width, region[1], size[1]),
    ):
        scale = extent / (span.stop - span.start)
        found.append(_span((low - span.start) * scale, (low + length - span.start) * scale, extent))
    return found[0], found[1]


def _core(inner: Region) -> Region:
    """The middle of a region: a fifth of its height and width."""
    spans = []
    for span in inner:
        middle, half = (span.start + span.stop) / 2, _CORE / 2 * (span.stop - span.start)
        spans.append(_span(middle - half, middle + half, span.stop))
    return spans[0], spans[1]


def _rim(inner: Region, size: tuple[int, int]) -> int:
    """Pixels of the border that must be background: none where there is enough outside the box."""
    rows, columns = inner
    outside = 1 - (rows.stop - rows.start) * (columns.stop - columns.start) / (size[0] * size[1])
    return _RIM if outside < _LEAST_BACKGROUND else 0


def _labels_from_box(size: tuple[int, int], inner: Region, *, rim: int) -> np.ndarray:
    labels = np.full(size, cv2.GC_BGD, np.uint8)
    rows, columns = inner
    top, left = max(rows.start, rim), max(columns.start, rim)
    labels[top : min(rows.stop, size[0] - rim), left : min(columns.stop, size[1] - rim)] = cv2.GC_PR_FGD
    return labels


def _fill_rim(cut: np.ndarray, rim: int) -> np.ndarray:
    """The cut with its rim, which could not be subject, taken from the pixels beside it."""
    if rim == 0:
        return cut
    return np.pad(cut[rim:-rim, rim:-rim], rim, mode="edge")


def _labels_from_rough(start: np.ndarray, *, radius: float) -> np.ndarray:
    labels = np.full(start.shape, cv2.GC_BGD, np.uint8)
    labels[grow_mask(start, radius=radius) > 0] = cv2.GC_PR_BGD
    labels[start > 0] = cv2.GC_PR_FGD
    labels[grow_mask(start, radius=-radius) > 0] = cv2.GC_FGD
    return labels


def _reason_not_to_cut(small: np.ndarray, labels: np.ndarray) -> str:
    subject = int(np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD)).sum())
    if min(subject, labels.size - subject) < _FEWEST_PIXELS:
        return f"too few pixels to tell subject and background apart: {subject} and {labels.size - subject}"
    if (small == small[0, 0]).all():
        return "the picture is of one colour there"
    return ""


def _cut(small: np.ndarray, labels: np.ndarray, iterations: int) -> np.ndarray:
    """Where the subject is, bool (h, w). The seed makes it repeatable: the colours are clustered at random."""
    cv2.setRNGSeed(0)
    cut, background, subject = labels.copy(), np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(small, cut, None, background, subject, iterations, cv2.GC_INIT_WITH_MASK)
    return np.isin(cut, (cv2.GC_FGD, cv2.GC_PR_FGD))


def _at_full_size(
    rgb: np.ndarray, cut: np.ndarray, region: Region, *, note: str, allowed: Region | None = None
) -> Finding:
    """The finding of a cut of a region: at the picture's size, nothing outside `allowed`."""
    mask = np.zeros(rgb.shape[:2], np.float32)
    mask[region] = refine_edge(rgb[region], cut)
    if allowed is not None:
        kept = np.zeros_like(mask)
        kept[allowed] = mask[allowed]
        mask = kept
    return Finding(mask, note)


def refine_edge(rgb: np.ndarray, cut: np.ndarray) -> np.ndarray:
    """A small cut at the size of its picture, its edge laid along the picture's own edges.

    Near the edge each small window explains the cut as a linear function of colour; those functions, enlarged and
    applied to the full picture, say where the edge runs between the small pixels. Elsewhere nothing changes.

    Args:
        rgb: uint8 (H, W, 3).
        cut: bool (h, w), of the same aspect, at most as large.

    Returns:
        float32 (H, W) of zeros and ones.
    """
    size = rgb.shape[:2]
    small = cut.astype(np.float32)
    if cut.shape == size:
        return small
    guide = _fitted(rgb, cut.shape).astype(np.float32) / np.float32(255)
    slopes, offset = _local_lines(guide, small)
    explained = _enlarged(offset, size)
    for band in range(3):
        explained += _enlarged(slopes[..., band], size) * (rgb[..., band] * np.float32(1 / 255))
    share = _enlarged(_mean(small), size)
    near = (share > 0) & (share < 1)
    return np.where(near, explained > 0.5, _enlarged(small, size) > 0.5).astype(np.float32)


def _local_lines(guide: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Slopes (h, w, 3) and offset (h, w) of the ridge regression of the target on the colours around each pixel."""
    mean, level = _mean(guide), _mean(target)
    covariance = np.empty((*target.shape, 3, 3), np.float32)
    for i in range(3):
        for j in range(i, 3):
            shared = _mean(guide[..., i] * guide[..., j]) - mean[..., i] * mean[..., j]
            covariance[..., i, j] = covariance[..., j, i] = shared
    covariance += _GUIDE_EPSILON * np.eye(3, dtype=np.float32)
    common = _mean(guide * target[..., None]) - mean * level[..., None]
    slopes = np.linalg.solve(covariance, common[..., None])[..., 0]
    return _mean(slopes), _mean(level - (slopes * mean).sum(axis=-1))


def _mean(values: np.ndarray) -> np.ndarray:
    side = 2 * _GUIDE_RADIUS + 1
    return cv2.blur(values, (side, side), borderType=cv2.BORDER_REPLICATE)


def _enlarged(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return cv2.resize(np.ascontiguousarray(values), size[::-1], interpolation=cv2.INTER_LINEAR)
