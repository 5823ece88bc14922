"""What the page may ask about runs: the list, a run's curve, pictures and graph, and to act on one.

Files are read outside of the server's event loop.
"""

from __future__ import annotations

import asyncio
import dataclasses
import io
from pathlib import Path
from typing import Any
from urllib.parse import quote

import folder_paths
import numpy as np
from aiohttp import web
from PIL import Image

from ...documents import strict_json
from ...errors import ConfigError
from ...runs.deletion import delete_run, folder_size
from ...runs.graph import read_graph
from ...runs.history import PastRun, find_run, read_curve, read_run
from ...runs.marks import keep_marks, read_marks
from ...runs.processes.presence import present
from ...runs.processes.wishes import leave_wish, waiting
from ...runs.record import kept_size, kept_trigger, write_kept
from ...runs.run import trained_elsewhere
from ...runs.run_list import Row, RunList
from ...runs.sample_pictures import FULL, MOST_PROMPTS, STRENGTHS, SampleFolder, look_of, split_strengths
from ...runs.side_by_side import Pictures, side_by_side
from ...runs.told import read_told
from ...settings import ExportSettings
from ...viewing.training_sample import draw_seen
from ..exporting import EXPORT, LOAD, export_word, load_run, loaded_files, note_files
from ..outputs import listed_lora, lora_path, runs_folder
from ..report import run_report
from .live import ACTIONS, LIVE, LiveRun
from .requests import Handler, RefusedError, path_id, path_number, query_number, read_empty, read_json

# What is told of a run that is not being trained.
RESTING = {
    "node": None,
    "steps_per_second": None,
    "memory": None,
    "can_sample": False,
    "drawing": None,
    "names": [],
    "elsewhere": False,
}

LIST = RunList(RESTING)
_TRAINS = "This run is being trained. Stop it first, or wait for its end; then delete it."
_STILL_TRAINED = "This run is still being trained, and writes its LoRA at the end. Stop it first, or wait; then choose."
_NO_CHECKPOINT = "There is no checkpoint of step {}. It may have been dropped; reload the list."
_STARRED = "This run has a star, so it stays. Take the star away first; then delete it."
_MARKS = {"label": str, "starred": bool}
_NO_GRAPH = "This run has no stored graph. It was made by an earlier version, or by a script."
_TWO = (
    "This run trained two models, which draw one after the other. Open ComfyUI's template of Wan 2.2 14B and load each "
    "file behind the loader of its model."
)
_RESTS = "This run is not being trained now. Queue its graph again to go on with it."
_ELSEWHERE = (
    "This run is being trained by another ComfyUI, or by another job, which does not hear wishes yet, or hears none. "
    "Wait for its first step, or ask its own page."
)
_NO_SAMPLES = "No sample pictures are asked for. Connect Sample Pictures to the training node's input samples."


async def get_runs(request: web.Request) -> Any:
    """All runs, newest first."""
    # Before its files: of a run that ends meanwhile, these may tell less than it knows itself.
    live = dict(LIVE)
    rows = await asyncio.to_thread(LIST.rows, runs_folder())
    texts = await asyncio.to_thread(lambda: [_row_text(row, live.get(row.run.id)) for row in rows])
    return web.Response(text=f'{{"runs": [{", ".join(texts)}]}}', content_type="application/json")


def _row_text(row: Row, live: LiveRun | None) -> str:
    rests = live is None and not row.shown
    return row.text if rests else strict_json(_facts(row.run, live, row.folder))


async def get_run(request: web.Request) -> Any:
    """One run and its numbers after the step `since`, 0 if that is not given."""
    since = query_number(request, "since", 0)
    live = LIVE.get(path_id(request, "run"))
    folder = await run_folder_of(request)
    facts = await asyncio.to_thread(lambda: _facts(read_run(folder), live, folder))
    # After them: a run that is told to rest has all its rows in this answer.
    return {"run": facts, "rows": await asyncio.to_thread(read_curve, folder, since=since)}


async def post_action(request: web.Request) -> Any:
    """Pass on a wish to a run that is being trained."""
    await read_empty(request)
    action = request.match_info["action"]
    if action not in ACTIONS:
        raise RefusedError(404, f"There is no such action. Expected one of: {', '.join(ACTIONS)}.")
    live = LIVE.get(path_id(request, "run"))
    if live is None:
        folder = await run_folder_of(request)
        return {"run": await asyncio.to_thread(_wish_elsewhere, folder, action)}
    if action == "sample" and not live.can_sample:
        raise RefusedError(409, _NO_SAMPLES)
    live.wish(action)
    return {"run": live.facts()}


def _wish_elsewhere(folder: Path, action: str) -> dict[str, Any]:
    """Leave a wish to the process that trains in `folder`; the run's facts."""
    found = present(folder)
    if found is None:
        raise RefusedError(409, _ELSEWHERE if trained_elsewhere(folder) else _RESTS)
    if action == "sample" and not found[0].get("can_sample"):
        raise RefusedError(409, _NO_SAMPLES)
    leave_wish(folder, action)
    return _facts(read_run(folder), None, folder)


