"""The stage's picture: what is trained on, and what the first seed's LoRAs paint of each prompt, row by row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from .scenes import BACKDROPS, SUBJECTS, training_pictures

# Of the subjects on backgrounds: one of each, so that two of the backgrounds are seen.
SHOWN = (("figure", "rings"), ("mushroom", "lattice"))
_LABEL, _GAP, _SMALL = 18, 6, 0.75


def shot_name(seed: int, subject: str, backdrop: str, arm: str) -> str:
    """Of the file that holds some pictures of a run side by side."""
    return f"{seed} {subject} {backdrop} {arm}.png"


def compose(shots: Path, seed: int, arms: Sequence[str], *, columns: int) -> Image.Image:
    """A labelled row for the training pictures and for each arm of which there are shots, the subjects side by side."""
    drawn = [
        training_pictures(SUBJECTS[subject], BACKDROPS[backdrop], seed=seed, count=columns)
        for subject, backdrop in SHOWN
    ]
    rows = [("training pictures", [np.concatenate([picture for picture, _ in one], axis=1) for one in drawn])]
    for arm in arms:
        paths = [shots / shot_name(seed, subject, backdrop, arm) for subject, backdrop in SHOWN]
        if all(path.is_file() for path in paths):
            rows.append((arm, [np.asarray(Image.open(path).convert("RGB")) for path in paths]))
    height, width = rows[0][1][0].shape[:2]
    sheet = Image.new("RGB", (len(SHOWN) * (width + _GAP) + _GAP, len(rows) * (height + _LABEL)), "white")
    pen = ImageDraw.Draw(sheet)
    for row, (label, pictures) in enumerate(rows):
        top = row * (height + _LABEL)
        pen.text((_GAP, top), label, fill="black", font_size=_LABEL - 4)
        for column, picture in enumerate(pictures):
            sheet.paste(Image.fromarray(picture), (_GAP + column * (width + _GAP), top + _LABEL))
    size = round(sheet.width * _SMALL), round(sheet.height * _SMALL)
    return sheet.resize(size, Image.Resampling.LANCZOS)
