"""A signal to a real ComfyUI in the middle of a training leaves a checkpoint, and the process ends in time."""

import json
import random
import shutil
import signal
import sys
import time

import pytest
from safetensors.torch import load_file

from harness.routes import Routes
from harness.toy import same

LIMIT = 8.0
STEPS = 150


@pytest.fixture
def start(comfy_server, demo_inputs, tmp_path):
    """Starts a ComfyUI with a base of its own, each time the same one, and the models of the shared one."""
    from devtools.comfy import ComfyServer

    started = []
    shutil.copytree(comfy_server.base / "input" / "train demo", tmp_path / "input" / "train demo")

    def make():
        server = ComfyServer(comfy_server.host, tmp_path, models=comfy_server.base / "models")
        started.append(server)
        server.start()
        return server

    yield make
    for server in started:
        server.stop()


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


@pytest.mark.skipif(sys.platform == "win32", reason="a process there cannot be sent these signals")
def test_signals_at_any_step_lose_no_step_and_the_lora_is_that_of_an_undisturbed_run(
    start, comfy_client, comfy_server, tmp_path, train_graph
):
    prompt = train_graph(name="ended", steps=STEPS, save_every=0)
    comfy_client.run(prompt)
    wanted = load_file(comfy_server.base / "output" / "loras" / "ended.safetensors")
    at = 0
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        server = start()
        server.submit(prompt)
        seconds = end(server, number, step=at + random.randint(2, 12))
        told, saved = steps_kept(tmp_path)
        assert seconds < LIMIT
        assert at < saved == told < STEPS
        # After Ctrl-C ComfyUI ends by itself, and now and then Python aborts while it takes its threads down.
        endings = (0, -signal.SIGABRT) if number is signal.SIGINT else (-number,)
        assert server.process.returncode in endings, server.log_tail()
        assert "could not acquire lock" not in server.log_tail()
        at = saved
    server = start()
    server.wait(server.submit(prompt))
    assert same(load_file(tmp_path / "output" / "loras" / "ended.safetensors"), wanted)


@pytest.mark.skipif(sys.platform == "win32", reason="a process there cannot be sent these signals")
def test_the_handlers_of_before_are_back_after_a_training(start, train_graph):
    server = start()
    server.wait(server.submit(train_graph(name="before", steps=3)))
    began = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    server.process.wait(30)
    assert server.process.returncode == -signal.SIGTERM
    assert time.monotonic() - began < LIMIT
