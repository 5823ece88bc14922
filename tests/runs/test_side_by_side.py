"""The graph that uses a run's LoRA: whose loaders it takes, what it draws, and what it says where it cannot tell."""

import pytest

from masklora.errors import RunError
from masklora.runs.side_by_side import Pictures, side_by_side

DRAWN = Pictures({}, trigger="", size=(512, 768))


def node(kind, **inputs):
    return {"class_type": kind, "inputs": inputs}


def kept(**changes):
    """A graph whose model comes through two nodes, with a text encoder and VAE of their own."""
    prompt = {
        "10": node("UNETLoader", unet_name="flux.safetensors", weight_dtype="default"),
        "5": node("ModelSamplingFlux", model=["10", 0], max_shift=1.15, width=1024, height=1024),
        "7:2": node("CLIPLoader", clip_name="t5.safetensors"),
        "8": node("VAELoader", vae_name="ae.safetensors"),
        "11": node("LoadImage", image="x.png"),
        "20": node("MLT_CacheDataset", dataset=["21", 0], clip=["7:2", 0], vae=["8", 0]),
        "21": node("MLT_LoadDataset", folder="x"),
        "30": node("MLT_TrainLoRA", model=["5", 0], cache=["20", 0], name="probe"),
    }
    return {"prompt": prompt | changes, "node": "30", "workflow": None}


def one(nodes, kind):
    (found,) = [one for one in nodes.values() if one["class_type"] == kind]
    return found["inputs"]


def test_the_loaders_are_those_of_the_training_and_nothing_else_of_its_graph():
    nodes, roles = side_by_side(kept(), lora="probe.safetensors", pictures=DRAWN)
    kinds = [one["class_type"] for one in nodes.values()]
    assert {"UNETLoader", "ModelSamplingFlux", "CLIPLoader", "VAELoader"} <= set(kinds)
    assert not [kind for kind in kinds if kind.startswith("MLT_") or kind == "LoadImage"]
    assert one(nodes, "ModelSamplingFlux")["max_shift"] == 1.15
    assert nodes[one(nodes, "ModelSamplingFlux")["model"][0]]["inputs"]["unet_name"] == "flux.safetensors"
    assert one(nodes, "LoraLoaderModelOnly")["lora_name"] == "probe.safetensors"
    models = [
        nodes[one["inputs"]["model"][0]]["class_type"] for one in nodes.values() if one["class_type"] == "KSampler"
    ]
    assert models == ["ModelSamplingFlux", "LoraLoaderModelOnly"]
    assert nodes[one(nodes, "LoraLoaderModelOnly")["model"][0]]["class_type"] == "ModelSamplingFlux"
    assert {roles[name] for name in nodes if nodes[name]["class_type"] == "PreviewImage"} == {"base", "withLora"}
    # Every link leads to a node that comes before.
    for number, inputs in enumerate(one["inputs"] for one in nodes.values()):
        links = [value for value in inputs.values() if isinstance(value, list)]
        assert all(list(nodes).index(link[0]) < number for link in links)


def test_text_encoder_and_vae_are_those_of_the_sample_pictures_where_there_are_any():
    other = {"9": node("CLIPLoader", clip_name="of samples"), "40": node("MLT_Samples", clip=["9", 0], vae=["8", 0])}
    train = node("MLT_TrainLoRA", model=["5", 0], cache=["20", 0], samples=["40", 0])
    nodes, _ = side_by_side(kept(**other, **{"30": train}), lora="x", pictures=DRAWN)
    assert one(nodes, "CLIPLoader")["clip_name"] == "of samples"


def test_both_pictures_are_drawn_alike_as_the_run_drew_its_own():
    settings = {
        "prompts": ["a red star", "a Zibble at night"], "negative": "fog", "width": 256, "height": 320, "seed": 7,
        "steps": 4, "cfg": 1.0, "sampler": "heun", "scheduler": "simple", "guidance": 2.5,
    }  # fmt: skip
    nodes, _ = side_by_side(kept(), lora="x", pictures=Pictures(settings, trigger="zibble", size=(64, 64)))
    first, second = [one["inputs"] for one in nodes.values() if one["class_type"] == "KSampler"]
    assert {k: v for k, v in first.items() if k != "model"} == {k: v for k, v in second.items() if k != "model"}
    told = {"seed": 7, "steps": 4, "cfg": 1.0, "sampler_name": "heun", "scheduler": "simple", "denoise": 1.0}
    assert told.items() <= first.items()
    assert one(nodes, "EmptyLatentImage") == {"width": 256, "height": 320, "batch_size": 1}
    guided = nodes[first["positive"][0]]
    assert guided["inputs"]["guidance"] == 2.5
    assert nodes[guided["inputs"]["conditioning"][0]]["inputs"]["text"] == "a Zibble at night"
    assert nodes[first["negative"][0]]["inputs"]["text"] == "fog"


def test_a_run_without_pictures_is_drawn_as_a_ksampler_would_and_by_its_trigger_word():
    nodes, roles = side_by_side(kept(), lora="x", pictures=Pictures({}, trigger="zibble", size=(512, 768)))
    first = next(one["inputs"] for one in nodes.values() if one["class_type"] == "KSampler")
    assert (first["steps"], first["cfg"], first["sampler_name"], first["scheduler"]) == (20, 8.0, "euler", "normal")
    assert one(nodes, "EmptyLatentImage") == {"width": 512, "height": 768, "batch_size": 1}
    assert nodes[first["positive"][0]]["inputs"]["text"] == "zibble"
    assert "triggerPrompt" in roles.values()


@pytest.mark.parametrize(
    ("prompts", "trigger", "text"),
    [
        (["a star"], "zib", "zib, a star"),
        (["a star", "a zib"], "zib", "a zib"),
        (["zibs", "a zib"], "zib", "a zib"),
        (["a star"], "", "a star"),
        ([3], "", ""),
    ],
)
def test_the_trigger_word_is_in_the_prompt(prompts, trigger, text):
    assert Pictures({"prompts": prompts}, trigger=trigger, size=(64, 64)).prompt() == text


@pytest.mark.parametrize(
    ("graph", "reason"),
    [
        ({"prompt": {}, "node": "30"}, "holds no training node"),
        ({"prompt": [], "node": None}, "holds no training node"),
        (kept() | {"node": "5"}, "holds no training node"),
        (kept(**{"30": node("MLT_TrainLoRA", model="x", cache=["20", 0])}), "nothing is connected to model"),
        (kept(**{"30": node("MLT_TrainLoRA", model=["5", 0], cache=["99", 0])}), "takes clip and vae"),
        (kept(**{"5": node("X", model=["99", 0])}), "is missing"),
        (kept(**{"5": node("X", model=["5", 0])}), "in a circle"),
        (kept(**{"10": node("MLT_TrainLoRA")}), "comes out of another training"),
    ],
)
def test_a_graph_whose_loaders_cannot_be_told_says_so_and_what_to_do(graph, reason):
    with pytest.raises(RunError, match=reason) as told:
        side_by_side(graph, lora="probe.safetensors", pictures=DRAWN)
    assert "put Load LoRA behind it, with probe.safetensors" in str(told.value)
