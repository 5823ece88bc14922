"""What `dev.py demo` is made of."""

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from devtools.convert import to_api
from devtools.demo import (
    WORKFLOW,
    event_line,
    find_lora,
    newest_metrics,
    sampling_graph,
    training_line,
)
from harness.damage import ALL, many

ROOT = Path(__file__).resolve().parents[1]

EXAMPLES = sorted([*(ROOT / "workflows").glob("*.json"), *(ROOT / "demo" / "workflows").glob("*.json")])
# Most are of one build; other tests open each of them in a page, too.
EXAMPLES = many(EXAMPLES[::4], EXAMPLES)

BUILD_A_GRAPH = """
() => {
  const { graph } = window.app;
  graph.clear();
  const add = (type, values = {}) => {
    const node = LiteGraph.createNode(type);
    graph.add(node);
    for (const [name, value] of Object.entries(values)) {
      node.widgets.find((widget) => widget.name === name).value = value;
    }
    return node;
  };
  const image = add("LoadImage");
  const empty = add("EmptyImage", { width: 72, color: 255 });
  const scale = add("ImageScaleBy", { upscale_method: "bilinear", scale_by: 2 });
  const invert = add("ImageInvert");
  const reroute = add("Reroute");
  const batch = add("ImageBatch");
  const save = add("SaveImage", { filename_prefix: "converted" });
  const latent = add("EmptyLatentImage", { width: 64, height: 96 });
  const sampler = add("KSampler", { seed: 77, steps: 3, cfg: 2.5, sampler_name: "heun", denoise: 0.5 });
  const muted = add("PreviewImage");
  const note = add("MarkdownNote");
  empty.connect(0, scale, 0);
  scale.connect(0, invert, 0);
  invert.mode = 4;
  invert.connect(0, reroute, 0);
  reroute.connect(0, batch, 0);
  image.connect(0, batch, 1);
  batch.connect(0, save, 0);
  batch.connect(0, muted, 0);
  muted.mode = 2;
  latent.connect(0, sampler, "latent_image");
  return graph.serialize();
}
"""


def bare(prompt):
    """A prompt without what only people read."""
    return {i: {"class_type": n["class_type"], "inputs": n["inputs"]} for i, n in prompt.items()}


def test_a_graph_is_converted_as_the_page_converts_it(page):
    workflow = page.evaluate(BUILD_A_GRAPH)
    expected = bare(page.api_prompt())
    assert {node["class_type"] for node in expected.values()} >= {"LoadImage", "KSampler", "ImageBatch"}
    assert to_api(workflow, page.server.object_info()) == expected


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_is_converted_as_the_page_converts_it(page, path):
    page.load_workflow(path)
    assert to_api(json.loads(path.read_text(encoding="utf-8")), page.server.object_info()) == bare(page.api_prompt())


def test_the_sampling_graph_is_one_that_comfyui_accepts(comfy_server):
    known = comfy_server.object_info()
    sampling = {"size": 128, "steps": 20, "cfg": 3.0, "sampler_name": "euler", "scheduler": "simple"}
    graph = sampling_graph(["a cat", "a dog"], sampling, "some.safetensors", lora="other.safetensors")
    for name, node in graph.items():
        required = known[node["class_type"]]["input"]["required"]
        assert required.keys() == node["inputs"].keys(), name
        for value in node["inputs"].values():
            assert not isinstance(value, list) or value[0] in graph
    assert [graph[f"sample {seed}"]["inputs"]["seed"] for seed in (0, 1)] == [0, 1]


def test_the_training_line_tells_step_losses_and_time_left():
    values = {"step": 30, "total": 150, "loss": 0.5, "inside": 0.25, "outside": 0.75, "steps_per_second": 2.0}
    line = training_line(values)
    for expected in ("30 of 150", "loss 0.5000", "inside 0.2500", "outside 0.7500", "1:00 left"):
        assert expected in line
    assert "outside" not in training_line({**values, "outside": None})


def test_only_a_run_of_this_session_is_reported(tmp_path):
    old, new = tmp_path / "a" / "metrics.jsonl", tmp_path / "b" / "metrics.jsonl"
    for path, step in ((old, 9), (new, 4)):
        path.parent.mkdir()
        path.write_text(f'{{"step": {step}, "total": 10, "loss": 1}}\n{{"step": 5, "lo', encoding="utf-8")
    os.utime(old, (1, 1))
    assert newest_metrics(tmp_path, time.time() - 60)["step"] == 4
    assert newest_metrics(tmp_path, time.time() + 60) is None


def test_the_running_node_s_progress_is_told():
    prompt = {"7": {"class_type": "KSampler", "inputs": {}}}
    events = [("executing", {"node": "7"}), ("progress", {"node": "7", "value": 3, "max": 20})]
    assert event_line(events, prompt) == "KSampler: 3 of 20"
    assert event_line([("executing", {"node": None})], prompt) is None


def test_the_lora_is_the_one_that_the_graph_names(tmp_path):
    for name in ("named", "newest"):
        (tmp_path / f"{name}.safetensors").touch()
    os.utime(tmp_path / "newest.safetensors", (time.time() + 9, time.time() + 9))
    named = str(tmp_path / "named.safetensors")
    assert find_lora({"3": {"text": [f"{named}"]}}, tmp_path).name == "named.safetensors"
    assert find_lora({}, tmp_path).name == "newest.safetensors"
    report = f"A note that is long: {'it goes on ' * 40}\nTrained 2 steps.\nWritten: {named}"
    assert find_lora({"3": {"text": [report]}}, tmp_path).name == "named.safetensors"
    assert find_lora({"3": {"text": [f"{'long ' * 90}{named}"]}}, tmp_path).name == "named.safetensors"


def test_the_demo_s_workflow_exists():
    assert WORKFLOW.is_file()


def test_the_side_by_side_picture_stripes_only_what_the_mask_ignores(tmp_path):
    import numpy as np
    from PIL import Image

    from devtools.hostside import side_by_side, training_pictures

    pixels = np.full((128, 128, 4), 200, np.uint8)
    pixels[..., 3] = 0
    pixels[32:96, 32:96, 3] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    (picture,) = training_pictures(tmp_path)
    assert (picture[32:96, 32:96] == 200).all()
    assert set(np.unique(picture[:32])) == {50, 200}
    sheet = side_by_side([("training", [picture]), ("base", [picture] * 9)])
    assert sheet.width < 900
    assert np.asarray(sheet).min() < 60


@pytest.mark.skipif(not ALL, reason="builds the demo's models and starts a ComfyUI; --all runs it")
def test_serve_prints_the_page_s_address_before_anything_is_trained():
    command = [sys.executable, str(ROOT / "dev.py"), "demo", "--serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8") as running:
        try:
            lines = list(itertools.takewhile(lambda line: "running" not in line, running.stdout))
        finally:
            # As Ctrl-C does, so that its ComfyUI ends, too.
            running.send_signal(signal.SIGINT)
    assert re.search(r"^ComfyUI: +http://127\.0\.0\.1:\d+ ", "".join(lines), re.M), lines
