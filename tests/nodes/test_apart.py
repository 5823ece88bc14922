"""Trainings that the page starts as processes of their own: followed, asked, ended, and found again."""

import contextlib
import json
import os
import shutil
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from devtools.comfy import ComfyServer
from harness.damage import ALL
from harness.page import NOTIFIED, ComfyPage
from harness.panel import INK, PANEL, Panel
from harness.routes import Routes

long = pytest.mark.skipif(not ALL, reason="with --all: a ComfyUI of its own for each process")


class Apart:
    """Starts trainings apart by a server's routes."""

    def __init__(self, server):
        self.server, self.routes = server, Routes(server)

    def start(self, graph, count=1, workflow=None):
        body = json.dumps({"prompt": graph, "workflow": workflow, "count": count}).encode()
        return self.routes.post("/apart", body)

    def started(self, graph, count=1, **more):
        status, answer = self.start(graph, count, **more)
        assert status == 200, answer
        return answer["start"]["id"]

    def now(self):
        return self.routes.get("/apart")["start"]

    def until(self, condition, timeout=240):
        def met():
            found = self.now()
            assert condition(found) or found["state"] != "ended", self.whole(found)
            return found if condition(found) else None

        return self.routes.until(met, timeout)

    def ended(self, timeout=240):
        return self.until(lambda found: found["state"] == "ended", timeout)

    def cancel(self, identifier):
        return self.routes.post(f"/apart/{identifier}/cancel")

    def folder(self, found):
        return self.server.base / "user" / "masked_lora" / "apart" / found["id"]

    def whole(self, found):
        """Everything that it has said, for a person who looks for a fault."""
        names = ("told.jsonl", "log.txt")
        return "\n".join([str(found), *((self.folder(found) / name).read_text(encoding="utf-8") for name in names)])

    def processes(self, found):
        """The processes whose command line names its folder."""
        kept = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if any(found["id"] in word for word in process.cmdline()):
                    kept.append(process)
        return kept

    def clear(self):
        folders = (self.server.base / "user" / "masked_lora" / "apart").glob("*/")
        for process in [one for folder in folders for one in self.processes({"id": folder.name})]:
            process.kill()
        shutil.rmtree(self.server.base / "user" / "masked_lora" / "apart", ignore_errors=True)


@pytest.fixture
def apart(comfy_server):
    made = Apart(comfy_server)
    yield made
    made.clear()


def other_graph():
    value = time.monotonic_ns() % 10**9
    return {
        "1": {"class_type": "PrimitiveInt", "inputs": {"value": value}},
        "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}},
    }


def run_folder(server, name):
    (folder,) = (server.base / "user" / "masked_lora" / "runs").glob(f"{name.replace(' ', '_')}-*")
    return folder


def test_what_cannot_be_trained_apart_is_refused_with_its_reason(apart, train_graph):
    graph, none = train_graph(name="refused apart"), other_graph()
    two = {**graph, "9": {**graph["4"], "inputs": {**graph["4"]["inputs"], "name": "other"}}}
    wrong = {**graph, "4": {**graph["4"], "inputs": {**graph["4"]["inputs"], "steps": -5}}}
    titled = {**wrong, "4": {**wrong["4"], "_meta": {"title": "My training"}}}
    # ComfyUI puts others in the place of its old nodes, also those of a graph of before.
    old = {"class_type": "Preview3DAnimation", "inputs": {"model_file": "a.glb"}}
    replaced = {**titled, "10": old}
    saves = {"class_type": "MLT_SaveMasks", "inputs": {"dataset": ["2", 0]}}
    cached = {**graph["3"], "inputs": {**graph["3"]["inputs"], "dataset": ["8", 0]}}
    for made, count, words in (
        (none, 1, "No node trains"),
        (two, 1, "2 nodes train"),
        (graph, 0, "Expected 1 to "),
        (graph, 10**6, "Expected 1 to "),
        (titled, 1, "My training (node 4): Value -5 smaller than min"),
        (replaced, 1, "wrong in the graph. My training (node 4): Value -5 smaller than min"),
        ({**graph, "8": saves, "3": cached}, 2, "writes files"),
    ):
        status, answer = apart.start(made, count)
        assert status in (400, 409) and words in answer["error"], answer
    for body in (b"{}", b'{"prompt": {"1": 2}, "workflow": null, "count": 1}', b'{"prompt": [], "count": 1}'):
        assert apart.routes.post("/apart", body)[0] == 400
    assert apart.now() is None
    assert apart.cancel("0" * 20)[0] == 404


