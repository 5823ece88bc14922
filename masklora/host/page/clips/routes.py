"""What the editor of moving masks asks. A draft of a clip's masks lives in memory until it is saved or discarded.

All paths follow `/masked_lora/datasets/{dataset}/pictures/{picture}`; `{n}` is a frame, counted from 0. Where it says
"state", the answer is the JSON of `GET draft`:

    {"frames": 81, "size": [832, 480], "rate": 16.0, "times": [0.0, 0.0625, …],
     "revision": 1764547200007, "stamps": [1764547200001, …],
     "moving": true, "saves": "walk-masklabel.mkv", "key_frames": [0, 40], "drift": [null, 0.03, …],
     "unsaved": true, "undo": 2, "redo": 0, "methods": ["flow", "sam3"],
     "tracking": null or {"from": 0, "to": 39, "method": "flow", "done": 12, "total": 39, "looked": 20},
     "tracked": null or {"from": 0, "to": 39, "method": "flow", "reached": 12, "how": "stopped", "problem": ""}}

- `revision` rises with every change of the draft, also while it is tracked. `stamps` has that of each frame's last
  change: a frame need be fetched anew only where its stamp has changed.
- `moving`: whether the saved mask moves. `saves`: name of the file that saving writes; where the saved mask is a still
  one and all frames are equal, that stays a still one.
- `key_frames`: made or corrected by hand. `drift`: 0 to 1 of tracked frames (flow: how much of the mask was lost from
  sight, above 0.25 look at it; sam3: 1 where nothing was found), null of all others.
- `tracking` while it runs, null otherwise: of `total` frames `looked` were gone through and `done` have their masks,
  which SAM 3 gives for many frames at once; `tracked` how the last one ended: `done`, `stopped` or `failed`, with a
  sentence in `problem`, and `reached`, the last frame that has its mask.

| request | body | answer |
|---|---|---|
| `GET draft` | | state; starts a draft of the saved mask where there is none |
| `GET draft/{n}` | | grey PNG of 8 bits at the clip's size, ETag = its stamp; `?stamp=…` lets the browser keep it |
| `POST draft/{n}` | such a PNG | state; the frame is a key frame now |
| `POST draft/copy` | `{"from": 3, "to": [4, 10]}` | state; 4 to 10, both included, have the mask of 3 |
| `POST draft/apply` | `{"op": "grow", "amount": 4, "to": [0, 80]}` | state; `op`: clear (ignore all), fill (learn \
all), invert, grow, shrink, feather; `amount` in px, 0 to 512, 0 for the first three |
| `POST draft/still` | `{"from": 3}` | state; all frames have the mask of 3 |
| `POST draft/undo`, `POST draft/redo` | `{}` | state |
| `POST draft/previous` | `{}` | state; all frames have the masks before the last save, 422 where none are kept |
| `POST draft/track` | `{"from": 3, "to": 80, "method": "flow"}` | state; runs on, poll `GET draft`. `to` may be below \
`from`. `from` becomes a key frame; the next key frame on the way is where it ends, itself untouched: `tracking.to` |
| `POST draft/track/stop` | `{}` | state once it has stopped; what was tracked stays |
| `POST draft/save` | `{}` | state + {"index": 5, "changed": [5], "version": 9}; `changed` and \
`version` as after saving a still mask |
| `POST draft/over` | `{}` | state; what others have saved meanwhile is what the next save replaces, and keeps |
| `POST draft/discard` | `{}` | `{"discarded": true}`; the next `GET draft` starts anew |

Every POST but `draft/track/stop` has the header `If-Match: "<revision>"`, without it 428. Setting a frame, copying and
applying also take the frame's own ETag or an older revision as long as none of the frames that they change has changed
since. A key frame is made by setting a frame, and by copying or applying to one frame alone; copying to several ends
that they are key frames.

Refusals are `{"error": sentence}`: 400 a body or number that is none, 403 another origin, 404 no such frame or data
set, 409 not now (tracking runs, ComfyUI is busy, nothing to undo, no room for another draft), 412 the draft, or for
saving the mask's file, was changed elsewhere, 415 and 413 as everywhere, 422 a clip that cannot be read or can have no
mask that moves.

At most 8 drafts are kept, with 512 MiB altogether but for the masks that a long clip begins with; one without unsaved
changes makes room for another. They end with their data set.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from aiohttp import web

from ....errors import BusyError, MaskConflictError
from ....pictures.mask_files import encode_png
from ....saving.drafts import OPERATIONS, SIZED, Draft, DraftState
from ....saving.editing import shown_levels
from ..dataset_routes import KEPT
from ..edit_routes import MASK_BYTES, levels_of, token_of
from ..edits import FILES
from ..opened import OpenedDataset, opened_of, picture_of
from ..requests import Handler, RefusedError, path_number, read_body, read_empty, read_json
from .drafts import discard, draft_of, put_former, save_draft, save_over
from .tracking import methods, start, tracker_for

MOST_PIXELS = 512
_MOST_DIGITS = 15


async def get_draft(request: web.Request) -> Any:
    """The state of a clip's draft, which is started from the saved masks where there is none."""
    opened, index = _clip(request)

    def begin() -> Draft | None:
        return draft_of(opened, index, start=True)

    draft = await _told(begin)
    assert draft is not None
    return await asyncio.to_thread(_state, opened, index, draft)


