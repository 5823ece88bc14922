"""Masks for boxes, asked of SAM 2."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .florence2 import Box
from .local_models import ModelKind, image_inputs, library_classes, load_model, load_processor, require_files

SAM2 = ModelKind(
    folder="sam2",
    title="SAM 2",
    source="facebook/sam2.1-hiera-large (or -base-plus, -small, -tiny, or sam2-hiera-…) of Hugging Face",
    types=("sam2", "sam2_video"),
    files=(
        ("config.json",),
        ("model.safetensors", "model.safetensors.index.json"),
        ("preprocessor_config.json", "processor_config.json"),
    ),
)


class Sam2:
    """A SAM 2 or 2.1 model that draws what is in a box; call it with (rgb, boxes).

    Source: Ravi et al., "SAM 2: Segment Anything in Images and Videos" (2024).
    """

    def __init__(self, model: Any, processor: Any) -> None:
        """Use a loaded model."""
        self.model: Any = model
        self.processor: Any = processor

    @classmethod
    def load(cls, folder: Path, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Sam2:
        """The image model of a local folder; published folders that declare the video model hold it too.

        Raises:
            MaskLoraError: transformers is missing or too old.
            DataError: A file is missing or damaged, or the folder holds another model.
        """
        require_files(folder, SAM2)
        model_class, processor_class = library_classes("Sam2Model", "Sam2Processor")
        processor = load_processor(processor_class, folder, SAM2)
        return cls(load_model(model_class, folder, SAM2, device=device, dtype=dtype), processor)

    def __call__(self, rgb: np.ndarray, boxes: Sequence[Box]) -> Iterator[np.ndarray]:
        """One bool mask (H, W) per box, in their order; made one by one, since a large picture's are large.

        Args:
            rgb: uint8 (H, W, 3); the model sees it squeezed to its own square, once for all boxes.
            boxes: Left, top, right, bottom in pixels. Without any the model is not asked: it would answer.
        """
        if not boxes:
            return
        prompt = [[[float(value) for value in box] for box in boxes]]
        inputs = self.processor(**image_inputs(rgb), input_boxes=prompt, return_tensors="pt")
        with torch.inference_mode():
            found = self.model(
                pixel_values=inputs["pixel_values"].to(self.model.device, self.model.dtype),
                input_boxes=inputs["input_boxes"].to(self.model.device),
                multimask_output=False,
            )
        # float16 on the CPU cannot be enlarged.
        small = found.pred_masks[0].float().cpu()
        sizes = inputs["original_sizes"]
        for one in small:
            yield self.processor.post_process_masks([one[None]], sizes)[0][0, 0].numpy()

    def close(self) -> None:
        """Let go of the model."""
        self.model = self.processor = None
