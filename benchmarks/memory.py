"""Peak memory of a piece of work in this process."""

import ctypes
import gc
import sys
from pathlib import Path

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_above_start(work):
    """Bytes by which resident memory rose above its start while `work()` ran; None where that cannot be told.

    Linux only: the kernel keeps the highest resident size, and `5` written to clear_refs starts it anew. It
    sees everything, allocators and copies of a model included.
    """
    if sys.platform != "linux" or not _RESET.exists():
        return None
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    _RESET.write_text("5", encoding="ascii")
    start = _field("VmRSS")
    work()
    return _field("VmHWM") - start


def _field(name):
    line = next(li for li in _STATUS.read_text(encoding="ascii").splitlines() if li.startswith(name))
    return int(line.split()[1]) * 1024
