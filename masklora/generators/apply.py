"""A generator applied to a data set: one picture at a time, masks combined, nothing lost without a word."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np

from ..cache.keys import digest
from ..dataset.sample import Dataset, Sample, fit_mask, load_sample, told_kinds
from ..errors import MaskError
from ..findings import Finding as Said
from ..findings import note, warning
from ..pictures.packed_mask import PackedMask, pack_mask
from ..settings import MaskTransform, check, chosen, seeded
from ..viewing.views import overlay
from .clips import ClipWay, Masks, coverage, find_in_clip, join, packed_masks
from .finding import COMBINES, NOTHING_FOUND, Maker, Picture, checked, combine_masks

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
    """What became of a picture: the sample, None if it is left out; a kind for the count; a line to read.

    `warned` says that the line must not be overlooked although a mask was made.
    """

    sample: Sample | None
    kind: str
    line: str
    warned: bool = False

    def said(self) -> Said:
        return note(self.line) if self.kind in ("made", "kept") and not self.warned else warning(self.line)


def generate(
    dataset: Dataset,
    make: Maker,
    settings: GenerateSettings,
    *,
    label: str,
    watch: Watch | None = None,
    way: ClipWay | None = None,
) -> tuple[Dataset, list[Said]]:
    """The data set with generated masks, kept packed in memory, and a line on each picture.

    The line is a warning where nothing was found, or where a mask that was carried over a clip may be wrong. Pictures
    are decoded one at a time. The masks that are there, files and alpha included, are read with their transforms, which
    the new masks then have behind them: another Transform Masks may follow.

    Args:
        dataset: What gets masks; not changed.
        make: The generator; not called for pictures whose masks are kept.
        settings: How its masks join the others.
        label: The generator's name, for the report.
        watch: Progress, cancel and previews.
        way: What the generator does with clips; without it, it makes a mask of each frame.

    Raises:
        MaskError: Something was not found and that is an error, every picture was left out, or a mask cannot
            be read or made.
        DataError: A picture cannot be read.
        ConfigError: A setting is unknown, or a clip has none of the key frames.
    """
    check(settings)
    way = way or ClipWay()
    watch = watch or Watch()
    outcomes: list[_Outcome] = []
    for index, sample in enumerate(dataset.samples):
        watch.check_cancel()
        watch.progress(index, len(dataset), f"{label}: {sample.name}")
        place = (index, len(dataset))
        if sample.moving is None:
            outcome = _one(sample, make, settings, watch, place=place)
        else:
            outcome = _Clip(sample, settings, _Frames(watch, place, f"{label}: {sample.name}")).outcome(make, way)
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
    finding = make(Picture(sample.name, loaded.rgb, existing, _seed(sample, settings), *place))
    new = checked(finding, sample.name, sample.size)
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


@dataclass(frozen=True, eq=False)
class _Frames:
    """The watch over one clip of a set."""

    watch: Watch
    place: tuple[int, int]
    text: str

    def __call__(self, done: int, total: int) -> None:
        self.watch.progress(*self.place, f"{self.text}, frame {done} of {total}")

    def check_cancel(self) -> None:
        self.watch.check_cancel()


@dataclass(frozen=True, eq=False)
class _Clip:
    """A clip that gets masks."""

    sample: Sample
    settings: GenerateSettings
    frames: _Frames

    def outcome(self, make: Maker, way: ClipWay) -> _Outcome:
        sample, settings = self.sample, self.settings
        loaded = load_sample(sample)
        still = fit_mask(loaded.mask, sample.size) if loaded.has_mask and not sample.moves else None
        there = sample.moves or still is not None
        if settings.combine == "fill missing only" and there:
            kept = sample if sample.transform == MaskTransform() else _with_masks(sample, self._existing(still))
            return _Outcome(kept, "kept", f"{sample.name}: kept the mask that was there")
        first = fit_mask(loaded.mask, sample.size) if loaded.has_mask else None
        seed = _seed(sample, settings)
        seen = Picture(sample.name, loaded.rgb, first, seed, *self.frames.place, loaded.rgb)
        found = find_in_clip(sample, make, way, seen, self.frames)
        left = f"{found.note}; " if found.note else ""
        if found.masks is None:
            return self._nothing(found.note, still)
        masks = join(sample, still, found.masks, settings.combine, self.frames)
        covers = coverage(masks)
        if not covers:
            return self._nothing(f"{left}nothing is left of it after {settings.combine}", still)
        shown = masks.unpack() if isinstance(masks, PackedMask) else masks.unpack(0)
        self.frames.watch.show(_preview(loaded.rgb, shown))
        line = f"{sample.name}: {left}covers {covers:.1%}"
        if found.warned:
            line = f"{sample.name}: {found.warned}. The masks cover {covers:.1%} of it"
            line += f" ({found.note})" if found.note else ""
        return _Outcome(_with_masks(sample, masks), "made", line, warned=bool(found.warned))

    def _existing(self, still: np.ndarray | None) -> Masks:
        return packed_masks(self.sample, self.frames) if still is None else pack_mask(still)

    def _nothing(self, told: str, still: np.ndarray | None) -> _Outcome:
        sample, settings = self.sample, self.settings
        if not sample.moves or settings.nothing_found in ("skip", "error"):
            return _nothing(sample, settings, told, existing=still)
        how = settings.nothing_found
        plain = pack_mask(np.full(sample.size[::-1], 1.0 if how == "white" else 0.0, np.float32))
        joined = join(sample, still, plain, settings.combine, self.frames)
        detail = f" ({told})" if told else ""
        line = f"{sample.name}: nothing found{detail}; {how} mask ({settings.combine}), covers {coverage(joined):.1%}"
        return _Outcome(_with_masks(sample, joined), how, line)


def _seed(sample: Sample, settings: GenerateSettings) -> int:
    return int(digest("generated mask", settings.seed, sample.key)[:15], 16)


def _preview(rgb: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The picture with what is ignored tinted, small: at full size that would take longer than many generators."""
    height, width = mask.shape
    scale = PREVIEW_SIDE / max(height, width)
    if scale >= 1:
        return overlay(rgb, mask)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small, weights = (cv2.resize(array, size, interpolation=cv2.INTER_AREA) for array in (rgb, mask))
    return overlay(small, weights)


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
    return _with_masks(sample, pack_mask(mask))


