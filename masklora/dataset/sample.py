"""A data set: samples in order with their settings, loaded one at a time so that memory stays flat."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ..clips.header import ClipHeader
from ..clips.reading import read_frames, read_mask_frames
from ..errors import ConfigError, DataError, MaskError
from ..findings import of_kinds, printable, warning
from ..folder.report import MatchReport, merge_reports
from ..folder.subjects import MaskPart
from ..goals import common_goal
from ..loss.masks import transform_mask
from ..pictures.mask_values import MaskValues, understand
from ..pictures.packed_mask import PackedFrames, PackedMask
from ..pictures.reading import ImageData, read_image, read_mask_values
from ..settings import DatasetSettings, MaskTransform
from .geometry import ASPECT_TOLERANCE, Geometry, apply_mask

_GOALS_DIFFER = (
    "goal: these data sets have different ones ({}), so that none decides anything. Choose the same goal in each, or "
    "set loss, rank, crop and steps yourself."
)

_REFERENCES_DIFFER = (
    "Some pictures have {} references. They are learned in turn, never in one batch; if all should have as many, check "
    "reference_folders of each dataset."
)


@dataclass(frozen=True, eq=False)
class Reference:
    """A picture that a model is given beside the caption, by file or in memory.

    Attributes:
        name: Of the file, with that of its folder.
        size: (width, height) after EXIF orientation.
        path: The file.
        image: float32 (H, W, 3|4) in 0..1 of one in memory.
        alpha: Whether it may have transparent parts.
        reading: That of the picture's `Header`.
    """

    name: str
    size: tuple[int, int]
    path: Path | None = None
    image: np.ndarray | None = None
    alpha: bool = False
    reading: str = ""


@dataclass(frozen=True, eq=False)
class Sample:
    """One picture to learn from, by file or in memory, and everything that decides how it counts.

    `size` is (width, height) after EXIF orientation. `alpha` says that the picture's own alpha is its mask
    unless it is opaque. `image` (float32 (H, W, 3|4)) is set for samples in memory, `mask` (float32 (H, W) in
    0..1, or packed; of a clip one for each frame, or one for all) for masks in memory, which come before every
    other. `weight` multiplies the repeats; `repeats` is the product. `made_by` tells which generators made the
    mask, for the metadata.

    Where a picture has masks of several subjects, each sample of it shows one `subject`, or `TOGETHER` all of
    them, as the union of the files in `parts`; `share` is its part of the picture's repeats. `reading` is that of
    the picture's `Header`. `caption_path` is the file of this very sample's caption, None where it has none.

    `moving` is the header of a clip, None of a picture. `mask_moving` says that `mask_path` is a clip whose frames
    are, by number, the masks of the clip's; another mask of a clip is that of each of its frames. Where either is a
    folder of frames, its path is that folder.

    `references` are what the model is given beside the caption to make the picture from, in the order of their folders.
    """

    key: str
    name: str
    size: tuple[int, int]
    image_path: Path | None = None
    mask_path: Path | None = None
    image: np.ndarray | None = None
    mask: np.ndarray | PackedMask | PackedFrames | None = None
    caption: str | None = None
    settings: DatasetSettings = field(default_factory=DatasetSettings)
    transform: MaskTransform = field(default_factory=MaskTransform)
    alpha: bool = False
    weight: float = 1.0
    made_by: str = ""
    subject: str = ""
    parts: tuple[MaskPart, ...] = ()
    share: float = 1.0
    reading: str = ""
    caption_path: Path | None = None
    moving: ClipHeader | None = None
    mask_moving: bool = False
    references: tuple[Reference, ...] = ()

    @property
    def moves(self) -> bool:
        """Whether each frame of it has a mask of its own."""
        if self.mask is not None:
            return isinstance(self.mask, PackedFrames)
        return self.moving is not None and (self.mask_moving or self.alpha)

    @property
    def repeats(self) -> float:
        """How often an epoch shows the sample; a fraction is a sampling weight."""
        return self.settings.repeats * self.weight * self.share

    @property
    def picture(self) -> str:
        """The picture's name, without the subject's."""
        return self.name.removesuffix(f" [{self.subject}]") if self.subject else self.name

    @property
    def picture_key(self) -> str:
        """The key without the subject's name: equal for the samples of one picture, and only for them."""
        before, _, after = self.key.rpartition(f" [{self.subject}]") if self.subject else ("", "", self.key)
        return before + after


