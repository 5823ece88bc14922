"""Trainings without a page, in processes of their own."""

import json
import os
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from devtools.comfy import ROOT, more_models

PACKS = ("small_models_pack",)


@dataclass
class Ended:
    """What a process has told on its standard output, as events where these were asked for, and beside it."""

    code: int
    text: str
    beside: str
    events: list = field(default_factory=list)

    def of(self, kind):
        return [one for one in self.events if one["event"] == kind]

    def told(self, level):
        return [one["text"] for one in self.of("told") if one["level"] == level]


class Headless:
    """Runs train.py in a base folder; `models` is a further folder of models."""

    def __init__(self, host, base, *, models=None, packs=(), script=ROOT / "train.py"):
        self.host, self.base, self.script = host, Path(base), Path(script)
        flags = ["--base-directory", str(base), "--cpu", "--disable-api-nodes"]
        if models:
            flags += ["--extra-model-paths-config", str(more_models(self.base, models))]
        if packs:
            flags += ["--disable-all-custom-nodes", "--whitelist-custom-nodes", *packs]
        self.flags = flags

    def start(self, graph, *arguments, command=None):
        """The process; one thread, for a second one waits on a machine that is busy."""
        path = self.base / "graph.json"
        path.write_text(json.dumps(graph), encoding="utf-8")
        command = command or [str(self.host.python), str(self.script)]
        environment = dict(os.environ, OMP_NUM_THREADS="1", COMFYUI_PATH=str(self.host.comfyui), PYTHONUTF8="1")
        environment.pop("PYTHONSAFEPATH", None)
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        # ComfyUI's flag for names of packs takes all that follow it.
        command = [*command, str(path), *arguments, *self.flags]
        return subprocess.Popen(command, env=environment, cwd=self.base, text=True, encoding="utf-8", **pipes)

    def run(self, graph, *arguments, command=None):
        """Executes a graph, and tells what it told."""
        return self.end(self.start(graph, *arguments, command=command))

    def end(self, process, *, heard=""):
        """What a process told, `heard` already among it, once it has ended."""
        text, beside = process.communicate(timeout=280)
        text = heard + text
        lines = [json.loads(line) for line in text.splitlines()] if text.startswith("{") else []
        return Ended(process.returncode, text, beside, lines)

    def until(self, process, step, *, seconds=200):
        """The lines of JSON up to a step of the training."""
        heard, until = "", time.monotonic() + seconds
        while time.monotonic() < until:
            line = process.stdout.readline()
            heard += line
            if not line or json.loads(line).get("step", 0) >= step:
                return heard
        raise TimeoutError(heard)
