"""One of several processes that train the toy together, of which one meets with something: started by torchrun.

Its arguments: a folder for all, the steps, what happens, to which process, and after which step.
"""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import torch

from harness.toy import Recorder, open_run, toy_job
from masklora import peers, pulse
from masklora.training.trainer import train


class Hands(Recorder):
    """A person at the first process."""

    def __init__(self, what, after):
        stops = what == "pause and stop"
        super().__init__(stop_at=after if stops else None, raise_at=after if what == "cancel" else None)
        self.pause_at = after if stops else None
        self.waited = 0

    def should_stop(self):
        return super().should_stop() and self.waited == 10

    def should_pause(self):
        if self.last_step != self.pause_at or self.waited == 10:
            return False
        self.waited += 1
        return True


def meets_with(what, net, after, micros):
    """Let it happen to this process in the forward of the step after `after`."""
    inner, calls = net.denoise, [0]

    def denoise(*given, **planned):
        calls[0] += 1
        if calls[0] > after * micros:
            if what.startswith("killed"):
                os.kill(os.getpid(), signal.SIGKILL)
            if what == "hangs":
                threading.Event().wait()
            if what == "takes long":
                works_on(2 * pulse.LOOK_SECONDS * pulse.MOST_LOOKS)
                return inner(*given, **planned)
            raise ValueError("the card fell off the bus")
        return inner(*given, **planned)

    net.denoise = denoise


def works_on(seconds):
    """Take long, as what asks between its parts whether it is cancelled."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(pulse.LOOK_SECONDS)
        peers.here().move()


def ends_late(net, after, micros):
    """Ask this process to end, after another one was killed in the same step and before it can know."""
    inner, calls = net.denoise, [0]

    def denoise(*given, **planned):
        calls[0] += 1
        if calls[0] > after * micros:
            time.sleep(1)
            raise KeyboardInterrupt
        return inner(*given, **planned)

    net.denoise = denoise


def main():
    """Train, and tell how it ended."""
    folder, steps, what, whom, after = Path(sys.argv[1]), *sys.argv[2:]
    torch.set_num_threads(1)
    told = {}
    if what.startswith("killed"):
        # As train.py, the other one ends in its own time when torchrun asks it to.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if what in ("hangs", "takes long"):
        pulse.LOOK_SECONDS, pulse.MOST_LOOKS = 0.1, 20
    with peers.joined(torch.device("cpu")) as group:
        job = toy_job(steps=int(steps), seed=11 if what != "other settings" else 11 + group.number)
        if what == "killed and asked to end" and group.number != int(whom):
            ends_late(job.model, int(after), job.train.gradient_accumulation)
        if group.number == int(whom) and what in ("killed", "killed and asked to end", "fails", "hangs", "takes long"):
            meets_with(what, job.model, int(after), job.train.gradient_accumulation)
        hands = Hands(what, int(after))
        root = folder / "runs" if group.first else folder / f"scratch {group.number} {time.time_ns()}"
        mark = str(job.train.seed).rjust(64, "f")
        code, reason = 0, ""
        try:
            with open_run(root, mark) as run:
                if what == "cannot write" and group.number == int(whom):
                    (run.folder / "checkpoints" / f"step-{int(after):06d}").touch()
                done = train(job, run=run, hooks=hands)
            told = {"steps": done.steps, "completed": done.completed, "resumed": done.resumed_from}
            told |= {"losses": done.losses, "messages": hands.messages, "waited": hands.waited}
        except (Exception, KeyboardInterrupt) as error:
            told = {"error": str(error), "kind": type(error).__name__, "messages": hands.messages}
            code, reason = 1, "" if isinstance(error, peers.PeerError | KeyboardInterrupt) else str(error)
        told["code"] = group.end(code, reason)
        told["lost"] = group.lost
    threads = [one.read_text(encoding="ascii").strip() for one in Path("/proc/self/task").glob("*/comm")]
    told["threads left"] = [name for name in threads if "gloo" in name]
    (folder / f"told {group.number}.json").write_text(json.dumps(told), encoding="utf-8")


if __name__ == "__main__":
    main()
