"""What the page may ask of a training apart: how one may be started, to start it, how it is doing, and to end it."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import dataclasses
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import execution
import filelock
from aiohttp import web
from server import PromptServer

from ...files import cannot_write
from ...runs.history import run_id, runs_called
from ...runs.run import trained_elsewhere
from ..headless.client import CLIENT
from ..headless.graph import Graph, as_from_the_page, titled
from ..headless.problems import RefusedError as Refusal
from ..headless.refusals import in_order
from ..headless.shared import shared_training, training_nodes
from ..outputs import runs_folder
from ..page.live import LIVE
from ..page.requests import Handler, RefusedError, path_id, read_empty, read_json
from ..paths import own_folder
from .cards import choices
from .start import Start, begin, newest

PACK = Path(__file__).resolve().parents[3]
# A graph with the page's own form of it.
_BODY_BYTES = 16 * 2**20
_MOST_PROBLEMS = 3
_LOCK = "start.lock"
_LOCK_SECONDS = 20.0
_FORM = 'Expected {"prompt": a graph in API format, "workflow": its form in the page or null, "count": a whole number}.'
_GOES_ON = "{} is being trained apart already. Wait for its end, or cancel it."
_BEGINS = "Another ComfyUI of this user folder is starting a training apart. Try again in a moment."
_NOT_ENDED = "{} is still being trained apart, and only the end of a training can be hidden. Wait for it, or cancel it."
_NAME_TRAINS = "A run called {} is being trained now. Wait for its end, or stop it."
_QUEUE = (
    "ComfyUI's queue is at work, and would share memory with this training while it loads its models. Wait until the "
    "queue is empty, or cancel what is in it."
)
_ONE = "{} nodes train in this graph, and one is trained apart at a time. Bypass the others, and try again."
_NONE = "No node trains in this graph. Add Train Masked LoRA, or take it out of bypass, and try again."
_COUNT = "Expected 1 to {} processes."
_WRONG = "ComfyUI finds something wrong in the graph. {} Put it right, and try again."


class Newest:
    """The training apart that was started last; threads may ask at once."""

    def __init__(self) -> None:
        """It is looked for when somebody asks."""
        self._start: Start | None = None
        self._stamp: tuple[Path, int] | None = None
        self.lock = threading.Lock()

    def get(self) -> Start | None:
        """It, also where another ComfyUI of this user folder has started it. For those who hold the lock."""
        stamp = self._look()
        if stamp != self._stamp:
            found = newest(_root())
            # What was read of one that is known need not be read again.
            same = found is not None and self._start is not None and found.id == self._start.id
            self._start, self._stamp = self._start if same else found, stamp
        return self._start

    def set(self, start: Start) -> None:
        """A newer one. For those who hold the lock."""
        self._start, self._stamp = start, self._look()

    def _look(self) -> tuple[Path, int]:
        try:
            return _root(), _root().stat().st_mtime_ns
        except OSError:
            return _root(), 0


NEWEST = Newest()


def _root() -> Path:
    return own_folder() / "apart"


async def get_apart(request: web.Request) -> Any:
    """How many processes there may be, whether the queue is at work, and how the last training apart is doing."""
    told = await asyncio.to_thread(_told)
    return {**dataclasses.asdict(choices()), "queue": _queue() > 0, **told}


def _told() -> dict[str, Any]:
    with NEWEST.lock:
        start = NEWEST.get()
        return {"start": None if start is None else start.facts()}


async def post_start(request: web.Request) -> Any:
    """Train a graph apart: `{"prompt", "workflow", "count"}`. Tells what `get_apart` tells of it."""
    body = await read_json(request, _BODY_BYTES)
    graph, workflow, count = body.get("prompt"), body.get("workflow"), body.get("count")
    if set(body) != {"prompt", "workflow", "count"} or not _is_graph(graph) or type(count) is not int:
        raise RefusedError(400, _FORM)
    if not (workflow is None or isinstance(workflow, dict)):
        raise RefusedError(400, _FORM)
    most = choices().most
    if not 1 <= count <= most:
        raise RefusedError(400, _COUNT.format(most))
    node = _training_node(graph, count)
    await _check(graph)
    if _queue():
        raise RefusedError(409, _QUEUE)
    saved = {"prompt": graph, "workflow": workflow}
    started = await asyncio.to_thread(_begin, saved, count, node)
    # The queue's own thread lets go of them, and the processes need seconds until they load theirs.
    queue = _server().prompt_queue
    queue.set_flag("unload_models", True)
    queue.set_flag("free_memory", True)
    return {"start": started}


def _begin(saved: dict[str, Any], count: int, node: str) -> dict[str, Any]:
    name = saved["prompt"][node]["inputs"].get("name")
    name = name if isinstance(name, str) else ""
    with NEWEST.lock, _alone():
        # Not what is known here: another ComfyUI may have started one since, within a tick of the disk's clock.
        before = newest(_root())
        if before is not None and before.goes_on():
            raise RefusedError(409, _GOES_ON.format(before.name))
        if name and _is_trained(name):
            raise RefusedError(409, _NAME_TRAINS.format(name))
        start = begin(_root(), saved, count=count, name=name, node=node, pack=PACK)
        NEWEST.set(start)
        return start.facts()


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """While this lasts no other ComfyUI of this user folder starts a training apart; one that dies lets go."""
    path = _root() / _LOCK
    lock = filelock.FileLock(path, timeout=_LOCK_SECONDS)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except filelock.Timeout as error:
        raise RefusedError(409, _BEGINS) from error
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        yield
    finally:
        lock.release()


def _is_trained(name: str) -> bool:
    return any(run_id(folder) in LIVE or trained_elsewhere(folder) for folder in runs_called(runs_folder(), name))


async def post_cancel(request: web.Request) -> Any:
    """Ask a training apart to end with a checkpoint; the second time let it end at once."""
    return await _act(request, Start.cancel)


async def post_hide(request: web.Request) -> Any:
    """How a training apart ended was read, and is not shown again."""
    return await _act(request, _hide)


def _hide(start: Start) -> None:
    if start.goes_on():
        raise RefusedError(409, _NOT_ENDED.format(start.name))
    start.hide()


async def _act(request: web.Request, act: Any) -> Any:
    await read_empty(request)
    identifier = path_id(request, "start")

    def there() -> dict[str, Any]:
        with NEWEST.lock:
            start = NEWEST.get()
            if start is None or start.id != identifier:
                raise RefusedError(404, "This training apart is not the last one. Reload the page.")
            act(start)
            return {"start": start.facts()}

    return await asyncio.to_thread(there)


def _is_graph(graph: Any) -> bool:
    nodes = list(graph.values()) if isinstance(graph, dict) else []
    kinds = {"class_type": str, "inputs": dict}
    return bool(nodes) and all(
        isinstance(one, dict) and all(isinstance(one.get(key), kind) for key, kind in kinds.items()) for one in nodes
    )


def _training_node(graph: Graph, count: int) -> str:
    trains = training_nodes(graph)
    if len(trains) != 1:
        raise RefusedError(409, _ONE.format(len(trains)) if trains else _NONE)
    if count > 1:
        try:
            shared_training(graph)
        except Refusal as refusal:
            raise RefusedError(409, str(refusal)) from refusal
    return trains[0]


async def _check(graph: Graph) -> None:
    """Let ComfyUI check a graph as it would for its queue; the processes do so again."""
    # Other packs note in it what they find.
    checked = as_from_the_page(_server(), copy.deepcopy(graph), CLIENT)
    _, error, _, by_node = await execution.validate_prompt(str(uuid.uuid4()), checked, None)
    found = [
        f"{titled(checked, node)}: {' '.join(filter(None, (one['message'] + '.', str(one.get('details', '')))))}"
        for node, one in in_order(checked, by_node)
    ]
    if not found and error:
        found = [f"{error['message']}. {error.get('details', '')}".strip()]
    if found:
        raise RefusedError(409, _WRONG.format(" ".join(f"{one.rstrip('.')}." for one in found[:_MOST_PROBLEMS])))


def _server() -> Any:
    return PromptServer.instance


def _queue() -> int:
    return _server().prompt_queue.get_tasks_remaining()


APART_GETS: dict[str, Handler] = {"/apart": get_apart}
APART_POSTS: dict[str, Handler] = {
    "/apart": post_start,
    "/apart/{start}/cancel": post_cancel,
    "/apart/{start}/hide": post_hide,
}
