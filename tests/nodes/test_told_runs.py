"""What a training says of itself on its node, in the history and in the list of runs, in a real ComfyUI."""

import shutil


def lines(run, node="4"):
    return [(one["text"], one["level"]) for one in run.outputs[node]["masked_lora_report"]]


def test_the_last_line_and_the_list_tell_the_file_that_was_written(comfy_client, comfy_server, routes, train_graph):
    run = comfy_client.run(train_graph(name="told", steps=2))
    path = comfy_server.base / "output" / "loras" / "told.safetensors"
    assert lines(run)[-1] == (f"Written: {path}", "note")
    listed = routes.named("told")
    assert (listed["written"], listed["taken"]) == ("output/loras/told.safetensors", None)
    assert (listed["failed"], listed["state"]) == ("", "finished")
    assert run.of_kind("masked_lora.progress")[-1]["run"]["written"] == listed["written"]


def test_a_taken_name_is_told_before_the_training_and_in_the_list(comfy_client, comfy_server, routes, train_graph):
    loras = comfy_server.base / "output" / "loras"
    loras.mkdir(exist_ok=True)
    (loras / "held.safetensors").write_bytes(b"somebody else's")
    run = comfy_client.run(train_graph(name="held", steps=2))
    said = lines(run)
    before = [text for text, level in said if level == "warning" and "held_00001_.safetensors" in text]
    assert before and "held.safetensors is there already" in before[0]
    assert said[-1][0] == f"Written: {loras / 'held_00001_.safetensors'}"
    assert (loras / "held.safetensors").read_bytes() == b"somebody else's"
    listed = routes.named("held")
    assert (listed["written"], listed["taken"]) == ("output/loras/held_00001_.safetensors", "held.safetensors")


def test_a_run_that_fails_is_listed_with_its_reason(comfy_client, comfy_server, routes, train_graph):
    prompt_id = comfy_client.submit(train_graph(name="fails", steps=3000))
    run = routes.running("fails")
    (folder,) = (comfy_server.base / "user" / "masked_lora" / "runs").glob("fails-*")
    shutil.rmtree(folder / "checkpoints")
    routes.post(f"/runs/{run['id']}/save")
    ended = comfy_client.finish(prompt_id, check=False)
    assert "could not be written" in ended.error
    listed = routes.named("fails")
    assert listed["state"] == "failed" and listed["failed"] == ended.error
    assert ended.of_kind("masked_lora.progress")[-1]["run"]["state"] == "failed"
