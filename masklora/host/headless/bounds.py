"""Files into which a training writes for days, kept small: their beginning, a line about what is left out, their end.

Standard library only. All that write share one place in the file, as processes do that were started with it: none of
them may have opened it to append.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

# Names the folder of a training whose output lies in these files; of others whoever started them sees to that.
FOLDER = "MASKED_LORA_FOLDER"
TOLD, LOG = "told.jsonl", "log.txt"
MOST_BYTES = 4 * 2**20
# Of the beginning, and of the end.
KEPT_BYTES = 2**19
_LOOK_SECONDS = 10.0


def cut(descriptor: int, path: Path) -> bool:
    """Whether a file was too large, and its middle is left out; whole lines stay.

    Args:
        descriptor: by which this process writes.
        path: of the same file; another one stays as it is.

    Raises:
        OSError: the file cannot be read or written.
    """
    state = os.fstat(descriptor)
    if state.st_size <= MOST_BYTES:
        return False
    with path.open("rb") as file:
        if not os.path.samestat(state, os.fstat(file.fileno())):
            return False
        head = file.read(KEPT_BYTES)
        head = head[: head.rfind(b"\n") + 1]
        file.seek(-KEPT_BYTES, os.SEEK_END)
        tail = file.read()
        tail = tail[tail.find(b"\n") + 1 :]
    left_out = {"event": "left out", "bytes": state.st_size - len(head) - len(tail)}
    rest = json.dumps(left_out).encode() + b"\n" + tail
    os.lseek(descriptor, len(head), os.SEEK_SET)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
    # Another process may have written meanwhile.
    end = os.lseek(descriptor, 0, os.SEEK_CUR)
    os.ftruncate(descriptor, end)
    _fill(path, end, os.lseek(descriptor, 0, os.SEEK_CUR))
    return True


def _fill(path: Path, start: int, end: int) -> None:
    """Put line ends where a process wrote just before the file was cut at `start`: its words are gone, and left zeros.

    Others write at `end` and behind it, or have done so from somewhere between.
    """
    with path.open("r+b") as file:
        file.seek(start)
        found = file.read(end - start)
        missing = len(found) - len(found.lstrip(b"\0")) if len(found) == end - start else end - start
        file.seek(start)
        file.write(b"\n" * missing)


@contextlib.contextmanager
def kept_small(files: Sequence[tuple[int, Path]], lock: threading.Lock) -> Iterator[None]:
    """While this lasts, the files are looked at every few seconds.

    Args:
        files: as `cut` takes them.
        lock: held while one is cut.
    """
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(_LOOK_SECONDS):
            for descriptor, path in files:
                # Nobody's work hangs on it.
                with contextlib.suppress(OSError), lock:
                    cut(descriptor, path)

    thread = threading.Thread(target=look, daemon=True, name="masked-lora-bounds")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