async def get_samples(request: web.Request) -> Any:
    """What sample pictures there are: the steps, oldest first, each with the numbers of its prompts.

    `steps` are those of a training, at strength 1; `strengths` has the steps of each other strength.
    """
    folder = SampleFolder(await run_folder_of(request))
    return await asyncio.to_thread(_samples, folder)


def _samples(folder: SampleFolder) -> dict[str, Any]:
    settings = folder.settings()
    shown = {key: settings.get(key) for key in ("prompts", "width", "height", "seed")}
    others = {f"{one:.2f}": _steps(folder, one) for one in folder.strengths() if one != FULL}
    return {**shown, "look": look_of(settings), "steps": _steps(folder, FULL), "strengths": others}


def _steps(folder: SampleFolder, strength: float) -> list[dict[str, Any]]:
    return [{"step": step, "numbers": numbers} for step, numbers in folder.pictures(strength).items()]


async def get_sample(request: web.Request) -> web.Response:
    """One sample picture; that of the LoRA at the `strength` of the query, 1 if that is not given."""
    step, number = path_number(request, "step"), path_number(request, "number")
    strength = _strength(request)
    folder = SampleFolder(await run_folder_of(request))
    content = await asyncio.to_thread(folder.read, step, number, strength) if number < MOST_PROMPTS else None
    if content is None:
        raise RefusedError(404, "There is no such picture. It may have been dropped; reload the list.")
    return web.Response(body=content, content_type="image/png")


def _strength(request: web.Request) -> float:
    try:
        (strength,) = split_strengths(request.query.get("strength", str(FULL)))
    except (ConfigError, ValueError) as error:
        low, high = STRENGTHS
        raise RefusedError(400, f"strength: expected a number from {low:g} to {high:g}, such as 0.60.") from error
    return strength


async def get_current(request: web.Request) -> web.Response:
    """The first sample of the last step as the loss saw it, beside its weights; its name is a header.

    Of a clip one latent frame, query `frame`, the first without it; another header tells how many there are.

    Nothing, 204, of a run that is not being trained or has not begun: pages ask while that changes, and a browser tells
    each refusal as an error.
    """
    live, frame = LIVE.get(path_id(request, "run")), query_number(request, "frame", 0)
    seen = live.seen if live else None
    if live is None or seen is None:
        await run_folder_of(request)
        return web.Response(status=204)
    content = await asyncio.to_thread(lambda: _png(draw_seen(seen, live.preview, frame=frame)))
    headers = {"X-Sample-Name": quote(seen.name), "X-Sample-Step": str(live.step), "X-Frames": str(seen.frames)}
    return web.Response(body=content, content_type="image/png", headers=headers)


async def get_graph(request: web.Request) -> Any:
    """The graph that queued the run: `workflow` for the page, `prompt` for where no page queued it."""
    graph = await asyncio.to_thread(read_graph, await run_folder_of(request))
    if graph is None:
        raise RefusedError(404, _NO_GRAPH)
    return graph


async def get_use(request: web.Request) -> Any:
    """A graph that draws with and without the run's LoRA: `prompt` in API form, `roles` of its nodes by id."""
    folder = await run_folder_of(request)
    return await asyncio.to_thread(_use, folder)


def _use(folder: Path) -> dict[str, Any]:
    written, graph = read_told(folder).written, read_graph(folder)
    if not written:
        raise RefusedError(404, "This run has written no LoRA. Export one of its checkpoints, and load that.")
    if read_told(folder).written_low:
        raise RefusedError(409, _TWO)
    lora = listed_lora(written)
    if lora is None:
        raise RefusedError(404, f"{written} is not there any more. Queue the run's graph, which writes it again.")
    if graph is None:
        raise RefusedError(404, f"{_NO_GRAPH} Load {lora} with Load LoRA, behind the loader of its model.")
    pictures = Pictures(SampleFolder(folder).settings(), kept_trigger(folder), kept_size(folder))
    prompt, roles = side_by_side(graph, lora=lora, pictures=pictures)
    return {"prompt": prompt, "roles": roles}


async def get_report(request: web.Request) -> Any:
    """What somebody who helps must know of the run, as `text` without paths, names and captions."""
    return {"text": await asyncio.to_thread(run_report, await run_folder_of(request))}


async def get_size(request: web.Request) -> Any:
    """The bytes that deleting the run would free, and its LoRA files, which stay; empty where there are none."""
    folder = await run_folder_of(request)
    size, told = await asyncio.to_thread(lambda: (folder_size(folder), read_told(folder)))
    return {"bytes": size, "written": ", ".join(filter(None, (told.written, told.written_low)))}


async def post_delete(request: web.Request) -> Any:
    """Delete a run's folder; LoRA files that were written from it stay. Tells the bytes that were freed."""
    await read_empty(request)
    folder = await run_folder_of(request)
    if path_id(request, "run") in LIVE or await asyncio.to_thread(trained_elsewhere, folder):
        raise RefusedError(409, _TRAINS)
    if (await asyncio.to_thread(read_marks, folder)).starred:
        raise RefusedError(409, _STARRED)
    return {"bytes": await asyncio.to_thread(delete_run, folder)}


