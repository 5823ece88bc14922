"""What a page that asks for two hundred runs costs the training beside it, in a real ComfyUI."""

import os
import shutil
import time

import psutil
import pytest

RUNS = 200
TABS, EVERY = 5, 2.0


@pytest.fixture
def many(comfy_client, comfy_server, train_graph):
    """Two hundred finished runs, copies of one."""
    comfy_client.run(train_graph(name="many", steps=40))
    runs = comfy_server.base / "user" / "masked_lora" / "runs"
    (first,) = runs.glob("many-*")
    made = [shutil.copytree(first, runs / f"many{number}-{number:010x}") for number in range(RUNS)]
    then = time.time() - 60
    for folder in made:
        for path in [folder, *folder.rglob("*")]:
            os.utime(path, (then, then))
    yield made
    for folder in made:
        shutil.rmtree(folder)


def test_five_tabs_cost_the_training_less_than_a_twentieth(comfy_server, routes, many):
    process = psutil.Process(comfy_server.process.pid)
    listed = routes.get("/runs")["runs"]
    assert len(listed) >= RUNS
    shown = listed[RUNS // 2]["id"]

    def work(asks):
        before = process.cpu_times()
        for _ in range(asks):
            # What a page asks for of a run whose events go to another.
            routes.get("/runs")
            routes.get(f"/runs/{shown}?since=40")
        after = process.cpu_times()
        return (after.user - before.user + after.system - before.system) / asks

    each = min(work(40) for _ in range(3))
    assert each * TABS / EVERY < 0.05, f"{each * 1000:.1f} ms of the process for each answer"
