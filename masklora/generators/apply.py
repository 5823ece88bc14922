"""A generator applied to a data set: one picture at a time, masks combined, nothing lost without a word."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np

from ..cache.keys import digest
from ..dataset.sample import Dataset, Sample, fit_mask, load_sample
from ..errors import MaskError
from ..findings import Finding as Said
from ..findings import counted, note, warning
from ..pictures.packed_mask import pack_mask
from ..settings import MaskTransform, check, chosen, seeded
from ..viewing.views import overlay
from .finding import COMBINES, NOTHING_FOUND, Finding, Maker, Picture, combine_masks

NAMES_SHOWN = 8
PREVIEW_SIDE = 512


@dataclass(frozen=True)
class GenerateSettings:
    """How generated masks join the masks that are there.

    Attributes:
        combine: One of `COMBINES`.
        nothing_found: What a picture gets in which the generator finds nothing: an error (after the last
            picture, so that it names them all), a white mask or a black one, which then joins the mask that is
            there, or to be left out.
        seed: Decides all chance.
    """

    combine: str = chosen("fill missing only", COMBINES)
    nothing_found: str = chosen("error", NOTHING_FOUND)
    seed: int = seeded()


@dataclass(frozen=True, eq=False)
class Watch:
    """Who looks on: `progress(done, total, text)`, `check_cancel()`, which raises, and `show(rgb)` of a picture."""

    progress: Callable[[int, int, str], None] = lambda done, total, text: None
    check_cancel: Callable[[], None] = lambda: None
    show: Callable[[np.ndarray], None] = lambda rgb: None


@dataclass(frozen=True, eq=False)
class _Outcome:
    """What became of a picture: the sample, None if it is left out; a kind for the count; a line to read."""

    sample: Sample | None
    kind: str
    line: str

    def said(self) -> Said:
        return note(self.line) if self.kind in ("made", "kept") else warning(self.line)


def generate(
    dataset: Dataset, make: Maker, settings: GenerateSettings, *, label: str, watch: Watch | None = None
) -> tuple[Dataset, list[Said]]:
    """The data set with generated masks, kept packed in memory, and a line on each picture.

    The line is a warning where nothing was found. Pictures are decoded one at a time. The masks that are there, files
    and alpha included, are read with their transforms, which the new masks then have behind them: another Transform
    Masks may follow.

    Args:
        dataset: What gets masks; not changed.
        make: The generator; not called for pictures whose masks are kept.
        settings: How its masks join the others.
        label: The generator's name, for the report.
        watch: Progress, cancel and previews.

    Raises:
        MaskError: Something was not found and that is an error, every picture was left out, or a mask cannot
            be read or made.
        DataError: A picture cannot be read.
        ConfigError: A setting is unknown.
    """
    check(settings)
    watch = watch or Watch()
    outcomes: list[_Outcome] = []
    for index, sample in enumerate(dataset.samples):
        watch.check_cancel()
        watch.progress(index, len(dataset), f"{label}: {sample.name}")
        outcome = _one(sample, make, settings, watch, place=(index, len(dataset)))
        outcomes.append(_signed(outcome, f"{label} ({settings.combine})"))
    _raise_if_missed(outcomes, dataset, settings, label)
    watch.progress(len(dataset), len(dataset), f"{label}: done")
    return _result(dataset, outcomes, settings, label), [outcome.said() for outcome in outcomes]


def _one(sample: Sample, make: Maker, settings: GenerateSettings, watch: Watch, *, place: tuple[int, int]) -> _Outcome:
    loaded = load_sample(sample)
    existing = fit_mask(loaded.mask, sample.size) if loaded.has_mask else None
    if settings.combine == "fill missing only" and existing is not None:
        # Its transforms are taken in too: a set of which only a part is transformed cannot be transformed again.
        kept = sample if sample.transform == MaskTransform() else _with_mask(sample, existing)
        return _Outcome(kept, "kept", f"{sample.name}: kept the mask that was there")
    seed = int(digest("generated mask", settings.seed, sample.key)[:15], 16)
    finding = make(Picture(sample.name, loaded.rgb, existing, seed, *place))
    new = _checked(sample, finding)
    if new is None:
        return _nothing(sample, settings, finding.note, existing=existing)
    mask = combine_masks(existing, new, settings.combine)
    if not mask.any():
        left = f"{finding.note}; " if finding.note else ""
        return _nothing(sample, settings, f"{left}nothing is left of it after {settings.combine}")
    watch.show(_preview(loaded.rgb, mask))
    note = f"{finding.note}; " if finding.note else ""
    made = _with_mask(sample, mask)
    return _Outcome(made, "made", f"{sample.name}: {note}covers {mask.mean(dtype=np.float64):.1%}")


def _preview(rgb: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The picture with what is ignored tinted, small: at full size that would take longer than many generators."""
    height, width = mask.shape
    scale = PREVIEW_SIDE / max(height, width)
    if scale >= 1:
        return overlay(rgb, mask)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small, weights = (cv2.resize(array, size, interpolation=cv2.INTER_AREA) for array in (rgb, mask))
    return overlay(small, weights)


