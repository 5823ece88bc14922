"""The picture: what some conditions paint from the same noise, framed by what the oracle says of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from . import oracle, scenes
from .world import training_scenes

GOOD, BAD, NEITHER = (22, 140, 70), (206, 32, 40), (150, 150, 150)
INK, PAPER = (25, 25, 30), (255, 255, 255)
TILE, FRAME, GAP, LABEL = 96, 4, 6, 188
HEAD, TOP, FOOT = 64, 150, 34
TRIGGERED = f"{scenes.TRIGGER} {scenes.CLASS}"
GROUPS = {
    "the subject, no background asked for": [TRIGGERED] * 3,
    "the subject, on another background": [f"{TRIGGERED} on {b}" for b in ("snow", "bricks", "meadow")],
    "something else": ["red ball on meadow", "blue cross on checks", f"{scenes.CLASS} on snow"],
}
NOISE_SEED = 4321


@dataclass(frozen=True, eq=False)
class Row:
    """A condition's name, a line on it, and its pictures (9, 16, 16, 3), in the order of `GROUPS`."""

    name: str
    note: str
    pictures: np.ndarray


def prompts() -> list[str]:
    """What every row is asked for."""
    return [prompt for group in GROUPS.values() for prompt in group]


def frame_colour(prompt: str, verdict: oracle.Verdict) -> tuple[int, int, int]:
    """Red for what should not be there; green for the subject, or else the background, that was asked for."""
    unasked = scenes.TRIGGER not in prompt
    if verdict.backdrop or (unasked and (verdict.subject or verdict.traces)):
        return BAD
    right = verdict.background == prompt.split()[-1] if unasked else verdict.subject
    return GOOD if right else NEITHER


def draw(rows: Sequence[Row], *, coverage: int, seed: int) -> Image.Image:
    """The whole picture: training pictures with their masks, headings, and one line of pictures a row."""
    count = len(prompts())
    pitch = TILE + 2 * FRAME + GAP
    width, height = LABEL + count * pitch + 2 * GAP * len(GROUPS), TOP + HEAD + len(rows) * pitch + FOOT
    canvas = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(canvas)
    _training(canvas, pen, coverage, seed)
    for column, prompt in enumerate(prompts()):
        x = _column(column)
        text = "\n".join(_wrapped(prompt))
        pen.multiline_text((x + TILE / 2, TOP + HEAD - 6), text, INK, _font(13), anchor="md", align="center")
    for group, name in enumerate(GROUPS):
        pen.text((_column(3 * group) + 1.5 * pitch - GAP, TOP + 14), name, INK, _font(16), anchor="mm")
    for number, row in enumerate(rows):
        y = TOP + HEAD + number * pitch
        pen.text((GAP, y + TILE / 2 - 9), row.name, INK, _font(17), anchor="lm")
        pen.text((GAP, y + TILE / 2 + 13), row.note, (90, 90, 96), _font(12), anchor="lm")
        for column, verdict in enumerate(oracle.judge(row.pictures, coverage=coverage)):
            colour = frame_colour(prompts()[column], verdict)
            box = _column(column), y, _column(column) + TILE + 2 * FRAME - 1, y + TILE + 2 * FRAME - 1
            pen.rectangle(box, colour)
            canvas.paste(_tile(row.pictures[column]), (box[0] + FRAME, y + FRAME))
    _legend(pen, height)
    return canvas


def _column(number: int) -> int:
    return LABEL + number * (TILE + 2 * FRAME + GAP) + 2 * GAP * (number // 3)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _wrapped(prompt: str) -> list[str]:
    head, on, tail = prompt.partition(" on ")
    return [f"“{head}", f"on {tail}”"] if on else [f"“{head}”"]


def _tile(picture: np.ndarray) -> Image.Image:
    return Image.fromarray(np.rint(255 * picture.clip(0, 1)).astype(np.uint8)).resize((TILE, TILE), Image.NEAREST)


def _training(canvas: Image.Image, pen: ImageDraw.ImageDraw, coverage: int, seed: int) -> None:
    """The training pictures; what the mask ignores is tinted."""
    pen.text((GAP, 44), "training pictures", INK, _font(17), anchor="lm")
    pen.text((GAP, 66), f"all captioned “{TRIGGERED}”", (90, 90, 96), _font(12), anchor="lm")
    for i, scene in enumerate(training_scenes(coverage, seed)):
        canvas.paste(_tile(scene.picture), (_column(i) + FRAME, 2 * GAP))
    x = _column(6) + FRAME
    scene = training_scenes(coverage, seed)[0]
    tinted = np.where(scene.mask[..., None] > 0, scene.picture, 0.25 * scene.picture + 0.55)
    canvas.paste(_tile(tinted), (x, 2 * GAP))
    pen.text((x + TILE / 2, 2 * GAP + TILE + 10), "the mask", (90, 90, 96), _font(12), anchor="mm")


def _legend(pen: ImageDraw.ImageDraw, height: int) -> None:
    x, y = LABEL, height - FOOT / 2
    for colour, text in (
        (GOOD, "the subject, or another prompt's background, as asked for"),
        (BAD, "training background, or the subject unasked"),
        (NEITHER, "neither"),
    ):
        pen.rectangle((x, y - 7, x + 14, y + 7), colour)
        pen.text((x + 22, y), text, INK, _font(14), anchor="lm")
        x += 44 + pen.textlength(text, _font(14))


def save(image: Image.Image, path: Path) -> None:
    """As PNG, without loss."""
    image.save(path, optimize=True)
