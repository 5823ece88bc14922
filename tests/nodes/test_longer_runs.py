"""More steps go on from the run that is there, and a run that differs is told, in a real ComfyUI."""

import pytest
from safetensors.torch import load_file

from harness.toy import same


def said(run, node="4"):
    return "\n".join(one["text"] for one in run.outputs[node]["masked_lora_report"])


@pytest.fixture
def lora(comfy_server):
    def read(name):
        return load_file(comfy_server.base / "output" / "loras" / f"{name}.safetensors")

    return read


def test_more_steps_go_on_and_give_the_lora_of_the_longer_run_to_the_bit(comfy_client, routes, lora, train_graph):
    comfy_client.run(train_graph(name="grows", steps=4, seed=5))
    run = comfy_client.run(train_graph(name="grows", steps=9, seed=5))
    assert "Going on from the run grows" in said(run) and "the result is that of 9 steps from the start" in said(run)
    assert "Trained 9 steps, resumed from step 4" in said(run)
    whole = train_graph(name="at once", steps=9, seed=5)
    whole["4"]["inputs"]["if_a_run_exists"] = "start anew"
    other = comfy_client.run(whole)
    assert "resumed" not in said(other)
    assert same(lora("grows_00001_"), lora("at once"))
    listed = [one for one in routes.get("/runs")["runs"] if one["name"] in ("grows", "at_once")]
    assert sorted(one["total"] for one in listed) == [4, 9, 9]


def test_epochs_go_on_too_and_a_run_that_was_cancelled_serves_as_well(comfy_client, routes, lora, train_graph):
    prompt_id = comfy_client.submit(train_graph(name="cut short", epochs=200, steps=0, seed=6))
    run = routes.running("cut short".replace(" ", "_"), step=3)
    routes.post(f"/runs/{run['id']}/stop")
    comfy_client.finish(prompt_id)
    step = routes.named("cut_short")["step"]
    longer = comfy_client.run(train_graph(name="cut short", epochs=0, steps=step + 4, seed=6))
    assert f"Trained {step + 4} steps, resumed from step {step}" in said(longer)


def test_a_schedule_goes_on_and_says_what_becomes_of_the_rate(comfy_client, train_graph, defaults):
    def graph(steps):
        prompt = train_graph(name="falling", steps=steps, seed=8)
        prompt["5"] = {"class_type": "MLT_Optimizer", "inputs": defaults("MLT_Optimizer", schedule="cosine")}
        prompt["4"]["inputs"]["optimizer"] = ["5", 0]
        return prompt

    comfy_client.run(graph(4))
    run = comfy_client.run(graph(8))
    assert "resumed from step 4" in said(run)
    assert "schedule cosine reckons" in said(run) and "was at 15% of its value there and goes on at 50%" in said(run)
    # It is what it is for good.
    again = graph(8)
    again["4"]["inputs"]["keep_last"] = 9
    loaded = said(comfy_client.run(again))
    assert "Loaded the finished run" in loaded and "schedule cosine reckons" in loaded


def test_a_run_that_differs_otherwise_is_told_with_its_differences(comfy_client, train_graph):
    comfy_client.run(train_graph(name="differs", steps=3, seed=9, learning_rate=1e-4))
    run = comfy_client.run(train_graph(name="differs", steps=3, seed=10, learning_rate=2e-4))
    assert "A run of this name with 3 steps exists and stays." in said(run)
    assert "seed 9 -> 10" in said(run) and "learning_rate 0.0001 -> 0.0002" in said(run)


def test_starting_anew_keeps_the_run_that_is_there(comfy_client, routes, train_graph):
    prompt = train_graph(name="anew", steps=3)
    comfy_client.run(prompt)
    prompt["4"]["inputs"]["if_a_run_exists"] = "start anew"
    run = comfy_client.run(prompt)
    assert "Trained 3 steps." in said(run)
    # The very same LoRA, so no second file.
    assert "It is already there:" in said(run)
    assert [one["name"] for one in routes.get("/runs")["runs"]].count("anew") == 2
    prompt["4"]["inputs"]["if_a_run_exists"] = "go on"
    assert "Loaded the finished run" in said(comfy_client.run(prompt))


def test_old_finished_runs_lose_the_optimizer_s_state_only_and_it_is_said(comfy_client, comfy_server, train_graph):
    runs = comfy_server.base / "user" / "masked_lora" / "runs"
    for number in range(3):
        run = comfy_client.run(train_graph(name=f"kept {number}", steps=3, save_every=1, keep_finished_runs=1))
    assert "of optimizer state of" in said(run) and "keep_finished_runs is 1" in said(run)
    assert "on the disk, this one" in said(run)
    (old,), (new,) = runs.glob("kept_0-*"), runs.glob("kept_2-*")
    files = {path.relative_to(old).as_posix() for path in old.rglob("*") if path.is_file()}
    assert {"metrics.jsonl", "result.json", "checkpoints/step-000003/adapter.safetensors"} <= files
    assert not list(old.rglob("state.safetensors"))
    assert [path.parent.name for path in new.rglob("state.safetensors")] == ["step-000003"]
    loaded = comfy_client.run(train_graph(name="kept 0", steps=3, keep_finished_runs=1))
    assert "Loaded the finished run" in said(loaded)
    longer = comfy_client.run(train_graph(name="kept 0", steps=5, keep_finished_runs=1))
    assert "resumed from step 3" in said(longer) and "starts with fresh state" in said(longer)