@dataclass(frozen=True, eq=False)
class LoadedSample:
    """A decoded sample: `rgb` uint8 (H, W, 3), fill not applied; `mask` float32 in 0..1, transforms applied.

    A mask file of another scale keeps its own size; the geometry brings both to one. Without a mask the
    weights are ones of the picture's size and `has_mask` is False. `shown` is what stays where the background
    is replaced: the mask, except that a subject of less weight is not shown any fainter.
    """

    rgb: np.ndarray
    mask: np.ndarray
    has_mask: bool
    shown: np.ndarray


@dataclass(frozen=True, eq=False)
class ExaminedMask:
    """A mask as `load_mask` gives it, with what was made of its files.

    Attributes:
        mask: float32 (H, W) in 0..1; None where there is none.
        peak: Largest weight before the transforms.
        mark: Stands for how its files were read; empty where that is as every version of the pack read them.
        read: Keys of `mask_values.READ`, of each file that was not read as stored.
        doubts: Keys of `mask_values.DOUBTS`, of each file that may mean something else.
    """

    mask: np.ndarray | None
    peak: float = 0.0
    mark: str = ""
    read: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples in a fixed order and what is known of their masks."""

    samples: tuple[Sample, ...]
    report: MatchReport = field(default_factory=MatchReport)

    def __len__(self) -> int:
        """Number of different pictures, repeats not counted."""
        return len(self.samples)

    @property
    def told(self) -> str:
        """How many pictures and clips it has, in words."""
        return told_kinds(self.samples)

    @property
    def goal(self) -> str:
        """What the LoRA is to learn, one of `settings.GOALS`; class pictures have no say."""
        return common_goal(one.settings.goal for one in self.samples if not one.settings.regularisation)

    def with_transform(self, transform: MaskTransform) -> Dataset:
        """The same data set with mask transforms on every sample that has a mask; nothing is read.

        Raises:
            ConfigError: a sample has transforms already; their order is fixed, so they cannot be chained.
        """
        taken = next((s for s in self.samples if s.transform not in (MaskTransform(), transform)), None)
        if taken is not None:
            raise ConfigError(
                f"{taken.name}: its masks are transformed already, and the order of the transforms is fixed. "
                "Set them all in one node, before data sets are merged."
            )
        samples = tuple(replace(sample, transform=transform) for sample in self.samples)
        return Dataset(samples, self.report)


def merge(datasets: Sequence[Dataset], weights: Sequence[float] | None = None) -> Dataset:
    """One data set of all samples in order; a weight multiplies the repeats of its data set.

    A fractional weight is a sampling weight: 0.5 shows each sample in every other epoch on average.

    Raises:
        ConfigError: nothing to merge, counts that differ, or a weight that is not above 0 and finite.
    """
    weights = [1.0] * len(datasets) if weights is None else list(weights)
    if not datasets or len(weights) != len(datasets):
        raise ConfigError(f"merge: expected one weight per dataset, got {len(datasets)} and {len(weights)}.")
    for i, weight in enumerate(weights):
        if not (math.isfinite(weight) and weight > 0):
            raise ConfigError(f"weight {i + 1}: expected a number above 0, got {weight:g}. Unplug the dataset instead.")
    samples: list[Sample] = []
    used: set[str] = set()
    counts: dict[str, int] = {}
    for dataset, weight in zip(datasets, weights, strict=True):
        for sample in dataset.samples:
            key = sample.key
            while key in used:
                counts[sample.key] = counts.get(sample.key, 1) + 1
                key = f"{sample.key}#{counts[sample.key]}"
            used.add(key)
            samples.append(replace(sample, key=key, weight=sample.weight * weight))
    report = merge_reports(dataset.report for dataset in datasets)
    goals = dict.fromkeys(one.settings.goal for one in samples if not one.settings.regularisation)
    if len(goals) > 1:
        report = report.with_findings([warning(_GOALS_DIFFER.format(", ".join(goals)))])
    numbers = sorted({len(one.references) for one in samples if not one.settings.regularisation})
    if len(numbers) > 1:
        report = report.with_findings([warning(_REFERENCES_DIFFER.format(" and ".join(map(str, numbers))))])
    return Dataset(tuple(samples), report)


def load_sample(sample: Sample) -> LoadedSample:
    """The decoded picture and its mask after the pixel transforms, before fill and geometry; of a clip the first frame.

    Raises:
        DataError: the picture cannot be read.
        MaskError: the mask cannot be read or is of another aspect.
    """
    if sample.image is not None:
        rgb, alpha = np.rint(np.clip(sample.image[..., :3], 0, 1) * 255).astype(np.uint8), None
    else:
        data = _read(sample)
        rgb, alpha = data.rgb, data.alpha
    masks = still_mask(sample, alpha)
    if masks is None:
        white = np.ones(rgb.shape[:2], np.float32)
        return LoadedSample(rgb, white, False, white)
    return LoadedSample(rgb, masks[0], True, masks[1])


def still_mask(sample: Sample, alpha: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray] | None:
    """The mask of a picture, or a clip's that does not move, and what is shown of it: see `LoadedSample`.

    Args:
        sample: With the files.
        alpha: Of the decoded picture, float32 (H, W).

    Returns:
        None where there is no mask.

    Raises:
        MaskError: The mask cannot be read or is of another aspect.
    """
    mask = _mask_of(sample, alpha, [])
    if mask is None:
        return None
    lighter = sample.mask is None and any(part.weight < 1 for part in sample.parts)
    return mask, _union(sample, [], weighed=False) if lighter else mask


def load_mask(sample: Sample) -> np.ndarray | None:
    """The sample's mask as `load_sample` gives it, without decoding the picture where that is not needed.

    Returns:
        float32 (H, W) in 0..1, or None where there is no mask, which means weights of one.

    Raises:
        DataError, MaskError: as `load_sample`.
    """
    return examine_mask(sample).mask


def examine_mask(sample: Sample) -> ExaminedMask:
    """`load_mask` with what was made of the files.

    Raises:
        DataError, MaskError: as `load_sample`.
    """
    alpha = _read(sample).alpha if sample.alpha and sample.image is None else None
    seen: list[MaskValues] = []
    return examined(_mask_of(sample, alpha, seen), seen)


def examined(mask: np.ndarray | None, seen: Sequence[MaskValues]) -> ExaminedMask:
    """A mask after the transforms, (H, W) float32 or None, with what was made of its files."""
    return ExaminedMask(
        mask,
        peak=max((float(values.weights.max(initial=0)) for values in seen), default=0.0),
        mark=", ".join(values.mark for values in seen) if any(values.mark for values in seen) else "",
        read=tuple(values.read for values in seen if values.read),
        doubts=tuple(values.doubt for values in seen if values.doubt),
    )


def told_kinds(samples: Sequence[Sample]) -> str:
    """How many pictures and clips these are, in words."""
    return of_kinds(len(samples), sum(sample.moving is not None for sample in samples))


def fit_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The whole mask at `size` (width, height), through the one geometry; unchanged if it has that size."""
    width, height = size
    if mask.shape == (height, width):
        return mask
    own = (mask.shape[1], mask.shape[0])
    return apply_mask(mask, Geometry(own, size, (0, 0, width, height)))