async def get_frame(request: web.Request) -> Any:
    """The mask of a frame as the draft has it, a grey PNG; its ETag is the stamp of its last change."""
    _, _, draft = _draft(request)
    mask, stamp = draft.frame(_frame(request, draft))
    data = await asyncio.to_thread(lambda: encode_png(shown_levels(mask.unpack())))
    kept = KEPT if request.query.get("stamp") == str(stamp) else {}
    return web.Response(body=data, content_type="image/png", headers={"ETag": f'"{stamp}"', **kept})


async def post_frame(request: web.Request) -> Any:
    """Set the mask of a frame: a grey PNG at the clip's size."""
    opened, index, draft = _draft(request)
    number, seen = _frame(request, draft), _seen(request)
    body = await read_body(request, "image/png", MASK_BYTES)
    size = opened.source(index).size
    return await _changed(opened, index, draft, lambda: draft.set(number, levels_of(body, size), seen))


async def post_copy(request: web.Request) -> Any:
    """Copy the mask of a frame to others: `{"from": n, "to": [a, b]}`."""
    opened, index, draft = _draft(request)
    seen, values = _seen(request), await _fields(request, "from", "to")
    number, numbers = _number(values, "from", draft), _range(values, draft)
    return await _changed(opened, index, draft, lambda: draft.copy(number, numbers, seen))


async def post_apply(request: web.Request) -> Any:
    """Change the masks of frames: `{"op": …, "amount": px, "to": [a, b]}`."""
    opened, index, draft = _draft(request)
    seen, values = _seen(request), await _fields(request, "op", "amount", "to")
    operation, numbers = values["op"], _range(values, draft)
    if operation not in OPERATIONS:
        raise RefusedError(400, f"op: expected one of {', '.join(OPERATIONS)}.")
    amount = _amount(values["amount"], sized=operation in SIZED)
    return await _changed(opened, index, draft, lambda: draft.apply(operation, numbers, seen, amount=amount))


async def post_still(request: web.Request) -> Any:
    """Make the mask of a frame that of all: `{"from": n}`."""
    opened, index, draft = _draft(request)
    seen, values = _seen(request), await _fields(request, "from")
    number = _number(values, "from", draft)
    return await _changed(opened, index, draft, lambda: draft.make_still(number, seen))


async def post_undo(request: web.Request) -> Any:
    """Go one step back."""
    return await _plain(request, lambda draft, seen: draft.undo(seen))


async def post_redo(request: web.Request) -> Any:
    """Go one step forth again."""
    return await _plain(request, lambda draft, seen: draft.redo(seen))


