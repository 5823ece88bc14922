"""How much of each picture's background a LoRA paints: leaks.json in a run's folder, as it was measured last."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from ..documents import fits, read_document
from ..files import write_text_atomically

NAME = "leaks.json"


def keep_leaks(folder: Path, step: int, pictures: Mapping[str, float]) -> None:
    """Keep the leaks by names of cache entries, as they were after `step`, with the run in `folder`.

    Raises:
        RunError: The folder cannot be written.
    """
    write_text_atomically(folder / NAME, json.dumps({"step": step, "pictures": dict(pictures)}))


def read_leaks(folder: Path) -> dict[str, float]:
    """Those of the run in `folder`; none where they were not measured, or are damaged."""
    found = (read_document(folder / NAME, {"pictures": dict}) or {"pictures": {}})["pictures"]
    return {name: value for name, value in found.items() if fits(value, float)}
