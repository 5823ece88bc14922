"""Graphs trained without a page, by train.py: the LoRA of the page, told as there, stopped and gone on with."""

import contextlib
import importlib.util
import json
import os
import re
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from devtools.comfy import install_pack
from devtools.convert import to_api
from devtools.start_here.captioning import CAPTIONING
from devtools.start_here.following import FOLLOWING
from devtools.start_here.models import MODELS
from devtools.start_here.write import names
from harness.clips import write_clip
from harness.damage import ALL
from harness.headless import Headless
from harness.official_files import WITHOUT_ENCODER, offer_official_files
from harness.own_folders import offer_example, own_data, own_pictures
from harness.toy import same
from harness.walking import walk

ROOT = Path(__file__).resolve().parents[2]
FIRST = "1 Start here - SDXL"
WINDOWS = sys.platform == "win32"
TRAINED = [
    (name, model)
    for name, model in zip(names(), MODELS, strict=True)
    # A small one of ERNIE-Image reads no texts.
    if model.title not in WITHOUT_ENCODER
]
long = pytest.mark.skipif(not ALL, reason="with --all: a ComfyUI of its own for each graph")


def template(name, info):
    """The graph of a template as Save for headless writes it, with the titles."""
    workflow = json.loads((ROOT / "workflows" / f"{name}.json").read_text(encoding="utf-8"))
    graph = to_api(workflow, info)
    for node in workflow["nodes"]:
        if str(node["id"]) in graph and node.get("title"):
            graph[str(node["id"])]["_meta"] = {"title": node["title"]}
    return graph


def settings(values):
    return [word for name, value in values.items() for word in ("--set", f"{name}={value}")]


def short(graph, side):
    """Changes after which a template ends within the test; a person leaves these as they are."""
    changes = {}
    for name, node in graph.items():
        steps = 3 if node["class_type"] == "MLT_TrainLoRA" else 2
        wanted = {"steps": steps, "length": 9}
        if "length" in node["inputs"]:
            wanted |= {"width": side, "height": side}
        if node.get("_meta", {}).get("title") in ("Resolution", "Frames"):
            wanted["value"] = 9 if node["_meta"]["title"] == "Frames" else side
        own = {widget for widget, value in node["inputs"].items() if not isinstance(value, list)}
        changes |= {f"{name}.{widget}": value for widget, value in wanted.items() if widget in own}
    return changes


def base_folder(path):
    for name in ("output/loras", "models", "custom_nodes", "input", "user"):
        (path / name).mkdir(parents=True)
    return path


@pytest.fixture
def headless(comfy_host, comfy_server, demo_inputs, tmp_path):
    """Trainings in a folder of their own, with the demo's pictures and the server's models."""
    base = base_folder(tmp_path / "ohne Seite, für sich")
    shutil.copytree(comfy_server.base / "input" / "train demo", base / "input" / "train demo")
    return Headless(comfy_host, base, models=comfy_server.base / "models")


def lora(base, name):
    return load_file(base / "output" / "loras" / f"{name}.safetensors")


def stopped_at(headless, graph, step, *arguments, command=None, number=signal.SIGINT):
    """What a training told that was sent a signal after a step."""
    process = headless.start(graph, "--json", *arguments, command=command)
    heard = headless.until(process, step)
    process.send_signal(number)
    return headless.end(process, heard=heard)


@pytest.mark.skipif(WINDOWS, reason="a process there cannot be sent this signal")
def test_a_template_stopped_and_gone_on_with_makes_the_lora_of_the_page_bit_for_bit(
    headless, comfy_client, comfy_server, demo_inputs
):
    graph = template(FIRST, comfy_server.object_info())
    values = {
        "CheckpointLoaderSimple.ckpt_name": demo_inputs,
        "MLT_LoadDataset.folder": "three",
        "Resolution.value": 64,
        "MLT_TrainLoRA.name": "without a page",
        "13.steps": 1,
        "14.steps": 1,
    }
    for base in (headless.base, comfy_server.base):
        for picture in sorted((base / "input" / "train demo" / "alpha").glob("*.png"))[:3]:
            (base / "input" / "three").mkdir(exist_ok=True)
            shutil.copy(picture, base / "input" / "three")
    stopped = stopped_at(headless, graph, 1, *settings(values | {"MLT_TrainLoRA.steps": 3000}))
    assert stopped.code == 3, stopped.beside
    (end,) = stopped.of("end")
    assert end["state"] == "stopped" and end["text"].startswith("at step ") and "goes on from there" in end["text"]
    assert any(text.startswith("Stopping after this step") for text in stopped.told("note"))
    before = stopped.of("step")[-1]["step"]

    values["MLT_TrainLoRA.steps"] = last = before + 2
    by_dev = [sys.executable, str(ROOT / "dev.py"), "train"]
    finished = headless.run(graph, "--json", *settings(values), command=by_dev)
    assert (finished.code, finished.of("end")[0]["state"]) == (0, "finished"), finished.beside
    steps = finished.of("step")
    # The step during which it was stopped may have been told to nobody any more.
    (gone_on,) = (re.search(r"resumed from step (\d+)", text) for text in finished.told("note") if "resumed" in text)
    assert int(gone_on[1]) in (before, before + 1)
    assert [one["step"] for one in steps] == list(range(int(gone_on[1]) + 1, last + 1))
    assert [one["step"] for one in finished.of("measured") if "leak" in one] == [last]
    assert all({"loss", "inside", "outside", "rate", "seconds_left"} <= one.keys() for one in steps)

    graph["2"]["inputs"]["ckpt_name"] = demo_inputs
    graph["4"]["inputs"]["folder"] = "three"
    graph["3"]["inputs"]["value"] = 64
    graph["8"]["inputs"] |= {"name": "without a page", "steps": last}
    graph["13"]["inputs"]["steps"] = graph["14"]["inputs"]["steps"] = 1
    comfy_client.run(graph)
    assert same(lora(headless.base, "without a page"), lora(comfy_server.base, "without a page"))


