"""Earlier runs that a new one can go on from, or that were nearly the same: nothing is trained twice in silence."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..documents import read_document
from ..errors import RunError
from ..findings import Finding, counted, note, warning
from ..loss.tokens import parse_routes
from ..optimizers.optim import learning_rate_factor
from ..runs.history import run_folders, run_name, runs_called
from ..runs.run import Checkpoint, Run, checkpoint_steps, has_optimizer
from ..runs.sample_pictures import SampleFolder
from ..settings import LossSettings, OptimizerSettings
from ..showings.record import copy_showings

LENGTH = ("steps", "epochs")
_MOST_DIFFERENCES = 8
# How a person knows the parts of a run's identity that are no settings.
_PARTS = {
    "cache": "the pictures, masks or captions, or the settings of Cache Dataset",
    "model": "the MODEL",
    "family": "the MODEL's family",
    "dtype": "the MODEL's number format",
    "sampling": "what ModelSampling nodes do to the MODEL",
    "names": "the pictures' names, which decide what is held out",
    "start_from": "the file of start_from",
    "low": "the model of model_low",
    "texts": "what is trained of the text encoders",
    "format": "the version of this pack",
}


@dataclass(frozen=True)
class Source:
    """A checkpoint to go on from: of the run in `folder`, after `step`."""

    folder: Path
    step: int


def length_bound(loss: LossSettings, optim: OptimizerSettings) -> list[str]:
    """The settings by which a step depends on how long the run is; without any, a longer run begins as a shorter one.

    Returns:
        Words for people, such as "schedule cosine".
    """
    found = []
    if optim.schedule != "constant":
        found.append(f"schedule {optim.schedule}")
    if loss.prior_weight > 0 and loss.prior_schedule != "constant":
        found.append(f"prior_schedule {loss.prior_schedule}")
    if loss.prior_weight > 0 and loss.prior_warmup > 0:
        found.append(f"prior_warmup {loss.prior_warmup:g}")
    if parse_routes(loss.routes) and 0 < loss.route_until < 1:
        found.append(f"route_until {loss.route_until:g}")
    return found


def find_source(root: Path, identity: Mapping[str, Any], *, total: int, exact: bool) -> Source | None:
    """The furthest checkpoint, at most `total`, of a run that differs from `identity` in its length only.

    Args:
        root: Folder of the runs.
        identity: Of the new run.
        total: Steps of the new run.
        exact: Whether steps do not depend on the length: then any checkpoint serves, else those of shorter runs.
    """
    wanted, found = _without_length(identity), []
    for folder in run_folders(root):
        settings = read_document(folder / "settings.json", {"fingerprint": str, "train": dict})
        steps = checkpoint_steps(folder)
        if settings is None or not steps or _without_length(settings) != wanted:
            continue
        if exact:
            # Without the optimizer's state it is no shortcut, but where a finished run is all there is.
            ends = {total, steps[-1]}
            found += [Source(folder, n) for n in steps if 0 < n <= total and (n in ends or has_optimizer(folder, n))]
        elif steps[-1] < total:
            found.append(Source(folder, steps[-1]))
    return max(found, key=lambda one: one.step, default=None)


def go_on_from(run: Run, source: Source) -> Checkpoint | None:
    """The checkpoint of another run, made this run's own with the numbers, pictures and best weights before it.

    Returns:
        None where the checkpoint is damaged: the run then starts at 0.

    Raises:
        RunError: The folder of `run` cannot be written.
    """
    other = Run(folder=source.folder, fingerprint="")
    try:
        checkpoint = other.load_checkpoint(source.step)
    except RunError:
        return None
    assert checkpoint is not None
    best = other.best_step()
    if best is not None and best < source.step:
        with contextlib.suppress(RunError):
            kept = other.load_checkpoint(best)
            assert kept is not None
            run.save_checkpoint(best, adapter=kept.adapter, state=kept.state, keep_last=2, best=True)
    # The base model's pictures and those on the way; drawing them again would only cost time.
    SampleFolder(source.folder).copy_to(run.folder, until=source.step)
    run.start_metrics(0)
    run.append_metrics(row for row in other.read_metrics() if row["step"] <= source.step)
    copy_showings(source.folder, run.folder, until=source.step)
    run.save_checkpoint(
        source.step, adapter=checkpoint.adapter, state=checkpoint.state, keep_last=2, best=best == source.step
    )
    return checkpoint


def source_notes(
    source: Source, checkpoint: Checkpoint, *, total: int, bound: list[str], optim: OptimizerSettings
) -> list[Finding]:
    """What going on from another run means for this one."""
    begin = f"Going on from the run {run_name(source.folder)}, which is the same but for its length, after its step"
    if checkpoint.state.get("optimizer") is None and source.step < total:
        # The trainer tells of the state.
        return [note(f"{begin} {source.step}.")]
    if not bound:
        return [note(f"{begin} {source.step}: the result is that of {counted(total, '[step|steps]')} from the start.")]
    reckons = "reckons" if len(bound) == 1 else "reckon"
    text = (
        f"{begin} {source.step}. {' and '.join(bound)} {reckons} with the length of a run, so the result is not that "
        f"of {counted(total, '[step|steps]')} from the start"
    )
    if optim.schedule != "constant":
        there = learning_rate_factor(source.step, total=total, settings=optim)
        before = learning_rate_factor(source.step - 1, total=source.step, settings=optim)
        text += f": the learning rate was at {before:.0%} of its value there and goes on at {there:.0%}"
    return [warning(f"{text}. Set if_a_run_exists to start anew for that.")]


def difference_note(root: Path, name: str, identity: Mapping[str, Any], *, but: Path) -> list[Finding]:
    """A line on the run called `name` that is most like `identity`, and in what it differs; none where there is none.

    Args:
        root: Folder of the runs.
        name: As a person asked for it.
        identity: Of the new run.
        but: The new run's own folder.
    """
    best: tuple[int, Path, list[str]] | None = None
    for folder in runs_called(root, name):
        settings = read_document(folder / "settings.json", {"fingerprint": str, "train": dict})
        steps = checkpoint_steps(folder)
        if folder == but or settings is None or not steps:
            continue
        found = differences(settings, identity)
        if best is None or len(found) < len(best[2]):
            best = (steps[-1], folder, found)
    if best is None:
        return []
    steps, _, found = best
    shown = ", ".join(found[:_MOST_DIFFERENCES])
    more = f" and {len(found) - _MOST_DIFFERENCES} more" if len(found) > _MOST_DIFFERENCES else ""
    return [
        note(
            f"A run of this name with {counted(steps, '[step|steps]')} exists and stays. It differs in: {shown}{more}. "
            "So this one starts at step 0."
        )
    ]


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """In what a run's settings differ from others, in words: `learning_rate 0.0001 -> 0.0002`."""
    old, new = _plain(before), _plain(now)
    found = []
    for part in dict.fromkeys([*new, *old]):
        if part == "fingerprint" or old.get(part) == new.get(part):
            continue
        if isinstance(old.get(part), dict) and isinstance(new.get(part), dict):
            found += _changes(old[part], new[part])
        else:
            found.append(_PARTS.get(part, part))
    return found


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for key in dict.fromkeys([*new, *old]):
        if old.get(key) != new.get(key):
            yield f"{key} {_said(old.get(key))} -> {_said(new.get(key))}"


def _said(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    text = "unset" if value is None or value == "" else str(value)
    return text if len(text) <= 40 else text[:39] + "…"


def _without_length(identity: Mapping[str, Any]) -> dict[str, Any]:
    plain = {key: value for key, value in _plain(identity).items() if key != "fingerprint"}
    plain["train"] = {key: value for key, value in plain["train"].items() if key not in LENGTH}
    return plain


def _plain(identity: Mapping[str, Any]) -> dict[str, Any]:
    # As JSON gives it back.
    return json.loads(json.dumps(dict(identity)))
