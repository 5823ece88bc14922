"""Training through nodes in a real ComfyUI, on the demo's own model and pictures."""

import itertools
import json
import re

import pytest
from safetensors import safe_open
from safetensors.torch import load_file

from harness.toy import same


@pytest.fixture
def graph(train_graph):
    """The smallest graph, in API form; changes to the train node as keywords."""
    return train_graph


def text_of(run, node="4"):
    return "\n".join(str(t) for t in run.outputs[node]["text"])


def test_four_nodes_make_a_lora_file_with_metadata(comfy_client, comfy_server, graph):
    run = comfy_client.run(graph(name="four nodes"))
    path = comfy_server.base / "output" / "loras" / "four nodes.safetensors"
    assert path.is_file() and str(path) in text_of(run)
    assert "Memory for cpu" in text_of(run) and "inside" in text_of(run)
    with safe_open(path, "np") as file:
        metadata = file.metadata()
    assert metadata["ss_base_model_version"] == "sd3" and metadata["ss_steps"] == "3"
    progress = [d for d in run.of_kind("progress") if d.get("node") == "4"]
    assert progress[-1]["value"] == progress[-1]["max"] == 3


@pytest.fixture
def on_card(comfy_client, graph):
    """Runs a graph whose training finds a card of so many MiB."""

    def run(prompt, mebibytes, **options):
        card = {"class_type": "CardOf", "inputs": {"model": ["1", 0], "mebibytes": mebibytes}}
        changed = {**prompt["4"], "inputs": {**prompt["4"]["inputs"], "model": ["card", 0]}}
        return comfy_client.run({**prompt, "card": card, "4": changed}, **options)

    yield run
    prompt = {
        "1": graph()["1"],
        "card": {"class_type": "CardOf", "inputs": {"model": ["1", 0], "mebibytes": 0}},
        "2": {"class_type": "PreviewAny", "inputs": {"source": ["card", 0]}},
    }
    comfy_client.run(prompt)


def test_a_training_larger_than_the_card_is_refused_unless_it_is_to_go_on(on_card, comfy_server, graph):
    refused = on_card(graph(name="too large"), 4, check=False)
    assert "this training needs more than the card has" in refused.error and "over_memory" in refused.error
    assert "saves" in refused.error and "the card's 4 MiB" in refused.error
    assert not list((comfy_server.base / "output" / "loras").glob("too large*"))
    (folder,) = (comfy_server.base / "user" / "masked_lora" / "runs").glob("too_large*")
    assert not list(folder.glob("*/adapter*"))
    run = on_card(graph(name="too large", over_memory="go on"), 4)
    assert "Trained 3 steps" in text_of(run) and "is more than the card's" in text_of(run)


def test_the_estimate_is_what_the_training_then_tells(comfy_client, graph, defaults):
    prompt = graph(name="estimated")
    asked = {"model": ["1", 0], "cache": ["3", 0], "batch_size": 2}
    for node, card in (("5", "this card"), ("6", "8 GB")):
        inputs = defaults("MLT_EstimateMemory", **asked, card=card)
        prompt[node] = {"class_type": "MLT_EstimateMemory", "inputs": inputs}
    run = comfy_client.run(prompt)
    told = text_of(run, "5").splitlines()
    assert told[0] in text_of(run) and told[0].startswith("Memory for cpu")
    assert told[1].startswith("What would save memory: ") and "rank" in told[1]
    assert "a card of 8.00 GiB" in text_of(run, "6") and "of the card's 8.00 GiB" in text_of(run, "6")


