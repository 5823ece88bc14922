"""Sample Run in a real ComfyUI: a run's checkpoints drawn at several strengths, into its own folder."""

import json
import uuid

import numpy as np
import pytest
from PIL import Image

from devtools.comfy import ComfyError
from masklora.runs.sample_pictures import SampleFolder


@pytest.fixture
def sampled(train_graph):
    """A function that makes the graph of a training with samples and checkpoints at 2 and 4, and of its pictures."""

    def make(name, **widgets):
        graph = train_graph(name=name, steps=4, save_every=2, keep_last=3, samples={"every": 2})
        inputs = {"model": ["1", 0], "samples": ["5", 0], "run": name, "steps": "", "strengths": "1", **widgets}
        asked = {key: graph[key] for key in ("1", "5")}
        asked["6"] = {"class_type": "MLT_SampleRun", "inputs": inputs}
        asked["7"] = {"class_type": "PreviewImage", "inputs": {"images": ["6", 0]}}
        return graph, asked

    return make


@pytest.fixture
def samples_of(comfy_server):
    """The pictures of the run that was called so."""

    def find(name):
        (folder,) = (comfy_server.base / "user").glob(f"**/runs/{name}-*")
        return SampleFolder(folder)

    return find


def pixels(path):
    return np.asarray(Image.open(path)).astype(int)


def test_strengths_are_drawn_once_and_that_of_the_training_is_its_own(comfy_client, sampled, samples_of):
    graph, asked = sampled("strengths-node", strengths="0.5, 1")
    comfy_client.run(graph)
    samples = samples_of("strengths-node")
    own = {step: pixels(samples.file(step, 1)) for step in (2, 4)}
    samples.file(4, 1).unlink()
    run = comfy_client.run(asked)
    assert len(run.outputs["7"]["images"]) == 2 * 2 * 2
    assert "5 pictures were drawn" in run.outputs["6"]["text"][0]
    assert samples.pictures(0.5) == {2: [0, 1], 4: [0, 1]}
    assert np.abs(pixels(samples.file(4, 1)) - own[4]).max() <= 1
    assert np.abs(pixels(samples.file(4, 1, 0.5)) - own[4]).max() > 1
    stamps = {one: one.stat().st_mtime_ns for one in samples.path.glob("*.png")}
    comfy_client.run(asked)
    asked["6"]["inputs"]["steps"] = "4"
    again = comfy_client.run(asked)
    assert "none was drawn" in again.outputs["6"]["text"][0] and len(again.outputs["7"]["images"]) == 4
    assert stamps == {one: one.stat().st_mtime_ns for one in samples.path.glob("*.png")}
    samples.file(4, 0, 0.5).unlink()
    assert "1 picture was drawn" in comfy_client.run(asked).outputs["6"]["text"][0]


@pytest.mark.parametrize(
    ("widgets", "words"),
    [
        ({"run": "no such run"}, "run: there is no run 'no such run'"),
        ({"run": "../loras"}, "run: there is no run"),
        ({"steps": "2, 3"}, "steps: bad-asks-[0-9a-f]+ has no checkpoint of step 3, but of 2, 4"),
        ({"steps": "newest"}, "steps: expected whole numbers with commas between them"),
        ({"strengths": ""}, "strengths: expected 1 to 8 numbers from -4 to 4"),
        ({"strengths": "0.5, 5"}, "strengths: expected .*got '5'"),
        ({"strengths": "0.125"}, "strengths: expected .*Two decimals"),
    ],
)
def test_what_cannot_be_drawn_is_an_error_by_its_widget(comfy_client, sampled, samples_of, widgets, words):
    graph, asked = sampled("bad-asks", **widgets)
    comfy_client.run(graph)
    before = sorted(samples_of("bad-asks").path.iterdir())
    with pytest.raises(ComfyError, match=words):
        comfy_client.run(asked)
    assert sorted(samples_of("bad-asks").path.iterdir()) == before


def test_a_run_that_is_deleted_meanwhile_is_an_error(comfy_client, sampled, routes):
    graph, asked = sampled("deleted-before")
    comfy_client.run(graph)
    comfy_client.run(asked)
    assert routes.post(f"/runs/{routes.named('deleted-before')['id']}/delete")[0] == 200
    with pytest.raises(ComfyError, match="run: there is no run 'deleted-before'"):
        comfy_client.run(asked)


def test_cancelling_keeps_what_is_drawn_and_the_rest_comes_with_the_next_queue(comfy_client, sampled, samples_of):
    name = f"cancelled-{uuid.uuid4().hex[:8]}"
    graph, asked = sampled(name, strengths="0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8")
    comfy_client.run(graph)
    prompt = comfy_client.submit(asked)
    progress = comfy_client.wait_for(
        lambda kind, data: kind == "progress_state" and data["nodes"].get("6", {}).get("value", 0) > 1
    )
    comfy_client.interrupt()
    assert progress["nodes"]["6"]["max"] == 32
    assert comfy_client.finish(prompt, check=False).ending == "execution_interrupted"
    there = len(list(samples_of(name).path.glob("*_x*.png")))
    assert 0 < there < 32
    assert f"{32 - there} pictures were drawn" in comfy_client.run(asked).outputs["6"]["text"][0]


def test_the_routes_tell_and_show_the_pictures_of_each_strength(comfy_client, routes, sampled, samples_of):
    graph, asked = sampled("routes-of-strengths", strengths="0.5, -1")
    comfy_client.run(graph)
    path = f"/runs/{routes.named('routes-of-strengths')['id']}/samples"
    assert routes.get(path)["strengths"] == {}
    before = routes.named("routes-of-strengths")["pictures_mark"]
    comfy_client.run(asked)
    assert routes.named("routes-of-strengths")["pictures_mark"] != before
    listed = routes.get(path)
    steps = [{"step": step, "numbers": [0, 1]} for step in (2, 4)]
    assert listed["strengths"] == {"-1.00": steps, "0.50": steps}
    assert listed["steps"] == [{"step": 0, "numbers": [0, 1]}, *steps]
    samples = samples_of("routes-of-strengths")
    for query, strength in (("", 1.0), ("?strength=1.00", 1.0), ("?strength=0.50", 0.5), ("?strength=-1.00", -1.0)):
        status, _, content = routes.ask("GET", f"{path}/4/1{query}")
        assert status == 200 and content == samples.read(4, 1, strength), query
    assert routes.ask("GET", f"{path}/4/1?strength=0.60")[0] == 404
    for wrong in ("", "x", "0.625", "5", "0.5,1", "nan", "..%2F..", "1e0"):
        status, _, content = routes.ask("GET", f"{path}/4/1?strength={wrong}")
        assert status == 400 and "strength: expected a number" in json.dumps(content), wrong