async def post_previous(request: web.Request) -> Any:
    """Bring back the masks before the last save, as a step."""
    opened, index, draft = _draft(request)
    seen = _seen(request)
    await read_empty(request)
    async with FILES:
        return await _changed(opened, index, draft, lambda: put_former(opened, index, draft, seen))


async def post_track(request: web.Request) -> Any:
    """Begin to carry the mask of a frame over others: `{"from": n, "to": m, "method": …}`."""
    opened, index, draft = _draft(request)
    seen, values = _seen(request), await _fields(request, "from", "to", "method")
    first, last, method = _number(values, "from", draft), _number(values, "to", draft), values["method"]
    if first == last:
        raise RefusedError(400, "to: expected another frame than from.")
    tracker = tracker_for(method, opened, opened.source(index))

    def begin() -> None:
        start(draft, tracker, lambda: draft.begin(first, last, method, seen))

    return await _changed(opened, index, draft, begin)


async def post_stop(request: web.Request) -> Any:
    """Stop what is being tracked, if anything is."""
    opened, index, draft = _draft(request)
    await read_empty(request)
    return await _changed(opened, index, draft, draft.stop)


async def post_save(request: web.Request) -> Any:
    """Write the masks; the open data sets take them over."""
    opened, index, draft = _draft(request)
    seen = _seen(request)
    await read_empty(request)
    async with FILES:
        changed = await _told(lambda: save_draft(opened, index, draft, seen))
    state = await asyncio.to_thread(_state, opened, index, draft)
    # A mask that stays a still one has another file than masks that move would have.
    saved = opened.source(index).mask_path
    saves = {} if saved is None else {"saves": saved.name}
    return {**state, **saves, "index": index, "changed": changed, "version": opened.version}


async def post_over(request: web.Request) -> Any:
    """What others have saved meanwhile is what the next save replaces."""
    opened, index, draft = _draft(request)
    seen = _seen(request)
    await read_empty(request)
    async with FILES:
        return await _changed(opened, index, draft, lambda: save_over(opened, index, draft, seen))


async def post_discard(request: web.Request) -> Any:
    """Give up what is not saved."""
    opened, index, draft = _draft(request, usable=False)
    seen = _seen(request)
    await read_empty(request)
    if seen != draft.state().revision:
        raise RefusedError(412, "These masks were changed in another window meanwhile. Look at them before discarding.")
    discard(opened, index)
    return {"discarded": True}


def _state(opened: OpenedDataset, index: int, draft: Draft) -> dict[str, Any]:
    sample, state = opened.source(index), draft.state()
    rate = 0.0 if sample.moving is None else sample.moving.rate
    return {
        "frames": len(draft),
        "size": sample.size,
        "rate": rate,
        "times": [round(time, 6) for time in draft.times],
        "saves": draft.saved.path.name,
        "methods": methods(opened),
        **_fields_of(state),
    }


def _fields_of(state: DraftState) -> dict[str, Any]:
    fields = {name: getattr(state, name) for name in ("revision", "stamps", "moving", "key_frames", "unsaved")}
    fields |= {"undo": state.undo, "redo": state.redo}
    fields["drift"] = [None if drift is None else round(drift, 4) for drift in state.drift]
    for name, found in (("tracking", state.tracking), ("tracked", state.tracked)):
        told = None if found is None else asdict(found)
        if told is not None:
            told = {"from": told.pop("start"), "to": told.pop("end"), **told}
        fields[name] = told
    return fields


async def _plain(request: web.Request, change: Callable[[Draft, int], None]) -> Any:
    opened, index, draft = _draft(request)
    seen = _seen(request)
    await read_empty(request)
    return await _changed(opened, index, draft, lambda: change(draft, seen))


async def _changed(opened: OpenedDataset, index: int, draft: Draft, change: Callable[[], None]) -> Any:
    await _told(change)
    return await asyncio.to_thread(_state, opened, index, draft)