def test_core_nodes_take_our_outputs_and_the_lora_paints(comfy_client, comfy_server, graph):
    prompt = graph(name="core", steps=4)
    prompt |= {
        "5": {"class_type": "SaveLoRA", "inputs": {"lora": ["4", 0], "prefix": "loras/by core", "steps": ["4", 3]}},
        "6": {
            "class_type": "LoraModelLoader",
            "inputs": {"model": ["1", 0], "lora": ["4", 0], "strength_model": 1.0, "bypass": False},
        },
        "7": {"class_type": "LossGraphNode", "inputs": {"loss": ["4", 2], "filename_prefix": "loss"}},
        "8": {
            "class_type": "MLT_ExportLoRA",
            "inputs": {"lora": ["4", 0], "name": "again/diff", "format": "diffusers", "dtype": "float32"},
        },
        "9": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["1", 1], "text": "a red star"}},
        "10": {"class_type": "EmptySD3LatentImage", "inputs": {"width": 128, "height": 128, "batch_size": 1}},
    }
    for start, model in ((20, ["4", 1]), (30, ["6", 0])):
        prompt[str(start)] = {
            "class_type": "KSampler",
            "inputs": {
                "model": model,
                "positive": ["9", 0],
                "negative": ["9", 0],
                "latent_image": ["10", 0],
                "seed": 1,
                "steps": 2,
                "cfg": 1.0,
                "sampler_name": "euler",
                "scheduler": "simple",
                "denoise": 1.0,
            },
        }
        prompt[str(start + 1)] = {"class_type": "VAEDecode", "inputs": {"samples": [str(start), 0], "vae": ["1", 2]}}
        prompt[str(start + 2)] = {
            "class_type": "SaveImage",
            "inputs": {"images": [str(start + 1), 0], "filename_prefix": f"s{start}"},
        }
    run = comfy_client.run(prompt)
    loras = comfy_server.base / "output" / "loras"
    assert list(loras.glob("by core*.safetensors")) and (loras / "again" / "diff.safetensors").is_file()
    pictures = [run.outputs[n]["images"][0]["filename"] for n in ("22", "32")]
    same = [(comfy_server.base / "output" / p).stat().st_size for p in pictures]
    assert min(same) > 0 and run.outputs["7"]["images"]


def test_the_prior_runs_from_the_loss_node_and_tells_how_far_the_outside_has_drifted(
    comfy_client, comfy_server, graph, defaults
):
    prompt = graph(name="with prior", steps=6)
    options = {"prior_weight": 1.0, "prior_probability": 0.5}
    prompt["5"] = {"class_type": "MLT_MaskedLoss", "inputs": defaults("MLT_MaskedLoss", **options)}
    prompt["4"]["inputs"]["loss"] = ["5", 0]
    comfy_client.run(prompt)
    with safe_open(comfy_server.base / "output" / "loras" / "with prior.safetensors", "np") as file:
        metadata = file.metadata()
    assert json.loads(metadata["masklora.loss"])["prior_weight"] == 1.0
    assert json.loads(metadata["masklora.summary"])["drift"] > 0
    (folder,) = (comfy_server.base / "user" / "masked_lora" / "runs").glob("with_prior*")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    drifts = [line["drift"] for line in lines if line.get("drift") is not None]
    assert 0 < len(drifts) < 6
    assert drifts[-1] > 0


def test_finished_run_is_found_again_and_a_changed_one_trains(comfy_client, graph):
    first = comfy_client.run(graph(name="twice", steps=3))
    comfy_client.run(
        {
            "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
            "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
        }
    )
    prompt = graph(name="twice", steps=3, keep_last=5)
    again = comfy_client.run(prompt)
    assert "Trained 3 steps" in text_of(first) and "Loaded the finished run" in text_of(again)
    assert "Trained 3 steps" in text_of(comfy_client.run(graph(name="twice", steps=3, seed=1)))


