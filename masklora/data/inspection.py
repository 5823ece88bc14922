"""What the masks of a data set weigh once decoded: coverage, latent cells, and the ones that look wrong."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from .dataset import Dataset, Sample, fit_mask, load_mask
from .loading import Progress
from .report import HIGH_COVERAGE, LOW_COVERAGE, MatchReport, PictureStats

# JPEG masks are seldom exactly 0 or 255.
NEARLY = 2.5 / 255
VANISHED = 0.5
CONTRAST = 0.2
MAJORITY = 0.75


def inspect(
    dataset: Dataset,
    grid_stride: int = 8,
    progress: Progress | None = None,
    check_cancel: Callable[[], None] | None = None,
    *,
    resolution: int = 0,
) -> MatchReport:
    """The data set's report with its decoded part: every mask is read once, one at a time.

    Args:
        dataset: what to inspect.
        grid_stride: pixels of the training picture per latent cell.
        progress: called with (done, total, name).
        check_cancel: called between pictures; raises to stop.
        resolution: side of the square whose area the training pictures have; 0 takes pictures at their own
            size.

    Returns:
        A report in which an opaque alpha counts as missing. Vanishing: no cell keeps half of the mask's
        largest weight. Odd polarity: border and centre the other way round than in three quarters of at least
        four masks.

    Raises:
        DataError, MaskError: a picture or mask cannot be read.
    """
    pictures: list[PictureStats] = []
    black: list[str] = []
    white: list[str] = []
    thin: list[str] = []
    graded: list[PictureStats] = []
    for done, sample in enumerate(dataset.samples):
        if check_cancel is not None:
            check_cancel()
        mask = load_mask(sample)
        stats = mask_stats(sample, mask, grid_stride, resolution)
        pictures.append(stats)
        if mask is not None:
            lowest, highest = float(mask.min()), float(mask.max())
            if highest <= NEARLY:
                black.append(sample.name)
            elif lowest >= 1 - NEARLY:
                white.append(sample.name)
            else:
                graded.append(stats)
                if stats.peak < VANISHED * highest:
                    thin.append(sample.name)
        if progress is not None:
            progress(done + 1, len(dataset), sample.name)
    return replace(
        dataset.report,
        matched=tuple(stats.name for stats in pictures if stats.has_mask),
        missing=tuple(stats.name for stats in pictures if not stats.has_mask),
        all_black=tuple(black),
        all_white=tuple(white),
        low_coverage=tuple(stats.name for stats in graded if stats.coverage < LOW_COVERAGE),
        high_coverage=tuple(stats.name for stats in graded if stats.coverage > HIGH_COVERAGE),
        vanishing=tuple(thin),
        odd_polarity=odd_polarity(graded),
        pictures=tuple(pictures),
    )


def latent_cells(size: tuple[int, int], grid_stride: int, resolution: int = 0) -> tuple[int, int]:
    """(width, height) of the latent grid of a picture, shrunk to the area of `resolution`² if larger."""
    width, height = size
    scale = min(1.0, math.sqrt(resolution * resolution / (width * height))) if resolution else 1.0
    return max(1, round(width * scale / grid_stride)), max(1, round(height * scale / grid_stride))


def mask_stats(sample: Sample, mask: np.ndarray | None, grid_stride: int, resolution: int = 0) -> PictureStats:
    """The weight of one mask, float32 (H, W) in 0..1, on its pixels and on the latent grid; None weighs 1."""
    cells = latent_cells(sample.size, grid_stride, resolution)
    if mask is None:
        return PictureStats(sample.name, False, 1.0, cells, cells[0] * cells[1], 1.0, 0.0)
    grid = fit_mask(mask, cells)
    return PictureStats(
        name=sample.name,
        has_mask=True,
        coverage=float(mask.mean(dtype=np.float64)),
        cells=cells,
        active=int((grid > 0).sum()),
        peak=float(grid.max()),
        contrast=_contrast(grid),
    )


def odd_polarity(pictures: list[PictureStats]) -> tuple[str, ...]:
    """Names of the masks whose white lies at the border while the others' lies in the centre, or the reverse.

    Masks without a clear difference have no say and are never named.
    """
    clear = [stats for stats in pictures if abs(stats.contrast) >= CONTRAST]
    centred = sum(stats.contrast > 0 for stats in clear)
    # One odd mask among three is a third of them: it takes four for a majority of three quarters.
    if not clear or max(centred, len(clear) - centred) / len(clear) < MAJORITY:
        return ()
    usual = centred * 2 > len(clear)
    return tuple(stats.name for stats in clear if (stats.contrast > 0) != usual)


def _contrast(grid: np.ndarray) -> float:
    """Mean weight inside the outermost ring of cells minus the mean on it; 0 where there is no inside."""
    if min(grid.shape) < 3:
        return 0.0
    inner = grid[1:-1, 1:-1]
    ring = (float(grid.sum()) - float(inner.sum())) / (grid.size - inner.size)
    return float(inner.mean()) - ring
