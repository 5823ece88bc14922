"""What the page may ask about an opened data set: its numbers, its pictures in every view, and other transforms.

Pictures are decoded outside of the server's event loop, two at a time, and small ones are remembered within a
bound, so that ten thousand of them leave the server's memory as it was.
"""

from __future__ import annotations

import asyncio
import dataclasses
import io
import json
import re
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
from aiohttp import web
from PIL import Image

from ...dataset.sample import Sample, load_sample
from ...errors import ConfigError
from ...goals import decide
from ...settings import MaskTransform, check
from ...viewing.browsing import (
    THUMBNAIL,
    VIEWS,
    crop_corners,
    draw_infill,
    draw_thumbnail,
    learned_levels,
    picture_weights,
    standing_tints,
)
from ...viewing.inspection import findings
from ...viewing.pairs import draw_pair
from ...viewing.views import OPACITY
from .opened import OpenedDataset, check_inside, opened_of, picture_of
from .requests import Handler, RefusedError, path_number, query_number, read_json

SIDES = (96, 512)
REMEMBERED_BYTES = 48 << 20
CAPTION_SHOWN = 300
# A second decoder keeps both cores of a small machine busy; more only take memory.
DECODERS = 2
# The URL carries what the picture depends on, so the browser may keep it.
KEPT = {"Cache-Control": "private, max-age=86400, immutable"}
_COLOUR = re.compile("[0-9a-fA-F]{6}")


class Drawn:
    """Small encoded pictures by what they depend on, the least recently used dropped beyond a bound."""

    def __init__(self, most_bytes: int) -> None:
        """Nothing is remembered."""
        self._most, self._bytes = most_bytes, 0
        self._known: OrderedDict[tuple[Any, ...], bytes] = OrderedDict()

    def get(self, key: tuple[Any, ...]) -> bytes | None:
        """What was put there, None if nothing or no longer."""
        if key in self._known:
            self._known.move_to_end(key)
        return self._known.get(key)

    def put(self, key: tuple[Any, ...], data: bytes) -> None:
        """Remember `data`."""
        self._bytes += len(data) - len(self._known.pop(key, b""))
        self._known[key] = data
        while self._bytes > self._most:
            self._bytes -= len(self._known.popitem(last=False)[1])


# Everything that is drawn small or often, of all data sets.
DRAWN = Drawn(REMEMBERED_BYTES)
_DECODING = asyncio.Semaphore(DECODERS)


async def get_dataset(request: web.Request) -> Any:
    """How the data set is looked at, what was found, and how far the measuring is."""
    opened = opened_of(request)
    report = opened.report
    return {
        "id": opened.id,
        "node": opened.node_id,
        "count": len(opened),
        "version": opened.version,
        "measured": opened.measured,
        "problem": opened.problem or opened.plan.note,
        "stride": opened.lens.stride,
        "resolution": opened.resolution,
        "transform": None if opened.transform is None else dataclasses.asdict(opened.transform),
        "loss": opened.lens.loss.preset,
        "cached": opened.cache is not None,
        "selects": opened.segmenter is not None,
        "orphaned": report.orphaned,
        "skipped": report.skipped,
        "left_unpaired": report.left_unpaired,
        "reference_extra": report.reference_extra,
        "notes": report.notes,
    }


async def get_pictures(request: web.Request) -> Any:
    """One list per property, each with a value per picture: names, sizes, coverage, warnings and so on."""
    opened = opened_of(request)
    body = await asyncio.to_thread(lambda: json.dumps(_columns(opened)))
    return web.Response(text=body, content_type="application/json")


async def get_picture(request: web.Request) -> Any:
    """Everything about one picture, the weight of every latent cell among it, row by row."""
    opened = opened_of(request)
    index = picture_of(request, opened)
    # Text in the thread too: a large grid has a million weights.
    body = await asyncio.to_thread(lambda: json.dumps(_details(opened, index)))
    return web.Response(text=body, content_type="application/json")


async def get_thumbnail(request: web.Request) -> Any:
    """A small picture: query `view`, `side` (96 to 512 px), `colour` and `opacity` (0 to 100).

    `colour` is rrggbb; without it the tint is the one that stands out from the picture.
    """
    opened = opened_of(request)
    index = picture_of(request, opened)
    view, colour = request.query.get("view", VIEWS[0]), _colour(request)
    side, opacity = query_number(request, "side", THUMBNAIL), query_number(request, "opacity", round(OPACITY * 100))
    if view not in VIEWS:
        raise RefusedError(400, f"view: expected one of {', '.join(VIEWS)}.")
    if not SIDES[0] <= side <= SIDES[1] or opacity > 100:
        raise RefusedError(400, f"Expected side {SIDES[0]} to {SIDES[1]} and opacity 0 to 100.")
    key = (opened.id, index, opened.stamp(index), view, side, colour, opacity)
    data = DRAWN.get(key)
    if data is None:

        def draw() -> bytes:
            geometry = opened.plan.geometries[index]
            options = {"view": view, "side": side, "colour": colour, "opacity": opacity / 100}
            return jpeg(draw_thumbnail(opened.sample(index), geometry, opened.lens, **options), 82)

        data = await decoded(request, draw)
        DRAWN.put(key, data)
    return web.Response(body=data, content_type="image/jpeg", headers=KEPT)


