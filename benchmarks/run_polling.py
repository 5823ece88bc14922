"""What pages that list 200 runs cost the training beside them: `python dev.py run benchmarks/run_polling.py`.

A real ComfyUI trains the demo's model on one thread while five tabs ask for the list of runs and for the rows of the
run, as often as a page does whose events go to another browser. Blocks without and with tabs take turns
(A B B A). Prints the paces with tabs as shares of those without, and writes run_polling.json beside this file.

Other programs on the machine must not count. So the clock of blocks and tabs is the processor time of ComfyUI's
process, which is plain time where a machine has nothing else to do, and three paces are held to the bar: steps for each
second of the process; the part of its seconds that went to the training's thread; and, where Linux tells what a thread
waited for a processor, the part of its other time that the training's thread worked.
"""

import argparse
import http.client
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

from devtools.comfy import ComfyServer
from devtools.convert import to_api
from devtools.demo import CHECKPOINT, WORKFLOW, offer_demo_inputs
from devtools.host import Host

RUNS, TABS, EVERY = 200, 5, 2.0
BAR = 0.95
LISTED, TRAINED = "listed", "polled"


def training(server, name, steps):
    """The demo's graph in API form, with a training of this name and length."""
    prompt = to_api(json.loads(WORKFLOW.read_text(encoding="utf-8")), server.object_info())
    for number, node in prompt.items():
        if node["class_type"] == "CheckpointLoaderSimple":
            node["inputs"]["ckpt_name"] = CHECKPOINT
        if node["class_type"] == "MLT_TrainLoRA":
            # Short steps are mostly Python, which only one thread runs at a time: the harder case.
            node["inputs"] |= {"name": name, "steps": steps, "epochs": 0, "save_every": 0, "batch_size": 1}
            for optional in ("samples", "loss"):
                node["inputs"].pop(optional, None)
            kept = number
    return {number: prompt[number] for number in needed(prompt, kept)}


def needed(prompt, number):
    """The node `number` and all that its inputs come from."""
    links = [value[0] for value in prompt[number]["inputs"].values() if isinstance(value, list)]
    return {number}.union(*(needed(prompt, link) for link in links))


def copy_runs(root, count):
    """`count` copies of the one finished run, old enough to be remembered."""
    (first,) = root.glob(f"{LISTED}-*")
    then = time.time() - 3600
    for number in range(count):
        copy = shutil.copytree(first, root / f"{LISTED}{number}-{number:010x}")
        for path in [*copy.rglob("*"), copy]:
            os.utime(path, (then, then))


class Training:
    """A run while it is trained: steps it has taken, and the time that its process and its thread have used."""

    def __init__(self, server):
        """The thread with the most to do is the one that trains."""
        self.folder = next((server.base / "user" / "masked_lora" / "runs").glob(f"{TRAINED}-*"))
        self.process = psutil.Process(server.process.pid)
        before = self._threads()
        time.sleep(2)
        after = self._threads()
        self.thread = max(after, key=lambda number: after[number] - before.get(number, 0.0))

    def _threads(self):
        return {thread.id: thread.user_time + thread.system_time for thread in self.process.threads()}

    def steps(self):
        """The last step whose numbers are on the disk."""
        with (self.folder / "metrics.jsonl").open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 8192))
            return json.loads(file.read().rpartition(b"\n")[0].rpartition(b"\n")[2])["step"]

    def clock(self):
        """Seconds of a processor that the process has used."""
        used = self.process.cpu_times()
        return used.user + used.system

    def pause(self, seconds, over=None):
        """Wait until the process has used so much more, or until `over` is set."""
        until = self.clock() + seconds
        while self.clock() < until and not (over and over.is_set()):
            time.sleep(0.02)

    def worked_and_waited(self):
        """Seconds that the thread had a processor, and that it was ready and had none."""
        try:
            text = Path(f"/proc/{self.process.pid}/task/{self.thread}/schedstat").read_text()
        except OSError:
            return self._threads()[self.thread], None
        return tuple(int(number) / 1e9 for number in text.split()[:2])

    def now(self):
        """All counters, just after a step was told."""
        step = self.steps()
        while (now := self.steps()) == step:
            time.sleep(0.005)
        worked, waited = self.worked_and_waited()
        counters = {"steps": now, "process": self.clock(), "worked": worked, "wall": time.monotonic()}
        return counters | ({} if waited is None else {"waited": waited})


