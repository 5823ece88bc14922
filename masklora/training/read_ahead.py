"""The next micro-batch is read in a thread while the device works on this one."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")
THREAD = "masked lora read ahead"


class ReadAhead(Generic[T]):
    """At most one thing that is read before it is asked for; its thread ends with `close`."""

    def __init__(self) -> None:
        """Without a thread, until something is started."""
        self._pool: ThreadPoolExecutor | None = None
        self._due: tuple[object, Future[T]] | None = None

    def start(self, what: object, read: Callable[[], T]) -> None:
        """Have `read` called in the thread for `what`; what was started before is dropped."""
        self._drop()
        self._pool = self._pool or ThreadPoolExecutor(1, thread_name_prefix=THREAD)
        self._due = what, self._pool.submit(read)

    def take(self, what: object) -> T | None:
        """What was read for `what`; None where something else was started, or reading failed."""
        if self._due is None or self._due[0] != what:
            return None
        future = self._due[1]
        self._due = None
        return None if future.exception() else future.result()

    def close(self) -> None:
        """Drop what was read and end the thread; another start makes a new one."""
        self._drop()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def _drop(self) -> None:
        if self._due is not None:
            self._due[1].cancel()
            self._due = None
