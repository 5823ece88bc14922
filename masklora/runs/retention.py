"""How much of finished runs stays on the disk: the newest whole, of the others all but the optimizer's state."""

from __future__ import annotations

import contextlib
from pathlib import Path

import filelock

from ..errors import RunError
from ..findings import Finding, counted, note
from .deletion import folder_size
from .history import run_folders
from .marks import read_marks
from .run import LOCK, Run, checkpoint_steps, read_result


def make_room(root: Path, *, keep: int, spare: Path | None = None) -> list[Finding]:
    """What was freed, and what the runs take now, after every finished run was brought to what shall stay of it.

    The starred ones stay whole. The newest `keep` of the others can be made longer without a seam: their last
    checkpoint stays whole. Of earlier checkpoints, and of older runs, the optimizer's state goes; weights, metrics and
    pictures stay.

    Args:
        root: Folder of the runs.
        keep: How many of the newest stay whole.
        spare: A run that stays whole besides: the one that was just asked for.
    """
    ended = [(folder, read_result(folder)) for folder in run_folders(root)]
    done = (folder for folder, end in ended if end and end["completed"] and not read_marks(folder).starred)
    finished = sorted(done, key=_ended, reverse=True)
    freed, thinned = 0, 0
    for number, folder in enumerate(finished):
        steps = checkpoint_steps(folder)
        whole = number < keep or folder == spare
        room = sum(_shed(folder, steps[:-1] if whole else steps))
        freed, thinned = freed + room, thinned + (room > 0)
    sizes = [folder_size(folder) for folder, _ in ended]
    runs = counted(len(sizes), "[run takes|runs take]")
    text = f"{runs} {_mib(sum(sizes))} on the disk, this one {_mib(folder_size(spare))}." if spare else ""
    if thinned:
        text += (
            f" {_mib(freed)} of optimizer state of {counted(thinned, 'finished [run|runs]')} made room: "
            f"keep_finished_runs is {keep}. Their LoRA files, weights, curves and pictures stay; going on with one "
            "starts with fresh state."
        )
    return [note(text.strip())] if text else []


def _shed(folder: Path, steps: list[int]) -> list[int]:
    lock = filelock.FileLock(folder / LOCK, timeout=0)
    # Somebody trains there, or the disk refuses: another time.
    with contextlib.suppress(filelock.Timeout, OSError), lock:
        run = Run(folder=folder, fingerprint="")
        return [freed for step in steps if (freed := _freed(run, step)) > 0]
    return []


def _freed(run: Run, step: int) -> int:
    with contextlib.suppress(RunError):
        return run.shed_optimizer(step)
    return 0


def _ended(folder: Path) -> float:
    with contextlib.suppress(OSError):
        return (folder / "result.json").stat().st_mtime
    return 0.0


def _mib(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"