@pytest.mark.skipif(sys.platform == "win32", reason="torch for Windows was not tried")
def test_two_processes_train_while_the_queue_is_free_and_hear_what_their_run_is_asked(
    apart, comfy_server, comfy_client, train_graph
):
    routes, graph = apart.routes, train_graph(name="by two apart", steps=30000, batch_size=1)
    identifier = apart.started(graph, 2, workflow={"nodes": [], "extra": "as the page shows it"})
    status, answer = apart.start(train_graph(name="another apart"))
    assert status == 409 and "by two apart is being trained apart already" in answer["error"]
    status, answer = routes.post(f"/apart/{identifier}/hide")
    assert status == 409 and "by two apart is still being trained apart" in answer["error"]
    assert comfy_client.run(other_graph()).succeeded
    run = routes.running("by_two_apart", step=3)
    assert not apart.now()["hidden"]
    assert run["elsewhere"] and run["total"] == 30000 and run["node"] is None
    routes.until(lambda: routes.named("by_two_apart")["steps_per_second"] > 0)
    found = apart.until(lambda found: found["state"] == "training")
    assert (found["id"], found["run"], found["count"], found["name"]) == (identifier, run["id"], 2, "by two apart")
    assert any("shared out over 2 processes" in one["text"] for one in found["said"])
    assert len(apart.processes(found)) == 3

    def in_state(state):
        return routes.until(lambda: (one := routes.named("by_two_apart")) and one["state"] == state and one)

    def act(action):
        status, answer = routes.post(f"/runs/{run['id']}/{action}")
        assert status == 200, answer
        return answer["run"]["state"]

    assert act("pause") == "paused"
    live = run_folder(comfy_server, "by two apart") / "live.json"
    routes.until(lambda: json.loads(live.read_text(encoding="utf-8"))["facts"]["state"] == "paused")
    rows = routes.get(f"/runs/{run['id']}")["rows"]
    time.sleep(0.5)
    assert in_state("paused")["step"] == rows[-1]["step"] == routes.get(f"/runs/{run['id']}")["rows"][-1]["step"]
    assert act("save") == "paused"
    routes.until(lambda: routes.named("by_two_apart")["checkpoints"])
    assert act("resume") == "running"
    routes.until(lambda: routes.named("by_two_apart")["step"] > rows[-1]["step"])
    assert "Connect Sample Pictures" in routes.post(f"/runs/{run['id']}/sample")[1]["error"]
    assert act("stop") == "stopping"
    assert apart.ended()["end"] == {"state": "finished", "reasons": []}
    run = in_state("stopped")
    assert not run["elsewhere"] and run["checkpoints"][-1] == run["step"]
    assert (comfy_server.base / "output" / "loras" / "by two apart.safetensors").is_file()
    # The run's graph opens as it was.
    assert routes.get(f"/runs/{run['id']}/graph")["workflow"]["extra"] == "as the page shows it"
    assert not live.exists()
    status, answer = routes.post(f"/apart/{identifier}/hide")
    assert status == 200 and answer["start"]["hidden"]


@long
def test_a_training_apart_draws_when_asked_runs_to_its_end_and_waits_for_the_queue(apart, comfy_server, train_graph):
    apart.started(train_graph(name="drawn apart", steps=30000, samples={}))
    run = apart.routes.running("drawn_apart")
    assert run["can_sample"]
    before = run["pictures_mark"]
    assert apart.routes.post(f"/runs/{run['id']}/sample")[0] == 200
    apart.routes.until(lambda: apart.routes.named("drawn_apart")["pictures_mark"] != before)
    apart.routes.until(lambda: len(apart.routes.get(f"/runs/{run['id']}/samples")["steps"]) > 1)
    assert apart.routes.named("drawn_apart")["state"] == "running"
    assert apart.routes.post(f"/runs/{run['id']}/stop")[0] == 200
    assert apart.ended()["end"]["state"] == "finished"
    apart.started(train_graph(name="whole apart", steps=3))
    assert apart.ended()["end"]["state"] == "finished"
    assert (comfy_server.base / "output" / "loras" / "whole apart.safetensors").is_file()
    assert apart.routes.named("whole_apart")["state"] == "finished"
    prompt = comfy_server.submit(train_graph(name="in the queue", steps=30000))
    apart.routes.running("in_the_queue")
    assert "queue is at work" in apart.start(train_graph(name="meanwhile"))[1]["error"]
    comfy_server.interrupt()
    comfy_server.wait(prompt, check=False)


