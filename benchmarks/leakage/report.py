"""The results as Markdown."""

from __future__ import annotations

from .measure import COSTS, FIGURES
from .results import Block, Results

_DIGITS = {"LeakProj": 3, "Held-out": 3}


def tables(results: Results) -> str:
    """One table for each variant and coverage: mean ± standard deviation over the seeds."""
    return "\n\n".join(table(results, place) for place in results.names)


def table(results: Results, place: Block) -> str:
    """The table of one variant and coverage; presets that train alike share a row."""
    seeds = len({run[3] for run in results.figures if run[:2] == place})
    head = " | ".join(f"{name} {'↓' if name in COSTS else '↑'}" for name in FIGURES)
    lines = [f"**{place[0]}, {place[1]} % coverage, {seeds} seeds**", "", f"| condition | {head} |"]
    lines.append("|---|" + "---|" * len(FIGURES))
    groups: dict[str, list[str]] = {}
    for _, name, key in results.rows(place):
        groups.setdefault(key, []).append(name)
    for names in groups.values():
        cells = [_cell(results, place, names[0], figure) for figure in FIGURES]
        lines.append(f"| {' = '.join(names)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(results: Results, place: Block, name: str, figure: str) -> str:
    values = results.values(place, name, figure)
    if not len(values):
        return "–"
    digits, spread = _DIGITS.get(figure, 2), values.std(ddof=1) if len(values) > 1 else 0.0
    return f"{values.mean():.{digits}f} ± {spread:.{digits}f}"


def one_line(figures: dict[str, float]) -> str:
    """A run's figures in one line."""
    return ", ".join(f"{name} {value:.3f}" for name, value in figures.items())
