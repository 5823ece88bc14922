"""A trace that Chromium records of its page: how regularly frames came, and which long tasks a script had part in."""

import bisect
import itertools
import json
from dataclasses import dataclass

CATEGORIES = ["-*", "__metadata", "toplevel", "devtools.timeline", "disabled-by-default-devtools.timeline"]
# What browsers call a long task.
LONG_MS = 50.0
_TASK, _CALL, _FRAME = "RunTask", "FunctionCall", "FireAnimationFrame"


@dataclass(frozen=True)
class Trace:
    """What was recorded of one page.

    Attributes:
        frames: milliseconds from each animation frame to the next.
        tasks: one for each task of the page's main thread over 50 ms: its milliseconds, and how many of them went by
            in the scripts that were looked for.
    """

    frames: list[float]
    tasks: list[tuple[float, float]]


def read_trace(data, *, scripts):
    """The `Trace` in the bytes of a trace file; `scripts` is a part of the URLs of the scripts to look for.

    Raises:
        ValueError: it holds no animation frames, so it says nothing of a page.
    """
    events = _of_page(json.loads(data)["traceEvents"])
    tasks = sorted((e["ts"], e["ts"] + e["dur"]) for e in events if e["name"] == _TASK)
    starts = [start for start, _ in tasks]

    def task_at(event):
        return max(0, bisect.bisect_right(starts, event["ts"]) - 1)

    # Every callback is an event of its own.
    frames = sorted({task_at(e) for e in events if e["name"] == _FRAME})
    if len(frames) < 2:
        raise ValueError("the trace holds no animation frames")
    calls = {}
    for event in events:
        if event["name"] == _CALL and scripts in event["args"].get("data", {}).get("url", ""):
            calls.setdefault(task_at(event), []).append((event["ts"], event["ts"] + event["dur"]))
    long = [i for i, (start, end) in enumerate(tasks) if end - start > 1000 * LONG_MS]
    return Trace(
        [(starts[after] - starts[before]) / 1000 for before, after in itertools.pairwise(frames)],
        [((tasks[i][1] - tasks[i][0]) / 1000, _covered(calls.get(i, [])) / 1000) for i in long],
    )


def _of_page(events):
    """The complete events of the main thread that draws most: every tab and frame may have one."""
    named = (e for e in events if e["name"] == "thread_name")
    mains = {(e["pid"], e["tid"]) for e in named if e["args"]["name"] == "CrRendererMain"}
    threads = {}
    for event in events:
        if event["ph"] == "X" and (thread := (event["pid"], event["tid"])) in mains:
            threads.setdefault(thread, []).append(event)
    return max(threads.values(), key=lambda found: sum(e["name"] == _FRAME for e in found), default=[])


def _covered(spans):
    """The length of a union of spans: a call within a call counts once."""
    total, end = 0, 0
    for start, stop in sorted(spans):
        total += max(0, stop - max(start, end))
        end = max(end, stop)
    return total
