"""What is known of a data set that a person looks at, kept up as it changes: geometries, report, stale entries."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from ..cache.cache import Cache
from ..cache.keys import Memo
from ..cache.plan import Entry, first_entries
from ..dataset.geometry import Geometry
from ..dataset.sample import Dataset, Sample, load_mask
from ..errors import ConfigError, DataError
from ..folder.report import MatchReport
from ..settings import CacheSettings
from .browsing import Lens, plan_looks, stale_kinds
from .inspection import mask_stats, whole_geometry, with_pictures

# The smallest step that suits all families; the cache node's own is known only where a cache is wired.
USUAL_STEP = 16


@dataclass(frozen=True)
class Plan:
    """Where the pictures' pixels go.

    Attributes:
        geometries: One per picture, of its first variant.
        entries: What a cache would hold; None where no cache is known.
        stale: By index the kinds of entry that the known cache lacks.
        note: What a person should know of it; empty if nothing.
    """

    geometries: Sequence[Geometry]
    entries: Sequence[Entry] | None = None
    stale: dict[int, list[str]] = field(default_factory=dict)
    note: str = ""


def check_same(cache: Cache, dataset: Dataset) -> None:
    """Nothing if the cache was made from these pictures; else raises `ConfigError`."""
    if cache.pictures != len(dataset):
        raise ConfigError(
            f"cache: it holds {cache.pictures}, but dataset has {dataset.told}. "
            "Connect the same dataset to Cache Dataset and to Inspect Dataset."
        )


def plan_with_cache(cache: Cache, dataset: Dataset, check_cancel: Callable[[], None], memo: Memo | None = None) -> Plan:
    """The plan of a cache with `cache`'s settings for `dataset`, and what `cache` lacks for it; see `Cache.plan`.

    Of several resolutions it is the first one's, which the node's `resolution` tells.
    """
    # Of a clip its first part stands for all.
    entries = first_entries(cache.plan(dataset, check_cancel, memo=memo))
    pairs = enumerate(zip(first_entries(cache.entries), entries, strict=True))
    stale = {i: kinds for i, (before, now) in pairs if (kinds := stale_kinds(before, now))}
    return Plan([entry.geometry for entry in entries], entries, stale)


def plan_without_cache(dataset: Dataset, settings: CacheSettings, *, stride: int, resolution: int) -> Plan:
    """The usual plan for training at `resolution`, in pixels; 0 takes each picture whole at its own size."""
    step = max(USUAL_STEP, stride)
    if resolution == 0:
        return Plan([whole_geometry(sample.size, stride) for sample in dataset.samples])
    settings = dataclasses.replace(settings, resolution=max(resolution, step), bucket_step=step)
    try:
        return Plan(plan_looks(dataset, settings, stride=stride))
    except DataError as error:
        # They can be looked at all the same; training will refuse them.
        looks = plan_looks(dataset, dataclasses.replace(settings, upscale=True), stride=stride)
        return Plan(looks, note=f"Shown enlarged: {error}")


def with_captions(report: MatchReport, samples: Iterable[Sample]) -> MatchReport:
    """`report` after captions of samples have changed: they are told as lacking one no more, or from now on."""
    changed = {sample.name: sample.caption is None for sample in samples}
    others = [name for name in report.no_caption if name not in changed]
    return dataclasses.replace(report, no_caption=(*others, *(name for name, lacks in changed.items() if lacks)))


def measure_again(report: MatchReport, index: int, sample: Sample, lens: Lens, geometry: Geometry) -> MatchReport:
    """`report` after the mask of picture `index`, trained by `geometry`, has changed; no other mask is read.

    Raises:
        DataError, MaskError: The new mask cannot be read.
    """
    stats = mask_stats(sample, load_mask(sample), lens.stride, geometry)
    return with_pictures(report, (*report.pictures[:index], stats, *report.pictures[index + 1 :]))
