"""The match report: which masks were found, and what their pixels say, as text and as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..findings import Finding, counted, note, of_kinds, warning, worded
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
    pictures, `of_class`, shall not. `clips` are those of the pictures that move.

    `paired` are the pictures with a reference of each folder, `unpaired` those that lack one, of which `left_unpaired`
    are left out; the fields of references name references.
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
    clips: tuple[str, ...] = ()
    paired: tuple[str, ...] = ()
    unpaired: tuple[str, ...] = ()
    left_unpaired: tuple[str, ...] = ()
    reference_extra: tuple[str, ...] = ()
    reference_same: tuple[str, ...] = ()
    reference_small: tuple[str, ...] = ()
    reference_other: tuple[str, ...] = ()
    reference_turned: tuple[str, ...] = ()

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
            more = [stats.name for stats in self.pictures[limit:]]
            lines.append(self._more(more))
        return "\n".join(lines)

    def findings(self) -> tuple[Finding, ...]:
        """What a person should know, each with its remedy: how many pictures have a mask, then warnings, then notes."""
        total = len(self.matched) + len(self.missing)
        found = [note(f"{self._total()}: {len(self.matched)} with a mask, {len(self.missing)} without.")]
        if self.paired or self.unpaired or self.left_unpaired:
            found.append(note(f"{self._told(self.paired)} with every reference, {len(self.unpaired)} without."))
        if self.matched and self.missing:
            has = worded(len(self.missing), "[has|have] no mask, while others have one")
            found.append(warning(f"{self._told(self.missing)} {has}: {shown(self.missing)}."))
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

    def _total(self) -> str:
        """How many clips and how many pictures there are."""
        names = (*self.matched, *self.missing)
        clips = set(self.clips)
        moving = sum(name in clips for name in names)
        told = [counted(moving, "[clip|clips]")] if moving else []
        if len(names) > moving or not moving:
            told.append(counted(len(names) - moving, "[picture|pictures]"))
        return ", ".join(told)

    def _more(self, names: Sequence[str]) -> str:
        """The line that there are these too."""
        clips = set(self.clips)
        if not clips & set(names):
            return f"… and {counted(len(names), 'more [picture|pictures]')}."
        if clips >= set(names):
            return f"… and {counted(len(names), 'more [clip|clips]')}."
        return f"… and {counted(len(names), 'more [picture|pictures and clips]')}."

    def _told(self, names: Sequence[str]) -> str:
        """How many of these there are, in words."""
        clips = set(self.clips)
        return of_kinds(len(names), sum(name in clips for name in names))

    def _captions(self, total: int) -> str:
        if len(self.no_caption) == total:
            head = "No picture has a caption: training sees empty texts"
            if set(self.no_caption) <= set(self.clips):
                head = "No clip has a caption: training sees empty texts"
        else:
            bare = f"{self._told(self.no_caption)} without a caption: {shown(self.no_caption)}."
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
    ("all_black", "[mask is|masks are] all black: nothing is learned there", True),
    ("all_white", "[mask is|masks are] all white: nothing is left out there", False),
    (
        "cut_away",
        "[mask loses|masks lose] most or all of [its|their] weight to the crop, so little or nothing is learned "
        "there; set crop in Cache Dataset to around mask, or turn on bucketing",
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
    (
        "unpaired",
        "[picture lacks a reference and is learned with what is there, where a second one counts as the first|pictures "
        "lack a reference and are learned with what is there, where a second one counts as the first]",
        True,
    ),
    ("left_unpaired", "left out, because [it lacks|they lack] a reference", False),
    ("reference_extra", "[reference fits|references fit] no picture (same name in the same subfolder expected)", True),
    (
        "reference_same",
        "[reference is the very file of its picture|references are the very files of their pictures]: no change is "
        "learned there",
        True,
    ),
    (
        "reference_turned",
        "[reference lies where its picture stands, or the reverse|references lie where their pictures stand, or the "
        "reverse]; only reference_size own size in Cache Dataset takes [it|them]",
        True,
    ),
    (
        "reference_other",
        "[reference has|references have] another aspect than [its picture|their pictures]; only reference_size own "
        "size in Cache Dataset takes [it|them]",
        False,
    ),
    (
        "reference_small",
        "[reference is smaller than its picture and is|references are smaller than their pictures and are] enlarged "
        "unless reference_size in Cache Dataset is own size",
        False,
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
