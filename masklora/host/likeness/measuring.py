"""What is measured of a training's sample pictures, after each set of them: how they resemble what is learned."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...dataset.sample import Sample, fit_mask, load_sample
from ...findings import Finding, counted, note, warning
from ...folder.captions import asks_for
from ...loss.likeness import Likeness, alike, compare
from ...training.job import Hooks
from ..finders.model_folders import return_memory
from .dinov2 import NEUTRAL, Dinov2, check_model, roomy_device

if TYPE_CHECKING:
    from ...cache.cache import Cache
    from ...runs.sample_pictures import SampleFolder
    from ..sampling import SampleRequest

# Evenly chosen: more would change the means little and take time before the first step.
MOST_REFERENCES = 32
# Less than such a share of a picture is nothing to be looked at.
LEAST_SHARE = 0.02
_NO_MASKS = "likeness: no picture has a mask, so that only the drift is measured."
_ALL_ASK = "likeness: every prompt has the trigger word, so that no drift is measured. Add a prompt without it."


@dataclass(frozen=True)
class _References:
    """Features of the pictures that are learned: (R, D) without their backgrounds, (S, D) without their subjects."""

    subjects: Tensor
    backgrounds: Tensor


def likeness_of(
    request: SampleRequest | None, cache: Cache, triggers: Sequence[str], hooks: Hooks
) -> SampleLikeness | None:
    """What measures the sample pictures of a request; None where that is not wished for."""
    if request is None or request.likeness is None:
        return None
    return SampleLikeness(request.likeness, references_of(cache), request.settings.prompts, triggers, hooks)


def likeness_notes(request: SampleRequest | None, cache: Cache, triggers: Sequence[str]) -> list[Finding]:
    """What a person should know before the first step of what will not be measured; the model is tried.

    Raises:
        MaskLoraError, DataError: The model cannot be used; names its folder.
    """
    if request is None or request.likeness is None:
        return []
    check_model(request.likeness)
    asking, plain = askers(request.settings.prompts, triggers)
    found = [] if references_of(cache) else [warning(_NO_MASKS)]
    if not any(asking):
        words = ", ".join(dict.fromkeys(triggers))
        found.append(
            warning(f"likeness: no prompt has the trigger word ({words}), so that only the drift is measured.")
        )
    return found if any(plain) else [*found, note(_ALL_ASK)]


def references_of(cache: Cache) -> list[Sample]:
    """The samples that are learned and have a mask; none where they are not known any more."""
    able = (e.index for e in cache.entries if e.has_mask and not e.regularisation and e.weight > 0)
    return [cache.samples[index] for index in dict.fromkeys(able)] if cache.samples else []


def askers(prompts: Sequence[str], triggers: Sequence[str]) -> tuple[list[bool], list[bool]]:
    """Which prompts ask for what is learned, and which do not; where no trigger word tells, all of them both."""
    if not triggers:
        return [True] * len(prompts), [True] * len(prompts)
    asking = [any(asks_for(prompt, word) for word in triggers) for prompt in prompts]
    return asking, [not one for one in asking]


def evenly(samples: Sequence[Sample], most: int = MOST_REFERENCES) -> list[Sample]:
    """At most so many of them, evenly over their order."""
    count = min(most, len(samples))
    return [samples[i * len(samples) // count] for i in range(count)]


class SampleLikeness:
    """Measures sets of sample pictures; what fails is told once, and does not end the training."""

    def __init__(
        self, folder: Path, references: Sequence[Sample], prompts: Sequence[str], triggers: Sequence[str], hooks: Hooks
    ) -> None:
        """By the model in `folder`, against samples with masks; nothing is read yet."""
        self.folder, self.samples, self.hooks = folder, references, hooks
        self._asking, self._plain = askers(prompts, triggers)
        self._references: _References | None = None
        self._base: dict[int, Tensor] = {}
        self._warned = False

    def measure(self, pictures: SampleFolder, step: int) -> dict[str, float]:
        """The figures of a step's pictures by the names of their curves; of step 0 none, it is what they begin from.

        The model takes room on the compute device while this lasts, and gives it back.
        """
        try:
            return self._measured(pictures, step)
        except Exception as error:
            if not self._warned:
                self._warned = True
                reason = str(error).strip().split("\n")[0] or type(error).__name__
                self.hooks.on_message(
                    warning(f"likeness: step {step} could not be measured ({reason}). The training goes on without it.")
                )
            return {}
        finally:
            return_memory()

    def _measured(self, pictures: SampleFolder, step: int) -> dict[str, float]:
        seeing = Dinov2.load(self.folder, device=roomy_device(self.folder))
        began = self._references is not None
        if self._references is None:
            self._references = self._seen_references(seeing)
        # A picture that could not be drawn may be there now.
        lacking = [number for number in range(len(self._asking)) if number not in self._base]
        self._base |= self._seen_pictures(seeing, pictures, 0, lacking)
        if not began:
            self._tell(self._references, seeing.size)
        if not step:
            return {}
        shown = self._seen_pictures(seeing, pictures, step, range(len(self._asking)))
        return self._compared(self._references, shown, seeing.size).row

    def _compared(self, references: _References, shown: dict[int, Tensor], size: int) -> Likeness:
        drawn, base = (self._stacked(found, size) for found in (shown, self._base))
        known = {"subjects": references.subjects, "backgrounds": references.backgrounds}
        return compare(drawn, base, **known, asking=self._asking, plain=self._plain)

    def _stacked(self, found: dict[int, Tensor], size: int) -> Tensor:
        """A row for each prompt, NaN where there is no picture."""
        nothing = torch.full((size,), math.nan)
        return torch.stack([found.get(number, nothing) for number in range(len(self._asking))])

    def _seen_pictures(
        self, seeing: Dinov2, pictures: SampleFolder, step: int, numbers: Iterable[int]
    ) -> dict[int, Tensor]:
        found = {}
        for number in numbers:
            self.hooks.check_cancel()
            png = pictures.read(step, number)
            if png is not None:
                found[number] = seeing(_pixels(png))
        return found

    def _seen_references(self, seeing: Dinov2) -> _References:
        subjects, backgrounds = [], []
        for sample in evenly(self.samples):
            self.hooks.check_cancel()
            loaded = load_sample(sample)
            height, width = loaded.rgb.shape[:2]
            inside = fit_mask(loaded.shown, (width, height))
            for kept, features in ((inside, subjects), (1 - inside, backgrounds)):
                if kept.mean() >= LEAST_SHARE:
                    features.append(seeing(flattened(loaded.rgb, kept)))
        nothing = torch.zeros(0, seeing.size)
        return _References(*(torch.stack(found) if found else nothing for found in (subjects, backgrounds)))

    def _tell(self, references: _References, size: int) -> None:
        """Between which numbers a likeness is to be expected: nobody knows what 0.5 means else."""
        count, before = len(references.subjects), self._compared(references, self._base, size).likeness
        if not count:
            return
        of, chosen = counted(len(self.samples), "[picture that has|pictures that have]"), len(self.samples) > count
        told = [
            f"likeness: sample pictures are compared with {count} of {of} a mask{', evenly chosen' if chosen else ''}."
        ]
        own = alike(references.subjects)
        if own is not None:
            told.append(f"Without their backgrounds these are alike among themselves by {own:.2f}.")
        if before is not None:
            told.append(f"The base model's sample pictures are like them by {before:.2f}.")
        self.hooks.on_message(" ".join(told))


def flattened(rgb: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """A picture of which only a part is kept, the rest in the colour that is nothing to the network; uint8 (H, W, 3).

    Args:
        rgb: uint8 (H, W, 3).
        kept: (H, W) in 0..1.
    """
    share, found = kept.astype(np.float32), np.empty_like(rgb)
    # One after the other: of a large picture all three would take gigabytes.
    for colour, neutral in enumerate(NEUTRAL):
        found[..., colour] = np.rint(rgb[..., colour] * share + neutral * (1 - share))
    return found


def _pixels(png: bytes) -> np.ndarray:
    """A sample picture, uint8 (H, W, 3); of a clip the frame in its middle."""
    with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
        image.seek(getattr(image, "n_frames", 1) // 2)
        return np.asarray(image.convert("RGB"))
