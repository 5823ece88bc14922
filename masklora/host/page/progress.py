"""Progress, status text and cancel of the node that runs now, as plain callables for the library."""

from __future__ import annotations

import time
from typing import Any

import comfy.model_management
import comfy.utils
import numpy as np
import server
from comfy_execution.utils import get_executing_context
from PIL import Image

from ...findings import printable
from ...peers import here

# A browser need not hear more often.
INTERVAL = 0.1
PREVIEW_INTERVAL = 0.5
PREVIEW_SIDE = 512


class NodeProgress:
    """The running node's bar and status line; call it with (done, total, text)."""

    def __init__(self) -> None:
        """Takes the node from ComfyUI's own execution context; outside one only cancelling works."""
        context = get_executing_context()
        self.node_id = context.node_id if context else None
        self._bar = comfy.utils.ProgressBar(1, node_id=self.node_id)
        self._last = self._last_shown = float("-inf")

    def __call__(self, done: int, total: int, text: str = "") -> None:
        """Show a state, at most ten per second; the first and the last always."""
        now = time.monotonic()
        if now - self._last < INTERVAL and done < total:
            return
        self._last = now
        self._bar.update_absolute(done, max(total, 1))
        if text:
            self.status(f"{text} ({done}/{total})" if total else text)

    def show(self, rgb: np.ndarray, *, last: bool = False) -> None:
        """Show a picture, uint8 (H, W, 3), on the node, at most two per second; the last one always."""
        now = time.monotonic()
        if now - self._last_shown < PREVIEW_INTERVAL and not last:
            return
        self._last_shown = now
        picture = Image.fromarray(rgb)
        picture.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
        self._bar.update_absolute(self._bar.current, self._bar.total, ("JPEG", picture, PREVIEW_SIDE))

    def status(self, text: str) -> None:
        """Show a line on the node; nothing without a browser that started this run."""
        prompts: Any = getattr(server.PromptServer, "instance", None)
        if self.node_id is not None and prompts is not None and prompts.client_id is not None:
            prompts.send_progress_text(printable(text), self.node_id, prompts.client_id)

    def check_cancel(self) -> None:
        """Return, or raise ComfyUI's interrupt, no `Exception`, if a person pressed cancel; see `pulse` too."""
        here().move()
        comfy.model_management.throw_exception_if_processing_interrupted()
