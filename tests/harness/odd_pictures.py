"""Real picture files of every odd kind, sound and damaged, under odd names."""

import re

import cv2
import numpy as np
from PIL import Image

ORIENTATION = 0x0112
# How the last sentence of our messages begins.
INSTRUCTIONS = {
    "Change",
    "Check",
    "Choose",
    "Connect",
    "Leave",
    "Make",
    "Name",
    "Put",
    "Remove",
    "Save",
    "Use",
    "Write",
}
DAMAGED = ("truncated png.png", "truncated jpeg.jpg", "empty.png", "text.png")


def scene(height=40, width=48, *, seed=0):
    """A bright disc on a dark, slightly noisy ground: uint8 (H, W, 3)."""
    rows, columns = np.mgrid[:height, :width]
    inside = np.hypot(rows - height / 2, columns - width / 2) < min(height, width) / 3
    ground = np.random.default_rng(seed).integers(0, 40, (height, width, 3))
    return np.where(inside[..., None], (230, 40, 40), ground).astype(np.uint8)


def write_sound_pictures(folder):
    """The (width, height) by name of every file written, as a viewer shows it."""
    folder.mkdir(parents=True, exist_ok=True)
    rgb = scene()
    grey = rgb[..., 0]
    alpha = np.where(np.arange(48) < 24, 255, 90).astype(np.uint8)[None].repeat(40, 0)
    _save(folder / "one pixel.png", rgb[:1, :1])
    _save(folder / "one pixel of glass.png", np.full((1, 1, 4), 90, np.uint8))
    _save(folder / "three by two.png", scene(2, 3))
    _save(folder / "one row.png", scene(1, 48))
    _save(folder / "one column.png", scene(48, 1))
    _save(folder / "a line.png", scene(4, 900))
    _save(folder / "one colour.png", np.full((40, 48, 3), 77, np.uint8))
    _save(folder / "black.png", np.zeros((40, 48), np.uint8))
    _save(folder / "grey.png", grey)
    _save(folder / "grey glass.png", np.dstack([grey, alpha]))
    _save(folder / "invisible.png", np.dstack([rgb, np.zeros_like(grey)]))
    Image.fromarray(np.dstack([rgb, grey]), "CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(grey > 128).save(folder / "one bit.png")
    palette = Image.fromarray(rgb).quantize(16)
    palette.save(folder / "palette.png", transparency=bytes([0, 255, 40] + 13 * [255]))
    palette.save(folder / "palette gif.gif", transparency=0)
    wide = np.random.default_rng(1).integers(0, 65536, (40, 48, 3), dtype=np.uint16)
    _save_wide(folder / "sixteen bit grey.png", wide[..., 0])
    _save_wide(folder / "sixteen bit rgb.png", wide)
    _save_wide(folder / "sixteen bit alpha.png", np.dstack([wide, wide[..., 0]]))
    # Animations are clips; of one frame they are pictures.
    for name in ("still.gif", "still too.webp", "still also.png"):
        Image.fromarray(scene()).save(folder / name, save_all=True, duration=40)
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    Image.fromarray(scene(48, 40)).save(folder / "turned.jpg", exif=exif)
    for name in ("with  two spaces .png", "Übergröße ß.png", "🐈‍⬛ cat.png", "it's (1), [2] {3} & 100%.png", "猫.png"):
        _save(folder / name, rgb)
    special = {
        "one pixel.png": (1, 1),
        "one pixel of glass.png": (1, 1),
        "three by two.png": (3, 2),
        "one row.png": (48, 1),
        "one column.png": (1, 48),
        "a line.png": (900, 4),
    }
    return {path.name: special.get(path.name, (48, 40)) for path in sorted(folder.iterdir())}


def write_damaged_pictures(folder):
    """The files of `DAMAGED`; the headers of the truncated ones are whole."""
    folder.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(2).integers(0, 256, (64, 80, 3), dtype=np.uint8)
    for name in DAMAGED[:2]:
        _save(folder / name, noise)
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[: len(whole) // 2])
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.png").write_text("this is no picture", encoding="utf-8")
    return folder


def _save(path, array):
    Image.fromarray(array).save(path)


def _save_wide(path, array):
    path.write_bytes(cv2.imencode(".png", array)[1].tobytes())


def tells_what_to_do(text):
    """Whether a message's last sentence is an instruction."""
    last = re.split(r"(?<=[.!?]) ", text.strip())[-1]
    return last.split()[0].rstrip(",") in INSTRUCTIONS
