"""The routes of the training panel on a real server: what they tell, what they do, what they refuse."""

import contextlib
import http.client
import json
import time

import pytest

NOBODY = "0" * 20


@pytest.fixture
def training(routes, comfy_client, train_graph):
    """A long training, under way; cancelled at the end if it still runs."""
    prompt_id = comfy_client.submit(train_graph(name="under-way", steps=3000))
    yield routes.running("under-way")
    comfy_client.interrupt()
    comfy_client.finish(prompt_id, check=False)


def test_stop_and_save_leaves_a_lora_file_and_a_run_that_goes_on(routes, comfy_client, comfy_server, train_graph):
    prompt = train_graph(name="stopped-early", steps=400)
    prompt_id = comfy_client.submit(prompt)
    run = routes.running("stopped-early")
    assert (run["node"], run["total"]) == ("4", 400)
    status, told = routes.post(f"/runs/{run['id']}/stop")
    assert (status, told["run"]["state"]) == (200, "stopping")
    assert comfy_client.finish(prompt_id).succeeded
    assert (comfy_server.base / "output" / "loras" / "stopped-early.safetensors").is_file()
    after = routes.named("stopped-early")
    assert (after["state"], after["total"]) == ("stopped", 400)
    assert 3 <= after["step"] < 400
    assert after["checkpoints"] == [after["step"]]
    assert after["summary"]["loss"] > 0
    prompt_id = comfy_client.submit(prompt)
    again = routes.running("stopped-early", step=after["step"] + 1)
    assert again["id"] == run["id"]
    rows = routes.get(f"/runs/{run['id']}")["rows"]
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    routes.post(f"/runs/{run['id']}/stop")
    comfy_client.finish(prompt_id)


def test_stopping_before_the_first_step_ends_without_a_file(routes, comfy_client, comfy_server, train_graph):
    # The base model's pictures take long.
    prompt_id = comfy_client.submit(train_graph(name="never-begun", steps=50, samples={"steps": 500}))
    run = routes.running("never-begun", step=0)
    routes.until(lambda: routes.named("never-begun")["drawing"])
    assert routes.post(f"/runs/{run['id']}/stop")[0] == 200
    assert comfy_client.finish(prompt_id, check=False).ending == "execution_interrupted"
    assert not (comfy_server.base / "output" / "loras" / "never-begun.safetensors").exists()
    assert routes.named("never-begun")["step"] == 0


def test_save_writes_a_checkpoint_and_pause_waits(routes, training):
    path = f"/runs/{training['id']}"
    assert routes.post(f"{path}/save")[0] == 200
    (saved,) = routes.until(lambda: routes.named("under-way")["checkpoints"])
    assert saved >= training["step"]
    status, told = routes.post(f"{path}/pause")
    assert (status, told["run"]["state"]) == (200, "paused")
    time.sleep(1.0)
    step = routes.named("under-way")["step"]
    time.sleep(0.5)
    paused = routes.named("under-way")
    assert (paused["state"], paused["step"]) == ("paused", step)
    assert routes.post(f"{path}/save")[0] == 200
    routes.until(lambda: step in routes.named("under-way")["checkpoints"])
    assert routes.post(f"{path}/resume")[1]["run"]["state"] == "running"
    routes.until(lambda: routes.named("under-way")["step"] > step)


def test_the_curve_is_told_from_a_step_on(routes, training):
    path = f"/runs/{training['id']}"
    rows = routes.get(path)["rows"]
    assert {"loss", "inside", "outside", "prior", "learning_rate"} <= rows[0].keys() | rows[1].keys()
    later = routes.get(f"{path}?since=2")
    # That step again: its held-out loss may have come later.
    assert later["rows"][0]["step"] == 2
    assert later["run"]["state"] == "running"
    assert routes.get(f"{path}?since=999999")["rows"] == []