def _with_masks(sample: Sample, masks: Masks) -> Sample:
    plain = {"mask_path": None, "mask_moving": False, "parts": (), "alpha": False, "transform": MaskTransform()}
    return replace(sample, mask=masks, **plain)


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
            f"{label}: nothing was found in {len(missed)} of {dataset.told}: "
            f"{'; '.join(missed[:NAMES_SHOWN])}{more}. Change the settings, or set nothing_found to white (learn the "
            "whole picture), black (learn nothing of it) or skip (leave it out)."
        )
    if all(outcome.sample is None for outcome in outcomes):
        raise MaskError(
            f"{label}: nothing was found in any of {dataset.told}, so all would be left out "
            f"(nothing_found is {settings.nothing_found}). Change the settings of the search."
        )


def _result(dataset: Dataset, outcomes: list[_Outcome], settings: GenerateSettings, label: str) -> Dataset:
    samples = tuple(outcome.sample for outcome in outcomes if outcome.sample is not None)
    pairs = list(zip(dataset.samples, outcomes, strict=True))
    without = [sample for sample, outcome in pairs if outcome.sample is None]
    skipped = tuple(sample.name for sample in without)
    counts = {kind: sum(outcome.kind == kind for outcome in outcomes) for kind in ("made", "kept", "white", "black")}
    told = [f"{counts['made']} made ({settings.combine})", f"{counts['kept']} kept"]
    told += [f"{counts['white']} white because nothing was found"] if counts["white"] else []
    told += [f"{counts['black']} black because nothing was found"] if counts["black"] else []
    told += [f"left out because nothing was found: {told_kinds(without)}"] if skipped else []
    report = replace(
        dataset.report,
        matched=tuple(sample.name for sample in samples),
        missing=(),
        skipped=(*dataset.report.skipped, *skipped),
        no_caption=tuple(name for name in dataset.report.no_caption if name not in skipped),
        notes=(*dataset.report.notes, f"{label}: masks: {', '.join(told)}."),
    )
    return Dataset(samples, report)
