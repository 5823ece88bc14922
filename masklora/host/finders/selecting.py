"""What a click or a box in a picture means, with ComfyUI's own SAM 3."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

import nodes

from ...generators.places import Box
from .borrowed import as_image, silent_progress
from .sam3 import NAME, WORKING_SIDE, at_size, check_model

REFINE = 2


@dataclass(frozen=True)
class Point:
    """A pixel of the picture, and whether it belongs to what is selected."""

    x: float
    y: float
    inside: bool = True


def select(model: Any, rgb: np.ndarray, *, points: Sequence[Point] = (), box: Box | None = None) -> np.ndarray:
    """The thing that points or a box mean: float32 (H, W) of zeros and ones at the picture's size.

    Args:
        model: ComfyUI's MODEL of a SAM 3.
        rgb: uint8 (H, W, 3).
        points: At least one of them inside, unless there is a box.
        box: Around the thing; used where no points are given.

    Raises:
        FamilyError: The model is no SAM 3, or ComfyUI is too old to have its nodes.
    """
    check_model(model)
    image = as_image(rgb, longest=WORKING_SIDE)
    factor = image.shape[2] / rgb.shape[1], image.shape[1] / rgb.shape[0]
    prompts: dict[str, Any] = {}
    if points:
        for name, inside in (("positive_coords", True), ("negative_coords", False)):
            chosen = [{"x": p.x * factor[0], "y": p.y * factor[1]} for p in points if p.inside == inside]
            prompts[name] = json.dumps(chosen)
    elif box is not None:
        scaled = {"x": box.x * factor[0], "y": box.y * factor[1]}
        prompts["bboxes"] = scaled | {"width": box.width * factor[0], "height": box.height * factor[1]}
    with torch.inference_mode(), silent_progress():
        node = nodes.NODE_CLASS_MAPPINGS[NAME]
        masks = node.execute(model=model, image=image, refine_iterations=REFINE, **prompts).result[0]
    return at_size(masks[0].float().cpu().numpy() > 0, rgb.shape[:2])
