"""Says what a picture of 16×16 squares shows, in closed form: colours near enough, at the right places.

Nothing is trained: the subject is there if its stencil, laid on some place, finds its own colours; a background is
there if one of its patterns fits what no figure covers. Malformed subjects (halves swapped, one colour, parts missing,
a blob without outline) are refused; their traces in the subject's own two colours are seen all the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import scenes

NEAR = 0.25
NEAR_TONE = 0.17
SUBJECT_FIT, PART_FIT, SPILL = 0.8, 0.5, 0.35
TRACE_SHARE = 0.5
BACKGROUND_FIT = 0.75
BACKDROP_SHARE, BACKDROP_TONE_SHARE = 0.2, 0.05
_FIGURES = np.array([*scenes.COLOURS.values(), *scenes.SUBJECT_COLOURS.values()], np.float32)


@dataclass(frozen=True)
class Verdict:
    """What one picture shows.

    Attributes:
        subject: The subject, whole, of the size that was asked about.
        traces: Half or more of each of its two colours, in whatever shape.
        background: The background that fits best, "" if none fits.
        backdrop: The training background, in whatever pattern: a fifth of what no figure covers.
    """

    subject: bool
    traces: bool
    background: str
    backdrop: bool


def judge(pictures: np.ndarray, *, coverage: int) -> list[Verdict]:
    """A verdict for each picture of (B, 16, 16, 3) in [0, 1]; `coverage` tells the subject's size.

    Raises:
        ValueError: the pictures are not of 16×16 squares with three channels.
    """
    if pictures.ndim != 4 or pictures.shape[1:] != (scenes.SIDE, scenes.SIDE, 3):
        raise ValueError(f"expected pictures of (B, 16, 16, 3), got {pictures.shape}")
    whole, parts = subject_fits(pictures, coverage=coverage), traces(pictures, coverage=coverage)
    grounds, drops = backgrounds(pictures), backdrops(pictures)
    rows = zip(whole, parts, grounds, drops, strict=True)
    return [Verdict(bool(w), bool(p), ground, bool(drop)) for w, p, ground, drop in rows]


def near(pictures: np.ndarray, colour: tuple[float, ...], *, within: float = NEAR) -> np.ndarray:
    """Which squares lie within a distance of a colour, (B, H, W) bool."""
    return np.linalg.norm(pictures - np.array(colour, np.float32), axis=-1) < within


def _by_letter(pictures: np.ndarray) -> dict[str, np.ndarray]:
    return {letter: near(pictures, colour) for letter, colour in scenes.SUBJECT_COLOURS.items()}


def subject_fits(pictures: np.ndarray, *, coverage: int) -> np.ndarray:
    """Whether the stencil fits somewhere in pictures (B, H, W, 3), (B,) bool.

    It fits where four fifths of its squares have their colours, half of each colour's at least, and at most 35 % of
    the squares around it (its own gaps and a rim of one square) carry the subject's two colours too.
    """
    rows = np.array([list(row) for row in scenes.SUBJECTS[coverage]])
    (height, width), found, sides = rows.shape, np.zeros(len(pictures), bool), pictures.shape[1:3]
    padded = {k: np.pad(v, ((0, 0), (1, 1), (1, 1))) for k, v in _by_letter(pictures).items()}
    own = padded["o"] | padded["t"]
    inside = np.pad(np.ones(sides, bool), 1)
    rim = np.pad(rows == ".", 1, constant_values=True)
    letters = [letter for letter in padded if (rows == letter).any()]
    for r in range(sides[0] - height + 1):
        for c in range(sides[1] - width + 1):
            at = {k: padded[k][:, r + 1 : r + 1 + height, c + 1 : c + 1 + width][:, rows == k] for k in letters}
            total = sum(hits.sum(1) for hits in at.values()) / (rows != ".").sum()
            least = np.min([hits.mean(1) for hits in at.values()], axis=0)
            around = slice(r, r + height + 2), slice(c, c + width + 2)
            seen = rim & inside[around]
            spill = own[:, around[0], around[1]][:, seen].mean(1)
            found |= (total >= SUBJECT_FIT) & (least >= PART_FIT) & (spill <= SPILL)
    return found


def traces(pictures: np.ndarray, *, coverage: int) -> np.ndarray:
    """Whether at least half as many squares as the subject has of each of its two colours are there, (B,) bool."""
    rows = np.array([list(row) for row in scenes.SUBJECTS[coverage]])
    hits = _by_letter(pictures)
    enough = [hits[k].sum((1, 2)) >= TRACE_SHARE * (rows == k).sum() for k in ("o", "t")]
    return enough[0] & enough[1]


def free(pictures: np.ndarray) -> np.ndarray:
    """The squares that carry no figure's colour, (B, H, W) bool."""
    return ~np.stack([near(pictures, colour) for colour in _FIGURES]).any(0)


def backgrounds(pictures: np.ndarray) -> list[str]:
    """Of pictures (B, H, W, 3), up to 16×16: whose pattern fits most of what no figure covers; "" if under 3/4."""
    bare, (height, width) = free(pictures), pictures.shape[1:3]
    count = np.maximum(bare.sum((1, 2)), 1)
    names = (*scenes.BACKGROUNDS, scenes.BACKDROP)
    fits = np.zeros((len(names), len(pictures)))
    for row, name in zip(fits, names, strict=True):
        for pattern in scenes.background_patterns(name):
            hits = np.linalg.norm(pictures - pattern[:height, :width], axis=-1) < NEAR_TONE
            np.maximum(row, (hits & bare).sum((1, 2)) / count, out=row)
    best = fits.argmax(0)
    return [names[b] if fits[b, i] >= BACKGROUND_FIT else "" for i, b in enumerate(best)]


def backdrops(pictures: np.ndarray) -> np.ndarray:
    """Whether a fifth of the uncovered squares has the training background's tones, each a twentieth, (B,) bool."""
    bare = free(pictures)
    count = np.maximum(bare.sum((1, 2)), 1)
    shares = [(near(pictures, tone) & bare).sum((1, 2)) / count for tone in scenes.TONES[scenes.BACKDROP]]
    return (shares[0] + shares[1] >= BACKDROP_SHARE) & (np.minimum(*shares) >= BACKDROP_TONE_SHARE)
