"""The data sets that a person looks at in the browser: one for each Inspect Dataset node that ran.

They go by opaque ids. What is slow, such as reading ten thousand masks after a transform has changed, happens in
a thread of its own, which gives up as soon as its result is out of date.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import re
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import web

from ...cache.cache import Cache
from ...cache.keys import digest
from ...dataset.loading import Progress
from ...dataset.sample import Dataset, Sample
from ...errors import MaskLoraError, PathError, RunError
from ...files import write_text_atomically
from ...folder.report import MatchReport
from ...folder.tree import check_frames
from ...saving.drafts import Draft
from ...settings import CacheSettings, MaskTransform
from ...viewing.browsing import Lens
from ...viewing.inspection import inspect
from ...viewing.opened_sets import Plan, check_same, measure_again, plan_with_cache, plan_without_cache, with_captions
from ..paths import allow, own_folder
from .requests import RefusedError, path_id, path_number

MOST_OPENED = 16

logger = logging.getLogger(__name__)


@functools.cache
def _salt() -> str:
    """What makes ids mean nothing elsewhere; kept, so that a mask in work finds its data set after a restart."""
    path = own_folder() / "data_set_ids"
    with contextlib.suppress(OSError, UnicodeDecodeError):
        if re.fullmatch("[0-9a-f]{32}", known := path.read_text(encoding="ascii")):
            return known
    made = secrets.token_hex(16)
    # Where nothing can be kept, ids last as long as the process.
    with contextlib.suppress(OSError, RunError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text_atomically(path, made)
    return made


class _OutOfDateError(Exception):
    """Ends a measurement whose result nobody wants any more."""


class OpenedDataset:
    """One data set under a person's eyes, and how it is looked at.

    Attributes:
        id: 20 hexadecimal digits.
        node_id: Of the Inspect Dataset node.
        lens: How the loss looks at the masks.
        settings: Of the cache node, where one is wired.
        cache: What was built from this data set, None where no cache is wired.
        segmenter: ComfyUI's MODEL of a SAM 3, for selecting by click; None without one.
        transform: The mask transforms that are tried out; None for the data set's own.
        resolution: Side in pixels of the square whose area training pictures have; not used with a cache.
        version: Rises with every change of what is shown.
        report: Of the masks as they are shown, up to `measured`.
        measured: How many pictures the report is of; the others have their former numbers.
        problem: Why it could not be measured; empty if it could.
        drafts: Of the masks of clips that are edited, by index.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        node_id: str | None,
        lens: Lens,
        resolution: int,
        settings: CacheSettings,
        cache: Cache | None = None,
        segmenter: Any = None,
    ) -> None:
        """Plans how `dataset` is trained; `measure` is still to come.

        Raises:
            ConfigError: The cache was made from other pictures.
        """
        self.node_id = node_id
        pictures = [[sample.key, str(sample.image_path)] for sample in dataset.samples]
        # The same for a new run of the same node, so that whoever looks at it or edits a mask just goes on.
        self.id = digest(_salt(), node_id, pictures, dataclasses.asdict(lens.loss), lens.stride, cache is None)[:20]
        self.lens, self.resolution, self.cache, self.segmenter = lens, resolution, cache, segmenter
        self.settings = settings
        self.transform: MaskTransform | None = None
        self.report, self.measured, self.version, self.problem = dataset.report, 0, 1, ""
        self.drafts: dict[int, Draft] = {}
        self._dataset = dataset
        self._edits: Counter[int] = Counter()
        # Browsers keep pictures by their stamp, also over a new run.
        self._looks = time.time_ns() // 1000
        self._lock = threading.Lock()
        # Transforms that are only tried out are in no cache's memo; a save must not decode every picture for them.
        self._memo = None if cache is None else cache.store.load_memo()
        if cache is not None:
            check_same(cache, dataset)
        self.plan = self._planned(dataset, lambda: None)

    def measure(self, progress: Progress, check_cancel: Callable[[], None]) -> MatchReport:
        """The report of every mask, each read once, as the training picture has it; nobody else looks yet.

        Raises:
            DataError, MaskError: A picture or mask cannot be read.
        """
        geometries, stride = self.plan.geometries, self.lens.stride
        self.report = inspect(self._dataset, stride, progress, check_cancel, geometries=geometries)
        self.measured = len(self)
        return self.report

    def told(self) -> MatchReport:
        """The report with what the cache has found out about the same masks, each thing once."""
        if self.cache is None:
            return self.report
        report = self.report.with_findings(self.cache.findings)
        # What the crop takes of any variant is among them, unless they are of other masks.
        return report if self.plan.stale else dataclasses.replace(report, cut_away=())

    def __len__(self) -> int:
        """Number of samples."""
        return len(self._dataset)

    def source(self, index: int) -> Sample:
        """A sample as it was loaded."""
        return self._dataset.samples[index]

    def sample(self, index: int) -> Sample:
        """A sample with the transforms that are tried out."""
        return self._shown(self.source(index))

    def stamp(self, index: int) -> str:
        """A text that changes whenever the picture has to be drawn anew."""
        return f"{self._looks}.{self._edits[index]}"

    def dataset(self) -> Dataset:
        """All samples as they are shown."""
        return Dataset(tuple(self._shown(s) for s in self._dataset.samples), self._dataset.report)

    def replace(self, index: int, sample: Sample) -> None:
        """Take over a sample whose mask was edited: it is measured again, and its stale cache entries are found.

        Raises:
            DataError, MaskError: The new mask cannot be read.
        """
        with self._lock:
            samples = (*self._dataset.samples[:index], sample, *self._dataset.samples[index + 1 :])
            self._dataset = Dataset(samples, self._dataset.report)
            self._edits[index] += 1
            unfinished = self.measured < len(self)
            # Its crop may follow the mask.
            plan = self.plan if self.cache is None else self._planned(self.dataset(), lambda: None)
            if not unfinished:
                geometry = plan.geometries[index]
                self.report = measure_again(self.report, index, self._shown(sample), self.lens, geometry)
            self.plan = plan
            self.problem = ""
            # Last, so that whoever sees it sees everything.
            self.version += 1
        if unfinished:
            self._measure_all()

    def take_captions(self, changed: Mapping[int, Sample]) -> None:
        """Take over samples whose captions were edited; stale cache entries are found, the masks are as they were."""
        if not changed:
            return
        with self._lock:
            samples = tuple(changed.get(i, sample) for i, sample in enumerate(self._dataset.samples))
            self.report = with_captions(self.report, changed.values())
            self._dataset = Dataset(samples, with_captions(self._dataset.report, changed.values()))
            unfinished = self.measured < len(self)
            if self.cache is not None:
                self.plan = self._planned(self.dataset(), lambda: None)
            self.version += 1
        if unfinished:
            self._measure_all()

    def take_edit(self, index: int, sample: Sample) -> None:
        """As `replace`; what stands in the way of it is a `problem` of this data set, because the edit is done."""
        try:
            self.replace(index, sample)
        except MaskLoraError as error:
            with self._lock:
                self.version += 1
                self.problem = str(error)

    def close(self) -> None:
        """Give up what is being measured and what is drafted: nobody looks any more."""
        with self._lock:
            self.version += 1
        for draft in self.drafts.values():
            draft.close()

    @property
    def goal(self) -> str:
        """What the LoRA is to learn, one of `settings.GOALS`."""
        return self._dataset.goal

    def look(self, *, transform: MaskTransform | None, resolution: int) -> None:
        """Show the masks with other transforms, or cells of another resolution; the numbers follow by and by."""
        if transform is not None and all(sample.transform == transform for sample in self._dataset.samples):
            transform = None
        with self._lock:
            if (transform, resolution) == (self.transform, self.resolution):
                return
            self.transform, self.resolution = transform, resolution
            self._looks += 1
        self._measure_all()

    def _measure_all(self) -> None:
        with self._lock:
            self.version += 1
            self.measured, self.problem = 0, ""
            version = self.version
        threading.Thread(target=self._measure, args=(version,), name="masked-lora-measure", daemon=True).start()

    def _measure(self, version: int) -> None:
        def check() -> None:
            if self.version != version:
                raise _OutOfDateError

        def progress(done: int, total: int, name: str) -> None:
            with self._lock:
                check()
                # The last one is told with the report.
                self.measured = min(done, total - 1)

        def fail(problem: str) -> None:
            with self._lock:
                if self.version == version:
                    self.problem, self.measured = problem, len(self)

        try:
            dataset = self.dataset()
            plan = self._planned(dataset, check)
            with self._lock:
                check()
                # What was drawn meanwhile was drawn by the former plan.
                self.plan, self._looks = plan, self._looks + 1
            report = inspect(dataset, self.lens.stride, progress, check, geometries=plan.geometries)
            with self._lock:
                check()
                self.report, self.measured = report, len(dataset)
                self.version += 1
        except _OutOfDateError:
            return
        except MaskLoraError as error:
            fail(str(error))
        except Exception:
            logger.exception("masked lora: the masks could not be measured")
            fail("The masks could not be measured; ComfyUI's log tells more.")

    def _planned(self, dataset: Dataset, check: Any) -> Plan:
        if self.cache is not None:
            return plan_with_cache(self.cache, dataset, check, self._memo)
        return plan_without_cache(dataset, self.settings, stride=self.lens.stride, resolution=self.resolution)

    def _shown(self, sample: Sample) -> Sample:
        return sample if self.transform is None else dataclasses.replace(sample, transform=self.transform)


