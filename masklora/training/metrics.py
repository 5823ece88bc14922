"""What every step reports, gathered on the device and fetched in one transfer now and then.

Reading a number from a GPU waits for all the work queued before it. So the loop only appends device
tensors here, and they cross over together: every so many steps or every quarter of a second.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..loss.terms import TERMS, LossTerms
from ..showings.record import Shown

NAMES_SHOWN = 8
FLUSH_STEPS = 50
FLUSH_SECONDS = 0.25
SUMMARY_STEPS = 100
# How much of a difference counts between checkpoints: of the leak as it is, of the others as a share of the largest.
CLEAR = {"leak": 0.01, "validation": 0.02, "drift_plain": 0.1}
SUMMARISED = ("loss", *TERMS, "coverage")
# A term is NaN where there is nothing to take a mean of.
COLUMNS = ("loss", *TERMS, "coverage", "zero_weight_samples", "grad_norm")


@dataclass(frozen=True)
class StepReport(LossTerms):
    """One optimizer step in numbers, the parts of its loss among them.

    Attributes:
        step: number of finished steps, 1 for the first.
        total: steps of the whole run.
        epoch: 0-based.
        loss: the objective, averaged over the accumulated micro-batches.
        coverage: mean weight over all latent cells, 0 to 1.
        zero_weight_samples: samples without any weight.
        grad_norm: before clipping.
        learning_rate: of the first parameter group.
        steps_per_second: over the last seconds, pauses left out.
        samples: names of the pictures, at most eight.
        shown: all pictures with the loss of each; kept apart from the other numbers.
        expert: name of the model whose step it was, where two take turns.
    """

    step: int
    total: int
    epoch: int
    loss: float
    coverage: float
    zero_weight_samples: int
    grad_norm: float
    learning_rate: float
    steps_per_second: float
    samples: tuple[str, ...]
    shown: tuple[Shown, ...] = ()
    expert: str = ""

    def as_json(self) -> dict[str, Any]:
        """The report without `shown` as JSON-able values; NaN and infinity become None."""
        out = dataclasses.asdict(dataclasses.replace(self, shown=()))
        del out["shown"]
        if not self.expert:
            del out["expert"]
        for key, value in out.items():
            if isinstance(value, float) and not math.isfinite(value):
                out[key] = None
        return out


@dataclass(frozen=True)
class StepFacts:
    """What the host knows of a step without asking the device."""

    step: int
    epoch: int
    learning_rate: float
    samples: tuple[str, ...]
    expert: str = ""


def micro_row(loss: Tensor, part: dict[str, Tensor]) -> Tensor:
    """The columns of a micro-batch as one device tensor (len(COLUMNS) - 1,), float32, no waiting for the device.

    Args:
        loss: 0-d.
        part: its numbers: `coverage`, `zero`, and those of `TERMS` that it had; the others become NaN.
    """
    lacking = part["coverage"].new_full((), float("nan"))
    columns = [loss, *(part.get(name, lacking) for name in TERMS), part["coverage"].mean(), part["zero"]]
    return torch.stack([column.detach().to(torch.float32) for column in columns])


def step_row(micros: Tensor, grad_norm: Tensor) -> Tensor:
    """The columns of a step as one device tensor (len(COLUMNS),), float32.

    Args:
        micros: `micro_row` of each micro-batch, (M, len(COLUMNS) - 1).
        grad_norm: 0-d.

    Returns:
        Means over the micro-batches; those of `TERMS` leave out micro-batches that have no such part or cell.
    """
    terms = slice(1, 1 + len(TERMS))
    columns = [
        micros[:, :1].mean(dim=0),
        micros[:, terms].nanmean(dim=0),
        micros[:, -2:-1].mean(dim=0),
        micros[:, -1:].sum(dim=0),
        grad_norm.detach().to(torch.float32).view(1),
    ]
    return torch.cat(columns)


def showing_row(part: dict[str, Tensor]) -> Tensor:
    """Noise level, loss inside and coverage of each picture of a micro-batch as one device tensor (B, 3), float32.

    Args:
        part: the numbers of the micro-batch: `level`, `each` and `coverage`, (B,) all.
    """
    return torch.stack([part[name].to(torch.float32) for name in ("level", "each", "coverage")], dim=1)


class MetricBuffer:
    """Rows waiting on the device, and the speed of the run."""

    def __init__(self, total: int, *, immediate: bool) -> None:
        """`total` is the run's number of steps; `immediate` is due after every one."""
        self.total, self.immediate = total, immediate
        self._rows: list[Tensor] = []
        self._shown: list[Tensor] = []
        self._facts: list[StepFacts] = []
        self._last = time.monotonic()
        self._marks: deque[tuple[float, int]] = deque(maxlen=32)

    def add(self, row: Tensor, facts: StepFacts, shown: Tensor | None = None) -> None:
        """Keep a step's row, and that of each of its pictures, until the next flush."""
        if not self._marks:
            self._marks.append((self._last, facts.step - 1))
        self._rows.append(row)
        self._shown.append(row.new_empty(0, 3) if shown is None else shown)
        self._facts.append(facts)

    @property
    def due(self) -> bool:
        """Whether it is time to fetch."""
        if not self._rows:
            return False
        if self.immediate:
            return True
        return len(self._rows) >= FLUSH_STEPS or time.monotonic() - self._last >= FLUSH_SECONDS

    def restart_clock(self) -> None:
        """Forget the speed so far, after a pause or a validation."""
        self._last = time.monotonic()
        self._marks.clear()

    def fetch(self) -> list[StepReport]:
        """All waiting steps as reports, oldest first, in one transfer."""
        if not self._rows:
            return []
        numbers = iter(torch.cat([part.flatten() for part in (*self._rows, *self._shown)]).tolist())
        table = [list(itertools.islice(numbers, len(row))) for row in self._rows]
        shown = [[list(itertools.islice(numbers, 3)) for _ in range(len(one))] for one in self._shown]
        facts, self._rows, self._shown, self._facts = self._facts, [], [], []
        self._last = time.monotonic()
        self._marks.append((self._last, facts[-1].step))
        (t0, s0), (t1, s1) = self._marks[0], self._marks[-1]
        rate = (s1 - s0) / (t1 - t0) if t1 > t0 else 0.0
        return [self._report(*one, rate) for one in zip(table, shown, facts, strict=True)]

    def _report(self, row: list[float], shown: list[list[float]], facts: StepFacts, rate: float) -> StepReport:
        values: dict[str, Any] = dict(zip(COLUMNS, row, strict=True))
        for key in TERMS:
            values[key] = None if math.isnan(values[key]) else values[key]
        values["zero_weight_samples"] = round(values["zero_weight_samples"])
        return StepReport(
            step=facts.step,
            total=self.total,
            epoch=facts.epoch,
            learning_rate=facts.learning_rate,
            steps_per_second=rate,
            samples=facts.samples[:NAMES_SHOWN],
            expert=facts.expert,
            shown=tuple(map(_shown, facts.samples, shown)),
            **values,
        )


