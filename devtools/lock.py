"""One builder at a time: a lock that the operating system drops when its holder dies.

On POSIX systems a child that inherits the descriptor (`close_fds=False`) shares the lock: an installer that outlives
its killed parent keeps others out until it ends.
"""

import contextlib
import os
import time
from pathlib import Path

from .console import say

# Windows locks bytes, and locked bytes cannot be read by others: lock one far behind the text.
_LOCKED_BYTE = 1 << 30

if os.name == "nt":
    import msvcrt

    def _try_lock(descriptor):
        os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

    def _unlock(descriptor):
        os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)
else:
    import fcntl

    def _try_lock(descriptor):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(descriptor):
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def _holder(path):
    try:
        return path.read_text(encoding="utf-8").strip() or "unknown"
    except OSError:
        return "unknown"


@contextlib.contextmanager
def exclusive(path: Path, *, poll=0.5, reminder=30.0):
    """Holds the lock file `path` for the length of the block; waits while another process holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    os.set_inheritable(descriptor, True)
    try:
        next_word = 0.0
        while True:
            try:
                _try_lock(descriptor)
                break
            except OSError:
                if time.monotonic() >= next_word:
                    say(f"waiting for process {_holder(path)} or its installer, which sets up the same host")
                    next_word = time.monotonic() + reminder
                time.sleep(poll)
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, str(os.getpid()).encode())
        try:
            yield
        finally:
            _unlock(descriptor)
    finally:
        os.close(descriptor)
