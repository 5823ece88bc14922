"""What an earlier version wrote still opens, resumes and loads."""

import json
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[2]
ARCHIVES = sorted((ROOT / "tests" / "upgrade").glob("*.zip"))


@pytest.fixture(scope="module", params=ARCHIVES, ids=[path.stem for path in ARCHIVES])
def old(request, comfy_server, demo_inputs, tmp_path_factory):
    """The unpacked archive, with its cache, runs and LoRA files where that ComfyUI had them."""
    base, folder = comfy_server.base, tmp_path_factory.mktemp("old")
    with zipfile.ZipFile(request.param) as archive:
        archive.extractall(folder)
    for path in folder.rglob("*.json"):
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace("{base}", json.dumps(str(base))[1:-1]), encoding="utf-8")
    for name in ("cache", "runs"):
        shutil.copytree(folder / name, base / "user" / "masked_lora" / name, dirs_exist_ok=True)
    shutil.copytree(folder / "loras", base / "output" / "loras", dirs_exist_ok=True)
    pictures = base / "input" / "old set"
    pictures.mkdir(exist_ok=True)
    for number in range(1, 6):
        for suffix in ("png", "txt") if number != 3 else ("png",):
            shutil.copy2(ROOT / "demo" / "pictures" / "alpha" / f"zibble_0{number}.{suffix}", pictures)
    return folder


def graph(old, name):
    """A graph in API form, with the cache's report where the history shows it."""
    prompt = json.loads((old / f"{name}.api.json").read_text(encoding="utf-8"))
    return prompt | {"report": {"class_type": "PreviewAny", "inputs": {"source": ["3", 1]}}}


def said(run, node="4"):
    return "\n".join(str(text) for text in run.outputs[node]["text"])


@pytest.mark.parametrize(("name", "file"), [("finished", "old finished"), ("odd_name", "old x/y z")])
def test_a_finished_run_is_loaded_with_its_own_file(old, comfy_client, comfy_server, name, file):
    path = comfy_server.base / "output" / "loras" / f"{file}.safetensors"
    before = path.read_bytes()
    run = comfy_client.run(graph(old, name))
    assert "Loaded the finished run" in said(run) and str(path) in said(run)
    assert path.read_bytes() == before
    assert list(path.parent.glob(f"{path.stem}_0*")) == []
    assert "made now: 0 latent, 0 mask, 0 text" in said(run, "report")


def test_an_unfinished_run_goes_on_from_its_step_to_about_the_lora_that_it_would_have_become(
    old, comfy_client, comfy_server
):
    run = comfy_client.run(graph(old, "unfinished"))
    assert "Going on from the checkpoint of step 8" in said(run)
    assert "made now: 0 latent, 0 mask, 0 text" in said(run, "report")
    (folder,) = (comfy_server.base / "user" / "masked_lora" / "runs").glob("old_unfinished-*")
    before = [json.loads(line) for line in (old / "runs" / folder.name / "metrics.jsonl").open(encoding="utf-8")]
    after = [json.loads(line) for line in (folder / "metrics.jsonl").open(encoding="utf-8")]
    # A row behind the last step holds what is measured at the end.
    trained = [line["step"] for line in after if "loss" in line]
    assert after[:8] == before[:8] and trained == list(range(1, 25))
    made = load_file(comfy_server.base / "output" / "loras" / "old unfinished.safetensors")
    wanted = load_file(old / "reference" / "old unfinished.safetensors")
    assert made.keys() == wanted.keys()
    # Later versions may show the pictures in another order, and processors round differently.
    a, b = (torch.cat([values[key].float().flatten() for key in sorted(wanted)]) for values in (made, wanted))
    assert torch.cosine_similarity(a, b, dim=0) > 0.95


def test_its_lora_files_load_whole(old, comfy_client, comfy_server):
    prompt = graph(old, "finished")
    nodes = {"1": prompt["1"]}
    for i, name in enumerate(("old finished.safetensors", "old x/y z.safetensors")):
        source = comfy_server.base / "output" / "loras" / name
        target = comfy_server.base / "models" / "loras" / Path(name).name
        shutil.copy2(source, target)
        inputs = {"model": ["1", 0], "lora_name": target.name, "strength_model": 1.0}
        nodes[f"l{i}"] = {"class_type": "LoraLoaderModelOnly", "inputs": inputs}
        nodes[f"s{i}"] = {"class_type": "KSampler", "inputs": sampling(f"l{i}")}
        nodes[f"p{i}"] = {"class_type": "SaveLatent", "inputs": {"samples": [f"s{i}", 0], "filename_prefix": "old"}}
    nodes["t"] = {"class_type": "CLIPTextEncode", "inputs": {"clip": ["1", 1], "text": "a zibble"}}
    nodes["e"] = {"class_type": "EmptySD3LatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}}
    comfy_client.run(nodes)
    assert "lora key not loaded" not in comfy_server.log_tail(400)


def sampling(model):
    links = {"positive": ["t", 0], "negative": ["t", 0], "latent_image": ["e", 0]}
    how = {"seed": 1, "steps": 1, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
    return {"model": [model, 0], **links, **how}


def test_a_saved_workflow_with_every_node_opens_with_the_values_it_was_saved_with(old, page):
    page.load_workflow(old / "every_node.json")
    assert page.unknown_nodes() == []
    now = page.api_prompt()
    saved = json.loads((old / "every_node.api.json").read_text(encoding="utf-8"))
    for number, node in saved.items():
        assert now[number]["class_type"] == node["class_type"]
        kept = {name: now[number]["inputs"].get(name) for name in node["inputs"]}
        assert kept == node["inputs"], node["class_type"]


def test_a_saved_template_opens_without_a_fault(old, page):
    page.load_workflow(old / "example.json")
    assert set(page.unknown_nodes()) <= {"MarkdownNote", "Note"}
    train = next(n["inputs"] for n in page.api_prompt().values() if n["class_type"] == "MLT_TrainLoRA")
    assert train["name"].startswith("masked-lora-demo") and train["checkpointing"] == "per block"
    assert page.problems == []
