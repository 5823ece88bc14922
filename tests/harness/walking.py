"""Clips whose masks are known: a textured square before a wall, and a photographed head before another photograph."""

import numpy as np
from PIL import Image, ImageFilter

from .help_pictures import PHOTOGRAPHS, outline


def walk(count, size=(96, 64), *, step=3):
    """A green square that moves by `step` pixels a frame: pictures uint8 (H, W, 3), and masks float32 (N, H, W)."""
    random = np.random.default_rng(5)
    width, height = size
    wall = np.repeat(random.integers(90, 160, (height // 4, width // 4, 1)), 3, axis=2).repeat(4, 0).repeat(4, 1)
    side = height // 2
    skin = random.integers(150, 255, (side // 4, side // 4)).repeat(4, 0).repeat(4, 1)
    pictures, masks = [], []
    for number in range(count):
        left = 20 + step * number
        place = (slice(height // 4, height // 4 + side), slice(left, left + side))
        picture, mask = wall.astype(np.uint8).copy(), np.zeros((height, width), np.float32)
        picture[place] = 0
        picture[(*place, 1)] = skin
        mask[place] = 1
        pictures.append(picture)
        masks.append(mask)
    return pictures, np.stack(masks)


def overlap(one, other):
    """Intersection over union of two masks."""
    return float(np.minimum(one, other).sum() / np.maximum(one, other).sum())


def walking_head(count, size=(384, 224)):
    """An astronaut's head that passes a table, nodding: pictures uint8 (H, W, 3), and masks float32 (N, H, W)."""
    path, mask = outline("astronaut's head and neck")
    box = mask.getbbox()
    side = size[1] * 3 // 4
    scale = side / (box[3] - box[1])
    small = round((box[2] - box[0]) * scale), side
    head, cut = (one.crop(box).resize(small, Image.Resampling.LANCZOS) for one in (Image.open(path), mask))
    table = Image.open(PHOTOGRAPHS / "coffee.jpg").convert("RGB").resize(size, Image.Resampling.LANCZOS)
    table = table.filter(ImageFilter.GaussianBlur(4))
    pictures, masks = [], []
    for number in range(count):
        share = number / max(1, count - 1)
        place = round(20 + share * (size[0] - small[0] - 40)), round(size[1] / 8 + 12 * np.sin(6 * share))
        picture, alpha = table.copy(), Image.new("L", size)
        picture.paste(head, place, cut)
        alpha.paste(cut, place)
        pictures.append(np.asarray(picture))
        masks.append(np.asarray(alpha, np.float32) / 255)
    return pictures, np.stack(masks)