class Tabs:
    """Pages that ask for the list and for the rows after the last ones, every two seconds while they are shown."""

    def __init__(self, server, trained, run):
        """None is shown yet, and each knows all rows there are."""
        self.server, self.trained, self.run = server, trained, run
        self.shown, self.over, self.answers = threading.Event(), threading.Event(), []
        self._pages = [threading.Thread(target=self._page, args=(number,)) for number in range(TABS)]

    def __enter__(self):
        """The pages, none shown."""
        for page in self._pages:
            page.start()
        return self

    def __exit__(self, *_error):
        """Close them."""
        self.over.set()
        self.shown.set()
        for page in self._pages:
            page.join()

    def _ask(self, path):
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        connection.request("GET", f"/api/masked_lora{path}")
        content = json.loads(connection.getresponse().read())
        connection.close()
        return content

    def _page(self, number):
        since = self._ask(f"/runs/{self.run}")["rows"][-1]["step"]
        while not self.over.is_set():
            if not self.shown.is_set():
                self.shown.wait()
                # Not all at once.
                self.trained.pause(EVERY * number / TABS, self.over)
                continue
            begun, asked = time.monotonic(), self.trained.clock()
            assert len(self._ask("/runs")["runs"]) > RUNS
            since = max([since, *(row["step"] for row in self._ask(f"/runs/{self.run}?since={since}")["rows"])])
            self.answers.append(time.monotonic() - begun)
            self.trained.pause(EVERY - (self.trained.clock() - asked), self.over)


def block(pages, *, shown, seconds):
    """What the process and the thread used for the steps of one block."""
    (pages.shown.set if shown else pages.shown.clear)()
    asked, before = len(pages.answers), pages.trained.now()
    pages.trained.pause(seconds)
    after, answers = pages.trained.now(), pages.answers[asked:]
    used = {name: after[name] - before[name] for name in after}
    return {"tabs": TABS * shown, "answers": len(answers), "answer_seconds": answers, **used}


def figures(one):
    """What is compared of a block, each the higher the better."""
    found = {
        "steps a second of the process": one["steps"] / one["process"],
        "the training's part of the process": one["worked"] / one["process"],
    }
    if "waited" in one:
        found["the training's work in its own time"] = one["worked"] / (one["wall"] - one["waited"])
    return found


def paces(blocks):
    """Each figure with tabs as a share of that without, the median over the rounds."""
    pairs = [sorted(blocks[at : at + 2], key=lambda one: one["tabs"]) for at in range(0, len(blocks), 2)]
    rounds = [(figures(without), figures(beside)) for without, beside in pairs]
    return {
        name: statistics.median(beside[name] / without[name] for without, beside in rounds) for name in rounds[0][0]
    }


def measure(server, *, rounds, seconds):
    """The blocks of all rounds, A B B A, of one training."""
    server.run(training(server, LISTED, 40))
    copy_runs(server.base / "user" / "masked_lora" / "runs", RUNS)
    server.submit(training(server, TRAINED, 10**6))
    while not (live := [r for r in server.get("/masked_lora/runs")["runs"] if r["name"] == TRAINED and r["step"] > 20]):
        assert server.running, server.log_tail()
        time.sleep(0.5)
    blocks = []
    with Tabs(server, Training(server), live[0]["id"]) as pages:
        for number in range(rounds):
            for shown in (False, True)[:: -1 if number % 2 else 1]:
                one = block(pages, shown=shown, seconds=seconds)
                blocks.append(one)
                each = one["process"] / one["steps"] * 1000
                sys.stderr.write(f"{one['tabs']} tabs: {one['steps']} steps, {each:.2f} ms each\n")
    return blocks


def main():
    """Measure, store, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=24)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    host = Host(Path(sys.executable), Path(os.environ["COMFYUI_PATH"]), "benchmark")
    with tempfile.TemporaryDirectory() as folder:
        offer_demo_inputs(host, Path(folder))
        with ComfyServer(host, Path(folder)) as server:
            blocks = measure(server, rounds=options.rounds, seconds=options.seconds)
    found = paces(blocks)
    setting = {"runs": RUNS, "tabs": TABS, "every": EVERY, "machine": platform.machine(), "cores": os.cpu_count()}
    stored = {"setting": setting, "bar": BAR, "paces": found, "blocks": blocks}
    options.output.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write("\n".join(f"{title}: {value:.3f} (at least {BAR})" for title, value in found.items()) + "\n")


if __name__ == "__main__":
    main()
