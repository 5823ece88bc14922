"""What the page may ask about runs: the list, a run's curve, and to stop, save or pause one.

Files are read outside of the server's event loop.
"""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Any

from aiohttp import web

from ..history import PastRun, find_run, list_runs, read_curve, read_run
from .live import ACTIONS, LIVE, LiveRun
from .outputs import runs_folder
from .requests import Handler, RefusedError, path_id, query_number, read_empty


async def get_runs(request: web.Request) -> Any:
    """All runs, newest first."""
    found = await asyncio.to_thread(list_runs, runs_folder())
    return {"runs": [_facts(run) for run in found]}


async def get_run(request: web.Request) -> Any:
    """One run and its numbers after the step `since`, 0 if that is not given."""
    since = query_number(request, "since", 0)
    folder = await _folder(request)
    rows = await asyncio.to_thread(read_curve, folder, since=since)
    return {"run": _facts(await asyncio.to_thread(read_run, folder)), "rows": rows}


async def post_action(request: web.Request) -> Any:
    """Pass on a wish to a run that is being trained."""
    await read_empty(request)
    action = request.match_info["action"]
    if action not in ACTIONS:
        raise RefusedError(404, f"There is no such action. Expected one of: {', '.join(ACTIONS)}.")
    live = LIVE.get(path_id(request, "run"))
    if live is None:
        await _folder(request)
        raise RefusedError(409, "This run is not being trained now. Queue its graph again to go on with it.")
    live.wish(action)
    return {"run": live.facts()}


def _facts(run: PastRun) -> dict[str, Any]:
    live: LiveRun | None = LIVE.get(run.id)
    return {"node": None, "steps_per_second": None} | dataclasses.asdict(run) | (live.facts() if live else {})


async def _folder(request: web.Request) -> Path:
    folder = await asyncio.to_thread(find_run, runs_folder(), path_id(request, "run"))
    if folder is None:
        raise RefusedError(404, "There is no run with this id. It may have been deleted; reload the list.")
    return folder


RUN_GETS: dict[str, Handler] = {"/runs": get_runs, "/runs/{run}": get_run}
RUN_POSTS: dict[str, Handler] = {"/runs/{run}/{action}": post_action}
