"""What the benchmark promises; every broken promise is told with its numbers."""

from __future__ import annotations

import numpy as np

from .conditions import ANCHORS, INFILL, MASK, NO_MASK, OURS, PRIOR
from .results import Block, Results

LEAK_RATIO, DRIFT_RATIO, INTRUSION = 0.1, 0.6, 0.1
# Where more is better: 1, where less is: −1.
PAIRED = {"SF": 1, "Leak0": -1, "Drift": -1}
# Sums of stored shares differ in their last digits.
_ROUNDING = 1e-6


def failures(results: Results, place: Block) -> list[str]:
    """The promises that one variant and coverage breaks, as sentences; none if all hold.

    Our preset is held against those trainers' presets that the block has.
    """

    def mean(name: str, figure: str) -> float:
        return float(results.values(place, name, figure).mean())

    where, found = f"{place[0]}, {place[1]} %", []
    leak, full = mean(MASK, "Leak0"), mean(NO_MASK, "Leak0")
    if not leak < LEAK_RATIO * full:
        found.append(f"{where}: Leak0 of the mask is {leak:.3f}, not below {LEAK_RATIO} × {full:.3f} without")
    held, free = mean(PRIOR, "Drift"), mean(MASK, "Drift")
    if not held < DRIFT_RATIO * free:
        found.append(f"{where}: Drift with the prior is {held:.3f}, not below {DRIFT_RATIO} × {free:.3f} without")
    with_infill, without = mean(INFILL, "SF"), mean(MASK, "SF")
    if with_infill < without - _ROUNDING:
        found.append(f"{where}: SF with infill is {with_infill:.3f}, below {without:.3f} without")
    mine, theirs = mean(OURS, "Intr"), mean(NO_MASK, "Intr")
    if mine > theirs + INTRUSION + _ROUNDING:
        found.append(f"{where}: Intr of our preset is {mine:.3f}, more than {INTRUSION} above {theirs:.3f} unmasked")
    present = {name for _, name, _ in results.rows(place)}
    return found + [line for anchor in ANCHORS if anchor in present for line in _behind(results, place, anchor)]


def _behind(results: Results, place: Block, anchor: str) -> list[str]:
    """Figures in which our preset is more than a standard error worse than an anchor's, paired over seeds."""
    found = []
    for figure, sign in PAIRED.items():
        mean, error = paired(results, place, anchor, figure)
        if sign * mean < -error - _ROUNDING:
            what = f"{figure} of our preset less that of {anchor}"
            found.append(f"{place[0]}, {place[1]} %: {what} is {mean:+.3f}, standard error {error:.3f}")
    return found


def paired(results: Results, place: Block, anchor: str, figure: str) -> tuple[float, float]:
    """Mean over the seeds of our preset's figure less the anchor's, and the standard error of that mean."""
    difference = results.values(place, OURS, figure) - results.values(place, anchor, figure)
    return float(difference.mean()), float(difference.std(ddof=1) / np.sqrt(len(difference)))