def check_aspect(name: str, mask_size: tuple[int, int], image_size: tuple[int, int]) -> None:
    """Nothing if both sizes, (width, height), have the same aspect within 1 %; another scale is fine.

    Raises:
        MaskError: names the picture and both sizes.
    """
    fault = aspect_fault(name, mask_size, image_size)
    if fault:
        raise MaskError(f"{fault}. Save the mask at the image's size.")


def aspect_fault(name: str, mask_size: tuple[int, int], image_size: tuple[int, int]) -> str:
    """What `check_aspect` raises, without its remedy; empty if nothing is wrong."""
    (mask_w, mask_h), (width, height) = mask_size, image_size
    if abs((mask_w * height) / (mask_h * width) - 1) <= ASPECT_TOLERANCE:
        return ""
    return f"{name}: the mask is {mask_w}×{mask_h} but the image is {width}×{height}"


@contextmanager
def naming(path: Path, label: str, kind: type[DataError] = DataError) -> Iterator[None]:
    """A context in which errors of reading `path` carry `label`: files of one name lie in many folders."""
    try:
        yield
    except DataError as error:
        text, name = str(error).removeprefix("mask "), printable(path.name)
        # What is wrong with a file in a folder may not tell the folder.
        raise kind(text.replace(name, label, 1) if name in text else f"{label}: {text}") from error


