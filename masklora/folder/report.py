"""The match report: which masks were found, and what their pixels say, as text and as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass

from ..findings import Finding, counted, note, warning
from .leftovers import Leftover, leftover_findings, shown

LOW_COVERAGE = 0.02
HIGH_COVERAGE = 0.98


@dataclass(frozen=True)
class PictureStats:
    """What one mask weighs in the training picture: `coverage` is its mean in 0..1, `cells` the grid (width, height).

    `peak` is the largest weight of any cell, `active` the number of cells above zero, `contrast` the mean
    weight of the inner cells minus that of the outermost ring, -1..1. `lowest` and `highest` are those of its pixels
    before the crop, and `kept` is how much of its weight the crop leaves, 0..1. Without a mask all weights are 1.
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
    kept: float = 1.0


@dataclass(frozen=True)
class MatchReport:
    """Names of pictures (and orphaned mask files) by finding; the decoded part is empty until inspected.

    `warnings` are choices that were made for the person, and what else may spoil the LoRA; `left` are the files that
    were not used. `unused_triggers` are trigger words that pictures without a caption do not get; regularisation
    pictures, `of_class`, shall not.
    """

    matched: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    orphaned: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    no_caption: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    all_black: tuple[str, ...] = ()
    all_white: tuple[str, ...] = ()
    cut_away: tuple[str, ...] = ()
    low_coverage: tuple[str, ...] = ()
    high_coverage: tuple[str, ...] = ()
    vanishing: tuple[str, ...] = ()
    odd_polarity: tuple[str, ...] = ()
    pictures: tuple[PictureStats, ...] = ()
    warnings: tuple[str, ...] = ()
    left: tuple[Leftover, ...] = ()
    unused_triggers: tuple[str, ...] = ()
    of_class: tuple[str, ...] = ()

    def with_findings(self, findings: Iterable[Finding]) -> MatchReport:
        """This report with other findings about the same pictures."""
        texts: dict[str, list[str]] = {"warning": [], "note": []}
        for finding in findings:
            texts[finding.level].append(finding.text)
        return dataclasses.replace(
            self, warnings=(*self.warnings, *texts["warning"]), notes=(*self.notes, *texts["note"])
        )

    def to_text(self, limit: int = 200) -> str:
        """Lines for a person: `findings`, then up to `limit` inspected pictures."""
        first, *findings = self.findings()
        lines = [first.text]
        lines += [one.text if one.level == "warning" else f"Note: {one.text}" for one in findings]
        lines += [_picture_line(stats) for stats in self.pictures[:limit]]
        if len(self.pictures) > limit:
            lines.append(f"… and {counted(len(self.pictures) - limit, 'more [picture|pictures]')}.")
        return "\n".join(lines)

    def findings(self) -> tuple[Finding, ...]:
        """What a person should know, each with its remedy: how many pictures have a mask, then warnings, then notes."""
        total = len(self.matched) + len(self.missing)
        pictures = counted(total, "[picture|pictures]")
        found = [note(f"{pictures}: {len(self.matched)} with a mask, {len(self.missing)} without.")]
        if self.matched and self.missing:
            found.append(warning(_line("[picture has|pictures have] no mask, while others have one", self.missing)))
        for name, text, grave in _FINDINGS:
            if getattr(self, name):
                line = _line(text, getattr(self, name))
                found.append(warning(line) if grave else note(line))
        if self.no_caption:
            found.append(warning(self._captions(total)))
        found += [warning(text) for text in self.warnings]
        found += leftover_findings(self.left, captions_missing=bool(self.no_caption))
        found += [note(text) for text in self.notes]
        rest = dict.fromkeys(found[1:])
        return (found[0], *sorted(rest, key=lambda one: one.level != "warning"))

    def _captions(self, total: int) -> str:
        if len(self.no_caption) == total:
            head = "No picture has a caption: training sees empty texts"
        else:
            bare = _line("[picture|pictures] without a caption", self.no_caption)
            head = f"{bare} Training sees empty texts there"
        triggers = ", ".join(dict.fromkeys(self.unused_triggers))
        without = f", without the trigger word {triggers} too" if triggers else ""
        if set(self.no_caption) <= set(self.of_class):
            return f"{head}. Write captions that name the class."
        remedy = "missing_captions to use trigger word" if triggers else "a trigger word"
        return f"{head}{without}. Write captions, or set {remedy}."


_FINDINGS = (
    ("skipped", "left out, because [it has|they have] no mask", False),
    ("orphaned", "mask [file that fits|files that fit] no picture (same name in the same subfolder expected)", True),
    ("all_black", "[mask is all black: this picture teaches|masks are all black: these pictures teach] nothing", True),
    ("all_white", "[mask is|masks are] all white: the whole picture is learned", False),
    (
        "cut_away",
        "[mask loses|masks lose] most or all of [its|their] weight to the crop, so [this picture teaches|these "
        "pictures teach] little or nothing; set crop in Cache Dataset to around mask, or turn on bucketing",
        True,
    ),
    ("low_coverage", f"[mask covers|masks cover] less than {LOW_COVERAGE:.0%} of the picture", False),
    ("high_coverage", f"[mask covers|masks cover] more than {HIGH_COVERAGE:.0%} of the picture", False),
    (
        "vanishing",
        "[mask is|masks are] too thin for the latent grid: no cell keeps half of [its|their] weight; grow [it|them]",
        True,
    ),
    (
        "odd_polarity",
        "[mask looks|masks look] inverted beside the rest of the set (white border, black centre or the reverse)",
        True,
    ),
)


def merge_reports(reports: Iterable[MatchReport]) -> MatchReport:
    """One report with the names of all, in the order given."""
    reports = list(reports)
    names = [field.name for field in dataclasses.fields(MatchReport)]
    return MatchReport(**{name: tuple(x for report in reports for x in getattr(report, name)) for name in names})


def _line(text: str, names: tuple[str, ...]) -> str:
    return f"{counted(len(names), text)}: {shown(names)}."


def _picture_line(stats: PictureStats) -> str:
    width, height = stats.cells
    if not stats.has_mask:
        return f"{stats.name}: no mask, whole picture, {width}×{height} cells"
    return (
        f"{stats.name}: coverage {stats.coverage:.1%}, {stats.active} of {width}×{height} cells, "
        f"largest weight {stats.peak:.2f}"
    )