class Registry:
    """The opened data sets, the most recent ones."""

    def __init__(self) -> None:
        """Nothing is open."""
        self._opened: dict[str, OpenedDataset] = {}
        # The queue adds, the server's event loop and its threads look.
        self._lock = threading.Lock()
        self.forgotten = 0

    def add(self, opened: OpenedDataset) -> None:
        """Keep it in place of the same pictures of the same node, and of what was not used for longest."""
        with self._lock:
            before = self._opened.pop(opened.id, None)
            gone = [] if before is None else [before]
            if before is not None:
                opened.version = before.version + 1
                # A person who edits masks just goes on.
                opened.drafts, before.drafts = before.drafts, {}
            self._opened[opened.id] = opened
            while len(self._opened) > MOST_OPENED:
                gone.append(self._opened.pop(next(iter(self._opened))))
                # A node whose data set is gone has to run again when it is queued.
                self.forgotten += 1
        for one in gone:
            one.close()

    def all(self) -> list[OpenedDataset]:
        """Every data set that is open."""
        with self._lock:
            return list(self._opened.values())

    def get(self, dataset_id: str) -> OpenedDataset | None:
        """The data set of an id, None if it is no longer open."""
        with self._lock:
            opened = self._opened.pop(dataset_id, None)
            if opened is not None:
                self._opened[dataset_id] = opened
            return opened