@long
def test_a_cancel_before_the_first_step_ends_it_and_a_second_one_at_once(apart, comfy_server, train_graph):
    identifier = apart.started(train_graph(name="cancelled apart", steps=30000))
    assert apart.cancel(identifier)[0] == 200
    found = apart.ended()
    assert found["end"] == {"state": "stopped", "reasons": []} and found["step"] == 0
    identifier = apart.started(train_graph(name="cancelled apart", steps=30000), 2)
    apart.until(lambda found: found["state"] == "training")
    assert apart.cancel(identifier)[0] == 200
    found = apart.ended()
    assert found["end"]["state"] == "stopped"
    run = apart.routes.named("cancelled_apart")
    assert run["state"] == "open" and run["checkpoints"][-1] == run["step"] > 0
    identifier = apart.started(train_graph(name="ended apart", steps=30000), 2)
    found = apart.until(lambda found: found["state"] == "training")
    # As a step that takes long.
    for process in apart.processes(found):
        process.suspend()
    assert apart.cancel(identifier)[0] == apart.cancel(identifier)[0] == 200
    assert apart.ended(timeout=20)["end"] == {"state": "stopped", "reasons": []}
    assert apart.processes(found) == []


@long
@pytest.mark.skipif(sys.platform != "linux", reason="processes are told apart in /proc")
def test_whatever_ends_it_is_told(apart, train_graph):
    graph = train_graph(name="fails apart")
    graph["2"]["inputs"]["folder"] = "nowhere"
    apart.started(graph)
    (reason,) = apart.ended()["end"]["reasons"]
    assert "nowhere" in reason
    apart.started(train_graph(name="killed apart", steps=30000))
    found = apart.until(lambda found: found["state"] == "training")
    os.kill(apart.processes(found)[0].pid, signal.SIGKILL)
    assert apart.ended()["end"]["state"] == "killed"
    apart.started(train_graph(name="lost apart", steps=30000), 2)
    found = apart.until(lambda found: found["state"] == "training")
    second = next(one for one in apart.processes(found) if one.environ().get("RANK") == "1")
    second.kill()
    end = apart.ended()["end"]
    assert end["state"] == "failed" and "not there any more" in end["reasons"][0]
    apart.started(train_graph(name="beheaded apart", steps=30000), 2)
    found = apart.until(lambda found: found["state"] == "training")
    next(one for one in apart.processes(found) if one.environ().get("RANK") == "0").kill()
    end = apart.ended()["end"]
    assert end["state"] == "killed" and "process 1: " in end["reasons"][0]


@long
def test_a_comfyui_that_is_started_anew_finds_it_and_its_page_can_stop_it(
    comfy_host, demo_inputs, comfy_server, train_graph, tmp_path
):
    shutil.copytree(comfy_server.base / "input" / "train demo", tmp_path / "input" / "train demo")
    server = ComfyServer(comfy_host, tmp_path, models=comfy_server.base / "models")
    with server:
        Apart(server).started(train_graph(name="left apart", steps=30000))
    with ComfyServer(comfy_host, tmp_path, models=comfy_server.base / "models") as again:
        apart = Apart(again)
        try:
            apart.until(lambda found: found["state"] == "training")
            run = apart.routes.running("left_apart")
            assert apart.routes.post(f"/runs/{run['id']}/stop")[0] == 200
            assert apart.ended()["end"]["state"] == "finished"
            assert (tmp_path / "output" / "loras" / "left apart.safetensors").is_file()
        finally:
            apart.clear()


@long
def test_of_two_comfyuis_that_share_a_user_folder_one_starts_at_a_time(
    apart, comfy_host, comfy_server, train_graph, tmp_path
):
    user = ["--user-directory", str(comfy_server.base / "user")]
    with ComfyServer(comfy_host, tmp_path, models=comfy_server.base / "models", arguments=user) as second:
        shutil.copytree(comfy_server.base / "input" / "train demo", tmp_path / "input" / "train demo")
        both = [apart, Apart(second)]
        for _ in range(3):
            # Each looks once, so that the next look is no slower than the other's.
            assert [one.now() is None or one.now()["state"] == "ended" for one in both] == [True, True]
            graphs = [train_graph(name=f"raced apart {time.monotonic_ns()}", steps=30000) for _ in both]
            together = threading.Barrier(2)

            def start(one, graph, together=together):
                together.wait()
                return one.start(graph)

            with ThreadPoolExecutor(2) as pool:
                answers = list(pool.map(start, both, graphs))
            assert sorted(status for status, _ in answers) == [200, 409], answers
            (refused,) = [answer["error"] for status, answer in answers if status == 409]
            assert "is being trained apart already" in refused
            (started,) = [answer["start"] for status, answer in answers if status == 200]
            assert [one.now()["id"] for one in both] == [started["id"]] * 2
            assert both[1].cancel(started["id"])[0] == both[0].cancel(started["id"])[0] == 200
            apart.ended()


