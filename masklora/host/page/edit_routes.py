"""What the mask editor asks: a mask and its former version, saving it, GrabCut, selecting by a click.

One request at a time reads or changes files, and one computes, outside of the server's event loop.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
from aiohttp import web
from server import PromptServer

from ...clips.reading import read_frames
from ...dataset.sample import Sample, load_sample, naming, source_path
from ...errors import MaskConflictError
from ...generators.grabcut import GrabCutSettings, cut_box
from ...generators.places import Box
from ...pictures.mask_files import encode_png
from ...pictures.reading import read_grey_png
from ...saving.editing import previous_mask, raw_mask, save_mask, shown_levels
from ..finders.selecting import Point, select
from ..outputs import allow_writing
from .clips.tracking import MODEL
from .edits import FILES, take_masks, versions
from .opened import OpenedDataset, opened_of, picture_of
from .requests import Handler, RefusedError, query_number, read_body, read_json

MASK_BYTES = 32 << 20
MOST_POINTS = 32
_TOKEN = re.compile(r'(?:W/)?"([0-9a-z]{1,64})"')
# A selection on a slow machine must not keep a person from saving.
_COMPUTING = asyncio.Lock()


async def get_mask(request: web.Request) -> Any:
    """The mask before its transforms at the picture's size, a grey PNG; its ETag is the token to save with."""
    sample = _source(request)
    raw = await _apart(FILES, lambda: raw_mask(sample, allowed=allow_writing))
    return await _answer(raw.weights, {"ETag": f'"{raw.token}"'})


async def get_previous(request: web.Request) -> Any:
    """The mask before the last save, as `get_mask` gives the present one."""
    sample = _source(request)
    weights = await _apart(FILES, lambda: previous_mask(sample, allowed=allow_writing, versions=versions()))
    if weights is None:
        raise RefusedError(404, f"{sample.name}: no former version of its mask is kept. Save an edit first.")
    return await _answer(weights)


async def post_mask(request: web.Request) -> Any:
    """Save a mask: a grey PNG at the picture's size; If-Match holds the token that it was opened with."""
    opened = opened_of(request)
    index = picture_of(request, opened)
    token = token_of(request)
    body = await read_body(request, "image/png", MASK_BYTES)
    async with FILES:
        try:
            return await asyncio.to_thread(_save, opened, index, body, token)
        except MaskConflictError as conflict:
            raise RefusedError(412, str(conflict)) from conflict


async def post_grabcut(request: web.Request) -> Any:
    """What GrabCut finds in `box` ([left, top, width, height] in pixels of the picture), a grey PNG.

    Query `frame`: of a clip, which one is meant, the first without it.
    """
    sample, frame, values = _source(request), query_number(request, "frame", 0), await read_json(request)
    box = _box(_only(values, "box"), sample)

    def cut() -> np.ndarray:
        found = cut_box(_pixels(sample, frame), box, settings=GrabCutSettings())
        if found.mask is None:
            raise RefusedError(422, f"{sample.name}: GrabCut found nothing: {found.note}. Draw another box.")
        return found.mask

    return await _answer(await _apart(_COMPUTING, cut))


async def post_select(request: web.Request) -> Any:
    """What SAM 3 selects for `points` or a `box`, a grey PNG; query `frame` as for `post_grabcut`."""
    opened, frame = opened_of(request), query_number(request, "frame", 0)
    sample, values = opened.source(picture_of(request, opened)), await read_json(request)
    prompts = (
        {"points": _points(_only(values, "points"), sample)}
        if "points" in values
        else {"box": _box(_only(values, "box"), sample)}
    )
    if opened.segmenter is None:
        raise RefusedError(
            409, "No SAM 3 model is connected. Connect one to the input sam3 of Inspect Dataset and queue the graph."
        )

    def find() -> np.ndarray:
        if PromptServer.instance.prompt_queue.get_tasks_remaining():
            raise RefusedError(409, "ComfyUI is busy with the queue. Select again when it is done, or paint by hand.")
        if not MODEL.acquire(blocking=False):
            raise RefusedError(409, "SAM 3 is tracking a mask. Select when that is done, or paint by hand.")
        try:
            return select(opened.segmenter, _pixels(sample, frame), **prompts)
        finally:
            MODEL.release()

    return await _answer(await _apart(_COMPUTING, find))