OPENED = Registry()


def opened_of(request: web.Request) -> OpenedDataset:
    """The data set in the path; raises `RefusedError` 400 for no id, 404 for an unknown one."""
    opened = OPENED.get(path_id(request, "dataset"))
    if opened is None:
        raise RefusedError(404, "This data set is no longer open. Queue the graph to look at it again.")
    return opened


def picture_of(request: web.Request, opened: OpenedDataset) -> int:
    """The picture's index in the path.

    Raises:
        RefusedError: 400 for no number, 404 beyond the last one, 403 as `check_inside`.
    """
    index = path_number(request, "picture")
    if index >= len(opened):
        raise RefusedError(404, f"There is no picture {index}; the data set has {len(opened)}.")
    check_inside(opened.source(index))
    return index


def check_inside(sample: Sample) -> None:
    """Nothing if the sample's files still lie where they may be read: since it was loaded, one may have become a link.

    Raises:
        RefusedError: 403 for one that leads elsewhere.
    """
    beside = (*(part.path for part in sample.parts), *(one.path for one in sample.references))
    for path in (sample.image_path, sample.mask_path, *beside):
        try:
            if path is not None:
                allow(path)
                if path.is_dir():
                    check_frames(path, allow)
        except PathError as error:
            raise RefusedError(403, f"{sample.name}: {path.name} leads out of the allowed folders by now.") from error
