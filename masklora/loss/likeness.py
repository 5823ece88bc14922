"""How sample pictures resemble what was learned, by features of a network that has never seen either: three figures.

A feature is a picture's direction: pictures are alike by the cosine between theirs. Everything is pure; the host makes
the features. Likeness of whole pictures also rewards a background that was learned along, so it says nothing without
the leak beside it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# What is told of a run, in the order of the fields of `Likeness`.
FIGURES = ("picture_likeness", "picture_leak", "picture_drift")


@dataclass(frozen=True)
class Likeness:
    """What was measured of a set of sample pictures; None for what cannot be known.

    Attributes:
        likeness: Mean cosine between the pictures that ask for what was learned and the references whose background
            is flat, over all pairs, −1 to 1; 1 only where they are all one picture. Of the references themselves it
            is less than 1 as far as they differ, see `alike`.
        leak: Mean cosine of the same pictures and the references' backgrounds alone, less that of the base model's
            pictures of the same prompts and seeds: 0 for as near as without training, above it for nearer.
        drift: 1 less the mean cosine between the other pictures and the base model's of the same prompts and seeds,
            0 (the same) to 2.
    """

    likeness: float | None = None
    leak: float | None = None
    drift: float | None = None

    @property
    def row(self) -> dict[str, float]:
        """What of it is known, by the names of the curves."""
        values = zip(FIGURES, (self.likeness, self.leak, self.drift), strict=True)
        return {name: value for name, value in values if value is not None}


def compare(
    samples: Tensor,
    base: Tensor,
    *,
    subjects: Tensor,
    backgrounds: Tensor,
    asking: Sequence[bool],
    plain: Sequence[bool],
) -> Likeness:
    """The figures of a set of sample pictures. Lengths of features do not count.

    A row that is not finite stands for a picture that is not there, and is left out.

    Args:
        samples: features of the pictures, (N, D).
        base: of the base model's picture of the same prompt and seed, (N, D).
        subjects: of references with a flat background, (R, D); R may be 0.
        backgrounds: of references with a flat subject, (S, D); S may be 0.
        asking: which pictures ask for what was learned, (N,): they count for likeness and leak.
        plain: which do not, (N,): they count for the drift. One may count for both.
    """
    drawn, before, own, beside = (_directions(one) for one in (samples, base, subjects, backgrounds))
    there, compared = _known(drawn), _known(drawn) & _known(before)
    asks, rests = (torch.tensor(list(one), dtype=torch.bool) for one in (asking, plain))
    own, beside = own[_known(own)], beside[_known(beside)]
    # Of equal pictures the difference is 0 to the bit, before it is multiplied.
    moved, apart = drawn - before, (drawn - before).square().sum(dim=1) / 2
    return Likeness(
        likeness=_mean(drawn[there & asks] @ own.mean(dim=0)) if len(own) else None,
        leak=_mean(moved[compared & asks] @ beside.mean(dim=0)) if len(beside) else None,
        drift=_mean(apart[compared & rests]),
    )


def alike(features: Tensor) -> float | None:
    """Mean cosine between each two of the features, (N, D); None of fewer than two."""
    known = _directions(features)
    known = known[_known(known)]
    count = len(known)
    if count < 2:
        return None
    return (float(known.sum(dim=0).square().sum()) - count) / (count * (count - 1))


def _directions(features: Tensor) -> Tensor:
    # In float64, which not every accelerator has.
    return torch.nn.functional.normalize(features.detach().to("cpu").double(), dim=1)


def _known(features: Tensor) -> Tensor:
    return features.isfinite().all(dim=1)


def _mean(values: Tensor) -> float | None:
    found = float(values.mean()) if len(values) else math.nan
    return found if math.isfinite(found) else None
