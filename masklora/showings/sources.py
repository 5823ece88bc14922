"""Where the pictures of a run came from: pictures.json in its folder, one for each cache entry."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..documents import fits, read_document
from ..files import write_text_atomically

NAME = "pictures.json"


class Source(NamedTuple):
    """One picture.

    Attributes:
        name: Of the cache entry, unique in the run.
        sample: Name of the sample in its data set.
        key: Of the sample, where it came from no file.
        file: Absolute path; empty where it came from no file.
    """

    name: str
    sample: str
    key: str
    file: str


def keep_sources(folder: Path, sources: Sequence[Source]) -> None:
    """Keep them with the run in `folder`; without any, what is kept stays.

    Raises:
        RunError: The folder cannot be written.
    """
    if sources and list(sources) != read_sources(folder):
        write_text_atomically(folder / NAME, json.dumps({"pictures": sources}))


def read_sources(folder: Path) -> list[Source]:
    """Those of the run in `folder`; none where they are not kept, or damaged."""
    found = read_document(folder / NAME, {"pictures": list}) or {"pictures": []}
    whole = (one for one in found["pictures"] if isinstance(one, list) and len(one) == len(Source._fields))
    return [Source(*one) for one in whole if all(fits(part, str) for part in one)]