async def post_marks(request: web.Request) -> Any:
    """Note a person's name for the run, or a star: `{"label": text}`, `{"starred": true}`, or both. Tells both."""
    body = await read_json(request)
    if not body or not all(key in _MARKS and type(value) is _MARKS[key] for key, value in body.items()):
        raise RefusedError(400, 'Expected {"label": a name}, {"starred": true or false}, or both.')
    folder = await run_folder_of(request)
    return dataclasses.asdict(await asyncio.to_thread(lambda: keep_marks(folder, **body)))


async def post_export(request: web.Request) -> Any:
    """Write a LoRA file of a checkpoint, the newest if no step is given; tells the names below the output folder."""
    body = await read_json(request)
    step = body.pop("step", None)
    if body or not (step is None or (type(step) is int and 0 <= step < 10**9)):
        raise RefusedError(400, 'Expected {} or {"step": the number of a checkpoint}.')
    folder = await run_folder_of(request)
    written = await asyncio.to_thread(_export, folder, step)
    output = Path(folder_paths.get_output_directory()).resolve()
    return {"files": [one.relative_to(output).as_posix() for one in written]}


async def post_pick(request: web.Request) -> Any:
    """Make a checkpoint the run's LoRA: its file is written to where the LoRAs are, and the run's from now on."""
    body = await read_json(request)
    step = body.get("step")
    if set(body) != {"step"} or type(step) is not int or not 0 < step < 10**9:
        raise RefusedError(400, 'Expected {"step": the number of a checkpoint}.')
    folder = await run_folder_of(request)
    if path_id(request, "run") in LIVE or await asyncio.to_thread(trained_elsewhere, folder):
        raise RefusedError(409, _STILL_TRAINED)
    return {"run": await asyncio.to_thread(_pick, folder, step)}


def _pick(folder: Path, step: int) -> dict[str, Any]:
    if step not in read_run(folder).checkpoints:
        raise RefusedError(404, _NO_CHECKPOINT.format(step))
    lora = load_run(folder.name, step)
    export_word(lora, (LOAD, folder))
    note_files(folder, loaded_files(lora))
    return _facts(read_run(folder), None, folder)


def _export(folder: Path, step: int | None) -> list[Path]:
    run = read_run(folder)
    known = run.checkpoints
    chosen = step if step is not None else known[-1] if known else None
    if step is not None and step not in known:
        raise RefusedError(404, _NO_CHECKPOINT.format(step))
    tail = "" if chosen is None else f"-step{chosen:06d}"
    path, lora = lora_path(run.name + tail), load_run(folder.name, chosen or 0)
    # First: the LoRA's metadata name its file.
    export_word(lora, (EXPORT, folder))
    return write_kept(lora.kept, path, ExportSettings())


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _facts(run: PastRun, live: LiveRun | None, folder: Path) -> dict[str, Any]:
    return RESTING | dataclasses.asdict(run) | (live.facts() if live else _elsewhere(folder, run.step))


def _elsewhere(folder: Path, step: int) -> dict[str, Any]:
    """What is told of a run that another process trains; nothing of any other."""
    found = present(folder)
    if found is None:
        return {}
    facts, taken = found
    wished = waiting(folder, taken)
    held = [one for one in wished if one in ("pause", "resume")]
    # A step may take long; whoever has wished is told at once that it was heard.
    if "stop" in wished or facts["state"] == "stopping":
        state = "stopping"
    else:
        state = {"pause": "paused", "resume": "running"}.get(held[-1] if held else "", facts["state"])
    return {**facts, "state": state, "step": max(step, facts.get("step", 0)), "elsewhere": True}


async def run_folder_of(request: web.Request) -> Path:
    """The folder of the run in the path; raises `RefusedError` 400 for no id, 404 for an unknown one."""
    folder = await asyncio.to_thread(find_run, runs_folder(), path_id(request, "run"))
    if folder is None:
        raise RefusedError(404, "There is no run with this id. It may have been deleted; reload the list.")
    return folder


RUN_GETS: dict[str, Handler] = {
    "/runs": get_runs,
    "/runs/{run}": get_run,
    "/runs/{run}/samples": get_samples,
    "/runs/{run}/samples/{step}/{number}": get_sample,
    "/runs/{run}/current": get_current,
    "/runs/{run}/graph": get_graph,
    "/runs/{run}/use": get_use,
    "/runs/{run}/size": get_size,
    "/runs/{run}/report": get_report,
}
# The first that fits answers.
RUN_POSTS: dict[str, Handler] = {
    "/runs/{run}/export": post_export,
    "/runs/{run}/pick": post_pick,
    "/runs/{run}/delete": post_delete,
    "/runs/{run}/marks": post_marks,
    "/runs/{run}/{action}": post_action,
}
