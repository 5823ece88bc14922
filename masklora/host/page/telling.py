"""What a node has to say, said where people look: on the node itself, in the log, and in the queue's history.

Everything is said in English. The page translates it by the templates of `locales/<language>/server.json`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from aiohttp import web

from ...findings import Finding, note, printable
from .requests import Handler, RefusedError

# The key of a node's output that the page's report widget shows; it outlasts the end of the job.
REPORT = "masked_lora_report"
LOCALES = Path(__file__).resolve().parents[3] / "locales"
_LANGUAGE = re.compile("[A-Za-z]{2,3}(?:-[A-Za-z]{2,4})?")

logger = logging.getLogger(__name__)


def tell(findings: Iterable[Finding | str], *, text: str | None = None) -> dict[str, list[Any]]:
    """The `ui` of a node's output: its report, line by line; warnings go to the log as well.

    Args:
        findings: Sentences in the order in which they are shown; plain text counts as a note.
        text: The whole report as `text` of the history, for those who read it there; by default the findings.
    """
    lines = [note(one) if isinstance(one, str) else one for one in findings]
    for line in lines:
        logger.log(logging.WARNING if line.level == "warning" else logging.INFO, "masked lora: %s", line.text)
    whole = "\n".join(line.text for line in lines) if text is None else printable(text)
    return {REPORT: [asdict(line) for line in lines], "text": [whole]}


async def get_messages(request: web.Request) -> Any:
    """The sentences of the server in the language of the path: {English template: translation}."""
    language = request.match_info["language"]
    if not _LANGUAGE.fullmatch(language):
        raise RefusedError(400, "Expected a language such as fr or pt-BR.")
    try:
        text = await asyncio.to_thread((LOCALES / language / "server.json").read_text, encoding="utf-8")
    except FileNotFoundError:
        raise RefusedError(404, "There are no translations into this language.") from None
    return _flat(json.loads(text))


def _flat(messages: dict[str, Any]) -> dict[str, str]:
    """Without the groups that a translator may have kept."""
    found: dict[str, str] = {}
    for key, value in messages.items():
        found |= _flat(value) if isinstance(value, dict) else {key: value}
    return found


MESSAGE_GETS: dict[str, Handler] = {"/messages/{language}": get_messages}
