"""Sample pictures, the current sample, the graph and the export of runs, by routes of a real server."""

import io
import json
import uuid

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from harness.routes import SAFE

NOBODY = "0" * 20


def picture(routes, path):
    status, headers, content = routes.ask("GET", path)
    assert status == 200, content
    assert headers.get_content_type() == "image/png"
    assert {name: headers[name] for name in SAFE} == SAFE
    return np.asarray(Image.open(io.BytesIO(content))), headers


@pytest.fixture
def drawing(routes, comfy_client, train_graph):
    """A long training with sample pictures, under way; cancelled at the end if it still runs."""
    name = f"drawing-{uuid.uuid4().hex[:8]}"
    prompt_id = comfy_client.submit(train_graph(name=name, steps=3000, samples={}))
    yield routes.running(name)
    comfy_client.interrupt()
    comfy_client.finish(prompt_id, check=False)


def test_samples_are_listed_and_shown_and_drawn_on_a_wish(routes, drawing):
    path = f"/runs/{drawing['id']}"
    assert drawing["can_sample"]
    listed = routes.get(f"{path}/samples")
    assert listed["prompts"] == ["a red star", "a zibble"]
    assert (listed["width"], listed["height"], listed["seed"]) == (128, 128, 0)
    first = listed["steps"][0]
    assert first == {"step": 0, "numbers": [0, 1]}
    base, _ = picture(routes, f"{path}/samples/0/0")
    assert base.shape == (128, 128, 3) and base.std() > 5
    count = len(listed["steps"])
    status, told = routes.post(f"{path}/sample")
    assert (status, told["run"]["state"]) == (200, "running")
    routes.until(lambda: len(routes.get(f"{path}/samples")["steps"]) > count)
    routes.until(lambda: routes.get(f"{path}/samples")["steps"][-1]["numbers"] == [0, 1])
    newest = routes.get(f"{path}/samples")["steps"][-1]
    assert newest["step"] > 0
    assert picture(routes, f"{path}/samples/{newest['step']}/1")[0].shape == (128, 128, 3)
    routes.until(lambda: routes.named(drawing["name"])["pictures_mark"] == f"{newest['step']}-{2 * (count + 1)}")


def test_a_wish_is_drawn_while_the_training_waits(routes, drawing):
    path = f"/runs/{drawing['id']}"
    routes.post(f"{path}/pause")
    routes.until(lambda: routes.named(drawing["name"])["state"] == "paused")
    count = len(routes.get(f"{path}/samples")["steps"])
    routes.post(f"{path}/sample")
    # A step that had begun when it was asked to wait ends first.
    routes.until(lambda: len(routes.get(f"{path}/samples")["steps"]) > count)
    step = routes.named(drawing["name"])["step"]
    assert routes.get(f"{path}/samples")["steps"][-1]["step"] == step
    routes.until(lambda: routes.get(f"{path}/samples")["steps"][-1]["numbers"] == [0, 1])
    assert routes.named(drawing["name"])["step"] == step
    assert routes.named(drawing["name"])["state"] == "paused"
    routes.post(f"{path}/resume")


def test_the_current_sample_is_shown_with_its_weights_and_memory_is_told(routes, drawing):
    shown, headers = picture(routes, f"/runs/{drawing['id']}/current")
    assert headers["X-Sample-Name"].startswith("zibble_")
    assert int(headers["X-Sample-Step"]) >= drawing["step"]
    side = (shown.shape[1] - 4) // 2
    left, right = shown[:, :side].astype(int), shown[:, side + 4 :].astype(int)
    assert left.std() > 5
    # The demo's pictures have a subject and a background: one side is darkened in part, not everywhere.
    assert 0.05 < (right.mean(axis=2) < 0.5 * left.mean(axis=2)).mean() < 0.95
    memory = routes.named(drawing["name"])["memory"]
    assert 0 < memory["used"] < memory["total"]


def test_a_run_without_samples_says_what_to_connect_and_one_that_rests_shows_none(routes, comfy_client, train_graph):
    prompt_id = comfy_client.submit(train_graph(name="no-pictures", steps=3000))
    run = routes.running("no-pictures")
    status, content = routes.post(f"/runs/{run['id']}/sample")
    assert status == 409 and "Sample Pictures" in content["error"]
    assert routes.get(f"/runs/{run['id']}/samples")["steps"] == []
    routes.post(f"/runs/{run['id']}/stop")
    comfy_client.finish(prompt_id)
    assert routes.ask("GET", f"/runs/{run['id']}/current")[0] == 204
    assert routes.post(f"/runs/{run['id']}/sample")[0] == 409
    assert routes.named("no-pictures")["memory"] is None


