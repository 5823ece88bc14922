"""The picture: training clips, their masks, and what each arm makes of the same noise, five frames of each in a row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from . import scenes
from .world import TRIGGERED, training_clips

INK, GREY, PAPER = (25, 25, 30), (90, 90, 96), (255, 255, 255)
SHOWN = (0, 4, 8, 12, 16)
SCALE, GAP, LABEL, LINE = 8, 4, 210, 26
WIDE, HIGH = scenes.COLUMNS * SCALE + GAP, scenes.ROWS * SCALE + 2 * GAP
PANEL = len(SHOWN) * WIDE + 5 * GAP
PROMPTS = (f"{TRIGGERED} on snow", f"{TRIGGERED} on stripes")
NOISE_SEED = 4321


def draw(rows: Sequence[tuple[str, str, np.ndarray]], *, seed: int) -> Image.Image:
    """The whole picture: rows are a name, a line on it, and a clip for each of `PROMPTS`, (2, 17, 8, 12, 3)."""
    width, height = LABEL + 2 * PANEL, 3 * (LINE + GAP) + (2 + len(rows)) * HIGH + GAP
    canvas = Image.new("RGB", (width, height), PAPER)
    pen, top = ImageDraw.Draw(canvas), GAP
    one, other = training_clips(seed, 2)
    kept = (
        (one, one.masks, "what a mask for each frame keeps of it"),
        (other, np.broadcast_to(other.union, other.masks.shape), "what one still mask keeps: all that it ever covers"),
    )
    for clip, masks, text in kept:
        _headings(pen, top, ("a training clip, in time from left to right", text))
        _row(canvas, top + LINE, ("in training", f"captioned “{TRIGGERED}”"), (clip.frames, _kept(clip.frames, masks)))
        top += LINE + HIGH
    _headings(pen, top + GAP, [f"after training, asked for “{prompt}”" for prompt in PROMPTS])
    for number, (name, note, clips) in enumerate(rows):
        _row(canvas, top + GAP + LINE + number * HIGH, (name, note), clips)
    return canvas


def _row(canvas: Image.Image, top: int, told: tuple[str, str], clips: Sequence[np.ndarray]) -> None:
    pen = ImageDraw.Draw(canvas)
    pen.text((GAP, top + 22), told[0], INK, _font(17), anchor="lm")
    pen.text((GAP, top + 44), told[1], GREY, _font(12), anchor="lm")
    for half, shown in enumerate(clips):
        for place, number in enumerate(SHOWN):
            canvas.paste(_tile(shown[number]), (LABEL + half * PANEL + place * WIDE, top))


def _headings(pen: ImageDraw.ImageDraw, top: int, texts: Sequence[str]) -> None:
    for half, text in enumerate(texts):
        pen.text((LABEL + half * PANEL, top + LINE / 2 - 2), text, INK, _font(15), anchor="lm")


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _kept(frames: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """The frames with what a mask ignores nearly white."""
    return np.where(masks[..., None] > 0, frames, 0.2 * frames + 0.75)


def _tile(frame: np.ndarray) -> Image.Image:
    pixels = np.rint(255 * frame.clip(0, 1)).astype(np.uint8)
    return Image.fromarray(pixels).resize((scenes.COLUMNS * SCALE, scenes.ROWS * SCALE), Image.NEAREST)
