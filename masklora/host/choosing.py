"""The folders of pictures that a person may choose from, under the names that the widget `folder` takes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import folder_paths

from ..errors import PathError
from ..folder.folder_names import tidy
from ..gathering.overview import Bounds, Overview, PictureFolder
from .paths import added_folders, allow

MOST_LISTED = 2000
# ComfyUI's own, in which lies what somebody painted in its mask editor.
_SCRATCH = "clipspace"


class Choice(NamedTuple):
    """A folder by what the widget takes; `place` is where it lies (`input`, `datasets`, `added` or `output`).

    `shown` is its name there, `counts` as `Overview` gives it.
    """

    name: str
    shown: str
    place: str
    counts: PictureFolder


def input_folder() -> Path:
    """ComfyUI's input folder, links resolved."""
    return Path(folder_paths.get_input_directory()).resolve()


def folders_to_choose(bounds: Bounds | None = None) -> tuple[list[Choice], bool]:
    """Up to `MOST_LISTED` folders, the one that was changed last first; and whether nothing was left out.

    Raises:
        PathError: The administrator's list of folders is not of the expected form.
    """
    left_out = [folder_paths.get_user_directory(), folder_paths.get_temp_directory()]
    scratch = [input_folder() / _SCRATCH, *(Path(folder).resolve() for folder in left_out)]
    overview = Overview(allow, bounds=bounds or Bounds(), left_out=scratch)
    found: list[Choice] = []
    for place, root in _roots():
        # Directly in the others lies everything that was ever loaded or drawn.
        for counts in overview.below(root, itself=place in ("datasets", "added")):
            name = _name_of(place, root, counts.relative)
            if name:
                found.append(Choice(name, counts.relative or root.name, place, counts))
    found.sort(key=lambda choice: -choice.counts.changed)
    return found[:MOST_LISTED], overview.complete and len(found) <= MOST_LISTED


def _roots() -> Iterator[tuple[str, Path]]:
    yield "input", input_folder()
    for folder in folder_paths.get_folder_paths("datasets"):
        yield "datasets", Path(folder).resolve()
    for folder in added_folders():
        yield "added", Path(folder).resolve()
    # Save Masks writes there.
    yield "output", Path(folder_paths.get_output_directory()).resolve()


def _name_of(place: str, root: Path, relative: str) -> str:
    """What the widget takes for a folder below a root; empty where it takes none."""
    name = str(root / relative)
    if place == "input" or (place == "datasets" and relative and _leads_to(relative, root / relative)):
        name = relative
    readable = not any("\ud800" <= letter <= "\udfff" or letter == "\0" for letter in name)
    return name if readable and tidy(name) == name else ""


def _leads_to(relative: str, folder: Path) -> bool:
    with contextlib.suppress(PathError, OSError):
        return allow(relative) == folder.resolve()
    return False