def source_path(sample: Sample) -> Path:
    """The file of a sample that is not in memory; raises `DataError` for one that has neither."""
    if sample.image_path is None:
        raise DataError(f"{sample.name}: the sample has neither a file nor a picture in memory.")
    return sample.image_path


def _read(sample: Sample) -> ImageData:
    path = source_path(sample)
    with naming(path, sample.name):
        return read_image(path) if sample.moving is None else next(iter(read_frames(path, [0])))


def _mask_of(sample: Sample, alpha: np.ndarray | None, seen: list[MaskValues]) -> np.ndarray | None:
    """The mask after the pixel transforms; what was made of its files is put into `seen`."""
    if sample.mask is None and sample.parts:
        return _union(sample, seen, weighed=True)
    return _transformed(sample, _raw_mask(sample, alpha, seen))


def _union(sample: Sample, seen: list[MaskValues], *, weighed: bool) -> np.ndarray:
    """The largest of the parts' masks at each pixel: each transformed, as in its subject's own sample.

    Transformed first, because the union of inverted masks is not the inverted union.
    """
    united: np.ndarray | None = None
    for part in sample.parts:
        raw = _read_mask(sample, part.path, seen)
        mask = transform_mask(raw, sample.transform, scale=raw.shape[1] / sample.size[0])
        mask = mask * np.float32(part.weight) if weighed else mask
        if united is not None and mask.shape != united.shape:
            mask, united = fit_mask(mask, sample.size), fit_mask(united, sample.size)
        united = mask if united is None else np.maximum(united, mask)
    assert united is not None
    return united


def _read_mask(sample: Sample, path: Path, seen: list[MaskValues]) -> np.ndarray:
    label = f"{sample.name} (mask file {path.name})"
    with naming(path, label, MaskError):
        channel = sample.settings.mask_channel
        if sample.mask_moving:
            values = MaskValues(next(iter(read_mask_frames(path, [0], channel))))
        else:
            values = read_mask_values(path, channel)
    mask = values.weights
    check_aspect(label, (mask.shape[1], mask.shape[0]), sample.size)
    seen.append(values)
    return mask


def _raw_mask(sample: Sample, alpha: np.ndarray | None, seen: list[MaskValues]) -> np.ndarray | None:
    if sample.mask is not None:
        seen.append(MaskValues(_in_memory(sample.mask)))
    elif sample.mask_path is not None:
        return _read_mask(sample, sample.mask_path, seen)
    elif alpha is None or not sample.alpha:
        return None
    else:
        seen.append(alpha_values(alpha))
    return seen[-1].weights


def _in_memory(mask: np.ndarray | PackedMask | PackedFrames) -> np.ndarray:
    if isinstance(mask, PackedFrames):
        return mask.unpack(0)
    return mask.unpack() if isinstance(mask, PackedMask) else mask


def alpha_values(alpha: np.ndarray) -> MaskValues:
    """A picture's alpha as a mask: one of 0 and 1 is in the wrong scale, and others may be, as a file's values."""
    steps = np.rint(alpha * 255).astype(np.uint8)
    values = understand(steps[..., None], None, 255, "luminance")
    return values if values.read else MaskValues(alpha, doubt=values.doubt)


def _transformed(sample: Sample, mask: np.ndarray | None) -> np.ndarray | None:
    if mask is None:
        return None
    return transform_mask(mask, sample.transform, scale=mask.shape[1] / sample.size[0])
