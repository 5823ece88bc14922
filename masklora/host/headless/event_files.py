"""TensorBoard's event files in the run's folder, written by its own library."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

FOLDER = "tensorboard"


class EventFiles:
    """One writer for each run; nothing leaves the machine."""

    def __init__(self) -> None:
        """No run yet.

        Raises:
            ImportError: the package tensorboard is missing or broken.
        """
        from torch.utils.tensorboard import SummaryWriter

        self._make: Any = SummaryWriter
        self._writers: dict[Path, Any] = {}

    def add(self, folder: Path, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write the numbers of steps, each under its curve's name.

        Args:
            folder: of the run; the files come into `tensorboard` in it.
            rows: `step` and numbers. Steps from the first one on that an earlier part of the run has written, as after
                the last checkpoint before it ended, are taken back.
        """
        for row in rows:
            if folder not in self._writers:
                self._writers[folder] = self._make(log_dir=str(folder / FOLDER), purge_step=row["step"])
            for name, value in row.items():
                if name != "step":
                    self._writers[folder].add_scalar(name, value, row["step"])

    def close(self) -> None:
        """Write what is left."""
        for writer in self._writers.values():
            writer.close()