PART = ".mlt-panel .mlt-apart"
WORDS = """([selector, words]) => document.querySelector(selector)?.textContent.includes(words)"""


def test_a_person_trains_the_open_graph_apart_from_the_button_to_the_lora(apart, page, comfy_server, train_graph):
    name = f"apart in the page {time.monotonic_ns()}"
    panel = Panel(page).load(train_graph(name=name, steps=30000))
    tab, start = panel.tab, panel.button("Train as a process of its own")
    start.click()
    dialog = tab.locator(".mlt-apart-ask")
    assert dialog.locator("input").input_value() == "1"
    assert "the queue stays free" in dialog.text_content() and "no faster than the queue" in dialog.text_content()
    dialog.locator("input").fill("2")
    assert "2 processes learn 2 times as many pictures a step" in dialog.text_content()
    tab.keyboard.press("Escape")
    dialog.wait_for(state="detached")
    assert apart.now() is None
    start.click()
    shown(tab, "dialog")
    tab.locator(".mlt-apart-ask").get_by_role("button", name="Start", exact=True).click()
    tab.wait_for_function(WORDS, arg=[PART, "A process is starting"], timeout=20_000)
    shown(tab, "starting")
    assert start.is_disabled()
    # A page that is opened meanwhile finds it.
    tab.reload(wait_until="domcontentloaded")
    page.open()
    panel.load(train_graph(name=name, steps=30000))
    tab.wait_for_function(WORDS, arg=[PART, "Training as a process of its own"], timeout=120_000)
    panel.in_state("running").at_step(3)
    tab.wait_for_function(f"selector => ({INK})(selector) > 0", arg=PANEL)
    shown(tab, "training")
    panel.button("Pause").click()
    panel.in_state("paused")
    panel.button("Go on").click()
    panel.in_state("running")
    panel.button("Stop and save").click()
    panel.in_state("stopped")
    tab.wait_for_function(WORDS, arg=[PART, "Everything in the graph was done"], timeout=30_000)
    tab.wait_for_function(WORDS, arg=[".mlt-ending", f"output/loras/{name}.safetensors"], timeout=20_000)
    shown(tab, "ended")
    panel.button("Hide").click()
    tab.locator(PART).first.wait_for(state="hidden")
    assert start.is_enabled()
    assert page.problems == []


OFFERED = """name => window.LiteGraph.createNode("LoraLoaderModelOnly").widgets
    .find(one => one.name === "lora_name").options.values.includes(name)"""


@long
def test_in_the_background_one_of_two_pages_tells_its_end_and_both_offer_its_lora(
    apart, browser, comfy_server, train_graph
):
    name = f"told apart {time.monotonic_ns()}"
    comfy_server.post("/settings", {"masked_lora.notify": True})
    context = browser.new_context()
    try:
        apart.started(train_graph(name=name, steps=30000))
        run = apart.routes.running(name.replace(" ", "_"))
        # Neither has a panel open.
        pages = [ComfyPage(context.new_page(), comfy_server).open() for _ in range(2)]
        for one in pages:
            one.evaluate(NOTIFIED)
            one.page.wait_for_function("name => document.title.includes(`%] ${name} · `)", arg=name, timeout=30_000)
        assert apart.routes.post(f"/runs/{run['id']}/stop")[0] == 200
        apart.ended()
        for one in pages:
            one.page.wait_for_function(OFFERED, arg=f"{name}.safetensors", timeout=30_000)
            assert name not in one.page.title()
        pages[0].page.wait_for_timeout(8000)
        (notice,) = [notice for one in pages for notice in one.evaluate("() => window.notified")]
        assert notice == [name, f"Written: output/loras/{name}.safetensors"]
        # A page that is opened afterwards has nothing to tell.
        late = ComfyPage(context.new_page(), comfy_server).open()
        late.evaluate(NOTIFIED)
        late.page.wait_for_timeout(6000)
        assert late.evaluate("() => window.notified") == [] and name not in late.page.title()
        assert [one.problems for one in (*pages, late)] == [[], [], []]
    finally:
        context.close()
        comfy_server.post("/settings", {"masked_lora.notify": False})


def shown(tab, moment):
    """Keeps a picture of the page for a person, where one asks for it."""
    if folder := os.environ.get("MASKLORA_SHOTS"):
        tab.screenshot(path=str(Path(folder) / f"apart {moment}.png"))