def test_trainings_of_one_graph_beside_and_on_top_of_each_other_keep_apart(comfy_client, comfy_server, graph):
    prompt = graph(name="below", steps=2, seed=41)
    prompt["5"] = graph(name="beside", steps=2, seed=42)["4"]
    prompt["6"] = graph(name="on top", steps=2, seed=42)["4"]
    prompt["6"]["inputs"]["model"] = ["4", 1]
    run = comfy_client.run(prompt)
    assert ["trained on top" in text_of(run, node) for node in "456"] == [False, False, True]
    loras, runs = comfy_server.base / "output" / "loras", comfy_server.base / "user" / "masked_lora" / "runs"
    assert all((loras / f"{name}.safetensors").is_file() for name in ("below", "beside", "on top"))
    # The same pictures and noise, before and after what the first has learned.
    first = [
        json.loads(next(runs.glob(f"{name}-*")).joinpath("metrics.jsonl").read_text().splitlines()[0])
        for name in ("beside", "on_top")
    ]
    assert first[0]["samples"] == first[1]["samples"] and first[0]["loss"] != first[1]["loss"]
    weights = [load_file(loras / f"{name}.safetensors") for name in ("below", "beside", "on top")]
    assert not any(same(*pair) for pair in itertools.combinations(weights, 2))


def test_interrupt_leaves_a_checkpoint_from_which_the_same_graph_goes_on(comfy_client, comfy_server, graph):
    prompt_id = comfy_client.submit(graph(name="cut", steps=400))
    comfy_client.wait_for(
        lambda kind, d: kind == "progress" and d.get("prompt_id") == prompt_id and d["max"] == 400 and d["value"] > 2,
        timeout=120,
    )
    comfy_client.interrupt()
    cut = comfy_client.finish(prompt_id, check=False)
    assert cut.ending == "execution_interrupted"
    runs = comfy_server.base / "user" / "masked_lora" / "runs"
    folder = next(p for p in runs.iterdir() if p.name.startswith("cut-"))
    steps = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert 2 < steps[-1] < 400 and list((folder / "checkpoints").glob("step-*"))
    prompt_id = comfy_client.submit(graph(name="cut", steps=400))
    comfy_client.wait_for(
        lambda kind, d: (
            kind == "progress" and d.get("prompt_id") == prompt_id and d["max"] == 400 and d["value"] > steps[-1]
        ),
        timeout=120,
    )
    comfy_client.interrupt()
    comfy_client.finish(prompt_id, check=False)
    after = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert after[: len(steps)] == steps and after == list(range(1, len(after) + 1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "../../escape"}, "output/loras"),
        ({"name": ""}, "output/loras"),
    ],
)
def test_a_name_that_leads_elsewhere_is_refused(changes, message, comfy_client, graph):
    run = comfy_client.run(graph(**changes), check=False)
    assert not run.succeeded and message in run.error


def test_widget_values_out_of_range_are_refused_before_anything_runs(comfy_client, graph):
    with pytest.raises(Exception, match="batch_size"):
        comfy_client.submit(graph(batch_size=0))


def test_cache_without_captions_is_refused_with_the_remedy(comfy_client, graph):
    prompt = graph(name="silent")
    prompt["3"]["inputs"].pop("clip")
    run = comfy_client.run(prompt, check=False)
    assert not run.succeeded and "Connect the CLIP" in run.error


@pytest.mark.parametrize("black", [0, 1])
def test_samples_without_any_weight_are_counted_in_the_summary(comfy_client, comfy_server, graph, folders, black):
    folder = folders.make("one black", size=(128, 128))
    for i in range(1, 4):
        folders.mask(folder / f"cat {i}_mask.png", size=(128, 128), rows=0.0 if i <= black else 0.5)
    prompt = graph(name=f"black {black}", steps=6)
    prompt["2"]["inputs"]["folder"] = "one black"
    told = text_of(comfy_client.run(prompt))
    (run,) = (comfy_server.base / "user" / "masked_lora" / "runs").glob(f"black_{black}-*")
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    count = sum(row.get("zero_weight_samples") or 0 for row in rows)
    found = re.findall(r"(\d+) samples? .*without any weight and taught nothing", told)
    assert [int(number) for number in found] == ([count] if black else [])
    # Three pictures, two a step: the black one is shown once an epoch of two steps.
    assert count == (3 if black else 0)
