"""The routes with run folders that were damaged, or are another ComfyUI's, in a real ComfyUI."""

import json
import shutil
import urllib.request
import zlib

import filelock
import pytest

DAMAGE = [b"", b"{", b"[]", b"null", b"5", b"\xff\xfe\x00", b'{"steps": "1"}', b"[" * 20000]
DAMAGE.append(b'{"prompts": 5, "record": 1}')
FILES = ["result.json", "metrics.jsonl", "record.json", "graph.json", "told.json", "exported.json"]
FILES += ["samples/samples.json", "showings.jsonl", "pictures.json", "marks.json"]
ANSWERS = ("", "/samples", "/graph", "/pictures", "/report")


def strict(content):
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(content, parse_constant=refuse)


def test_no_damage_of_one_run_is_felt_by_others_or_breaks_an_answer(comfy_client, comfy_server, routes, train_graph):
    prompt = train_graph(name="to-be-damaged", steps=3, samples={"steps": 2, "every": 0})
    comfy_client.run(prompt)
    comfy_client.run(train_graph(name="beside", steps=2))
    (folder,) = (comfy_server.base / "user" / "masked_lora" / "runs").glob("to-be-damaged-*")
    identifier = routes.named("to-be-damaged")["id"]
    assert routes.post(f"/runs/{identifier}/marks", b'{"label": "by a person"}')[0] == 200
    whole = {name: (folder / name).read_bytes() for name in FILES}
    for name in FILES:
        for content in DAMAGE:
            (folder / name).write_bytes(content)
            for path in ("/runs", *(f"/runs/{identifier}{tail}" for tail in ANSWERS)):
                status, _, answer = routes.ask("GET", path)
                assert status in (200, 404), (name, content[:20], path, answer)
            names = {one["name"] for one in routes.get("/runs")["runs"]}
            assert {"to-be-damaged", "beside"} <= names, (name, content[:20])
            status, answer = routes.post(f"/runs/{identifier}/export", b"{}")
            assert status in (200, 422), (name, content[:20], answer)
        (folder / name).write_bytes(whole[name])


@pytest.mark.parametrize("name", ["result.json", "metrics.jsonl", "exported.json", "told.json"])
def test_a_finished_run_with_a_damaged_file_still_gives_its_lora(comfy_client, comfy_server, train_graph, name):
    for number, content in enumerate(DAMAGE[:6]):
        prompt = train_graph(name=f"still {name} {number}", steps=2)
        comfy_client.run(prompt)
        (folder,) = (comfy_server.base / "user" / "masked_lora" / "runs").glob(f"still_{name}_{number}-*")
        (folder / name).write_bytes(content)
        prompt["4"]["inputs"]["keep_last"] = 7
        run = comfy_client.run(prompt)
        assert run.outputs["4"]["masked_lora_report"][-1]["text"].startswith("It is already there: ")


def test_numbers_that_are_none_reach_the_page_as_strict_json(comfy_client, comfy_server, routes, train_graph):
    comfy_client.run(train_graph(name="not-a-number", steps=2))
    (folder,) = (comfy_server.base / "user" / "masked_lora" / "runs").glob("not-a-number-*")
    for name in ("result.json", "graph.json"):
        found = json.loads((folder / name).read_text(encoding="utf-8"))
        found.setdefault("summary", {})["loss"] = float("nan")
        found.setdefault("workflow", None)
        found["prompt" if name == "graph.json" else "more"] = {"x": float("inf")}
        (folder / name).write_text(json.dumps(found), encoding="utf-8")
    with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 3, "loss": NaN, "total": 3}\n')
    identifier = routes.named("not-a-number")["id"]
    for path in ("/runs", f"/runs/{identifier}", f"/runs/{identifier}/graph"):
        with comfy_server_answer(comfy_server, path) as answer:
            strict(answer.read())


def comfy_server_answer(server, path):
    return urllib.request.urlopen(f"{server.address}/masked_lora{path}", timeout=30)


def test_a_run_that_another_comfyui_trains_is_told_as_that(comfy_client, comfy_server, routes, train_graph):
    comfy_client.run(train_graph(name="elsewhere", steps=2))
    (folder,) = (comfy_server.base / "user" / "masked_lora" / "runs").glob("elsewhere-*")
    run = routes.named("elsewhere")
    assert "not being trained now" in routes.post(f"/runs/{run['id']}/stop")[1]["error"]
    with filelock.FileLock(folder / "run.lock"):
        status, answer = routes.post(f"/runs/{run['id']}/stop")
    assert status == 409 and "being trained by another ComfyUI" in answer["error"]


def test_of_two_comfyuis_that_train_one_run_the_later_is_refused_by_its_folder_and_then_loads_the_result(
    comfy_client, comfy_server, train_graph
):
    comfy_client.run(train_graph(name="both", steps=2))
    (folder,) = (comfy_server.base / "user" / "masked_lora" / "runs").glob("both-*")
    with filelock.FileLock(folder / "run.lock"):
        refused = comfy_client.run(train_graph(name="both", steps=2, keep_last=7), check=False)
        # What it says can be done: a name alone would lead to the same run.
        renamed = comfy_client.run(train_graph(name="both renamed", steps=2, seed=zlib.crc32(b"both")), check=False)
        anew = comfy_client.run(train_graph(name="both", steps=2, if_a_run_exists="start anew"))
    assert folder.name in refused.error and "is being trained by another ComfyUI" in refused.error
    assert "set if_a_run_exists to start anew" in refused.error and not renamed.succeeded and anew.succeeded
    run = comfy_client.run(train_graph(name="both", steps=2, keep_last=7))
    assert "Loaded the finished run" in "\n".join(one["text"] for one in run.outputs["4"]["masked_lora_report"])


def test_a_checkpoint_that_was_dropped_is_told_as_that(comfy_client, comfy_server, routes, train_graph):
    comfy_client.run(train_graph(name="dropped", steps=3, save_every=1))
    (folder,) = (comfy_server.base / "user" / "masked_lora" / "runs").glob("dropped-*")
    shutil.rmtree(folder / "checkpoints" / "step-000002")
    run = routes.named("dropped")
    status, answer = routes.post(f"/runs/{run['id']}/export", b'{"step": 2}')
    assert status == 404 and "dropped" in answer["error"] and "damaged" not in answer["error"]
