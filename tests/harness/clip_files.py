"""Files of clips for the tests of data sets: one maker for each kind, by names as people have them."""

import numpy as np
from PIL import Image

from .clips import write_clip, write_sequence

SIZE = (32, 24)


def frames_of(count, size=SIZE, seed=0):
    """uint8 (N, H, W, 3): a field of colours whose blue tells the frame's number."""
    width, height = size
    base = np.random.default_rng(seed).integers(40, 200, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    field = base.repeat(8, 0).repeat(8, 1)[:height, :width]
    out = np.repeat(field[None], count, 0)
    out[..., 2] = (np.arange(count) * (200 // max(1, count)))[:, None, None]
    return out


def halves(count, size=SIZE):
    """uint8 (N, H, W, 3) masks: white moves from the left half to the right."""
    width, height = size
    out = np.zeros((count, height, width, 3), np.uint8)
    for number in range(count):
        start = (width // 2) * number // max(1, count - 1)
        out[number, :, start : start + width // 2] = 255
    return out


def video(path, count=5, size=SIZE, *, frames=None, rate=8, codec="libx264"):
    """A video of `count` frames, or of `frames` uint8 (N, H, W, 3)."""
    return write_clip(path, frames_of(count, size) if frames is None else frames, codec, "yuv420p", rate=rate)


def animation(path, count=5, size=SIZE, *, frames=None):
    """An animated GIF, WebP or PNG, by the extension; `frames` may hold an alpha band."""
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *rest = [Image.fromarray(one) for one in (frames_of(count, size) if frames is None else frames)]
    kind, options = {".apng": ("PNG", {}), ".webp": (None, {"lossless": True})}.get(path.suffix.lower(), (None, {}))
    first.save(path, kind, save_all=True, append_images=rest, duration=125, loop=0, **options)
    return path


def sequence(folder, count=5, size=SIZE, *, frames=None, begins=""):
    """A folder of numbered PNGs."""
    return write_sequence(folder, frames_of(count, size) if frames is None else frames, f"{begins}{{:04d}}.png")
