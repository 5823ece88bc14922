"""The table of a run's pictures for the page: numbers, small pictures, and where each can be looked at large."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Any

import folder_paths
from aiohttp import web

from ...clips.header import CLIP_EXTENSIONS
from ...clips.reading import read_frames
from ...errors import PathError
from ...folder.tree import check_frames
from ...pictures.reading import ImageData, read_image
from ...showings.leaks import read_leaks
from ...showings.record import read_showings
from ...showings.sources import Source, read_sources
from ...showings.table import RECENT, picture_table
from ...viewing.sheet import small
from ..paths import allow
from .dataset_routes import decoded, jpeg
from .opened import OPENED
from .requests import Handler, RefusedError, path_number
from .run_routes import run_folder_of

SIDE = 96
# Files of pictures change seldom while somebody looks at a table.
KEPT = {"Cache-Control": "private, max-age=600"}


async def get_pictures(request: web.Request) -> Any:
    """A row for each picture of the run's data set, worst first; `recent` showings of each count."""
    folder = await run_folder_of(request)
    return {"recent": RECENT, "rows": await asyncio.to_thread(_rows, folder)}


async def get_thumbnail(request: web.Request) -> web.Response:
    """A small picture of the run's picture of a number."""
    sources = await asyncio.to_thread(read_sources, await run_folder_of(request))
    number = path_number(request, "picture")
    file = sources[number].file if number < len(sources) else ""
    if not file:
        raise RefusedError(404, "There is no file of this picture.")
    try:
        path = await asyncio.to_thread(_allowed, file)
    except PathError as error:
        raise RefusedError(403, str(error)) from error
    data = await decoded(request, lambda: jpeg(small(_picture(path).rgb, SIDE), 82))
    return web.Response(body=data, content_type="image/jpeg", headers=KEPT)


def _allowed(file: str) -> Path:
    path = allow(file)
    if path.is_dir():
        check_frames(path, allow)
    return path


def _picture(path: Path) -> ImageData:
    """The picture in a file, or the first frame of a clip."""
    moves = path.is_dir() or path.suffix.lower() in CLIP_EXTENSIONS
    return next(iter(read_frames(path, [0]))) if moves else read_image(path)


def _rows(folder: Path) -> list[dict[str, Any]]:
    sources = {source.name: (number, source) for number, source in enumerate(read_sources(folder))}
    opened, out = _opened(), []
    for row in picture_table(read_showings(folder), names=sources, leaks=read_leaks(folder)):
        number, source = sources.get(row.name, (None, Source(row.name, "", "", "")))
        place = opened.get(_identity(source.sample, source.key, source.file))
        told = {"number": number, "file": _place(source.file), "opened": place}
        out.append(dataclasses.asdict(row) | told)
    return out


def _opened() -> dict[tuple[str, str], dict[str, Any]]:
    """Where the samples of the data sets that are open in this ComfyUI can be looked at; the one opened last counts."""
    found = {}
    for one in OPENED.all():
        for index in range(len(one)):
            sample = one.source(index)
            place = {"dataset": one.id, "picture": index, "stamp": one.stamp(index)}
            found[_identity(sample.name, sample.key, str(sample.image_path or ""))] = place
    return found


def _place(file: str) -> str:
    """A file as people are told of it: from ComfyUI's input or output folder on where it lies there, with `/`."""
    for folder in (folder_paths.get_input_directory(), folder_paths.get_output_directory()):
        root = Path(folder).resolve()
        if file and Path(file).is_relative_to(root):
            return Path(file).relative_to(root.parent).as_posix()
    return file


def _identity(sample: str, key: str, file: str) -> tuple[str, str]:
    """What is equal for the same sample in two data sets, one of which may have been merged of others."""
    return (file, sample) if file else ("", key)


_ONE = "/runs/{run}/pictures"
PICTURE_GETS: dict[str, Handler] = {_ONE: get_pictures, f"{_ONE}/{{picture}}/thumbnail": get_thumbnail}
