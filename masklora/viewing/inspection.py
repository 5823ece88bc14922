"""What the masks of a data set weigh once decoded: coverage, latent cells, and the ones that look wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from ..cache.mask_sense import MOST, NEARLY, is_white, share_left
from ..cache.plan import is_hard
from ..dataset.geometry import Geometry, apply_mask, plan_geometry
from ..dataset.loading import Progress
from ..dataset.sample import Dataset, Sample, fit_mask, load_mask
from ..folder.report import HIGH_COVERAGE, LOW_COVERAGE, MatchReport, PictureStats

VANISHED = 0.5
CONTRAST = 0.2
MASK_FINDINGS = ("all_black", "all_white", "cut_away", "low_coverage", "high_coverage", "vanishing", "odd_polarity")
MAJORITY = 0.75


def inspect(
    dataset: Dataset,
    grid_stride: int = 8,
    progress: Progress | None = None,
    check_cancel: Callable[[], None] | None = None,
    *,
    geometries: Sequence[Geometry] | None = None,
) -> MatchReport:
    """The data set's report with its decoded part: every mask is read once, one at a time.

    Args:
        dataset: what to inspect.
        grid_stride: pixels of the training picture per latent cell.
        progress: called with (done, total, name).
        check_cancel: called between pictures; raises to stop.
        geometries: where the pixels of each picture go in its training picture; None takes pictures whole, at
            their own size.

    Returns:
        A report in which an opaque alpha counts as missing. Cut away: the crop leaves less than half of the mask's
        weight. Vanishing: no cell keeps half of the mask's largest weight. Odd polarity: border and centre the
        other way round than in three quarters of at least four masks.

    Raises:
        DataError, MaskError: a picture or mask cannot be read.
    """
    if geometries is None:
        geometries = [whole_geometry(sample.size, grid_stride) for sample in dataset.samples]
    pictures: list[PictureStats] = []
    for done, (sample, geometry) in enumerate(zip(dataset.samples, geometries, strict=True)):
        if check_cancel is not None:
            check_cancel()
        pictures.append(mask_stats(sample, load_mask(sample), grid_stride, geometry))
        if progress is not None:
            progress(done + 1, len(dataset), sample.name)
    return with_pictures(dataset.report, pictures)


def with_pictures(report: MatchReport, pictures: Sequence[PictureStats]) -> MatchReport:
    """`report` with its decoded part from what all masks weigh."""
    found = findings(pictures)
    names = {
        kind: tuple(stats.name for stats, kinds in zip(pictures, found, strict=True) if kind in kinds)
        for kind in MASK_FINDINGS
    }
    return replace(
        report,
        matched=tuple(stats.name for stats in pictures if stats.has_mask),
        missing=tuple(stats.name for stats in pictures if not stats.has_mask),
        pictures=tuple(pictures),
        **names,
    )


def findings(pictures: Sequence[PictureStats]) -> list[list[str]]:
    """What looks wrong of each mask beside the others: those of `MASK_FINDINGS`, in their order."""
    graded = [i for i, stats in enumerate(pictures) if stats.has_mask and not _is_flat(stats)]
    odd = {graded[i] for i in odd_polarity([pictures[i] for i in graded])}
    return [_wrong_with(stats, odd=i in odd) for i, stats in enumerate(pictures)]


def _wrong_with(stats: PictureStats, *, odd: bool) -> list[str]:
    if not stats.has_mask:
        return []
    if _is_flat(stats):
        return ["all_black" if stats.highest <= NEARLY else "all_white"]
    cut = stats.kept < MOST
    holds = {
        "cut_away": cut,
        "low_coverage": 0 < stats.coverage < LOW_COVERAGE,
        "high_coverage": stats.coverage > HIGH_COVERAGE,
        # The crop takes the peak away as well, and then the mask is not too thin.
        "vanishing": not cut and stats.peak < VANISHED * stats.highest,
        "odd_polarity": odd,
    }
    return [kind for kind, is_true in holds.items() if is_true]


def _is_flat(stats: PictureStats) -> bool:
    return stats.highest <= NEARLY or is_white(stats.lowest)


def whole_geometry(size: tuple[int, int], grid_stride: int) -> Geometry:
    """The geometry of a picture of `size` (width, height) that is trained at its own size, but for broken cells."""
    width, height = (max(grid_stride, side // grid_stride * grid_stride) for side in size)
    return plan_geometry(size, (width, height), upscale=True)


def mask_stats(sample: Sample, mask: np.ndarray | None, grid_stride: int, geometry: Geometry) -> PictureStats:
    """What a mask weighs in the training picture, on its pixels and on the latent grid.

    Args:
        sample: Whose mask it is.
        mask: float32 (H, W) in 0..1, transforms applied; None weighs 1.
        grid_stride: Pixels of the training picture per latent cell.
        geometry: Where the picture's pixels go in the training picture.

    Raises:
        MaskError: The mask's aspect is not the picture's.
    """
    width, height = geometry.size
    cells = max(1, width // grid_stride), max(1, height // grid_stride)
    if mask is None:
        return PictureStats(sample.name, False, 1.0, cells, cells[0] * cells[1], 1.0, 0.0)
    seen = apply_mask(mask, geometry, hard=is_hard(sample))
    grid = fit_mask(seen, cells)
    # All cells have one size, so their mean is that of the pixels, and there are far fewer of them.
    coverage = float(grid.mean(dtype=np.float64))
    before, lowest = float(mask.mean(dtype=np.float64)), float(mask.min())
    return PictureStats(
        name=sample.name,
        has_mask=True,
        coverage=coverage,
        cells=cells,
        active=int((grid > 0).sum()),
        peak=float(grid.max()),
        contrast=_contrast(grid),
        lowest=lowest,
        highest=float(mask.max()),
        kept=share_left(before, coverage, geometry=geometry, lowest=lowest),
    )


def odd_polarity(pictures: Sequence[PictureStats]) -> list[int]:
    """Places of the masks whose white lies at the border while the others' lies in the centre, or the reverse.

    Masks without a clear difference have no say and are never meant.
    """
    clear = [i for i, stats in enumerate(pictures) if abs(stats.contrast) >= CONTRAST]
    centred = sum(pictures[i].contrast > 0 for i in clear)
    # One odd mask among three is a third of them: it takes four for a majority of three quarters.
    if not clear or max(centred, len(clear) - centred) / len(clear) < MAJORITY:
        return []
    usual = centred * 2 > len(clear)
    return [i for i in clear if (pictures[i].contrast > 0) != usual]


def _contrast(grid: np.ndarray) -> float:
    """Mean weight inside the outermost ring of cells minus the mean on it; 0 where there is no inside."""
    if min(grid.shape) < 3:
        return 0.0
    inner = grid[1:-1, 1:-1]
    ring = (float(grid.sum()) - float(inner.sum())) / (grid.size - inner.size)
    return float(inner.mean()) - ring
