"""What the page may ask of the pack: the list of runs, a run's curve, and to stop, save or pause one.

A run goes by an opaque id, so that no request can name a path. Changes are POST requests of the page's own
origin with a small JSON body. Files are read outside of the server's event loop.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web
from server import PromptServer

from ..history import PastRun, find_run, list_runs, read_curve, read_run
from .live import ACTIONS, LIVE, LiveRun
from .outputs import runs_folder

PREFIX = "/masked_lora"
MOST_BYTES = 4096
HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
_ID = re.compile(r"[0-9a-f]{20}")
_STEP = re.compile(r"[0-9]{1,9}")

Handler = Callable[[web.Request], Awaitable[Any]]


class RefusedError(Exception):
    """A request that is not answered, with the status and a sentence for the person who made it."""

    def __init__(self, status: int, text: str) -> None:
        """Refuse with `status` because of `text`."""
        super().__init__(text)
        self.status = status


def register() -> None:
    """Add the routes to ComfyUI's server, once; without a server nothing happens."""
    server: Any = getattr(PromptServer, "instance", None)
    if server is None or any(getattr(route, "path", "").startswith(PREFIX) for route in server.routes):
        return
    server.routes.get(f"{PREFIX}/runs")(_answering(get_runs))
    server.routes.get(f"{PREFIX}/runs/{{run}}")(_answering(get_run))
    server.routes.post(f"{PREFIX}/runs/{{run}}/{{action}}")(_answering(post_action))


async def get_runs(request: web.Request) -> Any:
    """All runs, newest first."""
    found = await asyncio.to_thread(list_runs, runs_folder())
    return {"runs": [_facts(run) for run in found]}


async def get_run(request: web.Request) -> Any:
    """One run and its numbers after the step `since`, 0 if that is not given."""
    since = request.query.get("since", "0")
    if not _STEP.fullmatch(since):
        raise RefusedError(400, "since: expected a step, 0 to 999999999.")
    folder = await _folder(request)
    rows = await asyncio.to_thread(read_curve, folder, since=int(since))
    return {"run": _facts(await asyncio.to_thread(read_run, folder)), "rows": rows}


async def post_action(request: web.Request) -> Any:
    """Pass on a wish to a run that is being trained."""
    _refuse_other_origins(request)
    await _read_empty_body(request)
    action = request.match_info["action"]
    if action not in ACTIONS:
        raise RefusedError(404, f"There is no such action. Expected one of: {', '.join(ACTIONS)}.")
    live = LIVE.get(_id(request))
    if live is None:
        await _folder(request)
        raise RefusedError(409, "This run is not being trained now. Queue its graph again to go on with it.")
    live.wish(action)
    return {"run": live.facts()}


def _answering(handler: Handler) -> Handler:
    @functools.wraps(handler)
    async def answer(request: web.Request) -> web.Response:
        try:
            return web.json_response(await handler(request), headers=HEADERS)
        except RefusedError as refusal:
            return web.json_response({"error": str(refusal)}, status=refusal.status, headers=HEADERS)

    return answer


def _facts(run: PastRun) -> dict[str, Any]:
    live: LiveRun | None = LIVE.get(run.id)
    return {"node": None, "steps_per_second": None} | dataclasses.asdict(run) | (live.facts() if live else {})


def _id(request: web.Request) -> str:
    text = request.match_info["run"]
    if not _ID.fullmatch(text):
        raise RefusedError(400, "run: expected an id from the list of runs, 20 hexadecimal digits.")
    return text


async def _folder(request: web.Request) -> Path:
    folder = await asyncio.to_thread(find_run, runs_folder(), _id(request))
    if folder is None:
        raise RefusedError(404, "There is no run with this id. It may have been deleted; reload the list.")
    return folder


def _refuse_other_origins(request: web.Request) -> None:
    # A browser sets the first header itself, but only on https and on this machine.
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    foreign = site not in (None, "same-origin", "none")
    if site is None and origin is not None:
        foreign = urlsplit(origin).netloc.lower() != request.host.lower()
    if foreign:
        raise RefusedError(403, "Only ComfyUI's own page may ask for this.")


async def _read_empty_body(request: web.Request) -> None:
    if request.content_type != "application/json":
        raise RefusedError(415, "Expected a body of type application/json.")
    if (request.content_length or 0) > MOST_BYTES:
        raise RefusedError(413, f"Expected at most {MOST_BYTES} bytes.")
    try:
        await request.content.readexactly(MOST_BYTES + 1)
    except asyncio.IncompleteReadError as end:
        body = end.partial
    else:
        raise RefusedError(413, f"Expected at most {MOST_BYTES} bytes.")
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RefusedError(400, "The body is no JSON. Expected {}.") from error
    if document != {}:
        raise RefusedError(400, "Expected the body {}: these actions have no settings.")
