"""The match report: which masks were found, and what their pixels say, as text and as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import MaskError

LOW_COVERAGE = 0.02
HIGH_COVERAGE = 0.98
NAMES_SHOWN = 8


@dataclass(frozen=True)
class PictureStats:
    """What one mask weighs: `coverage` is its mean in 0..1, `cells` the latent grid (width, height).

    `peak` is the largest weight of any cell, `active` the number of cells above zero, `contrast` the mean
    weight of the inner cells minus that of the outermost ring, -1..1. `lowest` and `highest` are those of its pixels.
    Without a mask all weights are 1.
    """

    name: str
    has_mask: bool
    coverage: float
    cells: tuple[int, int]
    active: int
    peak: float
    contrast: float
    lowest: float = 1.0
    highest: float = 1.0


@dataclass(frozen=True)
class MatchReport:
    """Names of pictures (and orphaned mask files) by finding; the decoded part is empty until inspected."""

    matched: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    orphaned: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    no_caption: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    all_black: tuple[str, ...] = ()
    all_white: tuple[str, ...] = ()
    low_coverage: tuple[str, ...] = ()
    high_coverage: tuple[str, ...] = ()
    vanishing: tuple[str, ...] = ()
    odd_polarity: tuple[str, ...] = ()
    pictures: tuple[PictureStats, ...] = ()

    def to_dict(self) -> dict[str, object]:
        """Plain lists and numbers under the field names."""
        return dataclasses.asdict(self)

    def to_json(self) -> str:
        """`to_dict` as JSON text with sorted keys; non-ASCII names stay readable."""
        return json.dumps(self.to_dict(), sort_keys=True, ensure_ascii=False)

    def to_text(self, limit: int = 200) -> str:
        """Lines for a person: counts, each warning with its remedy, then up to `limit` inspected pictures."""
        total = len(self.matched) + len(self.missing)
        lines = [f"{total} pictures: {len(self.matched)} with a mask, {len(self.missing)} without."]
        lines += [_line(text, getattr(self, name)) for name, text in _FINDINGS if getattr(self, name)]
        if self.no_caption and len(self.no_caption) == total:
            lines.append(
                "No picture has a caption: training sees empty texts. Write captions, or set a trigger word and "
                "missing_captions to use trigger word."
            )
        lines += [f"Note: {note}" for note in self.notes]
        lines += [_picture_line(stats) for stats in self.pictures[:limit]]
        if len(self.pictures) > limit:
            lines.append(f"… and {len(self.pictures) - limit} more pictures.")
        return "\n".join(lines)

    def require_learnable(self) -> None:
        """Nothing if some picture has weight to learn from.

        Raises:
            MaskError: every inspected mask is all black.
        """
        if self.pictures and len(self.all_black) == len(self.pictures):
            raise MaskError(
                f"All {len(self.pictures)} masks are black, beginning with {self.all_black[0]}: nothing "
                f"would be "
                "learned. White means learn; turn on invert in the mask transforms if yours mean the "
                "opposite."
            )


_FINDINGS = (
    ("skipped", "left out, because they have no mask"),
    ("orphaned", "mask files that fit no picture (same name in the same subfolder expected)"),
    ("no_caption", "pictures without a caption"),
    ("all_black", "masks are all black: these pictures teach nothing"),
    ("all_white", "masks are all white: the whole picture is learned"),
    ("low_coverage", f"masks cover less than {LOW_COVERAGE:.0%} of the picture"),
    ("high_coverage", f"masks cover more than {HIGH_COVERAGE:.0%} of the picture"),
    ("vanishing", "masks are too thin for the latent grid: no cell keeps half of their weight; grow them"),
    (
        "odd_polarity",
        "masks look inverted beside the rest of the set (white border, black centre or the reverse)",
    ),
)


def merge_reports(reports: Iterable[MatchReport]) -> MatchReport:
    """One report with the names of all, in the order given."""
    reports = list(reports)
    names = [field.name for field in dataclasses.fields(MatchReport)]
    return MatchReport(**{name: tuple(x for report in reports for x in getattr(report, name)) for name in names})


def _line(text: str, names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:NAMES_SHOWN])
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return f"{len(names)} {text}: {shown}{more}."


def _picture_line(stats: PictureStats) -> str:
    width, height = stats.cells
    if not stats.has_mask:
        return f"{stats.name}: no mask, whole picture, {width}×{height} cells"
    return (
        f"{stats.name}: coverage {stats.coverage:.1%}, {stats.active} of {width}×{height} cells, "
        f"largest weight {stats.peak:.2f}"
    )
