"""Draws the registry's icon and banner, and README's photographs: `python dev.py run devtools/registry_pictures.py`.

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
from masklora.viewing.tint import standing_out  # noqa: E402
from masklora.viewing.views import latent_grid, overlay  # noqa: E402

PHOTOGRAPHS = ROOT / "tests" / "pictures" / "photographs"
SUBJECT = "astronaut's head and neck"
# Left, top and side of the part that is shown.
PART = (90, 0, 290)
ICON, BANNER = 400, (1260, 540)
GROUND, INK, PALE = (24, 26, 31), (255, 255, 255), (170, 176, 186)
CELLS = 18
# Of README's photographs: the subject, and the part that is shown.
SHOWN = [(SUBJECT, PART), ("coffee cup, saucer and spoon", (60, 0, 341)), ("coin, top row, third", (110, 6, 92))]
STRIP_SIDE, STRIP_GAP = 205, 6


def part_of(subject, part, side):
    """A part of a photograph, uint8 (side, side, 3), and its mask, float32 (side, side) in 0..1."""
    shape = json.loads((PHOTOGRAPHS / "outlines.json").read_text(encoding="utf-8"))[subject]
    picture = Image.open(PHOTOGRAPHS / shape["file"]).convert("RGB")
    mask = Image.new("L", picture.size)
    pen = ImageDraw.Draw(mask)
    if "ellipse" in shape:
        (x, y), (across, down) = shape["ellipse"]["centre"], shape["ellipse"]["axes"]
        pen.ellipse((x - across, y - down, x + across, y + down), fill=255)
    else:
        pen.polygon([tuple(corner) for corner in shape["polygon"]], fill=255)
    left, top, width = part
    box = (left, top, left + width, top + width)
    rgb = np.asarray(picture.crop(box).resize((side, side), Image.Resampling.LANCZOS))
    return rgb, np.asarray(mask.crop(box).resize((side, side), Image.Resampling.BILINEAR), np.float32) / 255


def views(side):
    """The part as it is, tinted, and on the latent grid, each `side` pixels wide."""
    import torch

    rgb, drawn = part_of(SUBJECT, PART, side)
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


def photographs():
    """Photographs in a row, each with itself under the tint that stands out from it."""
    across = STRIP_SIDE + STRIP_GAP
    made = Image.new("RGB", (6 * across - STRIP_GAP, STRIP_SIDE), "white")
    for i, (subject, part) in enumerate(SHOWN):
        rgb, mask = part_of(subject, part, STRIP_SIDE)
        made.paste(Image.fromarray(rgb), (2 * i * across, 0))
        made.paste(Image.fromarray(overlay(rgb, mask, standing_out(rgb, mask))), ((2 * i + 1) * across, 0))
    return made


if __name__ == "__main__":
    icon().save(ROOT / "docs" / "icon.png", optimize=True)
    banner().save(ROOT / "docs" / "banner.png", optimize=True)
    photographs().save(ROOT / "docs" / "photographs.webp", quality=86, method=6)