def _shown(name: str, numbers: Sequence[float]) -> Shown:
    level, inside, coverage = numbers
    return Shown(name, level, inside if math.isfinite(inside) else None, coverage)


def summarise(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Coverage and loss inside and outside over the last hundred steps, and all samples without weight.

    Args:
        records: lines of metrics.jsonl.

    Returns:
        JSON-able; a mean is None where no step has that value. Where two models take turns, `experts` has the same of
        the steps of each.
    """
    out = _summary(records)
    experts = dict.fromkeys(r["expert"] for r in records if r.get("expert"))
    if experts:
        out["experts"] = {one: _summary([r for r in records if r.get("expert") == one]) for one in experts}
    return out


def favoured_step(records: Sequence[dict[str, Any]], among: Collection[int]) -> int | None:
    """The step that leak, held-out loss and drift without trigger words favour together; None where there is no choice.

    Each measure puts the steps between its best, 0, and its worst, 1; one that is much the same in all puts all at 0.
    The least sum is favoured, of equals the latest. A leak below 0 is no better than none.

    Args:
        records: lines of metrics.jsonl.
        among: steps to choose from; those without a leak do not count.
    """
    found: dict[int, dict[str, float]] = {}
    for record in records:
        known = {name: record[name] for name in CLEAR if record.get(name) is not None}
        if record["step"] in among and known:
            found.setdefault(record["step"], {}).update(known)
    measured = {
        step: {**values, "leak": max(0.0, values["leak"])} for step, values in found.items() if "leak" in values
    }
    if len(measured) < 2:
        return None
    sums = dict.fromkeys(measured, 0.0)
    for name, clear in CLEAR.items():
        values = {step: one[name] for step, one in measured.items() if name in one}
        low, high = min(values.values(), default=0.0), max(values.values(), default=0.0)
        if len(values) < len(measured) or high - low <= clear * (1.0 if name == "leak" else high):
            continue
        for step, value in values.items():
            sums[step] += (value - low) / (high - low)
    return max(sums, key=lambda step: (-sums[step], step))


def _summary(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    steps = [r for r in records if "loss" in r]
    recent = steps[-SUMMARY_STEPS:]
    out: dict[str, Any] = {}
    for key in SUMMARISED:
        values = [r[key] for r in recent if r.get(key) is not None]
        out[key] = sum(values) / len(values) if values else None
    out["zero_weight_samples"] = sum(r.get("zero_weight_samples", 0) for r in steps)
    out["over_steps"] = len(recent)
    return out
