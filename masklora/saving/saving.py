"""Masks and captions written to files that load back as the same masks, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..dataset.sample import Dataset, Sample, fit_mask, load_mask, load_sample, told_kinds
from ..errors import DataError, MaskError, RunError
from ..files import cannot_write, patiently
from ..findings import counted, worded
from ..folder.captions import as_loaded, read_text
from ..folder.tree import Allowed
from ..pictures.mask_files import encode_png, quantise_mask, write_whole
from ..pictures.png_chunks import replaced_by, signed
from ..pictures.reading import read_image, read_mask
from ..settings import DatasetSettings, MaskTransform
from .mask_clips import holds_masks, moving_facts, write_masks
from .replacing import refusal
from .report import Outcome, report_text
from .targets import (
    CLIP_MASKS,
    PROBLEMS_SHOWN,
    SaveSettings,
    Target,
    is_left_out,
    plan_targets,
    raise_problems,
    stem_of,
)
from .versions import Versions

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, eq=False)
class Saved:
    """The data set whose samples point at the written files, and what was done, in lines for a person."""

    dataset: Dataset
    text: str


@dataclass(frozen=True)
class _Facts:
    """What is remembered of a content once its pixels are gone; `edited`: it is a person's and not the sample's."""

    has_mask: bool
    white: bool
    edited: bool = False


@dataclass(frozen=True, eq=False)
class _Content:
    """What a file holds: `rgb` uint8 (H, W, 3) in the alpha layout, `levels` uint8 or uint16 (H, W) of a mask."""

    rgb: np.ndarray | None
    levels: np.ndarray | None

    @property
    def facts(self) -> _Facts:
        if self.levels is None:
            return _Facts(False, False)
        return _Facts(True, bool((self.levels == np.iinfo(self.levels.dtype).max).all()))

    def is_in(self, path: Path) -> bool:
        """Whether loading the file gives this."""
        return _holds(path, self)

    def write(self, path: Path, *, overwrite: bool) -> None:
        """The whole file or none; raises `OSError`."""
        png = signed(encode_png(self.levels, rgb=self.rgb), replaces=replaced_by(path))
        write_whole(path, png, overwrite=overwrite)


@dataclass(frozen=True, eq=False)
class _MovingContent:
    """The masks of a clip whose mask moves, which are made again wherever they are needed."""

    sample: Sample
    facts: _Facts
    bits: int
    watch: _Watch

    def is_in(self, path: Path) -> bool:
        """Whether loading the file gives these masks."""
        return holds_masks(path, self.sample, self.watch.check_cancel)

    def write(self, path: Path, *, overwrite: bool) -> None:
        """The whole file or none; raises `OSError`."""
        write_masks(path, self.sample, self.bits, overwrite=overwrite, check_cancel=self.watch.check_cancel)


def save_masks(
    dataset: Dataset,
    settings: SaveSettings,
    *,
    destination: Path | None = None,
    allowed: Allowed,
    picture: int | None = None,
    versions: Versions | None = None,
    progress: Progress | None = None,
    check_cancel: Callable[[], None] | None = None,
) -> Saved:
    """Writes masks, transforms applied, at their pictures' size; nothing is written unless all of it can be.

    Only files of this data set and of this pack are ever replaced, see `replacing`, and kept as a version before.
    Masks become grey PNGs of 8 bits where every value is a multiple of 1/255, else of 16 bits; one that moves becomes a
    clip of such frames. In the layout "alpha png" pictures are copied upright, colours under the mask included,
    captions beside them. A file that holds the same mask or caption already is left alone, so a save that was stopped
    can be repeated.

    Args:
        dataset: what is saved; its pictures are never touched.
        settings: layout and switches.
        destination: folder of the layouts "mask folder" and "alpha png"; the others write beside the pictures.
        allowed: returns the real path of one that may be written, raises `PathError` for any other.
        picture: position of the only sample to save, whose mask then replaces an edited one too.
        versions: where what is replaced is kept, and which masks a person edited by hand (see
            `SaveSettings.keep_edited`); None keeps nothing and knows of none.
        progress: called with (done, total, name).
        check_cancel: called between files; raises to stop.

    Returns:
        In the data set, saved samples have their mask in a file and no transforms. An all-white mask in the
        alpha layout is an opaque picture, which reads back as no mask: weights of one as before.

    Raises:
        ConfigError, PathError: as `plan_targets`.
        DataError: files are in the way; names them. Or a picture cannot be read or has changed.
        MaskError: there is no mask to write at all.
        RunError: a file cannot be written; says how many were.
    """
    watch = _Watch(progress, check_cancel)
    targets = plan_targets(dataset, settings, destination=destination, allowed=allowed, picture=picture, makes_way=True)
    if versions and settings.keep_edited and picture is None:
        targets = [_with_edited(target, versions) for target in targets]
    root = Path(allowed(destination)) if destination is not None else None
    kept = _kept(targets, settings, versions) if versions and settings.keep_edited and picture is None else {}
    alike = _check_existing([t for t in targets if t.index not in kept], settings, watch) | kept
    outcomes: list[Outcome] = []
    try:
        for done, target in enumerate(targets):
            watch(done, len(targets), f"saving {target.sample.name}")
            outcomes.append(_save(target, settings, alike.get(target.index), watch, versions))
    except RunError as error:
        all_ = told_kinds([target.sample for target in targets])
        saved = worded(len(outcomes), "Of {all}, {done} [was|were] saved before.")
        raise RunError(" ".join((str(error), saved.format(done=len(outcomes), all=all_)))) from error
    if all(outcome.mask == outcome.caption == "none" for outcome in outcomes):
        raise MaskError(
            f"None of {told_kinds([target.sample for target in targets])} has a mask, beginning with "
            f"{outcomes[0].target.sample.name}: there is nothing to write. Make masks first, or set without_mask to "
            "white."
        )
    saved = {o.target.index: _saved_sample(o, settings, root, keep_key=picture is not None) for o in outcomes}
    watch(len(targets), len(targets), "saved")
    if picture is None:
        saved |= _unions(dataset, settings, root, saved)
    left = [s.name for i, s in enumerate(dataset.samples) if picture is None and is_left_out(s, settings)]
    text = report_text(outcomes, settings, root=root, only=picture is not None, left_out=left)
    replaced = sum(outcome.replaced for outcome in outcomes)
    if replaced and versions is not None:
        what = counted(replaced, "[file was replaced; what it|files were replaced; what they] held")
        text += f"\n{what} is kept in {versions.root}."
    return Saved(_result(dataset, saved, outcomes), text)


class _Watch:
    """Progress and cancel that may both be absent."""

    def __init__(self, progress: Progress | None, check_cancel: Callable[[], None] | None) -> None:
        self._progress, self._check_cancel = progress, check_cancel

    def __call__(self, done: int, total: int, text: str) -> None:
        self.check_cancel()
        if self._progress is not None:
            self._progress(done, total, text)

    def check_cancel(self) -> None:
        if self._check_cancel is not None:
            self._check_cancel()


def _with_edited(target: Target, versions: Versions) -> Target:
    """The target with the mask that a person edited by hand for its own, where that has another extension."""
    edited = next((path for path in target.former if versions.is_edited(path)), None)
    return target if edited is None else replace(target, mask=edited, former=())


def _kept(targets: list[Target], settings: SaveSettings, versions: Versions) -> dict[int, _Facts]:
    """The samples by index whose file a person has edited by hand."""
    kept = {}
    for target in targets:
        if not (target.mask.is_file() and versions.is_edited(target.mask)):
            continue
        if _moves(target.mask):
            kept[target.index] = _Facts(True, False, edited=True)
            continue
        mask = read_image(target.mask).alpha if settings.layout == "alpha png" else read_mask(target.mask)
        kept[target.index] = _Facts(mask is not None, mask is None or bool((mask == 1).all()), edited=True)
    return kept


def _check_existing(targets: list[Target], settings: SaveSettings, watch: _Watch) -> dict[int, _Facts]:
    """The samples by index whose file holds the same mask already; other files in the way are an error.

    Looks no further once enough is found to say so: each file that exists has to be compared.
    """
    alike: dict[int, _Facts] = {}
    problems: list[str] = []
    for done, target in enumerate(targets):
        watch(done, len(targets), f"checking {target.sample.name}")
        if target.mask.exists() and (not settings.overwrite or _may_stay_missing(target, settings)):
            content = _content_of(target, settings, watch)
            if content is None:
                problems.append(
                    f"{target.sample.name} has no mask, but {target.mask} is there and would be taken for it. Move it "
                    "away, or set without_mask to white."
                )
            elif not settings.overwrite and content.is_in(target.mask):
                alike[target.index] = content.facts
            elif not settings.overwrite:
                problems.append(f"{target.sample.name}: {target.mask} exists.")
        if settings.overwrite and (refused := refusal(target, settings)):
            problems.append(refused)
        if target.caption is not None and not settings.overwrite and target.caption.exists() and not _has_text(target):
            problems.append(f"{target.sample.name}: {target.caption} exists and holds another text.")
        if len(problems) >= PROBLEMS_SHOWN:
            break
    hint = "There may be more. Turn on overwrite to replace files that are there, or name another destination."
    raise_problems(problems, hint="" if settings.overwrite else hint)
    return alike


def _may_stay_missing(target: Target, settings: SaveSettings) -> bool:
    sample = target.sample
    skips = settings.without_mask == "stay missing" and settings.layout != "alpha png"
    return skips and sample.mask is None and sample.mask_path is None


def _content_of(target: Target, settings: SaveSettings, watch: _Watch) -> _Content | _MovingContent | None:
    """What to write for a target, None where there is no mask and no file is wanted."""
    sample = target.sample
    if not sample.moves:
        return _content(sample, settings)
    found = moving_facts(sample, watch.check_cancel)
    if not found.has_mask and settings.without_mask != "white":
        return None
    facts = _Facts(True, found.white or not found.has_mask)
    return _MovingContent(sample, facts, found.bits, watch)


def _content(sample: Sample, settings: SaveSettings) -> _Content | None:
    """What to write for a sample, None where there is no mask and no file is wanted."""
    if settings.layout == "alpha png":
        loaded = load_sample(sample)
        rgb, mask = loaded.rgb, loaded.mask if loaded.has_mask else None
        if (rgb.shape[1], rgb.shape[0]) != sample.size:
            width, height = sample.size
            raise DataError(
                f"{sample.name}: the picture is {rgb.shape[1]}×{rgb.shape[0]}, but was {width}×{height} when the "
                "dataset was loaded. Load it again."
            )
    else:
        rgb, mask = None, load_mask(sample)
    if mask is None and settings.without_mask == "white":
        mask = np.ones(sample.size[::-1], np.float32)
    if mask is None:
        return None if rgb is None else _Content(rgb, None)
    try:
        return _Content(rgb, quantise_mask(fit_mask(mask, sample.size)))
    except MaskError as error:
        raise MaskError(f"{sample.name}: {error}") from error


def _holds(path: Path, content: _Content) -> bool:
    """Whether loading the file gives this content."""
    weights = None
    if content.levels is not None:
        weights = content.levels.astype(np.float32) / np.float32(np.iinfo(content.levels.dtype).max)
    try:
        if content.rgb is None:
            return np.array_equal(read_mask(path), weights)
        there = read_image(path)
    except DataError:
        return False
    wanted = None if weights is None or content.facts.white else weights
    if not np.array_equal(there.rgb, content.rgb) or (there.alpha is None) != (wanted is None):
        return False
    return wanted is None or np.array_equal(there.alpha, wanted)


def _has_text(target: Target) -> bool:
    try:
        settings = target.sample.settings.caption
        return as_loaded(read_text(target.caption), settings) == as_loaded(target.sample.caption or "", settings)
    except DataError:
        return False


def _save(
    target: Target, settings: SaveSettings, alike: _Facts | None, watch: _Watch, versions: Versions | None
) -> Outcome:
    """The outcome of one target, written where it is not there already (`alike`)."""
    replaced = 0
    if alike is None:
        there = target.mask.is_file()
        mask, facts = _save_mask(target, settings, watch, versions)
        replaced += there and mask == "written"
        replaced += _clear_former(target, versions) if mask != "none" else 0
    else:
        mask, facts = "edited" if alike.edited else "same", alike
    caption = "none"
    if target.caption is not None:
        watch.check_cancel()
        caption = "same" if target.caption.exists() and _has_text(target) else "written"
        if caption == "written":
            replaced += target.caption.is_file()
            data = f"{target.sample.caption}\n".encode()
            _write(target.caption, lambda path: write_whole(path, data, overwrite=settings.overwrite), versions)
    return Outcome(target, mask, caption, facts.has_mask, facts.white, replaced)


def _save_mask(target: Target, settings: SaveSettings, watch: _Watch, versions: Versions | None) -> tuple[str, _Facts]:
    content = _content_of(target, settings, watch)
    if content is None:
        return "none", _Facts(False, False)
    if settings.overwrite and target.mask.exists() and content.is_in(target.mask):
        return "same", content.facts
    _write(target.mask, lambda path: content.write(path, overwrite=settings.overwrite), versions)
    return "written", content.facts


def _write(path: Path, write: Callable[[Path], None], versions: Versions | None) -> None:
    """Writes a file, and keeps what was there before."""
    try:
        if versions is not None and path.is_file():
            versions.keep(path, of=path)
        write(path)
    except OSError as error:
        raise cannot_write(path, error) from error


def _clear_former(target: Target, versions: Versions | None) -> int:
    """Takes away what the new mask has the place of, now that it is written, and keeps it; how many files that were."""
    for path in target.former:
        try:
            if versions is not None:
                versions.keep(path, of=target.mask)
            patiently(path.unlink)
        except OSError as error:
            raise cannot_write(path, error) from error
    return len(target.former)


def _moves(mask: Path) -> bool:
    return mask.suffix in CLIP_MASKS.values()


def _saved_sample(outcome: Outcome, settings: SaveSettings, root: Path | None, *, keep_key: bool) -> Sample:
    target = outcome.target
    sample = target.sample
    caption = sample.caption if target.caption is None else as_loaded(sample.caption or "", sample.settings.caption)
    loading = _loading(sample.settings, settings, root)
    plain = replace(
        sample,
        mask=None,
        alpha=False,
        transform=MaskTransform(),
        mask_path=None,
        mask_moving=False,
        parts=(),
        caption=caption,
        settings=loading,
    )
    if settings.layout != "alpha png":
        if not outcome.has_mask:
            return plain
        return replace(plain, mask_path=target.mask, mask_moving=_moves(target.mask))
    name = f"{stem_of(sample)}.png"
    key = sample.key if keep_key else name
    return replace(plain, key=key, name=name, subject="", image=None, image_path=target.mask, alpha=outcome.has_mask)


def _unions(dataset: Dataset, settings: SaveSettings, root: Path | None, saved: dict[int, Sample]) -> dict[int, Sample]:
    """The unions that have no file, by index, joined from the files of their subjects where all were written."""
    files = {(s.picture_key, s.subject): s.mask_path for s in saved.values() if s.subject}
    joined = {}
    for index, sample in enumerate(dataset.samples):
        if not is_left_out(sample, settings) or not sample.parts:
            continue
        paths = [files.get((sample.picture_key, part.subject)) for part in sample.parts]
        if None not in paths:
            parts = tuple(replace(part, path=path) for part, path in zip(sample.parts, paths, strict=True))
            loading = _loading(sample.settings, settings, root)
            joined[index] = replace(sample, parts=parts, transform=MaskTransform(), settings=loading)
    return joined


def _loading(old: DatasetSettings, settings: SaveSettings, root: Path | None) -> DatasetSettings:
    """The settings with which Load Dataset finds what was written."""
    if settings.layout == "alpha png":
        return replace(old, folder=str(root), mask_source="alpha", mask_folder="")
    if settings.layout == "mask folder":
        return replace(old, mask_source="folder", mask_folder=str(root), mask_channel="luminance")
    return replace(old, mask_source="sidecar", mask_folder="", mask_channel="luminance")


def _result(dataset: Dataset, saved: dict[int, Sample], outcomes: list[Outcome]) -> Dataset:
    """All samples of the data set, the saved ones in their new form, and who has a mask."""
    samples = tuple(saved.get(index, sample) for index, sample in enumerate(dataset.samples))
    before = frozenset(dataset.report.matched)
    masked = {outcome.target.index: outcome.has_mask for outcome in outcomes}
    pairs = [(s.name, masked.get(i, s.name in before)) for i, s in enumerate(samples)]
    report = replace(
        dataset.report,
        matched=tuple(name for name, has_mask in pairs if has_mask),
        missing=tuple(name for name, has_mask in pairs if not has_mask),
        orphaned=(),
        no_caption=tuple(sample.name for sample in samples if _trains_without_words(sample)),
    )
    return Dataset(samples, report)


def _trains_without_words(sample: Sample) -> bool:
    return sample.caption is None and sample.settings.caption.missing != "use trigger word"
