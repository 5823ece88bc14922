"""What the caption editor asks: the caption as its file has it, and saving it."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web

from ...errors import CaptionConflictError
from ...saving.captions import raw_caption, same_caption, save_caption
from ..outputs import allow_writing
from .edits import EDITS, caption_versions
from .opened import OPENED, OpenedDataset, opened_of, picture_of
from .requests import Handler, RefusedError, read_json

# More than the longest caption in UTF-8 and JSON.
_BYTES = 1 << 20
_FILES = asyncio.Lock()


async def get_caption(request: web.Request) -> Any:
    """The caption as its file has it, the token to save it with, and the file's name."""
    opened = opened_of(request)
    sample = opened.source(picture_of(request, opened))
    raw = await asyncio.to_thread(raw_caption, sample, allowed=allow_writing)
    return {"text": raw.text, "token": raw.token, "file": raw.file}


async def post_caption(request: web.Request) -> Any:
    """Save a caption: `{"text": …, "token": …}`, the token that it was opened with."""
    opened = opened_of(request)
    index = picture_of(request, opened)
    body = await read_json(request, _BYTES)
    if set(body) != {"text", "token"} or not all(isinstance(value, str) for value in body.values()):
        raise RefusedError(400, 'Expected {"text": …, "token": …} and nothing else.')
    async with _FILES:
        try:
            return await asyncio.to_thread(_save, opened, index, body["text"], body["token"])
        except CaptionConflictError as conflict:
            raise RefusedError(412, str(conflict)) from conflict


def _save(opened: OpenedDataset, index: int, text: str, token: str) -> dict[str, Any]:
    before = opened.source(index)
    after = save_caption(before, text, token, allowed=allow_writing, versions=caption_versions())
    EDITS.add()
    changed: list[int] = []
    for one in OPENED.all():
        found = same_caption([one.source(i) for i in range(len(one))], before, after)
        for i, sample in found.items():
            one.take_caption(i, sample)
        changed = sorted(found) if one is opened else changed
    raw = raw_caption(after, allowed=allow_writing)
    return {"index": index, "changed": changed, "text": raw.text, "token": raw.token, "file": raw.file}


_ONE = "/datasets/{dataset}/pictures/{picture}/caption"
CAPTION_GETS: dict[str, Handler] = {_ONE: get_caption}
CAPTION_POSTS: dict[str, Handler] = {_ONE: post_caption}
