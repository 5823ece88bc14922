"""Boxes for a phrase, asked of Florence-2, and what becomes of its answers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import DataError
from .local_models import ModelKind, image_inputs, library_classes, load_model, load_processor, require_files

FLORENCE2 = ModelKind(
    folder="florence2",
    title="Florence-2",
    source="florence-community/Florence-2-large (or -base, -large-ft, -base-ft) of Hugging Face",
    types=("florence2",),
    files=(
        ("config.json",),
        ("generation_config.json",),
        ("model.safetensors", "model.safetensors.index.json"),
        ("preprocessor_config.json", "processor_config.json"),
        ("tokenizer.json", "vocab.json"),
        ("tokenizer_config.json",),
    ),
)
TASKS = {
    "open vocabulary": "<OPEN_VOCABULARY_DETECTION>",
    "phrase grounding": "<CAPTION_TO_PHRASE_GROUNDING>",
}
BEAMS = 3
MAX_NEW_TOKENS = 1024

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Answer:
    """What a detector calls a part of a picture.

    Attributes:
        label: In its words.
        corners: x, y, x, y in pixels of the picture, as the detector gave them: in any order, and they may lie
            outside.
    """

    label: str
    corners: Box


@dataclass(frozen=True)
class Boxes:
    """The answers to one phrase that are used.

    Attributes:
        phrase: What was asked.
        boxes: Left, top, right, bottom in pixels; right and bottom lie at least 1 px further; none twice.
        note: How many, and what was left out: `2 × cat (left out: "dog")`.
    """

    phrase: str
    boxes: tuple[Box, ...]
    note: str


class Florence2:
    """A Florence-2 model that answers a phrase with boxes; call it with (rgb, phrase).

    Source: Xiao et al., "Florence-2: Advancing a Unified Representation for a Variety of Vision Tasks" (2023).
    Beams and length of the answer as in SimpleTuner's scripts/datasets/masked_loss/generate_dataset_masks.py.
    """

    def __init__(self, model: Any, processor: Any, *, task: str = "open vocabulary") -> None:
        """Use a loaded model; `task` is one of `TASKS`."""
        self.model: Any = model
        self.processor: Any = processor
        self._task = TASKS[task]

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        task: str = "open vocabulary",
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> Florence2:
        """The model of a local folder.

        Raises:
            MaskLoraError: transformers is missing or too old.
            DataError: A file is missing or damaged, or the folder holds another model.
        """
        require_files(folder, FLORENCE2)
        model_class, processor_class = library_classes("Florence2ForConditionalGeneration", "Florence2Processor")
        processor = load_processor(processor_class, folder, FLORENCE2)
        if not processor.post_processor_config:
            raise DataError(
                f"florence2: {folder}/processor_config.json does not tell how answers are read. The folder holds the "
                f"layout of another library. Use {FLORENCE2.source}."
            )
        model = load_model(model_class, folder, FLORENCE2, device=device, dtype=dtype)
        return cls(model, processor, task=task)

    def __call__(self, rgb: np.ndarray, phrase: str) -> list[Answer]:
        """What the model answers, unchecked, in its order; often something even where nothing is there.

        Args:
            rgb: uint8 (H, W, 3); the model sees it squeezed to its own square.
            phrase: Without `<` and `>`, which are the model's own marks.
        """
        height, width = rgb.shape[:2]
        inputs = self.processor(text=self._task + phrase, **image_inputs(rgb), return_tensors="pt")
        with torch.inference_mode():
            tokens = self.model.generate(
                input_ids=inputs["input_ids"].to(self.model.device),
                attention_mask=inputs["attention_mask"].to(self.model.device),
                pixel_values=inputs["pixel_values"].to(self.model.device, self.model.dtype),
                max_new_tokens=MAX_NEW_TOKENS,
                num_beams=BEAMS,
                do_sample=False,
            )
        text = self.processor.batch_decode(tokens, skip_special_tokens=False)[0]
        parsed = self.processor.post_process_generation(text, task=self._task, image_size=(width, height))
        return read_answer(parsed[self._task])

    def close(self) -> None:
        """Let go of the model."""
        self.model = self.processor = None


def read_answer(parsed: dict[str, Any]) -> list[Answer]:
    """The answers in what transformers makes of Florence-2's text, boxes first; a polygon gives its bounds.

    Args:
        parsed: `bboxes` with `labels` or `bboxes_labels`, `polygons` with `polygons_labels`; a polygon is a list
            of rings, each a flat list x, y, x, y, …
    """
    labels = parsed.get("bboxes_labels", parsed.get("labels", ()))
    answers = [Answer(label, _whole(box)) for box, label in zip(parsed.get("bboxes", ()), labels, strict=True)]
    rings = zip(parsed.get("polygons", ()), parsed.get("polygons_labels", ()), strict=True)
    for polygons, label in rings:
        xs = [x for ring in polygons for x in ring[0::2]]
        ys = [y for ring in polygons for y in ring[1::2]]
        if xs and ys:
            answers.append(Answer(label, _whole((min(xs), min(ys), max(xs), max(ys)))))
    return answers


def check_boxes(answers: Iterable[Answer], phrase: str, *, size: tuple[int, int], limit: int = 0) -> Boxes:
    """The boxes of `phrase` among a detector's answers.

    Corners are put in order and moved into the picture, a box of no width gets 1 px, and what is there twice
    is kept once. A box over the whole picture is kept and told: Florence-2 answers so for what is not there.

    Args:
        answers: Unchecked.
        phrase: What was asked.
        size: Width and height of the picture in pixels.
        limit: Largest boxes that are kept; 0 = all.

    Returns:
        Boxes in the detector's order. None: the phrase was not found.
    """
    answers = list(answers)
    fitting = [answer for answer in answers if is_about(answer.label, phrase)]
    others = dict.fromkeys(f'"{answer.label}"' for answer in answers if not is_about(answer.label, phrase))
    boxes = list(dict.fromkeys(fit_box(answer.corners, size) for answer in fitting))
    kept = boxes
    if limit:
        largest = sorted(boxes, key=_area, reverse=True)[:limit]
        kept = [box for box in boxes if box in largest]
    told = [f"left out: {', '.join(others)}"] if others else []
    told += [f"the {limit} largest of {len(boxes)}"] if len(boxes) > len(kept) else []
    told += ["a box is the whole picture"] if any(_area(box) >= 0.98 * size[0] * size[1] for box in kept) else []
    count = f"{len(kept)} × {phrase}" if kept else f"no {phrase}"
    return Boxes(phrase, tuple(kept), f"{count} ({'; '.join(told)})" if told else count)


def is_about(label: str, phrase: str) -> bool:
    """Whether a label speaks of a phrase: the words of one are all among the other's.

    Case, a plural's s, punctuation and every letter outside ASCII are left out of account: transformers drops
    the latter from labels. A phrase without any other letter cannot be compared, and every label is taken.
    """
    asked, got = _words(phrase), _words(label)
    return not asked or (bool(got) and (got <= asked or asked <= got))


def fit_box(corners: Box, size: tuple[int, int]) -> Box:
    """Left, top, right, bottom inside a picture of `size` (width, height), at least 1 px wide and high."""
    left, right = _span(corners[0], corners[2], size[0])
    top, bottom = _span(corners[1], corners[3], size[1])
    return left, top, right, bottom


def _span(one: int, other: int, length: int) -> tuple[int, int]:
    low = min(max(min(one, other), 0), length - 1)
    return low, min(max(one, other, low + 1), length)


def _area(box: Box) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])


def _whole(box: Iterable[float]) -> Box:
    left, top, right, bottom = (round(value) for value in box)
    return left, top, right, bottom


def _words(text: str) -> set[str]:
    plain = text.encode("ascii", "ignore").decode("ascii").lower()
    return {word.rstrip("s") or word for word in re.findall(r"[a-z0-9]+", plain)}
