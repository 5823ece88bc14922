"""Masks of a picture's subject with ComfyUI's background-removal model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch

from ...errors import FamilyError
from ...generators.finding import Finding, Picture
from ...settings import check, ranged
from .borrowed import as_image, unload

ADVICE = "Connect Load Background Removal Model, with birefnet.safetensors in models/background_removal."
# A pixel belongs to the subject above this where no threshold is set; below it all round, nothing was found.
LEVEL = 0.5


@dataclass(frozen=True)
class SubjectSettings:
    """What becomes of the model's answer.

    Attributes:
        threshold: 0 keeps its soft edge; above, pixels of more than this are learned and all others ignored.
        largest_only: Keep only the largest connected part.
    """

    threshold: float = ranged(0.0, 0.0, 0.99)
    largest_only: bool = False


class SubjectMasks:
    """A background-removal model as a generator: call it with a picture; `close` frees the compute device."""

    def __init__(self, model: Any, settings: SubjectSettings) -> None:
        """Checks the settings and the socket, without running anything.

        Raises:
            ConfigError: A setting is out of range.
            FamilyError: `model` is no background-removal model.
        """
        self.settings = check(settings)
        if not callable(getattr(model, "encode_image", None)):
            got = "nothing" if model is None else type(model).__name__
            raise FamilyError(f"model: expected a background removal model, got {got}. {ADVICE}")
        self._model = model

    def __call__(self, picture: Picture) -> Finding:
        """The subject's mask at the picture's size, 1 = subject; soft, or black and white with a threshold.

        Soft values come in steps of 1/255, so that the background, which is never exactly zero in a model's
        answer, is zero: transforms take everything above zero for mask.

        Returns:
            No mask where no pixel lies above the threshold, or above a half without one: a model's answer is
            never exactly zero.

        Raises:
            FamilyError: The model answers with something else than one mask of the picture's size.
        """
        mask = self._predict(picture.rgb)
        level = self.settings.threshold or LEVEL
        parts, labels = cv2.connectedComponents((mask > level).astype(np.uint8), connectivity=8)
        if parts < 2:
            return Finding(None, f"no pixel of a subject, the surest {mask.max():.2f}")
        note = "1 part" if parts == 2 else f"{parts - 1} parts"
        if self.settings.largest_only:
            mask = keep_largest(mask, labels)
            note += ", the largest kept" if parts > 2 else ""
        if self.settings.threshold:
            mask = (mask > level).astype(np.float32)
        return Finding(mask, note)

    def close(self) -> None:
        """Frees the compute device; the generator can be called again."""
        patcher = getattr(self._model, "patcher", None)
        if patcher is not None:
            unload(patcher)

    def _predict(self, rgb: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            answer = self._model.encode_image(as_image(rgb))
        mask = np.asarray(answer.float().cpu().numpy(), np.float32)
        if mask.shape != (1, *rgb.shape[:2]) or not np.isfinite(mask).all():
            raise FamilyError(
                f"model: expected one mask of {rgb.shape[1]}×{rgb.shape[0]} finite values, got shape {mask.shape}. "
                f"{ADVICE}"
            )
        return np.rint(mask[0].clip(0, 1) * 255).astype(np.float32) / 255


def keep_largest(mask: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The mask without every part but the largest; soft pixels go with the part that is nearest to them.

    Args:
        mask: float32 (H, W) in 0..1.
        labels: int (H, W), 0 outside the parts and 1, 2, … in them, as `cv2.connectedComponents` gives them.

    Returns:
        float32 (H, W); `mask` itself where there are fewer than two parts.
    """
    areas = np.bincount(labels.ravel())[1:]
    if len(areas) < 2:
        return mask
    largest = 1 + int(areas.argmax())
    outside = (labels == 0).astype(np.uint8)
    _, nearest = cv2.distanceTransformWithLabels(outside, cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL)
    # Every pixel inside a part has a number of its own there, which tells the part.
    part_of = np.zeros(int(nearest.max()) + 1, labels.dtype)
    part_of[nearest[outside == 0]] = labels[outside == 0]
    return np.where(part_of[nearest] == largest, mask, np.float32(0))