async def get_tint(request: web.Request) -> Any:
    """The tint that stands out from the picture where it lies on what is ignored, and on what is learned.

    Query `mask`: "file" for the mask as it is saved, which the editor shows; else that after its transforms.
    """
    opened = opened_of(request)
    index = picture_of(request, opened)
    sample = opened.source(index) if request.query.get("mask") == "file" else opened.sample(index)
    data = await decoded(request, lambda: json.dumps(standing_tints(sample)).encode())
    return web.Response(body=data, content_type="application/json")


async def get_image(request: web.Request) -> Any:
    """The picture itself, upright, at its own size."""
    opened = opened_of(request)
    index = picture_of(request, opened)
    data = await decoded(request, lambda: jpeg(load_sample(opened.source(index)).rgb, 95))
    return web.Response(body=data, content_type="image/jpeg", headers=KEPT)


async def get_pair(request: web.Request) -> Any:
    """The references beside the picture, at the picture's height."""
    opened = opened_of(request)
    index = picture_of(request, opened)
    data = await decoded(request, lambda: jpeg(draw_pair(opened.source(index)), 92))
    return web.Response(body=data, content_type="image/jpeg", headers=KEPT)


async def get_learned(request: web.Request) -> Any:
    """The mask after its transforms at the picture's size, as a grey PNG; white = learn."""
    opened = opened_of(request)
    index = picture_of(request, opened)
    data = await decoded(request, lambda: png(learned_levels(opened.sample(index))))
    return web.Response(body=data, content_type="image/png", headers=KEPT)


async def get_infill(request: web.Request) -> Any:
    """The training picture with one of the backgrounds that the cache puts behind it."""
    opened = opened_of(request)
    index, number = picture_of(request, opened), path_number(request, "number")
    entries = opened.plan.entries
    if entries is None or number >= len(entries[index].infills):
        raise RefusedError(404, "There is no such background. Connect the cache to Inspect Dataset to see them.")
    samples, entry, resize = opened.dataset().samples, entries[index], opened.settings.resize
    infill = entry.infills[number]
    if infill.donor is not None:
        check_inside(opened.source(infill.donor))
    data = await decoded(request, lambda: jpeg(draw_infill(samples, index, entry.geometry, infill, resize=resize), 90))
    return web.Response(body=data, content_type="image/jpeg", headers=KEPT)


async def post_look(request: web.Request) -> Any:
    """Try other transforms or another resolution: `{"transform": {…} or null, "resolution": px}`."""
    opened = opened_of(request)
    body = await read_json(request)
    if set(body) != {"transform", "resolution"}:
        raise RefusedError(400, 'Expected {"transform": …, "resolution": …} and nothing else.')
    resolution = body["resolution"]
    if not isinstance(resolution, int) or isinstance(resolution, bool) or not 0 <= resolution <= 8192:
        raise RefusedError(400, "resolution: expected a whole number, 0 to 8192.")
    transform = None if body["transform"] is None else _transform(body["transform"], opened.goal)
    # It may have to wait for a mask that is being saved.
    await asyncio.to_thread(opened.look, transform=transform, resolution=resolution)
    return await get_dataset(request)


def _transform(values: Any, goal: str) -> MaskTransform:
    defaults = dataclasses.asdict(MaskTransform())
    if not isinstance(values, dict) or set(values) != set(defaults):
        raise RefusedError(400, f"transform: expected exactly the fields {', '.join(defaults)}.")
    for name, default in defaults.items():
        value = values[name]
        if isinstance(default, bool) != isinstance(value, bool) or not isinstance(value, int | float):
            raise RefusedError(400, f"{name}: expected a value like {default!r}.")
    values, _ = decide(goal, values, ["feather"])
    try:
        check(MaskTransform(**values))
    except ConfigError as error:
        raise RefusedError(400, str(error)) from error
    return MaskTransform(**{name: type(default)(values[name]) for name, default in defaults.items()})