def torchrun(host, *, processes=2):
    """The command that starts train.py in several processes."""
    start = [str(host.python), "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return [*start, str(ROOT / "train.py")]


def learned(base, name):
    """The weights of the newest checkpoint of a run, float32."""
    (folder,) = (base / "user" / "masked_lora" / "runs").glob(f"{name.replace(' ', '_')}-*")
    return load_file(sorted(folder.glob("checkpoints/step-*"))[-1] / "adapter.safetensors")


def test_two_processes_train_what_one_trains_with_two_batches_a_step(
    headless, comfy_host, comfy_client, comfy_server, train_graph
):
    graph = train_graph(name="by two", steps=3, batch_size=1)
    done = headless.run(graph, "--json", command=torchrun(comfy_host))
    assert done.code == 0, done.beside
    assert [one["step"] for one in done.of("step")] == [1, 2, 3] and len(done.of("end")) == 1
    assert any("shared out over 2 processes" in text for text in done.told("note"))
    assert [one.name for one in (headless.base / "output" / "loras").iterdir()] == ["by two.safetensors"]
    comfy_client.run(train_graph(name="by two", steps=3, batch_size=1, gradient_accumulation=2))
    one, two = learned(comfy_server.base, "by two"), learned(headless.base, "by two")
    apart, size = (
        sum(float(part(name).double().square().sum()) for name in one) ** 0.5
        for part in (lambda name: one[name] - two[name], one.__getitem__)
    )
    # As a whole: where a gradient is nearly nothing, Adam makes as much of its rounding as of any other.
    assert apart <= 1e-6 * size


@long
@pytest.mark.skipif(WINDOWS, reason="a process there cannot be sent this signal")
def test_a_signal_to_torchrun_leaves_a_checkpoint_and_one_process_goes_on(headless, comfy_host, train_graph):
    graph = train_graph(name="stopped by torchrun", steps=3000)
    stopped = stopped_at(headless, graph, 3, command=torchrun(comfy_host))
    assert stopped.of("end")[0]["state"] == "stopped", stopped.beside
    last = stopped.of("step")[-1]["step"]
    done = headless.run(graph, "--json", "--set", f"4.steps={last + 2}")
    assert done.code == 0 and any("it learns 1 from here on" in text for text in done.told("warning")), done.text
    assert any("resumed from step" in text for text in done.told("note"))


def ranked(number):
    """The process of train.py that torchrun has given this number."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words, around = ((folder / name).read_bytes() for name in ("cmdline", "environ"))
            if b"train.py" in words and f"\0RANK={number}\0".encode() in around:
                return int(folder.name)
    raise LookupError(number)


@long
@pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")
@pytest.mark.parametrize("number", [0, 1])
def test_whichever_process_is_killed_the_run_goes_on_from_its_last_step(number, headless, comfy_host, train_graph):
    graph = train_graph(name=f"lost {number}", steps=3000, save_every=0)
    process = headless.start(graph, "--json", command=torchrun(comfy_host))
    heard = headless.until(process, 4)
    os.kill(ranked(number), signal.SIGKILL)
    ended = headless.end(process, heard=heard)
    assert ended.code, ended.text
    if number:
        assert "not there any more" in ended.told("error")[0]
    (folder,) = (headless.base / "user" / "masked_lora" / "runs").glob(f"lost_{number}-*")
    (kept,) = (folder / "checkpoints").glob("step-*")
    last = int(kept.name.removeprefix("step-"))
    assert last >= ended.of("step")[-1]["step"] - 1
    done = headless.run(graph, "--json", "--set", f"4.steps={last + 2}")
    assert done.code == 0 and any(f"resumed from step {last}" in text for text in done.told("note")), done.text


@long
def test_a_process_that_cannot_train_ends_all_with_its_reason(headless, comfy_host, train_graph):
    graph = train_graph(name="fails by two")
    graph["2"]["inputs"]["folder"] = "nowhere"
    failed = headless.run(graph, "--json", command=torchrun(comfy_host))
    assert failed.code == 1 and "nowhere" in failed.told("error")[0], failed.beside
    two = train_graph(name="twice")
    two["9"] = {**two["4"], "inputs": {**two["4"]["inputs"], "name": "other"}}
    refused = headless.run(two, "--json", command=torchrun(comfy_host))
    assert "2 nodes train" in refused.of("refused")[0]["problems"][0]["text"], refused.beside


@long
@pytest.mark.skipif(WINDOWS, reason="a process there cannot be sent this signal")
def test_a_signal_to_dev_py_stops_the_training_and_leaves_its_checkpoint(headless, train_graph):
    by_dev = [sys.executable, str(ROOT / "dev.py"), "train"]
    graph = train_graph(name="ended by dev", steps=3000)
    stopped = stopped_at(headless, graph, 3, command=by_dev, number=signal.SIGTERM)
    assert stopped.code == 3, stopped.beside
    (folder,) = (headless.base / "user" / "masked_lora" / "runs").glob("ended_by_dev-*")
    assert [one.name for one in (folder / "checkpoints").iterdir()] == [f"step-{stopped.of('step')[-1]['step']:06}"]


@long
@pytest.mark.skipif(WINDOWS, reason="a process there cannot be sent this signal")
def test_a_second_signal_ends_at_once_and_the_next_start_begins_anew(headless, train_graph):
    graph = train_graph(name="ended at once", steps=5)
    process = headless.start(graph, "--json", "--set", "4.steps=3000")
    heard = headless.until(process, 2)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    ended = headless.end(process, heard=heard)
    # Both may come before Python looks.
    assert ended.code in (128 + signal.SIGTERM, 128 + signal.SIGINT)
    assert headless.run(graph, "--json").code == 0


@long
def test_a_node_that_fails_is_told_by_title_without_a_trace_where_the_pack_expected_it(headless, train_graph):
    graph = train_graph(name="fails")
    graph["2"]["_meta"] = {"title": "My pictures"}
    failed = headless.run(graph, "--json", "--set", "My pictures.folder=nowhere")
    assert failed.code == 1, failed.beside
    (text,) = failed.told("error")
    assert "nowhere" in text and "Traceback" not in text and "Traceback" not in failed.beside
    assert failed.of("told")[-1]["title"] == "My pictures"
    assert failed.of("end")[0]["text"] == "My pictures (node 2) failed"


@long
def test_what_comfyui_or_a_change_refuses_costs_no_time(headless, train_graph):
    graph = train_graph(name="refused")
    wrong = headless.run(graph, "--json", "--set", "4.stesp=3", "--set", "1.ckpt_name=nobody.safetensors")
    assert wrong.code == 2 and wrong.of("step") == [], wrong.beside
    first, second = (one["text"] for one in wrong.of("refused")[0]["problems"])
    assert "has no stesp. Nearest: steps" in first
    assert "does not offer that" in second and graph["1"]["inputs"]["ckpt_name"] in second
    graph["4"]["inputs"]["steps"] = -1
    (problem,) = headless.run(graph, "--json").of("refused")[0]["problems"]
    assert (problem["node"], problem["widget"]) == ("4", "steps") and "is -1, outside of 0 to" in problem["text"]


def masked(folder, kind):
    """Pictures of a figure in the middle, with masks of a kind."""
    folder.mkdir(parents=True)
    for number in range(6):
        pixels = np.random.default_rng(number).integers(0, 256, (128, 128, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"cat {number}.png")
        mask = np.zeros((128, 128), np.uint8)
        mask[32:96, 32:96] = 255
        if kind != "none":
            Image.fromarray({"inverted": 255 - mask, "large": np.full_like(mask, 255), "good": mask}[kind]).save(
                folder / f"cat {number}_mask.png"
            )


@long
@pytest.mark.parametrize("kind", ["inverted", "none", "large", "good"])
def test_warnings_are_those_of_the_page_and_come_before_the_first_step(
    kind, headless, comfy_client, comfy_server, train_graph
):
    graph = train_graph(name=f"masks {kind}", steps=2)
    graph["2"]["inputs"]["folder"] = f"masks {kind}"
    for base in (headless.base, comfy_server.base):
        masked(base / "input" / f"masks {kind}", kind)
    told = headless.run(graph, "--json")
    assert told.code == 0, told.beside
    record = comfy_client.run(graph)
    reports = [line for one in record.outputs.values() for line in one.get("masked_lora_report", ())]
    in_page = {line["text"] for line in reports if line["level"] == "warning"}
    assert in_page <= {*told.told("warning")}
    before = told.events[: told.events.index(told.of("step")[0])]
    early = " ".join(one["text"] for one in before if one["event"] == "told")
    words = {
        "inverted": "The masks look inverted",
        "none": "0 with a mask",
        "large": "white everywhere",
        "good": "6 with a mask",
    }
    assert words[kind] in early
    assert ("look inverted" in early) == (kind == "inverted")


@long
def test_the_installed_pack_trains_by_its_own_script_from_any_folder(comfy_host, headless, train_graph, tmp_path):
    pack = install_pack(headless.base / "custom_nodes")
    own = Headless(comfy_host, headless.base, script=pack / "train.py")
    own.flags = headless.flags
    done = own.run(train_graph(name="installed", steps=2))
    assert done.code == 0, done.beside
    assert (headless.base / "output" / "loras" / "installed.safetensors").is_file()
    # For people: sentences under the node's title.
    lines = done.text.splitlines()
    assert "MLT_TrainLoRA" in lines and any(line.startswith("  step 2/2 · loss ") for line in lines)
    assert lines[-1].startswith("Finished after ")


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="TensorBoard's library is not installed")
def test_tensorboard_s_files_hold_every_step_once_also_after_going_on(headless, train_graph):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for steps in (3, 5):
        done = headless.run(train_graph(name="curves", steps=steps), "--json", "--tensorboard")
        assert done.code == 0, done.beside
    (folder,) = (headless.base / "user" / "masked_lora" / "runs").glob("curves-*")
    read = EventAccumulator(str(folder / "tensorboard"))
    read.Reload()
    kept = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    for name in ("loss", "inside", "outside"):
        written = [(one.step, pytest.approx(one.value)) for one in read.Scalars(name)]
        assert written == [(row["step"], row[name]) for row in kept]


@pytest.fixture(scope="module")
def official(comfy_server, comfy_host, tmp_path_factory):
    """Trainings of somebody who has small models under the names of the official files."""
    base = base_folder(tmp_path_factory.mktemp("official") / "base")
    offer_official_files(comfy_server, base / "models")
    packs = ROOT / "tests" / "harness" / "small_models_pack"
    shutil.copytree(packs, base / "custom_nodes" / packs.name)
    offer_example(comfy_host, base)
    return Headless(comfy_host, base)


@long
@pytest.mark.parametrize(("name", "model"), TRAINED, ids=[name for name, _ in TRAINED])
def test_a_template_trains_and_compares(name, model, official, comfy_server):
    graph = template(name, comfy_server.object_info())
    folder = official.base / "input" / f"cat, {model.title}"
    own_data(model)(folder)
    values = short(graph, 256 if model.title == "Ideogram 4" else 128)
    values |= {"MLT_LoadDataset.folder": folder.name, "MLT_TrainLoRA.name": f"lora of {model.title}"}
    done = official.run(graph, "--json", *settings(values))
    assert done.code == 0, done.text[-3000:] + done.beside[-3000:]
    assert [one["step"] for one in done.of("step")] == [1, 2, 3]
    assert lora(official.base, f"lora of {model.title}")


@long
def test_the_template_for_captions_writes_them(official, comfy_server):
    folder = official.base / "input" / "to caption"
    own_pictures(folder)
    values = {"MLT_LoadDataset.folder": folder.name, "TextGenerate.max_length": 6}
    done = official.run(template(CAPTIONING, comfy_server.object_info()), "--json", *settings(values))
    assert done.code == 0, done.text[-3000:] + done.beside[-3000:]
    assert len([path for path in folder.glob("*.txt") if path.read_text(encoding="utf-8").strip()]) == 4


@long
def test_the_template_for_masks_that_follow_a_clip_trains(official, comfy_server):
    folder = official.base / "input" / "my walk"
    folder.mkdir()
    write_clip(folder / "walk.mkv", walk(17, (160, 128))[0], rate=24)
    graph = template(FOLLOWING, comfy_server.object_info())
    values = short(graph, 128) | {"MLT_LoadDataset.folder": folder.name, "MLT_TrainLoRA.name": "walk"}
    values |= {"MLT_GrabCutMasks.start": "box", "MLT_GrabCutMasks.box": "14, 26, 76, 76"}
    done = official.run(graph, "--json", *settings(values))
    assert done.code == 0, done.text[-3000:] + done.beside[-3000:]
    assert lora(official.base, "walk")
