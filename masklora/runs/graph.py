"""The graph that queued a run, kept in its folder so that a person can open it again and go on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..documents import read_document
from ..files import write_text_atomically

NAME = "graph.json"
MOST_BYTES = 8 * 2**20


def keep_graph(folder: Path, graph: dict[str, Any]) -> bool:
    """Whether `graph` was kept in the run's folder: it must be JSON of at most `MOST_BYTES` with something in it.

    Args:
        folder: of the run.
        graph: `prompt` (what ComfyUI executes), `workflow` (what its page shows; None for a graph that no page
            queued) and `node`, the training node's id.

    Raises:
        RunError: the folder cannot be written.
    """
    if not graph.get("prompt") and not graph.get("workflow"):
        return False
    try:
        text = json.dumps(graph)
    except (TypeError, ValueError, RecursionError):
        return False
    if len(text) > MOST_BYTES:
        return False
    write_text_atomically(folder / NAME, text)
    return True


def has_graph(folder: Path) -> bool:
    """Whether a graph is kept."""
    return (folder / NAME).is_file()


def read_graph(folder: Path) -> dict[str, Any] | None:
    """The graph, None where there is none."""
    return read_document(folder / NAME, optional={"prompt": dict, "workflow": dict})