def _columns(opened: OpenedDataset) -> dict[str, Any]:
    # First, so that what changes meanwhile is asked for once more and never taken for known.
    version = opened.version
    report, plan, samples = opened.report, opened.plan, [opened.source(i) for i in range(len(opened))]
    bare, unpaired = set(report.no_caption), set(report.unpaired)
    warnings = [
        [
            *found,
            *(["no_caption"] if sample.name in bare else []),
            *(["no_reference"] if sample.name in unpaired else []),
        ]
        for found, sample in zip(findings(report.pictures), samples, strict=True)
    ]
    captions = [sample.caption for sample in samples]
    return {
        "version": version,
        "name": [sample.name for sample in samples],
        "size": [sample.size for sample in samples],
        "stamp": [opened.stamp(i) for i in range(len(samples))],
        "has_mask": [stats.has_mask for stats in report.pictures],
        "coverage": [round(stats.coverage, 4) for stats in report.pictures],
        "bucket": [geometry.size for geometry in plan.geometries],
        "caption": [None if text is None else text[:CAPTION_SHOWN] for text in captions],
        "warnings": warnings,
        "stale": [plan.stale.get(i, []) for i in range(len(samples))],
        "clip": [_clip(sample) for sample in samples],
        "references": [len(sample.references) for sample in samples],
    }


def _details(opened: OpenedDataset, index: int) -> dict[str, Any]:
    sample, plan = opened.sample(index), opened.plan
    geometry = plan.geometries[index]
    entry = None if plan.entries is None else plan.entries[index]
    shrink = None if entry is None else entry.variants[0].shrink
    weights = picture_weights(sample, geometry, opened.lens, shrink=shrink)
    infills = () if entry is None else entry.infills
    lenders = [None if infill.donor is None else opened.source(infill.donor).name for infill in infills]
    return {
        "index": index,
        "version": opened.version,
        "name": sample.name,
        "size": sample.size,
        "stamp": opened.stamp(index),
        "caption": sample.caption,
        "bucket": geometry.size,
        "corners": crop_corners(geometry),
        "flip": geometry.flip,
        "grid": weights.shape,
        # Six digits tell every step of 1/65535 apart.
        "weights": [round(float(w), 6) for w in weights.ravel()],
        "has_mask": sample.mask is not None or sample.mask_path is not None or bool(sample.parts) or sample.alpha,
        "infills": [{"kind": i.kind, "from": lender} for i, lender in zip(infills, lenders, strict=True)],
        "stale": plan.stale.get(index, []),
        "clip": _clip(sample),
        "references": [{"name": one.name, "size": one.size} for one in sample.references],
    }


def _clip(sample: Sample) -> dict[str, Any] | None:
    """What is told of a clip: frames and frames a second, 0 where they are unknown; None of a picture."""
    if sample.moving is None:
        return None
    return {"frames": sample.moving.frames, "rate": sample.moving.rate, "mask_moving": sample.mask_moving}


async def decoded(request: web.Request, draw: Callable[[], bytes]) -> bytes:
    """What `draw` makes in a thread, two at a time; refused where nobody waits for it any more."""
    async with _DECODING:
        if request.transport is None or request.transport.is_closing():
            # The page has scrolled on.
            raise RefusedError(410, "Nobody waits for this picture any more.")
        return await asyncio.to_thread(draw)


def _colour(request: web.Request) -> tuple[int, int, int] | None:
    text = request.query.get("colour")
    if text is None:
        return None
    if not _COLOUR.fullmatch(text):
        raise RefusedError(400, "colour: expected six hexadecimal digits, such as dc1e3c.")
    red, green, blue = bytes.fromhex(text)
    return red, green, blue


def jpeg(rgb: np.ndarray, quality: int) -> bytes:
    """A picture uint8 (H, W, 3) as a file."""
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(rgb)).save(file, "JPEG", quality=quality, subsampling=0)
    return file.getvalue()


def png(levels: np.ndarray) -> bytes:
    """A mask uint8 (H, W) as a file."""
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "PNG", compress_level=1)
    return file.getvalue()


_ONE = "/datasets/{dataset}/pictures/{picture}"
DATASET_GETS: dict[str, Handler] = {
    "/datasets/{dataset}": get_dataset,
    "/datasets/{dataset}/pictures": get_pictures,
    _ONE: get_picture,
    f"{_ONE}/thumbnail": get_thumbnail,
    f"{_ONE}/tint": get_tint,
    f"{_ONE}/image": get_image,
    f"{_ONE}/pair": get_pair,
    f"{_ONE}/learned": get_learned,
    f"{_ONE}/infill/{{number}}": get_infill,
}
DATASET_POSTS: dict[str, Handler] = {"/datasets/{dataset}/look": post_look}
