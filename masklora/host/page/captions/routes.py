"""What the page asks about captions: one of them and saving it, their tags, changing many and taking that back.

Pictures go by their place in an open data set and plans by ids, so that no request can name a file.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
from typing import Any

from aiohttp import web

from ....dataset.sample import Sample
from ....errors import CaptionConflictError, ConfigError
from ....folder.captions import reading_of
from ....saving.caption_changes import Change, Plan, plan_changes
from ....saving.captions import NO_FILE, raw_caption, save_caption
from ....viewing.tags import KINDS, tag_table
from ...outputs import allow_writing
from ..edits import FILES, caption_versions, take_captions
from ..opened import OpenedDataset, opened_of, picture_of
from ..requests import Handler, RefusedError, path_id, read_empty, read_json
from .work import MOST_TOLD, work_of

# More than the longest caption in UTF-8 and JSON, and than the numbers of a hundred thousand pictures.
CAPTION_BYTES = 1 << 20
EXAMPLES = 10


async def get_caption(request: web.Request) -> Any:
    """The caption as its file has it, the token to save it with, the file's name, and what its lines are.

    `reading` is as `reading_of` gives it; `several` says whether lines may be captions of their own.
    """
    opened = opened_of(request)
    sample = opened.source(picture_of(request, opened))
    return await asyncio.to_thread(_raw, sample)


async def post_caption(request: web.Request) -> Any:
    """Save a caption: `{"text": …, "token": …}`, the token that it was opened with."""
    opened = opened_of(request)
    index = picture_of(request, opened)
    body = await read_json(request, CAPTION_BYTES)
    if set(body) != {"text", "token"} or not all(isinstance(value, str) for value in body.values()):
        raise RefusedError(400, 'Expected {"text": …, "token": …} and nothing else.')
    async with FILES:
        try:
            return await asyncio.to_thread(_save, opened, index, body["text"], body["token"])
        except CaptionConflictError as conflict:
            raise RefusedError(412, str(conflict)) from conflict


async def get_tags(request: web.Request) -> Any:
    """What the captions hold, as `TagTable` has it; query `kind` is tags or words, without it what suits them."""
    opened = opened_of(request)
    kind = request.query.get("kind")
    if kind not in (None, *KINDS):
        raise RefusedError(400, f"kind: expected one of {', '.join(KINDS)}.")

    def table() -> str:
        version = opened.version
        found = tag_table([opened.source(i) for i in range(len(opened))], kind)
        return json.dumps({"version": version} | dataclasses.asdict(found))

    return web.Response(text=await asyncio.to_thread(table), content_type="application/json")


async def get_work(request: web.Request) -> Any:
    """How far the writing of many captions is, what failed, and whether the last change can be undone."""
    opened_of(request)
    return work_of(path_id(request, "dataset")).state()


async def post_preview(request: web.Request) -> Any:
    """What a change would do: `{"action": …, "text": …, "by": …, "pictures": [0, …] or null for all}`."""
    opened = opened_of(request)
    body = await read_json(request, CAPTION_BYTES)
    if set(body) != {"action", "text", "by", "pictures"}:
        raise RefusedError(400, 'Expected {"action": …, "text": …, "by": …, "pictures": …} and nothing else.')
    pictures = _pictures(body.pop("pictures"), opened)
    if not all(isinstance(value, str) for value in body.values()):
        raise RefusedError(400, "action, text, by: expected texts.")
    samples = [opened.source(i) for i in pictures]
    try:
        plan = await asyncio.to_thread(plan_changes, samples, Change(**body), allowed=allow_writing)
    except ConfigError as error:
        raise RefusedError(400, str(error)) from error
    return {"plan": work_of(opened.id).offer(plan)} | _shown(plan)


async def post_apply(request: web.Request) -> Any:
    """Begin to write what was previewed: `{"plan": id}`."""
    opened = opened_of(request)
    body = await read_json(request)
    if set(body) != {"plan"} or not isinstance(body["plan"], str):
        raise RefusedError(400, 'Expected {"plan": …} and nothing else.')
    work = work_of(opened.id)
    work.apply(body["plan"])
    return work.state()


async def post_undo(request: web.Request) -> Any:
    """Begin to take back the last change of many captions."""
    opened = opened_of(request)
    await read_empty(request)
    work = work_of(opened.id)
    work.undo()
    return work.state()


async def post_stop(request: web.Request) -> Any:
    """Stop what is being written, after the present file."""
    opened = opened_of(request)
    await read_empty(request)
    work = work_of(opened.id)
    work.stop()
    return work.state()


def _save(opened: OpenedDataset, index: int, text: str, token: str) -> dict[str, Any]:
    edit = save_caption(opened.source(index), text, token, allowed=allow_writing, versions=caption_versions())
    changed = take_captions([edit]).get(opened.id, [])
    return {"index": index, "changed": changed} | _raw(edit.after)


def _raw(sample: Sample) -> dict[str, Any]:
    raw, settings = raw_caption(sample, allowed=allow_writing), sample.settings.caption
    reading, several = reading_of(raw.text, settings), settings.lines in ("auto", "captions")
    return {"text": raw.text, "token": raw.token, "file": raw.file, "reading": reading, "several": several}


def _pictures(values: Any, opened: OpenedDataset) -> list[int]:
    if values is None:
        return list(range(len(opened)))
    # A boolean is a number to Python.
    if not isinstance(values, list) or not all(type(value) is int and 0 <= value < len(opened) for value in values):
        raise RefusedError(400, f"pictures: expected whole numbers, 0 to {len(opened) - 1}, or null for all pictures.")
    return sorted(set(values))


def _shown(plan: Plan) -> dict[str, Any]:
    examples = [{"name": one.sample.name, "before": one.before, "after": one.after} for one in plan.changes[:EXAMPLES]]
    return {
        "total": plan.total,
        "changes": len(plan.changes),
        "new": sum(one.token == NO_FILE for one in plan.changes),
        "examples": examples,
        "problems": plan.problems[:MOST_TOLD],
        "failed": len(plan.problems),
    }


_ALL = "/datasets/{dataset}/captions"
_ONE = "/datasets/{dataset}/pictures/{picture}/caption"
CAPTION_GETS: dict[str, Handler] = {_ONE: get_caption, f"{_ALL}/tags": get_tags, f"{_ALL}/work": get_work}
CAPTION_POSTS: dict[str, Handler] = {
    _ONE: post_caption,
    f"{_ALL}/preview": post_preview,
    f"{_ALL}/apply": post_apply,
    f"{_ALL}/undo": post_undo,
    f"{_ALL}/stop": post_stop,
}
