"""A signal to a real ComfyUI in the middle of a training leaves a checkpoint, and the process ends in time."""

import json
import random
import signal
import sys
import time

import pytest
from safetensors.torch import load_file

from harness.damage import many
from harness.restarts import ended_in_order, limit
from harness.routes import Routes
from harness.toy import same

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a process there cannot be sent these signals")

STEPS = many(24, 150)


def end(server, number, *, step):
    """Sends a signal once the training is past `step`; the seconds until the process has ended."""
    Routes(server).running("ended", step=step)
    began = time.monotonic()
    server.process.send_signal(number)
    server.process.wait(30)
    return time.monotonic() - began


def steps_kept(base):
    """The last step with numbers, and the last checkpoint."""
    (folder,) = (base / "user" / "masked_lora" / "runs").glob("ended-*")
    numbers = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    saved = sorted(int(path.name.removeprefix("step-")) for path in (folder / "checkpoints").glob("step-*"))
    return numbers[-1], saved[-1] if saved else 0


def test_signals_at_any_step_lose_no_step_and_the_lora_is_that_of_an_undisturbed_run(
    restarts, comfy_client, comfy_server, train_graph
):
    prompt = train_graph(name="ended", steps=STEPS, save_every=0)
    comfy_client.run(prompt)
    wanted = load_file(comfy_server.base / "output" / "loras" / "ended.safetensors")
    at = 0
    # A usual run sends the two others in test_ended_processes.
    for number in many((signal.SIGHUP,), (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)):
        server = restarts.up()
        server.submit(prompt)
        seconds = end(server, number, step=at + random.randint(2, many(8, 12)))
        told, saved = steps_kept(restarts.base)
        assert seconds < limit()
        assert at < saved == told < STEPS
        assert ended_in_order(server, number), server.log_tail()
        at = saved
    server = restarts.up()
    server.wait(server.submit(prompt))
    assert same(load_file(restarts.base / "output" / "loras" / "ended.safetensors"), wanted)


def test_the_handlers_of_before_are_back_after_a_training(restarts, train_graph):
    server = restarts.up()
    server.wait(server.submit(train_graph(name="before", steps=3)))
    began = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    server.process.wait(30)
    assert server.process.returncode == -signal.SIGTERM
    assert time.monotonic() - began < limit()
