"""What the page asks of a clip's frames: when each is shown and which are learned, one of them and its mask.

    GET …/pictures/{picture}/frames                     times, rate, keys, parts and step, as JSON
    GET …/pictures/{picture}/frame/{number}             coverage and the weight of its latent frame's cells, as JSON
    GET …/pictures/{picture}/frame/{number}/image       the frame, JPEG; query `side`: of its longer side at most, px
    GET …/pictures/{picture}/frame/{number}/learned     its mask after the transforms, grey PNG; query `side`

Frames are decoded outside of the server's event loop, one after the other as they are asked for, so that a clip that is
played is decoded once; what was drawn is remembered within the bound of all pictures.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import numpy as np
from aiohttp import web

from ....cache.plan import Entry
from ....dataset.geometry import Geometry, apply_mask
from ....dataset.sample import Sample, fit_mask
from ....viewing.browsing import picture_weights
from ....viewing.clip_frames import ClipFrames, FrameReader, clip_frames, frame_mask, frame_weights
from ....viewing.sheet import shrunk, small
from ..dataset_routes import DRAWN, KEPT, decoded, jpeg, png
from ..opened import OpenedDataset, opened_of, picture_of
from ..requests import Handler, RefusedError, path_number, query_number

SIDES = (64, 16384)
# A file that is open cannot be replaced on some systems.
IDLE_SECONDS = 0.6
_READER = FrameReader()
# First come, first served: out of turn a clip would be sought in instead of read on.
_TURN = asyncio.Lock()


async def get_frames(request: web.Request) -> Any:
    """When a clip's frames are shown (seconds), which are key frames of the file, which are learned together.

    `rate` is 0 where the clip tells none; `parts` are lists of numbers, empty where no cache or video VAE is known;
    `cached` whether they are those of a cache. `moves`: whether each frame has its own mask; `draft`: whether masks of
    frames were changed and are not saved; `stamp` changes when a frame or its mask does.
    """
    opened = opened_of(request)
    index = _clip_of(request, opened)

    def tell() -> str:
        found, draft = _frames(opened, index), opened.drafts.get(index)
        return json.dumps(
            {
                "times": [round(float(at), 4) for at in found.times],
                "rate": found.rate,
                "keys": list(found.keys),
                "parts": [list(part) for part in found.parts],
                "step": found.step,
                "cached": opened.cache is not None,
                "moves": opened.sample(index).moves,
                "draft": draft is not None and draft.unsaved,
                "stamp": opened.stamp(index),
            }
        )

    return web.Response(text=await asyncio.to_thread(tell), content_type="application/json")


async def get_frame(request: web.Request) -> Any:
    """`coverage` of a frame's mask in the training picture, and the `weights` of its latent frame, row by row.

    `frames` are those that become that latent frame together; it alone where it is not learned.
    """
    opened = opened_of(request)
    index, number = _clip_of(request, opened), path_number(request, "number")
    data = await decoded(request, lambda: json.dumps(_details(opened, index, number)).encode())
    return web.Response(body=data, content_type="application/json", headers=KEPT)


async def get_frame_image(request: web.Request) -> Any:
    """A frame, upright."""
    return web.Response(body=await _drawn(request, "image"), content_type="image/jpeg", headers=KEPT)


async def get_frame_learned(request: web.Request) -> Any:
    """The mask of a frame after its transforms; white = learn."""
    return web.Response(body=await _drawn(request, "learned"), content_type="image/png", headers=KEPT)


async def _drawn(request: web.Request, what: str) -> bytes:
    opened = opened_of(request)
    index, number = _clip_of(request, opened), path_number(request, "number")
    side = query_number(request, "side", 0)
    if side and not SIDES[0] <= side <= SIDES[1]:
        raise RefusedError(400, f"side: expected {SIDES[0]} to {SIDES[1]}, or 0 for the clip's own.")
    clip = (opened.id, index, opened.stamp(index))
    asked = ("frame", *clip, number, side)
    async with _TURN:
        data = DRAWN.get((*asked, what))
        if data is None:
            drawn = {}

            def draw() -> bytes:
                drawn.update(_draw(clip, opened.sample(index), number, side))
                return drawn[what]

            data = await decoded(request, draw)
            # The other one is asked for next.
            for name, content in drawn.items():
                DRAWN.put((*asked, name), content)
            asyncio.get_running_loop().call_later(IDLE_SECONDS, _READER.close_if_idle, IDLE_SECONDS / 2)
    return data


def _draw(clip: tuple[Any, ...], sample: Sample, number: int, side: int) -> dict[str, bytes]:
    loaded = _READER.read(clip, sample, number)
    size = loaded.rgb.shape[1::-1]
    if 0 < side < max(size):
        size = shrunk(size, side)
    rgb = loaded.rgb if size == loaded.rgb.shape[1::-1] else small(loaded.rgb, side)
    levels = np.rint(fit_mask(loaded.mask, size) * 255).astype(np.uint8)
    return {"image": jpeg(rgb, 95 if rgb is loaded.rgb else 88), "learned": png(levels)}


def _details(opened: OpenedDataset, index: int, number: int) -> dict[str, Any]:
    sample, found = opened.sample(index), _frames(opened, index)
    if number >= len(found.times):
        raise RefusedError(404, f"There is no frame {number}; the clip has {len(found.times)}, counted from 0.")
    geometry, group = _geometry(opened, index, found, number), found.group_of(number)
    if sample.moves:
        weights = frame_weights(sample, group, geometry, opened.lens)
    else:
        entry = _entry(opened, index)
        shrink = None if entry is None else entry.variants[0].shrink
        weights = picture_weights(sample, geometry, opened.lens, shrink=shrink)
    mask = frame_mask(sample, number)
    return {
        "number": number,
        "frames": group,
        "coverage": None if mask is None else round(float(apply_mask(mask, geometry).mean(dtype=np.float64)), 4),
        "grid": weights.shape,
        "weights": [round(float(w), 6) for w in weights.ravel()],
    }


def _frames(opened: OpenedDataset, index: int) -> ClipFrames:
    return clip_frames(opened.sample(index), opened.settings, opened.lens)


def _entry(opened: OpenedDataset, index: int) -> Entry | None:
    return None if opened.plan.entries is None else opened.plan.entries[index]


def _geometry(opened: OpenedDataset, index: int, found: ClipFrames, number: int) -> Geometry:
    """Where the pixels of a frame go: each part of a clip may be cropped by itself."""
    part = found.part_of(number)
    entries = () if opened.cache is None or part is None else opened.cache.entries
    # What was tried out since may be cropped otherwise; then the first part stands for all.
    if index in opened.plan.stale or opened.transform is not None:
        entries = ()
    cached = (entry for entry in entries if entry.index == index and entry.frames == part)
    return next((entry.geometry for entry in cached), opened.plan.geometries[index])


def _clip_of(request: web.Request, opened: OpenedDataset) -> int:
    index = picture_of(request, opened)
    if opened.source(index).moving is None:
        raise RefusedError(404, f"{opened.source(index).name} is a picture and has no frames.")
    return index


_ONE = "/datasets/{dataset}/pictures/{picture}"
FRAME_GETS: dict[str, Handler] = {
    f"{_ONE}/frames": get_frames,
    f"{_ONE}/frame/{{number}}": get_frame,
    f"{_ONE}/frame/{{number}}/image": get_frame_image,
    f"{_ONE}/frame/{{number}}/learned": get_frame_learned,
}
