"""kill -9, Ctrl-C and a terminate signal at random moments of a real ComfyUI: the work goes on to the same result."""

import json
import random
import signal
import sys
import time

import pytest
from safetensors.torch import load_file

from harness.damage import many
from harness.restarts import ended_in_order, limit
from harness.toy import same

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a process there cannot be sent these signals")

SEED = 20261129
PHASES = ("step", "sampling", "checkpoint", "caching", "export")
SIGNALS = ("SIGTERM", "SIGINT", "SIGKILL")
STEPS, SAVE_EVERY, PICTURES_EVERY = many(12, 24), 5, many(6, 8)
# Seconds after a phase was seen within which the signal comes: about as long as the phase lasts.
WITHIN = {"caching": 0.05, "step": 0.2, "checkpoint": 0.02, "export": 0.03, "sampling": 0.1}
VARIANTS = many(2, 4)
# Of the pictures that the cache encodes: ten, as often as there are variants, with and without another background.
ENCODED = 20 * VARIANTS - 10


@pytest.fixture
def prompt(train_graph, defaults):
    """A training with much that must be taken up again: an average, sample pictures, variants with backgrounds."""
    graph = train_graph(
        name="ended anywhere",
        steps=STEPS,
        save_every=SAVE_EVERY,
        keep_last=2,
        samples={"every": PICTURES_EVERY, "width": 64, "height": 64},
    )
    graph["3"]["inputs"] |= {"variants": VARIANTS, "rotate": 30.0, "infill_variants": 1}
    # Of high rank, so that writing a checkpoint takes a moment.
    graph["6"] = {"class_type": "MLT_Adapter", "inputs": defaults("MLT_Adapter", rank=64)}
    graph["7"] = {"class_type": "MLT_Optimizer", "inputs": defaults("MLT_Optimizer", ema_decay=0.9)}
    graph["4"]["inputs"] |= {"adapter": ["6", 0], "optimizer": ["7", 0]}
    return graph


class Place:
    """What the processes of one base folder have left there."""

    def __init__(self, base):
        self.base, self.ours = base, base / "user" / "masked_lora"

    def run(self):
        return next((self.ours / "runs").glob("ended_anywhere-*"), None)

    def inside(self, pattern):
        """Names in the run's folder; it may change while it is looked at."""
        try:
            return sorted(path.name for path in self.run().glob(pattern)) if self.run() else []
        except OSError:
            return []

    def encoded(self):
        try:
            return sum(1 for _ in (self.ours / "cache" / "latent").glob("*/*.safetensors"))
        except OSError:
            return 0

    def rows(self):
        file = self.run() / "metrics.jsonl" if self.run() else None
        return [json.loads(line) for line in file.read_bytes().split(b"\n")[:-1]] if file and file.is_file() else []

    def losses(self):
        return {row["step"]: row["loss"] for row in self.rows() if "loss" in row}

    def step(self):
        return max(self.losses(), default=0)

    def saved(self):
        return max((int(name.removeprefix("step-")) for name in self.inside("checkpoints/step-*")), default=0)

    def loras(self):
        return sorted(path.name for path in (self.base / "output" / "loras").glob("*"))

    def lora(self):
        return load_file(self.base / "output" / "loras" / "ended anywhere.safetensors")

    def pictures(self):
        return {name: (self.run() / "samples" / name).read_bytes() for name in self.inside("samples/step_*.png")}

    def leftovers(self):
        return [path.name for folder in (self.ours, self.base / "output") for path in folder.rglob("*tmp*")]


def reached(place, phase, rng):
    """A condition that holds when a random moment of `phase` has come."""
    if phase == "caching":
        count = rng.randint(1, ENCODED)
        return lambda: place.encoded() >= count
    if phase == "step":
        step = rng.randint(1, STEPS - 5)
        return lambda: place.step() >= step
    if phase == "checkpoint":
        step = SAVE_EVERY * rng.randint(1, STEPS // SAVE_EVERY)
        return lambda: place.inside(f"checkpoints/.tmp-step-{step:06d}*") or place.saved() >= step
    if phase == "sampling":
        step, number = PICTURES_EVERY * rng.randint(0, STEPS // PICTURES_EVERY), rng.randint(0, 1)
        if number:
            return lambda: place.inside(f"samples/step_{step:06d}_0.png") or place.step() > step
        return lambda: place.step() >= step if step else place.inside("samples")
    return lambda: place.inside("result.json") or place.loras()


def end_at(server, place, phase, name, rng):
    """Sends the signal at a random moment of the phase; the seconds until the process has ended."""
    there, deadline = reached(place, phase, rng), time.monotonic() + 400
    while not there():
        assert server.running and time.monotonic() < deadline, server.log_tail()
        time.sleep(0.001)
    time.sleep(rng.uniform(0, WITHIN[phase]))
    began = time.monotonic()
    server.process.send_signal(getattr(signal, name))
    server.process.wait(30)
    return time.monotonic() - began


@pytest.mark.parametrize("number", range(many(2, 20)))
def test_a_process_that_ends_anywhere_loses_little_and_the_result_is_that_of_an_undisturbed_run(
    number, prompt, restarts, comfy_server, record_property
):
    comfy_server.wait(comfy_server.submit(prompt))
    wanted, place = Place(comfy_server.base), Place(restarts.base)
    phase, name, rng = PHASES[number % len(PHASES)], SIGNALS[number % len(SIGNALS)], random.Random(SEED + number)
    restarts.forget()
    server = restarts.up()
    server.submit(prompt)
    seconds = end_at(server, place, phase, name, rng)
    done, saved, files = place.step(), place.saved(), place.loras()
    where = f"{phase}, {name}: {place.encoded()} latents, step {done}, saved {saved}, {files or 'no LoRA'}"
    record_property("ended", f"{where}; in {seconds:.2f} s")
    if name == "SIGKILL":
        assert done - saved <= SAVE_EVERY
    else:
        assert done == saved, server.log_tail()
        assert seconds < limit()
        assert ended_in_order(server, getattr(signal, name)), server.log_tail()
    server = restarts.up()
    outputs = server.wait(server.submit(prompt))["outputs"]
    said = "\n".join(one["text"] for one in outputs["4"]["masked_lora_report"])
    record_property("then", next(line for line in said.splitlines() if line.startswith(("Trained", "Loaded"))))
    assert "Loaded the finished run" in said or f"Trained {STEPS} steps" in said
    assert not saved or f"resumed from step {saved}" in said or "Loaded the finished run" in said
    assert same(place.lora(), wanted.lora())
    assert place.loras() == ["ended anywhere.safetensors"]
    assert place.losses() == wanted.losses() and list(place.losses()) == list(range(1, STEPS + 1))
    assert place.leftovers() == []
    assert place.pictures() == wanted.pictures()
