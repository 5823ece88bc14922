"""Masks for phrases: Florence-2 finds boxes, SAM 2 draws what is in them, all of it is united."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import ConfigError
from ..loss.masks import feather_mask, fill_holes, grow_mask
from ..settings import check, chosen, ranged
from .finding import Finding, Picture
from .florence2 import FLORENCE2, TASKS, Answer, Box, Boxes, Florence2, check_boxes
from .local_models import require_files
from .phrases import check_phrases, short, split_phrases
from .sam2 import SAM2, Sam2

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
MOST_LETTERS = 100

Detect = Callable[[np.ndarray, str], Iterable[Answer]]
Segment = Callable[[np.ndarray, Sequence[Box]], Iterable[np.ndarray]]


@dataclass(frozen=True)
class Florence2Sam2Settings:
    """What is searched for and what becomes of the masks.

    Attributes:
        phrases: What to learn, one phrase a line.
        exclude: What not to learn although it is part of the former, likewise.
        task: One of `TASKS`: `open vocabulary` finds the phrase as a whole, `phrase grounding` everything that
            the phrase mentions.
        max_boxes: Boxes per phrase at most, the largest; 0 = all.
        fill_holes: Fill holes that the united mask encloses.
        dilation: Pixels of the picture by which the mask grows, round; negative shrinks.
        feather: σ of the edge's softness in pixels of the picture.
        invert: Learn everything but what was found.
        precision: One of `PRECISIONS`; below float32 boxes and edges are less exact.
    """

    phrases: str = "person"
    exclude: str = ""
    task: str = chosen("open vocabulary", TASKS)
    max_boxes: int = ranged(0, 0, 1000)
    fill_holes: bool = False
    dilation: int = ranged(0, -512, 512)
    feather: float = ranged(0.0, 0.0, 256.0)
    invert: bool = False
    precision: str = chosen("float32", PRECISIONS)


def check_florence2_sam2(settings: Florence2Sam2Settings) -> Florence2Sam2Settings:
    """`settings` if they are usable, else a `ConfigError` that names the widget."""
    wanted = parse_phrases(settings.phrases, widget="phrases")
    check_phrases(wanted, parse_phrases(settings.exclude, widget="exclude"))
    return check(settings)


def parse_phrases(text: str, *, widget: str) -> tuple[str, ...]:
    """The phrases of a widget's text as `split_phrases` gives them, if Florence-2 can read them.

    Raises:
        ConfigError: A phrase holds `<` or `>`, is too long, or is no text.
    """
    phrases = split_phrases(text, widget=widget)
    for phrase in phrases:
        if "<" in phrase or ">" in phrase:
            raise ConfigError(
                f"{widget}: {short(phrase)} holds < or >, which Florence-2 takes for commands. Leave them out."
            )
        if len(phrase) > MOST_LETTERS:
            raise ConfigError(
                f"{widget}: expected phrases of at most {MOST_LETTERS} signs, got {len(phrase)} ({short(phrase)}). "
                "Name the thing in a few words; one phrase a line."
            )
    return phrases


class PhraseMasks:
    """A maker of masks for phrases; `close` frees its models.

    The models are loaded with the first picture: a set in which every mask is kept needs none.

    Source: the sequence and the defaults (person, open vocabulary, one mask per box, all boxes united, no
    padding, no blur, not inverted) are those of SimpleTuner's
    scripts/datasets/masked_loss/generate_dataset_masks.py. Unlike there a mask grows by a disc instead of a
    square, softness is a σ instead of a kernel's radius, and nothing found is told.
    """

    def __init__(
        self,
        settings: Florence2Sam2Settings,
        load: Callable[[], tuple[Detect, Segment]],
        *,
        check_cancel: Callable[[], None] = lambda: None,
    ) -> None:
        """Search with what `load` gives; `check_cancel` is called before each phrase and each mask.

        Raises:
            ConfigError: A setting is out of range.
        """
        self._settings = check_florence2_sam2(settings)
        self._wanted = parse_phrases(settings.phrases, widget="phrases")
        self._unwanted = parse_phrases(settings.exclude, widget="exclude")
        self._load = load
        self._check_cancel = check_cancel
        self._loaded: tuple[Detect, Segment] | None = None

    def __call__(self, picture: Picture) -> Finding:
        """The mask of one picture. None without a box or if nothing of it is left, also if inverted."""
        if self._loaded is None:
            self._loaded = self._load()
        detect, segment = self._loaded
        wanted = [self._search(detect, picture.rgb, phrase) for phrase in self._wanted]
        note = ", ".join(found.note for found in wanted)
        boxes = _boxes(wanted)
        if not boxes:
            return Finding(None, note)
        unwanted = [self._search(detect, picture.rgb, phrase) for phrase in self._unwanted]
        holes = _boxes(unwanted)
        if unwanted:
            note += f"; excluded: {', '.join(found.note for found in unwanted)}"
        masks = iter(segment(picture.rgb, [*boxes, *holes]))
        shape = picture.rgb.shape[:2]
        mask = self._united(masks, len(boxes), shape)
        excluded = self._united(masks, len(holes), shape)
        return self._finished(mask, excluded, note)

    def close(self) -> None:
        """Free the models; the next picture would load them again."""
        for tool in self._loaded or ():
            if isinstance(tool, (Florence2, Sam2)):
                tool.close()
        self._loaded = None
        gc.collect()

    def _search(self, detect: Detect, rgb: np.ndarray, phrase: str) -> Boxes:
        self._check_cancel()
        height, width = rgb.shape[:2]
        return check_boxes(detect(rgb, phrase), phrase, size=(width, height), limit=self._settings.max_boxes)

    def _united(self, masks: Any, count: int, shape: tuple[int, int]) -> np.ndarray:
        united = np.zeros(shape, bool)
        for _ in range(count):
            self._check_cancel()
            united |= next(masks)
        return united

    def _finished(self, found: np.ndarray, excluded: np.ndarray, note: str) -> Finding:
        settings = self._settings
        if not found.any():
            return Finding(None, f"{note}; SAM 2 drew nothing in the boxes")
        mask = found.astype(np.float32)
        if settings.fill_holes:
            mask = fill_holes(mask)
        if settings.dilation:
            mask = grow_mask(mask, radius=settings.dilation)
        # After the growth, which would cover it again.
        mask = np.where(excluded, np.float32(0), mask)
        if not mask.any():
            return Finding(None, f"{note}; nothing is left after exclusion and dilation")
        if settings.feather > 0:
            mask = feather_mask(mask, sigma=settings.feather)
        if settings.invert and (mask == 1).all():
            return Finding(None, f"{note}; the mask is the whole picture, so inverted nothing is left")
        return Finding(1 - mask if settings.invert else mask, note)


def florence2_sam2_maker(
    settings: Florence2Sam2Settings,
    *,
    florence2: Path,
    sam2: Path,
    device: torch.device | str = "cpu",
    check_cancel: Callable[[], None] = lambda: None,
) -> PhraseMasks:
    """A maker with the models of two local folders, whose files are checked now and loaded later.

    Args:
        settings: What to search.
        florence2: Folder of a Florence-2 model.
        sam2: Folder of a SAM 2 model.
        device: Where both run.
        check_cancel: Raises if a person cancelled.

    Raises:
        ConfigError: A setting is out of range.
        DataError: A folder or a file is missing.
    """
    check_florence2_sam2(settings)
    require_files(florence2, FLORENCE2)
    require_files(sam2, SAM2)
    dtype = PRECISIONS[settings.precision]

    def load() -> tuple[Detect, Segment]:
        detect = Florence2.load(florence2, task=settings.task, device=device, dtype=dtype)
        check_cancel()
        return detect, Sam2.load(sam2, device=device, dtype=dtype)

    return PhraseMasks(settings, load, check_cancel=check_cancel)


def _boxes(found: Iterable[Boxes]) -> list[Box]:
    return list(dict.fromkeys(box for one in found for box in one.boxes))