@pytest.mark.parametrize(
    "tail",
    ["0/99", "0/16", "7/0", "-1/0", "0/x", "0x1/0", "..%2f..%2fsettings.json/0", "%2e%2e/0", "1e3/0", "9999999999/0"],
)
def test_a_picture_that_is_none_is_refused(routes, drawing, tail):
    status, _, content = routes.ask("GET", f"/runs/{drawing['id']}/samples/{tail}")
    assert status in (400, 404)
    assert b"fingerprint" not in json.dumps(content if isinstance(content, dict) else str(content)).encode()


@pytest.mark.parametrize("tail", ["samples", "samples/0/0", "current", "graph"])
def test_what_belongs_to_no_run_is_not_found(routes, tail):
    assert routes.ask("GET", f"/runs/{NOBODY}/{tail}")[0] == 404
    for bad in ("under_way", "A" * 20, "0" * 19):
        assert routes.ask("GET", f"/runs/{bad}/{tail}")[0] == 400


def test_a_run_keeps_its_graph(routes, comfy_client, train_graph):
    prompt = train_graph(name="keeps", steps=2)
    comfy_client.run(prompt)
    run = routes.named("keeps")
    assert run["graph"]
    graph = routes.get(f"/runs/{run['id']}/graph")
    assert graph["prompt"] == prompt and graph["node"] == "4" and graph["workflow"] is None


def test_a_checkpoint_is_exported_and_equals_the_run_s_own_file(routes, comfy_client, comfy_server, train_graph):
    comfy_client.run(train_graph(name="exported", steps=4, save_every=2, keep_last=3))
    run = routes.named("exported")
    assert run["exportable"] and run["checkpoints"] == [2, 4]
    status, told = routes.post(f"/runs/{run['id']}/export")
    assert status == 200 and told["files"] == ["loras/exported-step000004.safetensors"]
    folder = comfy_server.base / "output"
    ours = safetensors.torch.load_file(folder / told["files"][0])
    own = safetensors.torch.load_file(folder / "loras" / "exported.safetensors")
    assert ours.keys() == own.keys() and all(torch.equal(ours[key], own[key]) for key in own)
    with safetensors.safe_open(folder / told["files"][0], "pt") as file:
        metadata = file.metadata()
    with safetensors.safe_open(folder / "loras" / "exported.safetensors", "pt") as file:
        wanted = file.metadata()
    differing = {key for key in wanted if metadata.get(key) != wanted[key]}
    assert differing <= {
        "ss_output_name", "ss_training_finished_at", "modelspec.title", "modelspec.date", "modelspec.hash_sha256",
        "sshs_model_hash", "sshs_legacy_hash",
    }  # fmt: skip
    status, told = routes.post(f"/runs/{run['id']}/export", b'{"step": 2}')
    assert status == 200 and told["files"] == ["loras/exported-step000002.safetensors"]
    again = routes.post(f"/runs/{run['id']}/export", b'{"step": 2}')[1]["files"]
    assert again == ["loras/exported-step000002_00001_.safetensors"]
    older = safetensors.torch.load_file(folder / told["files"][0])
    assert not all(torch.equal(older[key], own[key]) for key in own)


def test_a_dora_says_that_it_needs_its_model(routes, comfy_client, defaults, train_graph):
    prompt = train_graph(name="dora", steps=2)
    prompt["6"] = {"class_type": "MLT_Adapter", "inputs": defaults("MLT_Adapter", algorithm="dora", rank=2)}
    prompt["4"]["inputs"]["adapter"] = ["6", 0]
    comfy_client.run(prompt)
    status, content = routes.post(f"/runs/{routes.named('dora')['id']}/export")
    assert status == 422 and "DoRA" in content["error"]


@pytest.mark.parametrize("body", [b'{"step": "2"}', b'{"step": -1}', b'{"step": true}', b'{"path": "x"}', b"[]", b""])
def test_an_export_of_another_form_is_refused(routes, comfy_client, train_graph, body):
    comfy_client.run(train_graph(name="exported", steps=4, save_every=2, keep_last=3))
    path = f"/runs/{routes.named('exported')['id']}/export"
    assert routes.post(path, body)[0] == 400
    assert routes.post(path, b'{"step": 3}')[0] == 404
    assert routes.post(path, Origin="http://evil.example")[0] == 403
    assert routes.post(f"/runs/{NOBODY}/export")[0] == 404
    assert routes.ask("GET", path)[0] in (404, 405)
