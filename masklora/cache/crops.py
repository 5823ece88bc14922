"""Which part of a picture a variant shows, and how much a crop to the mask saves."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Protocol

import numpy as np

from ..dataset.geometry import Geometry, box_centre, pixel_box, plan_box_geometry, plan_cut_geometry, plan_geometry
from ..settings import CacheSettings
from .buckets import choose_bucket

Box = tuple[float, float, float, float]
Size = tuple[int, int]

MASKED = "masked crop"
# Crops that follow the mask's bounding box.
BOXED = ("mask-centred", "around mask", MASKED)
# A masked crop's sides are multiples of this share of the resolution and at least two of them, so that there are
# few buckets, and no training size far below what the model knows.
SIDE_SHARE = 8
LEAST_SIDES = 2


class Cropped(Protocol):
    """What the saving is computed from, of a cache entry."""

    @property
    def bucket(self) -> Size:
        """(width, height) of the training picture."""
        ...

    @property
    def resolution(self) -> int:
        """Side of the square whose area it has at most."""
        ...

    @property
    def geometry(self) -> Geometry:
        """Of the first variant."""
        ...

    @property
    def weight(self) -> float:
        """Appearances per epoch."""
        ...


def plan_crop(
    source: Size,
    bucket: Size,
    settings: CacheSettings,
    *,
    box: Box | None,
    random: np.random.Generator | None,
) -> Geometry:
    """Where a variant's pixels go; without a generator centred, upright and with the smallest margin.

    Args:
        source: Width and height of the picture.
        bucket: Of the whole picture. A masked crop may come out smaller, alike for all variants.
        settings: Crop, margins and turns.
        box: Of the mask (see `mask_box`), None without one.
        random: Draws what is left to chance.
    """
    angle = 0.0
    if random is not None and settings.rotate > 0:
        angle = round(float(random.uniform(-settings.rotate, settings.rotate)), 4)
    if settings.crop == "around mask" and box is not None:
        least, most = settings.crop_margin, settings.crop_margin_max
        margin = least if random is None else float(random.uniform(least, most))
        return plan_box_geometry(source, bucket, box, margin=margin, angle=angle, upscale=settings.upscale)
    if settings.crop == MASKED and box is not None:
        size = masked_size(source, bucket, settings, box=box)
        return plan_cut_geometry(source, bucket, size, box, angle=angle, upscale=settings.upscale)
    centred = settings.crop in ("around mask", MASKED) or (settings.crop == "random" and random is None)
    geometry = plan_geometry(
        source,
        bucket,
        crop="centre" if centred else settings.crop,
        focus=box_centre(box),
        generator=random,
        upscale=settings.upscale,
    )
    return replace(geometry, angle=angle)


def masked_size(source: Size, bucket: Size, settings: CacheSettings, *, box: Box) -> Size:
    """Width and height of a masked crop: the mask's box at the bucket's scale, and a margin.

    Rounded up to multiples of an eighth of the resolution (itself rounded up to `bucket_step`), at least two of
    them, never beyond the bucket. Where pictures are turned, the box fits at every angle that may be drawn.

    Args:
        source: Width and height of the picture.
        bucket: Of the whole picture.
        settings: Resolution, step, margin and turn.
        box: Of the mask (see `mask_box`).
    """
    resized = plan_geometry(source, bucket, upscale=settings.upscale).resized
    left, top, right, bottom = pixel_box(box, resized)
    width, height = right - left, bottom - top
    around = 2 * settings.crop_margin * max(width, height)
    step = settings.bucket_step
    unit = step * math.ceil(settings.resolution / SIDE_SHARE / step)
    needed = _longest(width, height, settings.rotate), _longest(height, width, settings.rotate)
    sides = (unit * max(LEAST_SIDES, math.ceil((length + around) / unit - 1e-9)) for length in needed)
    size = [min(side, whole) for side, whole in zip(sides, bucket, strict=True)]
    return size[0], size[1]


def saving_note(entries: Iterable[Cropped], settings: CacheSettings) -> str:
    """How many pixels masked crops train on against whole pictures, weighed by how often each is shown."""
    trained = whole = 0.0
    for entry in entries:
        width, height = entry.bucket
        level = replace(settings, resolution=entry.resolution)
        full = choose_bucket(entry.geometry.source, level) or entry.bucket
        trained += entry.weight * width * height
        whole += entry.weight * full[0] * full[1]
    share = trained / whole if whole else 1.0
    return f"{MASKED}: trains on {share:.0%} of the pixels ({1 - share:.0%} saved per step against whole pictures)"


def _longest(length: float, across: float, rotate: float) -> float:
    """The longest extent along one axis of a box turned by up to `rotate` degrees."""
    angle = min(math.radians(rotate), math.atan2(across, length))
    return math.cos(angle) * length + math.sin(angle) * across
