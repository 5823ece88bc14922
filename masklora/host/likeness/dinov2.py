"""DINOv2 from a local folder: pictures to features, one at a time, on the compute device while it is needed."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import comfy.model_management
import numpy as np
import torch
from PIL import Image

from ...errors import DataError
from ...generators.local_models import ModelKind, declared_type, library_classes, load_model, require_files
from ..finders.model_folders import prepare_device

DINOV2 = ModelKind(
    folder="dinov2",
    title="DINOv2",
    source="facebook/dinov2-small (or -base, -large, also -with-registers) of Hugging Face",
    types=("dinov2", "dinov2_with_registers"),
    files=(("config.json",), ("model.safetensors", "model.safetensors.index.json")),
)
_CLASSES = {"dinov2": "Dinov2Model", "dinov2_with_registers": "Dinov2WithRegistersModel"}
# Colours as DINOv2 was trained with them, ImageNet's; a picture of the mean colour is 0 to the network.
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NEUTRAL = np.rint(np.array(MEAN) * 255).astype(np.uint8)
# Side of a square picture in px.
SIDE = 224
# Activations of one picture of the largest model.
_WORK_BYTES = 1 << 29


class Dinov2:
    """A DINOv2 model: a picture's feature is its class token after the last norm, as DINOv2's own evaluations take it.

    Source: Oquab et al., "DINOv2: Learning Robust Visual Features without Supervision" (2023).
    """

    def __init__(self, model: Any) -> None:
        """Use a loaded model."""
        self.model: Any = model

    @classmethod
    def load(cls, folder: Path, *, device: torch.device | str = "cpu") -> Dinov2:
        """The model of a local folder, float32.

        Raises:
            MaskLoraError: transformers is missing or too old.
            DataError: A file is missing or damaged, or the folder holds another model.
        """
        model_class = class_of(folder)
        with _silent_progress():
            return cls(load_model(model_class, folder, DINOV2, device=device, dtype=torch.float32))

    @property
    def size(self) -> int:
        """Numbers of a feature, D."""
        return self.model.config.hidden_size

    def __call__(self, rgb: np.ndarray) -> torch.Tensor:
        """The feature of a picture, float32 (D,) on the CPU.

        Args:
            rgb: uint8 (H, W, 3).
        """
        pixels = prepared(rgb, patch=self.model.config.patch_size)
        with torch.inference_mode():
            return self.model(pixel_values=pixels.to(self.model.device)).pooler_output[0].float().cpu()


def class_of(folder: Path) -> Any:
    """Transformers' class for the model of a folder, whose files are all there; weights stay unread.

    Raises:
        MaskLoraError: transformers is missing or too old.
        DataError: The folder or a file is missing, or it is another model; tells which files go where.
    """
    return library_classes(_CLASSES[declared_type(require_files(folder, DINOV2), DINOV2)])[0]


def check_model(folder: Path) -> None:
    """Nothing if the model of a folder can be used: it is loaded, and shown a picture, on the CPU.

    Raises:
        MaskLoraError, DataError: as `Dinov2.load`; also where its config is for another kind of picture.
    """
    seeing = Dinov2.load(folder)
    try:
        seeing(np.zeros((2, 2, 3), np.uint8))
    except Exception as error:
        raise DataError(
            f"dinov2: the model in {folder} does not take a picture ({type(error).__name__}: {error}). Use "
            f"{DINOV2.source}."
        ) from error


def prepared(rgb: np.ndarray, *, patch: int) -> torch.Tensor:
    """A picture as the network takes it, float32 (1, 3, h, w), all of it, in about its own aspect.

    DINOv2's own way is to cut a square of 224 px out of the middle. That would leave out what this is for: the
    background at the edges, and of a wide or tall picture more than half. So the whole picture is scaled to as many
    pixels, its sides to whole patches; a square one comes out at 224 × 224. Resampling and colours are DINOv2's.

    Args:
        rgb: uint8 (H, W, 3).
        patch: side of the network's patches in px.
    """
    height, width = rgb.shape[:2]
    aspect = math.sqrt(width / height)
    size = tuple(patch * max(1, round(side / patch)) for side in (SIDE * aspect, SIDE / aspect))
    scaled = Image.fromarray(np.ascontiguousarray(rgb)).resize(size, Image.Resampling.BICUBIC)
    colours = (np.asarray(scaled, np.float32) / 255 - np.array(MEAN, np.float32)) / np.array(DEVIATION, np.float32)
    return torch.from_numpy(colours).permute(2, 0, 1)[None].contiguous()


@contextlib.contextmanager
def _silent_progress() -> Iterator[None]:
    """While it lasts transformers shows no bars: the terminal has the training's own."""
    (logging,) = library_classes("logging", package="transformers.utils")
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def roomy_device(folder: Path) -> torch.device:
    """ComfyUI's compute device with room made for the model of a folder, or the CPU where there is too little."""
    device = prepare_device([folder])
    stored = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    if device.type == "cpu" or comfy.model_management.get_free_memory(device) >= stored + _WORK_BYTES:
        return device
    return torch.device("cpu")