def _checked(sample: Sample, finding: Finding) -> np.ndarray | None:
    """The finding's mask, None where it is empty; a generator's fault is told with the picture's name."""
    if finding.mask is None:
        return None
    mask = np.asarray(finding.mask, np.float32)
    width, height = sample.size
    if mask.shape != (height, width) or not bool(np.isfinite(mask).all()):
        raise MaskError(
            f"{sample.name}: the generator gave a mask of shape {mask.shape} or with values that are not finite, "
            f"expected {(height, width)} in 0..1. This is a fault of the generator or of its model."
        )
    return np.clip(mask, 0, 1) if mask.any() else None


def _nothing(sample: Sample, settings: GenerateSettings, note: str, *, existing: np.ndarray | None = None) -> _Outcome:
    detail = f" ({note})" if note else ""
    line = f"{sample.name}: nothing found{detail}"
    how = settings.nothing_found
    if how == "skip":
        return _Outcome(None, "skipped", f"{line}; left out")
    if how == "error":
        return _Outcome(None, "missed", line)
    width, height = sample.size
    mask = np.full((height, width), 1.0 if how == "white" else 0.0, np.float32)
    if existing is None:
        return _Outcome(_with_mask(sample, mask), how, f"{line}; {how} mask")
    # It joins like any other: what is subtracted or added and not there leaves the mask as it was.
    joined = combine_masks(existing, mask, settings.combine)
    told = f"{line}; {how} mask ({settings.combine}), covers {joined.mean(dtype=np.float64):.1%}"
    return _Outcome(_with_mask(sample, joined), how, told)


def _with_mask(sample: Sample, mask: np.ndarray) -> Sample:
    return replace(sample, mask=pack_mask(mask), mask_path=None, parts=(), alpha=False, transform=MaskTransform())


def _signed(outcome: _Outcome, signature: str) -> _Outcome:
    if outcome.sample is None or outcome.kind == "kept":
        return outcome
    made_by = ", then ".join(part for part in (outcome.sample.made_by, signature) if part)
    return replace(outcome, sample=replace(outcome.sample, made_by=made_by))


def _raise_if_missed(outcomes: list[_Outcome], dataset: Dataset, settings: GenerateSettings, label: str) -> None:
    missed = [outcome.line for outcome in outcomes if outcome.kind == "missed"]
    if missed:
        more = f" … and {len(missed) - NAMES_SHOWN} more" if len(missed) > NAMES_SHOWN else ""
        raise MaskError(
            f"{label}: nothing was found in {len(missed)} of {counted(len(dataset), '[picture|pictures]')}: "
            f"{'; '.join(missed[:NAMES_SHOWN])}{more}. Change the settings, or set nothing_found to white (learn the "
            "whole picture), black (learn nothing of it) or skip (leave it out)."
        )
    if all(outcome.sample is None for outcome in outcomes):
        raise MaskError(
            f"{label}: nothing was found in any of {counted(len(dataset), '[picture|pictures]')}, so all would "
            f"be left out (nothing_found is {settings.nothing_found}). Change the settings of the search."
        )


def _result(dataset: Dataset, outcomes: list[_Outcome], settings: GenerateSettings, label: str) -> Dataset:
    samples = tuple(outcome.sample for outcome in outcomes if outcome.sample is not None)
    pairs = list(zip(dataset.samples, outcomes, strict=True))
    skipped = tuple(sample.name for sample, outcome in pairs if outcome.sample is None)
    counts = {kind: sum(outcome.kind == kind for outcome in outcomes) for kind in ("made", "kept", "white", "black")}
    told = [f"{counts['made']} made ({settings.combine})", f"{counts['kept']} kept"]
    told += [f"{counts[kind]} {kind} because nothing was found" for kind in ("white", "black") if counts[kind]]
    told += [counted(len(skipped), "[picture|pictures] left out because nothing was found")] if skipped else []
    report = replace(
        dataset.report,
        matched=tuple(sample.name for sample in samples),
        missing=(),
        skipped=(*dataset.report.skipped, *skipped),
        no_caption=tuple(name for name in dataset.report.no_caption if name not in skipped),
        notes=(*dataset.report.notes, f"{label}: masks: {', '.join(told)}."),
    )
    return Dataset(samples, report)
