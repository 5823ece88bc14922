"""A run's folder is taken away, by a person's wish: nothing outside of it, and not while somebody trains there."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

import filelock

from ..errors import RunError
from ..files import patiently
from .run import LOCK

_IN_TRAINING = "This run is being trained. Stop it first, or wait for its end; then delete it."


def folder_size(folder: Path | str) -> int:
    """Bytes that the files of a folder take; what links point at is not counted."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += (Path(place) / name).lstat().st_size
    return total


def delete_run(folder: Path) -> int:
    """The bytes that were freed by deleting a run's folder with everything in it; links go, what they lead to stays.

    Args:
        folder: as `history.find_run` gives it: no link, and directly in the folder of the runs.

    Raises:
        RunError: somebody trains there, or the system does not let it be deleted. What can go first is what lists the
            run, so that none is left that looks whole.
    """
    size, lock = folder_size(folder), filelock.FileLock(folder / LOCK, timeout=0)
    try:
        with lock:
            patiently(lambda: (folder / "settings.json").unlink(missing_ok=True))
            for entry in list(os.scandir(folder)):
                if entry.name != LOCK:
                    _remove(entry)
        # Windows deletes no file that is open.
        (folder / LOCK).unlink(missing_ok=True)
        patiently(folder.rmdir)
    except filelock.Timeout as error:
        raise RunError(_IN_TRAINING) from error
    except OSError as error:
        raise RunError(
            f"{folder} could not be deleted whole ({error.strerror or error}). Close what uses it and delete what is "
            "left by hand."
        ) from error
    return size


def _remove(entry: os.DirEntry[str]) -> None:
    # shutil goes through no link that lies in a folder; one that stands for the folder itself it refuses.
    if entry.is_dir(follow_symlinks=False) and not _is_junction(entry.path):
        patiently(lambda: shutil.rmtree(entry.path))
    elif entry.is_dir(follow_symlinks=False):
        Path(entry.path).rmdir()
    else:
        patiently(Path(entry.path).unlink)


def _is_junction(path: str) -> bool:
    return os.name == "nt" and Path(path).resolve() != Path(path).parent.resolve() / Path(path).name
