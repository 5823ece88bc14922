"""Draws the demo's training pictures into `demo/pictures/`.

`python -m demo.draw_pictures`, from the repository's root. Three small folders, one for each way of
giving masks: `alpha/` (the mask is the alpha channel), `masks/` (pictures and a folder of masks) and
`plain/` (photographs without). The photographs need scikit-image; without it that folder is left as it
is.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from . import scenes

PICTURES = Path(__file__).resolve().parent / "pictures"
COUNT = 10
PHOTOGRAPHS = {"chelsea": "a photo of a cat", "coffee": "a photo of a cup of coffee"}
LONG_SIDE = 256


def subject_poses() -> list[tuple[scenes.Pose, str]]:
    """Ten poses with their captions: place, size and tilt vary, the words never name the backdrop."""
    rng = np.random.default_rng(11)
    poses = []
    for i in range(COUNT):
        x, y = scenes.SIZE / 2 + rng.uniform(-9, 9, 2)
        radius, turn = rng.uniform(37, 46), (i % 3 - 1) * 0.14 + rng.uniform(-0.03, 0.03)
        poses.append((scenes.Pose(float(x), float(y), float(radius), float(turn)), f"a {scenes.TRIGGER}"))
    return poses


def _write(image: np.ndarray, path: Path, caption: str | None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, optimize=True)
    if caption is not None:
        path.with_suffix(".txt").write_text(caption + "\n", encoding="utf-8", newline="\n")


def draw_subject_folders() -> None:
    """Writes the subject's pictures on the one training backdrop, with alpha and with separate masks."""
    rng = np.random.default_rng(12)
    for i, (pose, caption) in enumerate(subject_poses()):
        scene = scenes.draw_subject(rng, pose=pose)
        mask, name = scenes.to_uint8(255 * scene.mask), f"{scenes.TRIGGER}_{i + 1:02}.png"
        _write(np.dstack([scene.image, mask]), PICTURES / "alpha" / name, caption)
        _write(scene.image, PICTURES / "masks" / "images" / name, caption)
        _write(mask, PICTURES / "masks" / "masks" / name, None)


def shrink_photographs() -> None:
    """Writes the photographs as small JPEG files."""
    from skimage import data

    for name, caption in PHOTOGRAPHS.items():
        photograph = Image.fromarray(getattr(data, name)())
        scale = LONG_SIDE / max(photograph.size)
        size = tuple(round(side * scale) for side in photograph.size)
        path = PICTURES / "plain" / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        photograph.resize(size, Image.Resampling.LANCZOS).save(path, quality=90)
        path.with_suffix(".txt").write_text(caption + "\n", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    draw_subject_folders()
    shrink_photographs()
