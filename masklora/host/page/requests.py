"""What every route of the pack shares: who may ask, how large and of what form a body is, how a refusal is told.

Changes are POST requests of the page's own origin. Things go by opaque ids, so that no request can name a path.
"""

from __future__ import annotations

import asyncio
import functools
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web
from server import PromptServer

from ...documents import strict_json
from ...errors import MaskLoraError

PREFIX = "/masked_lora"
HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
JSON_BYTES = 4096
_ID = re.compile(r"[0-9a-f]{20}")
_NUMBER = re.compile(r"[0-9]{1,9}")

Handler = Callable[[web.Request], Awaitable[Any]]


class RefusedError(Exception):
    """A request that is not answered, with the status and a sentence for the person who made it."""

    def __init__(self, status: int, text: str) -> None:
        """Refuse with `status` because of `text`."""
        super().__init__(text)
        self.status = status


def add_routes(gets: dict[str, Handler], posts: dict[str, Handler]) -> None:
    """Add handlers by their paths below `PREFIX` to ComfyUI's server; without a server nothing happens.

    A handler returns a `web.Response` or something for JSON. `RefusedError` is answered with its status, an
    error of the pack with 422, both with the sentence as `{"error": …}`.
    """
    server: Any = getattr(PromptServer, "instance", None)
    if server is None:
        return
    for path, handler in gets.items():
        server.routes.get(PREFIX + path)(_answering(handler))
    for path, handler in posts.items():
        server.routes.post(PREFIX + path)(_answering(_from_own_page(handler)))


def has_routes() -> bool:
    """Whether the pack's routes were added before."""
    server: Any = getattr(PromptServer, "instance", None)
    return server is not None and any(getattr(route, "path", "").startswith(PREFIX) for route in server.routes)


def path_id(request: web.Request, name: str) -> str:
    """The opaque id in the path; raises `RefusedError` for anything but 20 hexadecimal digits."""
    text = request.match_info[name]
    if not _ID.fullmatch(text):
        raise RefusedError(400, f"{name}: expected an id of 20 hexadecimal digits.")
    return text


def path_number(request: web.Request, name: str) -> int:
    """The whole number in the path, 0 to 999999999; raises `RefusedError` for anything else."""
    return _whole(name, request.match_info[name])


def query_number(request: web.Request, name: str, default: int) -> int:
    """The whole number of the query, 0 to 999999999, `default` where there is none."""
    return _whole(name, request.query.get(name, str(default)))


async def read_body(request: web.Request, kind: str, most: int) -> bytes:
    """A body of content type `kind` and at most `most` bytes, of which no more than that is ever held.

    Raises:
        RefusedError: 415 for another type, 413 for a longer body.
    """
    if request.content_type != kind:
        raise RefusedError(415, f"Expected a body of type {kind}.")
    if (request.content_length or 0) > most:
        raise RefusedError(413, f"Expected at most {most} bytes.")
    try:
        await request.content.readexactly(most + 1)
    except asyncio.IncompleteReadError as end:
        return end.partial
    raise RefusedError(413, f"Expected at most {most} bytes.")


async def read_json(request: web.Request, most: int = JSON_BYTES) -> dict[str, Any]:
    """A JSON object of at most `most` bytes.

    Raises:
        RefusedError: 400 where it is none, else as `read_body`.
    """
    body = await read_body(request, "application/json", most)
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RefusedError(400, "The body is no JSON. Expected an object, such as {}.") from error
    if not isinstance(document, dict):
        raise RefusedError(400, "Expected a JSON object, such as {}.")
    return document


async def read_empty(request: web.Request) -> None:
    """Nothing if the body is the JSON object `{}`; else raises `RefusedError`."""
    if await read_json(request) != {}:
        raise RefusedError(400, "Expected the body {}: this has no settings.")


def _whole(name: str, text: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise RefusedError(400, f"{name}: expected a whole number, 0 to 999999999.")
    return int(text)


def _answering(handler: Handler) -> Handler:
    @functools.wraps(handler)
    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            content = await handler(request)
        except RefusedError as refusal:
            return web.json_response({"error": str(refusal)}, status=refusal.status, headers=HEADERS)
        except MaskLoraError as error:
            return web.json_response({"error": str(error)}, status=422, headers=HEADERS)
        if not isinstance(content, web.StreamResponse):
            return web.json_response(content, headers=HEADERS, dumps=strict_json)
        for name, value in HEADERS.items():
            content.headers.setdefault(name, value)
        return content

    return answer


def _from_own_page(handler: Handler) -> Handler:
    @functools.wraps(handler)
    async def checked(request: web.Request) -> Any:
        _refuse_other_origins(request)
        return await handler(request)

    return checked


def _refuse_other_origins(request: web.Request) -> None:
    # A browser sets the first header itself, but only on https and on this machine.
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    foreign = site not in (None, "same-origin", "none")
    if site is None and origin is not None:
        foreign = urlsplit(origin).netloc.lower() != request.host.lower()
    if foreign:
        raise RefusedError(403, "Only ComfyUI's own page may ask for this.")
