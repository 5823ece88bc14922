"""The demo's graphs, where the folder `demo` lies beside the pack: opening one brings its pictures and model."""

from __future__ import annotations

import asyncio
import importlib
import json
from pathlib import Path
from typing import Any

import folder_paths
from aiohttp import web

from .requests import RefusedError, read_json

DEMO = Path(__file__).resolve().parents[3] / "demo"
CHECKPOINT = "masked-lora-demo.safetensors"


async def get_demos(request: web.Request) -> Any:
    """The names of the demo's graphs; none where the pack was installed without its demo."""
    return {"graphs": sorted(_graphs())}


async def post_demo(request: web.Request) -> Any:
    """Put the demo's pictures and checkpoint into ComfyUI's own folders, what is there stays; the graph `name`."""
    body = await read_json(request)
    path = _graphs().get(body.get("name"))
    if path is None:
        raise RefusedError(404, "There is no such demo. Reload the page.")
    try:
        await asyncio.to_thread(_place)
    except OSError as error:
        raise RefusedError(409, f"The demo could not be put into ComfyUI's folders: {error}") from error
    return {"graph": json.loads(path.read_text(encoding="utf-8"))}


def _graphs() -> dict[Any, Path]:
    return {path.stem: path for path in (DEMO / "workflows").glob("*.json")}


def _place() -> None:
    placing = importlib.import_module("....demo.placing", __package__)
    placing.place_pictures(Path(folder_paths.get_input_directory()))
    folder = Path(folder_paths.get_folder_paths("checkpoints")[0])
    if not (folder / CHECKPOINT).exists():
        assemble = importlib.import_module("....demo.assemble", __package__)
        made = assemble.build_checkpoint(folder)
        made.replace(folder / CHECKPOINT)


DEMO_GETS = {"/demo": get_demos}
DEMO_POSTS = {"/demo": post_demo}
