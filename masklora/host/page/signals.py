"""An orderly end of ComfyUI, by Ctrl-C, a terminate signal or an exit, leaves a checkpoint as an interrupt does.

Python hands signals to the main thread, which runs ComfyUI's server, while the queue's own thread trains. So the
handler only notes the wish; the training writes its checkpoint and ends; then what would have happened without us
happens: the handler that was there before is called. It is put in for the length of a training and taken out after it.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import ctypes
import logging
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from server import PromptServer

# How long a process waits for its checkpoint before it ends all the same.
MOST_SECONDS = 7.0
_PATIENCE = 2.0
# For what ComfyUI's queue still has to say of the interrupted graph, and for its last line, which comes afterwards.
_REST_SECONDS, _LAST_LINE_SECONDS = 0.6, 0.2
# Close, log off and shut down, and the time that Windows gives, less a little.
_CONSOLE_ENDS, _CONSOLE_SECONDS = (2, 5, 6), 4.0
_LOOK_SECONDS = 0.5
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGBREAK", "SIGHUP") if hasattr(signal, name))

logger = logging.getLogger(__name__)


class OrderlyEnd:
    """Whether this process is about to end, and what it waits for before it does."""

    def __init__(self) -> None:
        """Nothing is about to end."""
        self._wished, self._saved = threading.Event(), threading.Event()
        self._trainer = threading.current_thread()
        self._before: dict[int, Any] = {}
        self._signal: int | None = None

    @property
    def wished(self) -> bool:
        """Whether the training shall write its checkpoint and end."""
        return self._wished.is_set()

    @contextlib.contextmanager
    def awaited(self) -> Iterator[OrderlyEnd]:
        """While this lasts, the process ends only when it is left, or after `MOST_SECONDS`."""
        _on_main_thread(self._install)
        atexit.register(self._wait)
        try:
            with _console_closing(self._wait):
                yield self
        finally:
            self._saved.set()
            atexit.unregister(self._wait)
            if not self.wished:
                _on_main_thread(self._restore)
            elif self._trainer is threading.main_thread():
                self._go_on()

    def _install(self) -> None:
        for number in SIGNALS:
            before = signal.getsignal(number)
            # What is ignored stays ignored, as hang-ups are under nohup; None is a handler that Python did not set.
            # What a graph without a page has put in does the same, for every node.
            if before is not None and before is not signal.SIG_IGN and not isinstance(before, Interrupts):
                self._before[number] = before
                signal.signal(number, self._heard)

    def _restore(self) -> None:
        for number, before in self._before.items():
            if signal.getsignal(number) == self._heard:
                signal.signal(number, before)
        self._before = {}

    def _heard(self, number: int, frame: FrameType | None) -> None:
        first = not self.wished
        self._signal = number
        self._wished.set()
        if not first or self._saved.is_set():
            # Asked twice, a person does not want to wait.
            self._go_on()
        elif self._trainer is not threading.main_thread():
            threading.Thread(target=self._end, daemon=True, name="masked-lora-end").start()

    def _end(self) -> None:
        logger.warning("masked lora: ComfyUI ends; writing a checkpoint first, for %g seconds at most.", MOST_SECONDS)
        began = time.monotonic()
        self._saved.wait(MOST_SECONDS)
        # On a busy machine the queue has more time, as long as the checkpoint has left some.
        _rest(_REST_SECONDS + began + MOST_SECONDS - time.monotonic())
        _on_main_thread(self._go_on, wait=False)

    def _wait(self, seconds: float = MOST_SECONDS) -> None:
        """An exit that no signal asked for."""
        self._wished.set()
        if self._trainer is not threading.current_thread():
            self._saved.wait(seconds)
            _rest()

    def _go_on(self) -> None:
        """What the signal would have done without us, once."""
        number, self._signal = self._signal, None
        before = self._before.get(number, signal.SIG_DFL) if number is not None else None
        self._restore()
        if number is None:
            return
        if callable(before):
            before(number, None)
        else:
            # Another training may have put in its own handler meanwhile.
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)


class Interrupts:
    """What signals do to a process that executes one graph and has no page: the handler of each of them.

    The first is a wish to do what cancel does in the page, and waits as long as that takes; the second ends the process
    at once. Whoever cannot send signals may leave a file in their place.
    """

    def __init__(self, *, apart: float = 0.0, file: Path | None = None) -> None:
        """Nothing was heard.

        Args:
            apart: one that comes less than so many seconds after the first is the same wish.
            file: as soon as it is there, that is the first.
        """
        self._apart, self._file = apart, file
        self._when = self._looked = -math.inf
        self._heard = self._taken = False

    @contextlib.contextmanager
    def awaited(self) -> Iterator[Interrupts]:
        """While this lasts, signals come here. For the main thread."""
        kept = {number: signal.getsignal(number) for number in SIGNALS}
        before = {number: one for number, one in kept.items() if one is not None and one is not signal.SIG_IGN}
        for number in before:
            signal.signal(number, self)
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Note the first; end at the second."""
        now = time.monotonic()
        if not self._heard:
            self._heard, self._when = True, now
        elif now - self._when >= self._apart:
            # Files are whole or absent at any time.
            os._exit(128 + number)

    def take(self) -> bool:
        """Whether it is wished to interrupt what is executed; the wish is fulfilled with this."""
        now = time.monotonic()
        if self._file is not None and now - self._looked >= _LOOK_SECONDS:
            self._looked = now
            self._heard = self._heard or self._file.exists()
        wished = self._heard and not self._taken
        self._taken = self._taken or wished
        return wished


def _rest(seconds: float = _REST_SECONDS) -> None:
    """Until ComfyUI's queue is silent: Python aborts if it ends while another thread writes to the same stream."""
    queue, until = getattr(PromptServer.instance, "prompt_queue", None), time.monotonic() + seconds
    while getattr(queue, "currently_running", None) and time.monotonic() < until:
        time.sleep(0.02)
    time.sleep(_LAST_LINE_SECONDS)


@contextlib.contextmanager
def _console_closing(wait: Callable[[float], None]) -> Iterator[None]:
    """On Windows, `wait` is called in a thread of its own when the console closes, or a person logs off.

    The process ends as soon as that returns, and after five seconds in any case, without a look at Python's handlers.
    """
    if sys.platform != "win32":
        yield
        return
    kernel = ctypes.windll.kernel32

    @ctypes.WINFUNCTYPE(ctypes.c_int, ctypes.c_uint)
    def closing(event: int) -> int:
        if event in _CONSOLE_ENDS:
            wait(_CONSOLE_SECONDS)
        return 0

    kernel.SetConsoleCtrlHandler(closing, 1)
    try:
        yield
    finally:
        kernel.SetConsoleCtrlHandler(closing, 0)


def _on_main_thread(act: Callable[[], None], *, wait: bool = True) -> None:
    """Do `act` on the main thread, which alone may set handlers; nothing where it runs no server of ComfyUI's."""
    if threading.current_thread() is threading.main_thread():
        act()
        return
    loop: asyncio.AbstractEventLoop | None = getattr(getattr(PromptServer, "instance", None), "loop", None)
    if loop is None or not loop.is_running():
        return
    done = threading.Event()

    def there() -> None:
        try:
            if threading.current_thread() is threading.main_thread():
                act()
        finally:
            done.set()

    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(there)
        if wait:
            done.wait(_PATIENCE)
