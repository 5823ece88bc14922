"""Draws the registry's icon and banner: `python dev.py run devtools/registry_pictures.py`.

A photograph as it is, with what is ignored under a tint, and as the loss weighs its latent cells.
"""

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from masklora.loss.masks import reduce_mask  # noqa: E402
from masklora.viewing.views import latent_grid, overlay  # noqa: E402

PHOTOGRAPHS = ROOT / "tests" / "pictures" / "photographs"
SUBJECT = "astronaut's head and neck"
# Left, top and side of the part that is shown.
PART = (90, 0, 290)
ICON, BANNER = 400, (1260, 540)
GROUND, INK, PALE = (24, 26, 31), (255, 255, 255), (170, 176, 186)
CELLS = 18


def views(side):
    """The part as it is, tinted, and on the latent grid, each `side` pixels wide."""
    import torch

    shape = json.loads((PHOTOGRAPHS / "outlines.json").read_text(encoding="utf-8"))[SUBJECT]
    picture = Image.open(PHOTOGRAPHS / shape["file"]).convert("RGB")
    mask = Image.new("L", picture.size)
    ImageDraw.Draw(mask).polygon([tuple(corner) for corner in shape["polygon"]], fill=255)
    left, top, width = PART
    box = (left, top, left + width, top + width)
    rgb = np.asarray(picture.crop(box).resize((side, side), Image.Resampling.LANCZOS))
    drawn = np.asarray(mask.crop(box).resize((side, side), Image.Resampling.BILINEAR), np.float32) / 255
    weights = reduce_mask(torch.from_numpy(drawn)[None, None], grid=(CELLS, CELLS), kind="area")[0, 0].numpy()
    return [Image.fromarray(one) for one in (rgb, overlay(rgb, drawn), latent_grid(rgb, weights))]


def icon():
    """The tinted photograph, with the corners of an app's icon."""
    _, tinted, _ = views(ICON)
    corners = Image.new("L", tinted.size)
    ImageDraw.Draw(corners).rounded_rectangle((0, 0, ICON - 1, ICON - 1), ICON // 6, fill=255)
    tinted.putalpha(corners)
    return tinted


def banner():
    """The name, what it is for, and the three views side by side."""
    made = Image.new("RGB", BANNER, GROUND)
    draw, side, gap = ImageDraw.Draw(made), 380, 30
    for i, view in enumerate(views(side)):
        made.paste(view, (gap + i * (side + gap), gap))
    draw.text((gap, 424), "Masked LoRA", INK, ImageFont.load_default(56))
    draw.text((gap, 492), "Train a LoRA on part of each picture, inside ComfyUI", PALE, ImageFont.load_default(26))
    return made


if __name__ == "__main__":
    icon().save(ROOT / "docs" / "icon.png", optimize=True)
    banner().save(ROOT / "docs" / "banner.png", optimize=True)
