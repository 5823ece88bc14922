"""Load Run in a real ComfyUI: the LoRA of an earlier training, at a step that was kept."""

from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.torch import load_file

from devtools.comfy import ComfyError
from harness.toy import same


@pytest.fixture
def trained(comfy_client, train_graph):
    """The graph of a finished training with checkpoints of two steps."""
    prompt = train_graph(name="to load", steps=4, save_every=2, keep_last=3)
    comfy_client.run(prompt)
    return prompt


def graph_of(run, step=0, **more):
    shown = {"class_type": "PreviewAny", "inputs": {"source": ["1", 2]}}
    return {"1": {"class_type": "MLT_LoadRun", "inputs": {"run": run, "step": step, **more}}, "2": shown}


def loaded(client, *given, **more):
    (path,) = client.run(graph_of(*given, **more)).outputs["2"]["text"]
    return Path(path)


def files(server):
    return {path.name for path in (server.base / "output" / "loras").glob("to load*")}


def test_the_newest_step_of_a_finished_run_is_its_own_file(comfy_client, comfy_server, trained):
    before = files(comfy_server)
    path = loaded(comfy_client, "to load")
    assert path.name == "to load.safetensors" and files(comfy_server) == before


def test_an_earlier_step_is_written_once_under_its_own_name(comfy_client, comfy_server, trained):
    path = loaded(comfy_client, "to load", 2)
    assert path.name == "to load-step000002.safetensors"
    assert loaded(comfy_client, "to load", 2) == path
    assert not same(load_file(path), load_file(path.with_name("to load.safetensors")))
    with safe_open(path, "np") as file:
        assert file.metadata()["ss_steps"] == "2"
    path.unlink()
    assert loaded(comfy_client, "to load", 2).is_file()


def test_the_list_has_the_folders_of_the_runs_the_newest_first(comfy_client, comfy_server, train_graph, trained):
    comfy_client.run(train_graph(name="begun later", steps=2))
    info = comfy_server.get("/object_info/MLT_LoadRun")["MLT_LoadRun"]["input"]["required"]["run"]
    options = info[1]["options"] if info[0] == "COMBO" else info[0]
    assert options[0].startswith("begun_later-") and any(one.startswith("to_load-") for one in options)
    assert info[1]["default"] == options[0]
    assert (
        loaded(comfy_client, next(one for one in options if one.startswith("to_load-"))).name == "to load.safetensors"
    )


def test_what_is_loaded_paints_as_the_run_s_own_model_and_exports_like_it(comfy_client, comfy_server, trained):
    prompt = trained | {
        "5": {"class_type": "MLT_LoadRun", "inputs": {"run": "to load", "step": 0, "model": ["1", 0]}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["1", 1], "text": "a zibble"}},
        "7": {"class_type": "EmptyLatentImage", "inputs": {"width": 128, "height": 128, "batch_size": 1}},
    }
    sampling = {"seed": 3, "steps": 3, "cfg": 2.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
    links = {"positive": ["6", 0], "negative": ["6", 0], "latent_image": ["7", 0]}
    for number, model in (("10", ["4", 1]), ("20", ["5", 1])):
        prompt[number] = {"class_type": "KSampler", "inputs": {**sampling, **links, "model": model}}
        prompt[f"{number}1"] = {
            "class_type": "SaveLatent",
            "inputs": {"samples": [number, 0], "filename_prefix": f"loaded/{number}"},
        }
    exported = {"lora": ["5", 0], "name": "to load again", "format": "comfyui", "dtype": "float16", "title": "again"}
    prompt["8"] = {"class_type": "MLT_ExportLoRA", "inputs": exported}
    comfy_client.run(prompt)
    folder = comfy_server.base / "output"
    own, other = (load_file(next((folder / "loaded").glob(f"{number}_*"))) for number in ("10", "20"))
    assert own["latent_tensor"].abs().max() > 0
    assert (own["latent_tensor"] - other["latent_tensor"]).abs().max() <= 1e-4 * own["latent_tensor"].abs().max()
    again, mine = (folder / "loras" / f"{name}.safetensors" for name in ("to load again", "to load"))
    assert same(load_file(again), load_file(mine))
    with safe_open(again, "np") as file:
        metadata = file.metadata()
    assert metadata["modelspec.title"] == "again" and metadata["ss_network_dim"]


def test_without_a_model_only_what_needs_it_does_not_run(comfy_client, comfy_server, trained):
    prompt = graph_of("to load")
    prompt["3"] = {"class_type": "ModelSave", "inputs": {"model": ["1", 1], "filename_prefix": "never"}}
    assert comfy_client.run(prompt).outputs["2"]["text"]
    assert not list((comfy_server.base / "output").glob("never*"))


@pytest.mark.parametrize(
    ("run", "step", "told"),
    [
        ("no such run", 0, "run: there is no run 'no such run'"),
        ("/etc", 0, "run: there is no run"),
        ("none", 0, "run: there is no run"),
        ("to load", 3, "step: to_load-[0-9a-f]+ has no checkpoint of step 3, but of 2, 4. Choose one of these"),
    ],
)
def test_a_run_or_a_step_that_is_not_there_is_an_error_by_its_widget(comfy_client, trained, run, step, told):
    with pytest.raises(ComfyError, match=told):
        comfy_client.run(graph_of(run, step))
