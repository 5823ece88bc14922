"""The preview of a whole data set: one small captioned picture per sample, on one sheet."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..cache.donors import Donors
from ..cache.infill import apply_infill, plan_set
from ..cache.plan import is_hard
from ..dataset.geometry import Geometry, apply_image, apply_mask
from ..dataset.sample import Dataset, Sample, fit_mask, load_sample
from ..folder.report import PictureStats
from ..settings import CacheSettings, check_choice
from .tint import standing_out
from .views import OPACITY, contact_sheet, cutout, latent_grid, overlay

VIEWS = ("overlay", "cut-out", "mask", "latent grid")
INFILL_VIEW = "infill"
SIDE = 256
BAR = 18
TEXT_SIZE = 12
BAR_COLOUR = (16, 16, 16)
TEXT_COLOUR = (235, 235, 235)


def dataset_sheet(
    samples: Sequence[Sample],
    stats: Sequence[PictureStats],
    *,
    view: str = "overlay",
    side: int = SIDE,
    geometries: Sequence[Geometry] | None = None,
    check_cancel: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """A sheet of the samples with name and coverage under each: uint8 (H, W, 3).

    Pictures are decoded one at a time and shrunk at once, so that memory does not grow with their number.

    Args:
        samples: What to show.
        stats: Of the same samples; gives coverage and the latent grid.
        view: One of `VIEWS`.
        side: Largest side of a picture on the sheet, px.
        geometries: Of the same samples; the latent grid then shows the training picture, everything else the whole.
        check_cancel: Called before each picture; raises to stop.

    Raises:
        ConfigError: An unknown view.
        DataError, MaskError: A picture or mask cannot be read.
    """
    check_choice("view", view, VIEWS)
    tiles = []
    planned = [None] * len(samples) if geometries is None else geometries
    for sample, one, geometry in zip(samples, stats, planned, strict=True):
        check_cancel()
        if view == "latent grid" and geometry is not None:
            tile = _trained_tile(sample, geometry, one.cells, side)
        else:
            tile = _tile(sample, one.cells, view, side)
        tiles.append(_labelled(tile, _label(one), side))
    return contact_sheet(tiles, side=side + BAR)


def infill_sheet(
    dataset: Dataset,
    settings: CacheSettings,
    *,
    limit: int,
    side: int = SIDE,
    check_cancel: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """A sheet with a row per picture: the original and the backgrounds that a cache of `settings` puts behind it.

    Kinds, colours and lenders are those of the cache; only the size is the preview's.

    Args:
        dataset: All pictures, because they lend each other their backgrounds.
        settings: Fields `infill`, `infill_variants` and `seed`.
        limit: Rows at most.
        side: Largest side of a picture on the sheet, px.
        check_cancel: Called before each picture; raises to stop.

    Returns:
        uint8 (H, W, 3). A picture without a mask has no background to replace and stands alone.

    Raises:
        DataError, MaskError: A picture or mask cannot be read.
    """
    samples = dataset.samples
    counts = [settings.infill_variants if _may_have_mask(sample) else 0 for sample in samples]
    planned = plan_set(
        [sample.key for sample in samples], counts, kind=settings.infill, seed=settings.seed, donors=Donors.of(samples)
    )
    empty = np.full((side + BAR, side, 3), BAR_COLOUR, np.uint8)
    tiles = []
    for index, sample in enumerate(dataset.samples[:limit]):
        check_cancel()
        loaded = load_sample(sample)
        size = shrunk(sample.size, side)
        rgb = cv2.resize(loaded.rgb, size, interpolation=cv2.INTER_AREA)
        row = [_labelled(rgb, sample.name.rsplit("/", 1)[-1], side)]
        for infill in planned[index] if loaded.has_mask else ():
            lender = None if infill.donor is None else dataset.samples[infill.donor]
            donor = None if lender is None else load_sample(lender)
            shown = apply_infill(rgb, fit_mask(loaded.shown, size), infill, donor=donor)
            row.append(_labelled(shown, infill.kind if lender is None else f"{infill.kind}: {lender.name}", side))
        tiles += row + [empty] * (1 + settings.infill_variants - len(row))
    return contact_sheet(tiles, columns=1 + settings.infill_variants, side=side + BAR)


def _may_have_mask(sample: Sample) -> bool:
    return sample.mask is not None or sample.mask_path is not None or bool(sample.parts) or sample.alpha


def draw_view(
    rgb: np.ndarray,
    mask: np.ndarray,
    view: str,
    *,
    colour: tuple[int, int, int] | None = None,
    opacity: float = OPACITY,
) -> np.ndarray:
    """One picture in a view that has no cells, uint8 (H, W, 3): overlay, cut-out or mask.

    Args:
        rgb: uint8 (H, W, 3).
        mask: float32 (H, W) in 0..1.
        view: "overlay", "cut-out" or "mask".
        colour: RGB of the overlay's tint; None: the one that stands out from the picture.
        opacity: Of the tint where the mask is 0, in 0..1.
    """
    if view == "mask":
        return np.repeat(np.rint(mask * 255).astype(np.uint8)[..., None], 3, axis=2)
    if view == "cut-out":
        return cutout(rgb, mask)
    return overlay(rgb, mask, standing_out(rgb, mask) if colour is None else colour, opacity)


def shrunk(size: tuple[int, int], side: int) -> tuple[int, int]:
    """(width, height) with the longer one `side`."""
    scale = side / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def small(rgb: np.ndarray, side: int) -> np.ndarray:
    """A picture, uint8 (H, W, 3), with its longer side `side` px."""
    size = shrunk((rgb.shape[1], rgb.shape[0]), side)
    shrinks = size[0] < rgb.shape[1]
    return cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_NEAREST)


def _trained_tile(sample: Sample, geometry: Geometry, cells: tuple[int, int], side: int) -> np.ndarray:
    loaded = load_sample(sample)
    rgb = small(apply_image(loaded.rgb, geometry, resize="area"), side)
    return latent_grid(rgb, fit_mask(apply_mask(loaded.mask, geometry, hard=is_hard(sample)), cells))


def _tile(sample: Sample, cells: tuple[int, int], view: str, side: int) -> np.ndarray:
    loaded = load_sample(sample)
    rgb = small(loaded.rgb, side)
    if view == "latent grid":
        return latent_grid(rgb, fit_mask(loaded.mask, cells))
    return draw_view(rgb, fit_mask(loaded.mask, rgb.shape[1::-1]), view)


def _label(stats: PictureStats) -> str:
    coverage = f"{stats.coverage:.0%}" if stats.has_mask else "no mask"
    return f"{coverage}  {stats.name.rsplit('/', 1)[-1]}"


def _labelled(picture: np.ndarray, text: str, side: int) -> np.ndarray:
    """The picture centred in a square of `side` px with a bar of text under it."""
    canvas = Image.new("RGB", (side, side + BAR), BAR_COLOUR)
    height, width = picture.shape[:2]
    canvas.paste(Image.fromarray(picture), ((side - width) // 2, (side - height) // 2))
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(TEXT_SIZE)
    while len(text) > 1 and draw.textlength(text, font=font) > side - 8:
        text = text[:-2].rstrip("…") + "…"
    draw.text((4, side + 2), text, fill=TEXT_COLOUR, font=font)
    return np.asarray(canvas)
