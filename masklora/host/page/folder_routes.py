"""Choosing the folder of pictures, and filling a new one: what there is, and files that a person sends.

Files come one by one, so that each is there whole or not at all, and a broken connection costs only the one.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from aiohttp import ClientError, web

from ...files import cannot_write, drop, temporary_beside
from ...folder.caption_files import METADATA
from ...gathering.arrival import (
    MOST_FILES,
    Arrival,
    NameTakenError,
    NoRoomError,
    TooMuchError,
    accepted_extensions,
    most_bytes,
    new_folder_name,
    room_in,
)
from ..choosing import folders_to_choose, input_folder
from ..outputs import allow_writing
from .requests import Handler, RefusedError, path_id, read_json

T = TypeVar("T")

MOST_OPEN = 16
# Where ComfyUI itself was given no limit.
MOST_BYTES = 1 << 30
PIECE = 1 << 20
KIND = "application/octet-stream"
_STATUS = {TooMuchError: 413, NoRoomError: 507, NameTakenError: 409}

_ARRIVALS: OrderedDict[str, Arrival] = OrderedDict()
# A second look at the same disk would only slow down the first.
_LOOKING = asyncio.Lock()


async def get_folders(request: web.Request) -> Any:
    """The folders to choose, newest first, and what may be sent: bytes by the ending or the name of a file."""
    async with _LOOKING:
        choices, complete = await asyncio.to_thread(folders_to_choose)
    most = _most_bytes(request)
    return {
        "folders": [
            {
                "name": choice.name,
                "shown": choice.shown,
                "place": choice.place,
                "pictures": choice.counts.pictures,
                "masks": choice.counts.masks,
                "clips": choice.counts.clips,
                "changed": choice.counts.changed,
            }
            for choice in choices
        ],
        "complete": complete,
        "takes": {extension: most_bytes(f"x{extension}", most) for extension in accepted_extensions()},
        "takes_names": {METADATA: most_bytes(METADATA, most)},
        "most_files": MOST_FILES,
        "room": await asyncio.to_thread(room_in, input_folder() / "x"),
    }


async def post_folder(request: web.Request) -> Any:
    """Begin to send: `{"name": …, "files": number, "bytes": of all, "add": whether to a folder with files in it}`."""
    body = await read_json(request)
    if set(body) != {"name", "files", "bytes", "add"}:
        raise RefusedError(400, 'Expected {"name": …, "files": …, "bytes": …, "add": …} and nothing else.')
    name, files, size, add = body["name"], body["files"], body["bytes"], body["add"]
    if not isinstance(name, str) or not isinstance(add, bool):
        raise RefusedError(400, "Expected name as a text and add as true or false.")
    if any(not isinstance(number, int) or isinstance(number, bool) or number < 0 for number in (files, size)):
        raise RefusedError(400, "Expected files and bytes as whole numbers from 0.")

    def begin() -> Arrival:
        root = input_folder()
        folder = new_folder_name(name, root=root)
        return Arrival(root, folder, files=files, size=size, allowed=allow_writing, add=add)

    arrival = await _apart(begin)
    known = secrets.token_hex(10)
    _ARRIVALS[known] = arrival
    while len(_ARRIVALS) > MOST_OPEN:
        _ARRIVALS.popitem(last=False)
    return {"id": known, "name": arrival.name}


async def post_file(request: web.Request) -> Any:
    """One file, its bytes as the body and its name below the folder as the query `path`; what it is called now."""
    known = path_id(request, "arrival")
    arrival = _ARRIVALS.get(known)
    if arrival is None:
        raise RefusedError(404, "This sending is over. Begin anew.")
    _ARRIVALS.move_to_end(known)
    relative = request.query.get("path", "")
    size = _announced(request, relative)
    target = await _apart(lambda: arrival.place(relative, size))
    temporary = temporary_beside(target)
    try:
        await _receive(request, temporary, size)
        kept = await _apart(lambda: arrival.keep(temporary, target, relative))
    except BaseException:
        arrival.give_back(size)
        drop(temporary)
        raise
    return {"name": kept}


def _announced(request: web.Request, relative: str) -> int:
    """How many bytes will come, if so many may."""
    if request.content_type != KIND or "Content-Encoding" in request.headers:
        raise RefusedError(415, f"Expected a body of type {KIND}, as it is.")
    size = request.content_length
    if size is None:
        raise RefusedError(411, "Expected the header Content-Length.")
    most = most_bytes(relative.rpartition("/")[2], _most_bytes(request))
    # What is taken at all is told by its name.
    if most and size > most:
        raise RefusedError(
            413,
            f"{relative}: {size / 1e6:.1f} MB are more than the {most / 1e6:.1f} MB that are taken here. For larger "
            "files start ComfyUI with --max-upload-size, or put the file into the folder by hand.",
        )
    return size


async def _receive(request: web.Request, temporary: Path, size: int) -> None:
    """The body into a file, of exactly `size` bytes."""
    came = 0
    try:
        file: BinaryIO = await asyncio.to_thread(temporary.open, "xb")
        try:
            async for piece in request.content.iter_chunked(PIECE):
                came += len(piece)
                await asyncio.to_thread(file.write, piece)
            await asyncio.to_thread(_flush, file)
        finally:
            file.close()
    except (ClientError, ConnectionError) as error:
        raise RefusedError(400, "The connection broke off. Send the file again.") from error
    except OSError as error:
        raise cannot_write(temporary, error) from error
    if came != size:
        raise RefusedError(400, f"Expected {size} bytes, got {came}. Send the file again.")


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


async def _apart(work: Callable[[], T]) -> T:
    """`work` in a thread, its refusals with a status of their own."""
    try:
        return await asyncio.to_thread(work)
    except (TooMuchError, NoRoomError, NameTakenError) as error:
        raise RefusedError(_STATUS[type(error)], str(error)) from error


def _most_bytes(request: web.Request) -> int:
    return request.client_max_size or MOST_BYTES


FOLDER_GETS: dict[str, Handler] = {"/folders": get_folders}
FOLDER_POSTS: dict[str, Handler] = {"/folders": post_folder, "/folders/{arrival}/files": post_file}
