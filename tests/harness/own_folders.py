"""A folder of pictures, pairs or clips as a person has one, with masks: what the templates train on."""

import shutil

import numpy as np
from PIL import Image

from .clips import write_clip


def own_pictures(folder, count=4):
    folder.mkdir(parents=True)
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (160, 160, 4), np.uint8)
        pixels[..., 3] = 0
        pixels[40:120, 30:130, 3] = 255
        Image.fromarray(pixels).save(folder / f"cat {number}.png")


def own_pairs(folder):
    """Pictures with masks and instructions, each with what it is made from in `before`."""
    own_pictures(folder)
    (folder / "before").mkdir()
    for number in range(4):
        Image.new("RGB", (160, 160), (40 * number, 90, 200)).save(folder / "before" / f"cat {number}.jpg")
        (folder / f"cat {number}.txt").write_text("give the cat a hat", encoding="utf-8")


def own_data(model):
    """What makes the folder that a template of this model is for."""
    return own_clips if model.clip else own_pairs if model.pair else own_pictures


def offer_example(host, base):
    """ComfyUI's own example picture, where a ComfyUI that is installed has it."""
    shutil.copy(host.comfyui / "input" / "example.png", base / "input")


def own_clips(folder):
    """Two clips that move, each with a mask clip that moves with it."""
    for number in range(2):
        frames = np.random.default_rng(number).integers(0, 256, (12, 160, 160, 3), np.uint8)
        masks = np.zeros_like(frames)
        for i in range(len(masks)):
            masks[i, 40:120, 20 + 4 * i : 100 + 4 * i] = 255
        write_clip(folder / f"cat {number}.mkv", frames, rate=24)
        write_clip(folder / f"cat {number}_mask.mkv", masks, rate=24)