def _pixels(sample: Sample, frame: int) -> np.ndarray:
    """A picture, or a frame of a clip: uint8 (H, W, 3)."""
    if sample.moving is None or not frame:
        return load_sample(sample).rgb
    path = source_path(sample)
    with naming(path, sample.name):
        return next(read_frames(path, [frame])).rgb


def _source(request: web.Request) -> Sample:
    opened = opened_of(request)
    return opened.source(picture_of(request, opened))


def _save(opened: OpenedDataset, index: int, body: bytes, token: str) -> dict[str, Any]:
    before = opened.source(index)
    after = save_mask(before, levels_of(body, before.size), token, allowed=allow_writing, versions=versions())
    changed = take_masks(opened, before, after)
    token = raw_mask(after, allowed=allow_writing).token
    return {"index": index, "changed": changed, "token": token, "version": opened.version}


def levels_of(body: bytes, size: tuple[int, int]) -> np.ndarray:
    """The painted mask uint8 (H, W); raises `RefusedError` 400 for no grey PNG of that size (width, height)."""
    levels = read_grey_png(body, size)
    if levels is None:
        width, height = size
        raise RefusedError(400, f"Expected a whole PNG of {width}×{height} px in grey with 8 bits and nothing else.")
    return levels


def token_of(request: web.Request) -> str:
    """What If-Match says that was edited; raises `RefusedError` 428 without it, 400 for what is no token."""
    header = request.headers.get("If-Match")
    if header is None:
        raise RefusedError(428, "The header If-Match is missing: it says which mask was edited.")
    found = _TOKEN.fullmatch(header.strip())
    if found is None:
        raise RefusedError(400, "If-Match: expected the ETag of the mask that was edited.")
    return found[1]


async def _apart(lock: asyncio.Lock, work: Callable[[], Any]) -> Any:
    async with lock:
        return await asyncio.to_thread(work)


async def _answer(weights: np.ndarray, headers: dict[str, str] | None = None) -> web.Response:
    data = await asyncio.to_thread(lambda: encode_png(shown_levels(weights)))
    return web.Response(body=data, content_type="image/png", headers=headers)


def _only(values: dict[str, Any], name: str) -> Any:
    if set(values) != {name}:
        raise RefusedError(400, f"Expected exactly the field {name}.")
    return values[name]


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or abs(value) > 1e6:
        raise RefusedError(400, "Expected numbers of pixels.")
    return float(value)


def _box(values: Any, sample: Sample) -> Box:
    """The part of the box that lies in the picture."""
    if not isinstance(values, list) or len(values) != 4:
        raise RefusedError(400, "box: expected [left, top, width, height] in pixels of the picture.")
    left, top, width, height = (_number(value) for value in values)
    right, bottom = min(left + width, sample.size[0]), min(top + height, sample.size[1])
    left, top = max(left, 0.0), max(top, 0.0)
    if right - left < 1 or bottom - top < 1:
        raise RefusedError(400, "box: less than a pixel of it lies in the picture. Draw it over the picture.")
    return Box(left, top, right - left, bottom - top)


def _points(values: Any, sample: Sample) -> list[Point]:
    if not isinstance(values, list) or not 1 <= len(values) <= MOST_POINTS:
        raise RefusedError(400, f"points: expected 1 to {MOST_POINTS} of them.")
    points = []
    for value in values:
        if not isinstance(value, dict) or set(value) != {"x", "y", "inside"} or not isinstance(value["inside"], bool):
            raise RefusedError(400, 'points: expected each to be like {"x": 10, "y": 20, "inside": true}.')
        x, y = _number(value["x"]), _number(value["y"])
        if not (0 <= x < sample.size[0] and 0 <= y < sample.size[1]):
            raise RefusedError(400, "points: one lies outside the picture.")
        points.append(Point(x, y, value["inside"]))
    if not any(point.inside for point in points):
        raise RefusedError(400, "points: at least one has to be inside what is selected.")
    return points


_ONE = "/datasets/{dataset}/pictures/{picture}"
EDIT_GETS: dict[str, Handler] = {
    f"{_ONE}/mask": get_mask,
    f"{_ONE}/mask/previous": get_previous,
}
EDIT_POSTS: dict[str, Handler] = {
    f"{_ONE}/mask": post_mask,
    f"{_ONE}/grabcut": post_grabcut,
    f"{_ONE}/select": post_select,
}
