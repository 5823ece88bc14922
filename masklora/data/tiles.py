"""The preview of a whole data set: one small captioned picture per sample, on one sheet."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..config import check_choice
from .dataset import Sample, fit_mask, load_sample
from .preview import contact_sheet, cutout, latent_grid, overlay
from .report import PictureStats

VIEWS = ("overlay", "cut-out", "mask", "latent grid")
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
    check_cancel: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """A sheet of the samples with name and coverage under each: uint8 (H, W, 3).

    Pictures are decoded one at a time and shrunk at once, so that memory does not grow with their number.

    Args:
        samples: What to show.
        stats: Of the same samples; gives coverage and the latent grid.
        view: One of `VIEWS`.
        side: Largest side of a picture on the sheet, px.
        check_cancel: Called before each picture; raises to stop.

    Raises:
        ConfigError: An unknown view.
        DataError, MaskError: A picture or mask cannot be read.
    """
    check_choice("view", view, VIEWS)
    tiles = []
    for sample, one in zip(samples, stats, strict=True):
        check_cancel()
        tiles.append(_labelled(_tile(sample, one.cells, view, side), _label(one), side))
    return contact_sheet(tiles, side=side + BAR)


def _tile(sample: Sample, cells: tuple[int, int], view: str, side: int) -> np.ndarray:
    loaded = load_sample(sample)
    width, height = sample.size
    scale = side / max(width, height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    rgb = cv2.resize(loaded.rgb, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST)
    if view == "latent grid":
        return latent_grid(rgb, fit_mask(loaded.mask, cells))
    mask = fit_mask(loaded.mask, size)
    if view == "mask":
        return np.repeat(np.rint(mask * 255).astype(np.uint8)[..., None], 3, axis=2)
    return cutout(rgb, mask) if view == "cut-out" else overlay(rgb, mask)


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
