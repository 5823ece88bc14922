"""What the runs of a folder have left: a list of them, and the curve of one.

Everything is read from the files that `run.Run` writes, without its lock: a run that is being trained can be
read too. Other files and links that lead out of the folder are passed over.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..documents import metric_rows
from ..experts import LOW
from ..loss.likeness import FIGURES
from ..loss.terms import TERMS
from .graph import has_graph
from .marks import read_favoured, read_marks
from .record import has_record
from .run import ANEW, FINGERPRINT_LETTERS, checkpoint_steps, read_result, safe_name
from .sample_pictures import SampleFolder
from .told import Told, read_told

# In the order in which the page offers them.
_MEASURED = ("validation", "leak", "drift_plain", *FIGURES)
CURVES = ("loss", *TERMS, "loss_low", "inside_low", "outside_low", *_MEASURED, "learning_rate")
# Where two models take turns, the numbers of the one for low noise that have curves of their own: the levels of the
# two are so unlike that one curve of both would only jump.
_LOW = {"loss": "loss_low", "inside": "inside_low", "outside": "outside_low"}
MOST_POINTS = 2000
_TAIL = 1 << 12


@dataclass(frozen=True)
class PastRun:
    """One run as its files tell it.

    Attributes:
        id: opaque; see `run_id`.
        name: under which it was asked for last.
        label: a person's own name for it; empty where there is none.
        starred: whether a person marked it as one that shall stay.
        state: `finished` (all steps), `stopped` (ended before), `failed` (ended with an error) or `open` (cancelled, or
            being trained).
        step: last step with numbers; 0 for none.
        total: steps that were planned; None while no step has told it.
        started: when the folder was made, in seconds since 1970.
        summary: of a run that has ended, else empty.
        checkpoints: steps with a checkpoint, oldest first.
        favoured: the one of them that leak, held-out loss and drift together favour; None where none is.
        pictures_mark: changes with every sample picture; empty where there is none.
        graph: whether the graph that queued it is kept.
        exportable: whether LoRA files can be written from its checkpoints.
        written: the LoRA file of this run, as people are told of it; empty where none was written.
        written_low: its second file where it trained two models, the one for low noise; else empty.
        taken: the wanted name of that file where it was another's, else None.
        failed: why the run ended with an error; empty where it did not.
        notes: what was told at the start of the training, `text` and `level` each.
    """

    id: str
    name: str
    label: str
    starred: bool
    state: str
    step: int
    total: int | None
    started: float
    summary: dict[str, Any]
    checkpoints: list[int]
    favoured: int | None
    pictures_mark: str
    graph: bool
    exportable: bool
    written: str
    written_low: str
    taken: str | None
    failed: str
    notes: list[dict[str, str]]


def run_id(folder: Path) -> str:
    """The name under which a run is asked for from outside, 20 hex digits: no path, and none can be made of it."""
    return _id_of(folder.name)


def _id_of(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:20]


def run_name(folder: Path) -> str:
    """The run's name: the folder's, without the fingerprint and what tells several apart."""
    return folder.name[: -FINGERPRINT_LETTERS - 1].partition(ANEW)[0]


def run_folders(root: Path) -> list[Path]:
    """The folders of runs in `root`, without links that lead elsewhere; empty when there is no `root`."""
    return sorted(p for p in map(Path, folder_paths(root)) if (p / "settings.json").is_file())


def folder_paths(root: Path) -> list[str]:
    """The paths of all folders in `root`, without links that lead elsewhere, in no order."""
    try:
        with os.scandir(root) as entries:
            return [entry.path for entry in entries if entry.is_dir() and not _leads_away(entry)]
    except OSError:
        return []


def _leads_away(entry: os.DirEntry[str]) -> bool:
    # Windows has junctions besides links; before Python 3.12 only the real path tells them.
    if os.name == "nt":
        return Path(entry.path).resolve().parent != Path(entry.path).parent.resolve()
    return entry.is_symlink()


def find_run(root: Path, identifier: str) -> Path | None:
    """The folder in `root` whose `run_id` is `identifier`; None when there is none."""
    found = (Path(path) for path in folder_paths(root) if _id_of(os.path.basename(path)) == identifier)  # noqa: PTH119
    return next((folder for folder in found if (folder / "settings.json").is_file()), None)


def began(folder: Path) -> float:
    """When the run was begun, in seconds since 1970.

    Raises:
        OSError: settings.json cannot be read.
    """
    return (folder / "settings.json").stat().st_mtime


def read_run(folder: Path) -> PastRun:
    """One run; of its metrics only the end is read.

    Raises:
        OSError: settings.json cannot be read.
    """
    started = began(folder)
    rows = _tail(folder / "metrics.jsonl", since=math.inf)
    steps = [r for r in rows if "loss" in r]
    ended = read_result(folder)
    told, checkpoints, favoured = read_told(folder), checkpoint_steps(folder), read_favoured(folder)
    return PastRun(
        id=run_id(folder),
        state="failed" if told.failed else _state(ended),
        step=steps[-1]["step"] if steps else 0,
        total=steps[-1].get("total") if steps else None,
        started=started,
        summary=(ended or {}).get("summary") or {},
        checkpoints=checkpoints,
        favoured=favoured if favoured in checkpoints else None,
        pictures_mark=SampleFolder(folder).mark(),
        graph=has_graph(folder),
        exportable=has_record(folder),
        **dataclasses.asdict(read_marks(folder)),
        **told_facts(folder, told),
    )


def _state(ended: dict[str, Any] | None) -> str:
    return "open" if ended is None else "finished" if ended["completed"] else "stopped"


def told_facts(folder: Path, told: Told) -> dict[str, Any]:
    """What a page shows of what was told of a run: its `name`, `written`, `taken`, `failed` and `notes`."""
    return {
        "name": safe_name(told.names[-1]) if told.names else run_name(folder),
        "written": told.written,
        "written_low": told.written_low,
        "taken": told.taken,
        "failed": told.failed,
        "notes": [dataclasses.asdict(one) for one in (*told.origin, *told.notes)],
    }


def stopped_runs(root: Path, name: str) -> list[str]:
    """The runs called `name` that ended before their last step, each with that step."""
    ended = ((folder, read_result(folder)) for folder in runs_called(root, name))
    return [f"{folder.name}/{end['steps']}" for folder, end in ended if end and not end["completed"]]


def runs_called(root: Path, name: str) -> list[Path]:
    """The folders of the runs that were asked for under `name`."""
    # To Windows and macOS names of another capitalisation are one.
    wanted = safe_name(name).casefold()

    def names(folder: Path) -> Iterator[str]:
        yield run_name(folder)
        yield from map(safe_name, read_told(folder).names)

    return [folder for folder in run_folders(root) if any(one.casefold() == wanted for one in names(folder))]


def read_curve(folder: Path, *, since: int = 0, most: int = MOST_POINTS) -> list[dict[str, Any]]:
    """The numbers of the steps from `since` on, oldest first: `step` and those of `CURVES` that are there.

    Args:
        folder: of the run.
        since: a step; 0 for all. It is told again, because its held-out loss may be younger than its other numbers.
        most: more steps than this are put together to means, see `thin`.
    """
    rows: dict[int, dict[str, Any]] = {}
    for record in _tail(folder / "metrics.jsonl", since=since - 1):
        if record["step"] >= since:
            rows.setdefault(record["step"], {}).update(curve_row(record))
    return thin(list(rows.values()), most=most)


def curve_row(record: dict[str, Any]) -> dict[str, Any]:
    """What a chart needs of a line of metrics.jsonl."""
    names = _LOW if record.get("expert") == LOW else {}
    known = {names.get(key, key): value for key, value in record.items() if value is not None}
    return {"step": record["step"]} | {key: known[key] for key in CURVES if key in known}


def thin(rows: Sequence[dict[str, Any]], *, most: int) -> list[dict[str, Any]]:
    """At most `most` rows: each the mean of equally many neighbours, at the step of the last of them.

    The last row may stand for fewer. A number that none of the neighbours has is left out.
    """
    size = max(1, math.ceil(len(rows) / most))
    return list(rows) if size == 1 else [_mean(rows[i : i + size]) for i in range(0, len(rows), size)]


def _mean(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    out: dict[str, Any] = {"step": rows[-1]["step"]}
    for key in CURVES:
        values = [r[key] for r in rows if key in r]
        if values:
            out[key] = sum(values) / len(values)
    return out


def _tail(path: Path, *, since: float) -> list[dict[str, Any]]:
    """The lines of a metrics file from its end back to a step of at most `since`; more may come before."""
    try:
        if not path.is_file():
            return []
        with path.open("rb") as file:
            end = file.seek(0, 2)
            size = _TAIL
            while True:
                start = max(0, end - size)
                file.seek(start)
                # What lies before the first line break is a part of a line, except at the start of the file.
                lines = file.read(end - start).split(b"\n")[0 if start == 0 else 1 :]
                rows = list(metric_rows(lines))
                if start == 0 or (rows and rows[0]["step"] <= since and any("loss" in row for row in rows)):
                    return rows
                size *= 8
    except OSError:
        return []