async def _told(work: Callable[[], Any]) -> Any:
    """What `work` gives in a thread; its errors as refusals where they have a status of their own."""
    try:
        return await asyncio.to_thread(work)
    except MaskConflictError as conflict:
        raise RefusedError(412, str(conflict)) from conflict
    except BusyError as busy:
        raise RefusedError(409, str(busy)) from busy


def _clip(request: web.Request) -> tuple[OpenedDataset, int]:
    opened = opened_of(request)
    return opened, picture_of(request, opened)


def _draft(request: web.Request, *, usable: bool = True) -> tuple[OpenedDataset, int, Draft]:
    """The draft in the path; a `usable` one is of the clip as it is."""
    opened, index = _clip(request)
    draft = draft_of(opened, index)
    if draft is None:
        raise RefusedError(404, "No draft of this clip's masks is open any more. Open its masks again.")
    sample = opened.source(index)
    if usable and draft.saved.frames[0].shape != sample.size[::-1]:
        raise RefusedError(409, f"{sample.name} has another size than when its masks were opened. Discard this draft.")
    return opened, index, draft


def _frame(request: web.Request, draft: Draft) -> int:
    number = path_number(request, "frame")
    if number >= len(draft):
        raise RefusedError(404, f"There is no frame {number}; the clip has {len(draft)}, counted from 0.")
    return number


def _seen(request: web.Request) -> int:
    text = token_of(request)
    if not text.isdecimal() or len(text) > _MOST_DIGITS:
        raise RefusedError(400, "If-Match: expected the revision of the draft, or the ETag of one of its frames.")
    return int(text)


async def _fields(request: web.Request, *names: str) -> dict[str, Any]:
    values = await read_json(request)
    if set(values) != set(names):
        raise RefusedError(400, f"Expected exactly the fields {', '.join(names)}.")
    return values


def _is_frame(value: Any, draft: Draft) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(draft)


def _number(values: dict[str, Any], name: str, draft: Draft) -> int:
    if not _is_frame(values[name], draft):
        raise RefusedError(400, f"{name}: expected a frame, 0 to {len(draft) - 1}.")
    return values[name]


def _range(values: dict[str, Any], draft: Draft) -> range:
    ends = values["to"]
    if not isinstance(ends, list) or len(ends) != 2 or not all(_is_frame(end, draft) for end in ends):
        raise RefusedError(400, f"to: expected the first and the last frame, each from 0 to {len(draft) - 1}.")
    first, last = ends
    if first > last:
        raise RefusedError(400, f"to: expected the first frame before the last one, got {first} and {last}.")
    return range(first, last + 1)


def _amount(value: Any, *, sized: bool) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not (0 <= value <= MOST_PIXELS):
        raise RefusedError(400, f"amount: expected a number of pixels, 0 to {MOST_PIXELS}.")
    if sized != (value > 0):
        raise RefusedError(400, "amount: expected above 0 to grow, shrink or feather, and 0 for everything else.")
    return float(value)


_DRAFT = "/datasets/{dataset}/pictures/{picture}/draft"
DRAFT_GETS: dict[str, Handler] = {_DRAFT: get_draft, f"{_DRAFT}/{{frame}}": get_frame}
# The one with a number comes last: it would take the others' names for one.
DRAFT_POSTS: dict[str, Handler] = {
    f"{_DRAFT}/copy": post_copy,
    f"{_DRAFT}/apply": post_apply,
    f"{_DRAFT}/still": post_still,
    f"{_DRAFT}/undo": post_undo,
    f"{_DRAFT}/redo": post_redo,
    f"{_DRAFT}/previous": post_previous,
    f"{_DRAFT}/track": post_track,
    f"{_DRAFT}/track/stop": post_stop,
    f"{_DRAFT}/save": post_save,
    f"{_DRAFT}/over": post_over,
    f"{_DRAFT}/discard": post_discard,
    f"{_DRAFT}/{{frame}}": post_frame,
}
