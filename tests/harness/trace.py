"""A trace that Chromium records of its page: how regularly frames came, and which long tasks a script had part in."""

import bisect
import contextlib
import itertools
import json
from dataclasses import dataclass, field

CATEGORIES = ["-*", "__metadata", "toplevel", "devtools.timeline", "disabled-by-default-devtools.timeline"]
# What browsers call a long task.
LONG_MS = 50.0
_TASK, _CALL, _FRAME, _STAMP = "RunTask", "FunctionCall", "FireAnimationFrame", "TimeStamp"
# A trace holds every page of the browser; this stamp says which one it was taken of.
_OURS = "the page that is recorded"


@dataclass(frozen=True)
class LongTask:
    """A task of the page's main thread over 50 ms.

    Attributes:
        ms: how long it took.
        own_ms: how much of that went by in the scripts that were looked for.
        own_cpu_ms: how much of `own_ms` the processor worked for them; the rest they waited, also for the processor.
    """

    ms: float
    own_ms: float
    own_cpu_ms: float


@dataclass(frozen=True)
class Trace:
    """What was recorded of one page.

    Attributes:
        frames: milliseconds from each animation frame to the next.
        tasks: its long tasks.
    """

    frames: list[float]
    tasks: list[LongTask]


@dataclass
class Recording:
    """The bytes of a trace file, once the recording has ended."""

    data: bytes = field(default=b"", repr=False)


@contextlib.contextmanager
def recording(browser, tab):
    """Records what a tab does meanwhile: gives a `Recording`."""
    found = Recording()
    browser.start_tracing(page=tab, categories=CATEGORIES)
    try:
        tab.evaluate("name => console.timeStamp(name)", _OURS)
        yield found
    finally:
        found.data = browser.stop_tracing()


def read_trace(data, *, scripts):
    """The `Trace` in the bytes of a `Recording`; `scripts` is a part of the URLs of the scripts to look for.

    Raises:
        ValueError: it does not tell which page it is of, or that page drew no two animation frames.
    """
    events, frame = _of_page(json.loads(data)["traceEvents"])
    tasks = sorted((e for e in events if e["name"] == _TASK), key=lambda task: task["ts"])
    starts = [task["ts"] for task in tasks]

    def task_at(event):
        return max(0, bisect.bisect_right(starts, event["ts"]) - 1)

    # Every callback is an event of its own.
    frames = sorted({task_at(e) for e in events if e["name"] == _FRAME and e["args"]["data"]["frame"] == frame})
    if len(frames) < 2:
        raise ValueError("the trace holds no two animation frames of its page")
    calls = {}
    for event in events:
        if event["name"] == _CALL and scripts in event["args"].get("data", {}).get("url", ""):
            calls.setdefault(task_at(event), []).append(event)
    long = [(task, calls.get(i, [])) for i, task in enumerate(tasks) if task["dur"] > 1000 * LONG_MS]
    return Trace(
        [(starts[after] - starts[before]) / 1000 for before, after in itertools.pairwise(frames)],
        [LongTask(task["dur"] / 1000, _covered(own, "ts", "dur"), _covered(own, "tts", "tdur")) for task, own in long],
    )


def _of_page(events):
    """The complete events of the recorded page's main thread, and the id of its frame."""
    stamp = next((e for e in events if e["name"] == _STAMP and e["args"]["data"]["name"] == _OURS), None)
    if stamp is None:
        raise ValueError("the trace does not tell which page it is of")
    thread = stamp["pid"], stamp["tid"]
    return [e for e in events if e["ph"] == "X" and (e["pid"], e["tid"]) == thread], stamp["args"]["data"]["frame"]


def _covered(calls, start, length):
    """Milliseconds of a union of calls, by one of the two clocks: a call within a call counts once."""
    total, end = 0, 0
    for begun, ended in sorted((call[start], call[start] + call[length]) for call in calls):
        total += max(0, ended - max(begun, end))
        end = max(end, ended)
    return total / 1000
