"""What a node has to say, said where people look: on the node itself, in the log, and in the queue's history."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from ...findings import Finding, note, printable

# The key of a node's output that the page's report widget shows; it outlasts the end of the job.
REPORT = "masked_lora_report"

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
