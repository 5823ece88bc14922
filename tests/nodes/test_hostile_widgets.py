"""Values that no widget offers, as a stranger's workflow may hold them: a clear refusal, and a queue that lives on."""

import json
import math
import random

import pytest

from devtools.comfy import ComfyError
from harness.damage import many

TEXTS = [
    "",
    " ",
    "\x00",
    "\udcff lone",
    "\ud83d",
    "../../etc/passwd",
    "C:\\Windows\\x",
    "\\\\server\\share\\x",
    "CON",
    "a" * 4000,
    "猫" * 120,
    "x" * 100_000,
    "trailing. ",
    'a<b>:"|?*',
    "line\nbreak",
    "{{7*7}}",
    "🐈" * 60,
]
NUMBERS = [math.nan, math.inf, -math.inf, -1, 0, 1e308, -1e308, 2**63, 2**64, 10**30, 1e-320, True]
OTHERS = [None, [], {}, ["4", 0, 0], [["a"]], {"a": 1}, "text for a number", False]
OURS = ("Config", "Data", "Mask", "Path", "Run", "Family", "Adapter", "Cache")


def cases(info, count):
    """Seeded (node id, widget, value) of our nodes in the smallest graph and the nodes that plug into it."""
    nodes = ["MLT_LoadDataset", "MLT_CacheDataset", "MLT_MaskedLoss", "MLT_Adapter", "MLT_Optimizer", "MLT_TrainLoRA"]
    rng = random.Random(12)
    widgets = []
    for node in nodes:
        for group in ("required", "optional"):
            for name, (kind, *_) in info[node]["input"].get(group, {}).items():
                if isinstance(kind, list) or kind in ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"):
                    widgets.append((node, name))
    for _ in range(count):
        node, name = rng.choice(widgets)
        yield node, name, rng.choice(rng.choice((TEXTS, NUMBERS, OTHERS)))


@pytest.fixture
def whole_graph(train_graph, defaults):
    def make():
        graph = train_graph(name="hostile", steps=1, save_every=0)
        graph["5"] = {"class_type": "MLT_MaskedLoss", "inputs": defaults("MLT_MaskedLoss", infill_probability=0.0)}
        graph["6"] = {"class_type": "MLT_Adapter", "inputs": defaults("MLT_Adapter", rank=1)}
        graph["7"] = {"class_type": "MLT_Optimizer", "inputs": defaults("MLT_Optimizer")}
        graph["3"]["inputs"]["infill_variants"] = 0
        graph["4"]["inputs"] |= {"loss": ["5", 0], "adapter": ["6", 0], "optimizer": ["7", 0]}
        return graph

    return make


def failure(run):
    for kind, data in run.record["status"]["messages"]:
        if kind == "execution_error":
            return data
    return None


@pytest.mark.usefixtures("forgotten_graphs")
def test_hostile_values_are_refused_in_words_and_the_queue_lives_on(comfy_client, comfy_server, whole_graph):
    tried = refused = 0
    for node, name, value in cases(comfy_server.object_info(), many(40, 400)):
        graph = whole_graph()
        key = next(key for key, one in graph.items() if one["class_type"] == node)
        graph[key]["inputs"][name] = value
        lengths = ("steps", "epochs", "gradient_accumulation", "batch_size")
        if node == "MLT_TrainLoRA" and name in lengths and isinstance(value, int) and value > 1:
            # What is in range would train for years.
            continue
        tried += 1
        try:
            run = comfy_client.run(graph, timeout=120, check=False)
        except ComfyError:
            refused += 1
            continue
        error = failure(run)
        if error is None:
            assert run.ending == "execution_success", (node, name, value)
            continue
        kind, message = error["exception_type"].rsplit(".", 1)[-1], error["exception_message"]
        assert kind.removesuffix("Error") in OURS, (node, name, str(value)[:80], kind, message[:300])
        assert message.encode("utf-8") and len(message) < 6000, (node, name)
    assert tried > 20 and refused > 0
    comfy_client.run(whole_graph(), timeout=120)


@pytest.mark.usefixtures("forgotten_graphs")
def test_nothing_that_is_not_a_number_passes_for_one(comfy_client, whole_graph):
    passed = []
    for key, name in (("4", "learning_rate"), ("4", "guidance"), ("3", "crop_margin_max"), ("2", "preview_gigabytes")):
        graph = whole_graph()
        graph[key]["inputs"][name] = math.nan
        assert "NaN" in json.dumps(graph)
        try:
            run = comfy_client.run(graph, timeout=120, check=False)
        except ComfyError:
            continue
        error = failure(run)
        if error is None or name not in error["exception_message"]:
            passed.append((name, error and error["exception_message"]))
    assert passed == []
