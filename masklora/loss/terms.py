"""The parts that a loss is reported in: the one list, which metrics, curves, summaries and the page follow."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass


@dataclass(frozen=True)
class LossTerms:
    """The parts of a step's loss, averaged over the micro-batches that had them.

    Attributes:
        inside: unweighted elementwise loss inside the masks; None when nothing was inside.
        outside: the same outside; None when nothing was outside.
        prior: the prior's part of the loss; None when it did not run.
        drift: mean square distance from the base model's prediction outside the masks; None when the prior did not
            run.
        preservation: the part of the loss that holds captions without the trigger word; None when it did not run.
    """

    inside: float | None
    outside: float | None
    prior: float | None
    drift: float | None
    preservation: float | None


TERMS = tuple(field.name for field in dataclasses.fields(LossTerms))
