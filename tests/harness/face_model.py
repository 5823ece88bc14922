"""A file for ComfyUI's Load Face Detection Model whose weights are made by hand, so that its answer is known.

The detector passes a picture's brightness on to its coarse grid and fires where that is high; the mesh puts
the outline of a face on an ellipse in the detector's box. The networks are ComfyUI's own at full size.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from comfy_extras.mediapipe.face_landmarker import FaceLandmarker
from safetensors.torch import save_file

LANDMARKS = 478
OVAL = 36
# Of the mesh's 192×192 crop; the crop is 1.5 times the detector's box.
OVAL_RADIUS = 64.0
# Side of the detector's box in pixels of its 128×128 input.
BOX = 48.0
# Brightness, 0 dark to 1 white above the middle, at which the detector is undecided.
LEVEL = 0.6
SHARPNESS = 40.0
# Rings of landmarks that ComfyUI's mask node fills, and the other parts that its loader wants.
PARTS = ("face_oval", "lips", "left_eye", "right_eye", "irises", "left_eyebrow", "right_eyebrow", "nose")


def write_face_model(path: Path) -> Path:
    """The file; it finds an upright face around each bright spot of a picture, none in a dark one."""
    generator = torch.Generator().manual_seed(11)
    state: dict[str, torch.Tensor] = {}
    for variant in ("short", "full"):
        network = FaceLandmarker(dtype=torch.float32, detector_variant=variant)
        for name, value in network.state_dict().items():
            part, _, rest = name.partition(".")
            stored = f"detector_{variant}.{rest}" if part == "detector" else name
            # PReLU with a slope of one passes everything on.
            state[stored] = torch.ones_like(value) if "prelu" in name else torch.zeros_like(value)
    _fire_where_bright(state)
    _outline(state, generator)
    _topology(state, generator)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in state.items()}, str(path))
    return path


def _fire_where_bright(state: dict[str, torch.Tensor]) -> None:
    """The short-range detector: channel 0 carries the brightness, and only its 16×16 grid ever fires."""
    state["detector_short.stem.weight"][0, :, 2, 2] = 1 / 3
    state["detector_short.cls_16.weight"][0, 0] = SHARPNESS
    state["detector_short.cls_16.bias"][:] = torch.tensor([-SHARPNESS * LEVEL, -80.0])
    for name in ("detector_short.cls_8.bias", "detector_full.cls_dw.bias"):
        state[name][:] = -80.0
    box = torch.zeros(16)
    box[2:4] = BOX
    # The eyes lie level, so that the face is upright: right of the image comes second.
    box[4:8] = torch.tensor([-BOX / 4, -BOX / 8, BOX / 4, -BOX / 8])
    state["detector_short.reg_16.bias"][:] = box.repeat(2)


def _outline(state: dict[str, torch.Tensor], generator: torch.Generator) -> None:
    points = 96 + 40 * (torch.rand(LANDMARKS, 3, generator=generator) - 0.5)
    angles = torch.arange(OVAL) * (2 * math.pi / OVAL)
    points[:OVAL, 0] = 96 + OVAL_RADIUS * angles.cos()
    points[:OVAL, 1] = 96 + OVAL_RADIUS * angles.sin()
    state["mesh.head_landmarks.bias"][:] = points.flatten()


def _topology(state: dict[str, torch.Tensor], generator: torch.Generator) -> None:
    ring = torch.tensor([[i, (i + 1) % OVAL] for i in range(OVAL)], dtype=torch.int32)
    for number, part in enumerate(PARTS):
        first = OVAL + 4 * number
        small = torch.tensor([[0, 1], [1, 2], [2, 3], [3, 0]], dtype=torch.int32) + first
        state[f"topology.{part}"] = ring if part == "face_oval" else small
    state["topology.tesselation"] = ring.clone()
    state["canonical_vertices"] = torch.randn(LANDMARKS, 3, generator=generator)
    state["procrustes_indices"] = torch.arange(0, LANDMARKS, 40, dtype=torch.int32)
    state["procrustes_weights"] = torch.full((len(range(0, LANDMARKS, 40)),), 0.1)