def test_the_page_hears_every_step_in_at_most_ten_messages_a_second(comfy_client, train_graph):
    started = time.monotonic()
    run = comfy_client.run(train_graph(name="heard", steps=25))
    seconds = time.monotonic() - started
    told = run.of_kind("masked_lora.progress")
    assert [row["step"] for message in told for row in message["rows"]] == list(range(1, 26))
    assert {message["run"]["node"] for message in told} == {"4"}
    assert (told[0]["run"]["state"], told[-1]["run"]["state"]) == ("running", "finished")
    assert len(told) <= 10 * seconds + 1
    again = comfy_client.run(train_graph(name="heard", steps=25, keep_last=4))
    assert again.of_kind("masked_lora.progress")[-1]["run"] == told[-1]["run"] | {"steps_per_second": 0.0}


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "file://"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_a_page_from_another_origin_is_refused(routes, training, headers):
    assert routes.post(f"/runs/{training['id']}/stop", **headers)[0] == 403
    assert routes.named("under-way")["state"] == "running"


def test_comfyui_s_own_page_is_answered(routes, training):
    own = {"Origin": routes.server.address, "Sec-Fetch-Site": "same-origin"}
    assert routes.post(f"/runs/{training['id']}/save", **own)[0] == 200
    assert routes.post(f"/runs/{training['id']}/save", Origin=routes.server.address)[0] == 200


@pytest.mark.parametrize("bad", ["..", "%2e%2e", "..%2f..%2fsettings", "under_way", "A" * 20, "0" * 19, "0" * 21])
def test_an_id_that_is_none_is_refused(routes, bad):
    expected = 404 if bad == "..%2f..%2fsettings" else 400
    for method, path in (("GET", f"/runs/{bad}"), ("POST", f"/runs/{bad}/stop")):
        status, _, content = routes.ask(method, path, body=b"{}", headers={"Content-Type": "application/json"})
        assert status in (expected, 400), (path, content)
        assert b"fingerprint" not in json.dumps(content if isinstance(content, dict) else {}).encode()


def test_an_unknown_run_or_action_is_not_found_and_one_that_rests_is_told(routes, comfy_client, train_graph):
    assert routes.ask("GET", f"/runs/{NOBODY}")[0] == 404
    assert routes.post(f"/runs/{NOBODY}/stop")[0] == 404
    comfy_client.run(train_graph(name="rests", steps=2))
    rests = routes.named("rests")
    assert rests["state"] == "finished"
    status, content = routes.post(f"/runs/{rests['id']}/stop")
    assert status == 409
    assert "not being trained" in content["error"]
    assert routes.post(f"/runs/{rests['id']}/rename")[0] == 404
    assert routes.ask("GET", f"/runs/{rests['id']}/stop")[0] == 404
    for since in ("-1", "x", "1e3", "", "9" * 10):
        assert routes.ask("GET", f"/runs/{rests['id']}?since={since}")[0] == 400


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b'{"run": 1}', b"{", b"[" * 4000, b"\xff\xfe", b"1"])
def test_a_body_of_another_form_is_refused(routes, body):
    assert routes.post(f"/runs/{NOBODY}/stop", body)[0] == 400


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_a_body_that_is_not_called_json_is_refused(routes, kind):
    headers = {"Content-Type": kind} if kind else {}
    status, _, _ = routes.ask("POST", f"/runs/{NOBODY}/stop", body=b"{}", headers=headers)
    assert status == 415


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_of_fifty_megabytes_is_refused(routes, chunked):
    piece = b" " * 2**20
    headers = {"Content-Type": "application/json"}
    body = (piece for _ in range(50)) if chunked else piece * 50
    headers |= {} if not chunked else {"Transfer-Encoding": "chunked"}
    connection = http.client.HTTPConnection("127.0.0.1", routes.server.port, timeout=60)
    # The server may answer, and close, before everything is sent.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.request("POST", f"/masked_lora/runs/{NOBODY}/stop", body, headers, encode_chunked=chunked)
    assert connection.getresponse().status == 413
    connection.close()
    assert isinstance(routes.get("/runs")["runs"], list)
