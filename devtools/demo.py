"""`dev.py demo`: from pictures to a LoRA and a picture of what it learned, in a real ComfyUI."""

import contextlib
import json
import os
import shutil
import subprocess
import time
import uuid
from pathlib import Path

from demo.placing import FOLDER, place_pictures

from .comfy import ComfyServer, has_cuda
from .console import DevError, result, say
from .convert import to_api
from .events import EventStream
from .host import PACK_NEEDS, require
from .recipe import ROOT, cache_root

WORKFLOWS = ROOT / "demo" / "workflows"
WORKFLOW = WORKFLOWS / "Demo - 1 Masks from transparency.json"
CHECKPOINT = "masked-lora-demo.safetensors"
LORA = "dev-demo.safetensors"
SEEDS = 20
SEEDS_OF_OWN_MODEL = 4
SAMPLING_OF_OWN_MODEL = {"size": 512, "cfg": 5.0, "scheduler": "normal"}


def run_demo(host, *, checkpoint=None, serve=False):
    """Trains through the example workflow, samples without and with the LoRA, prints where it all lies."""
    require(host, PACK_NEEDS, file="requirements.txt")
    base = cache_root() / "demo"
    plan = offer_demo_inputs(host, base)
    # So small a model gains nothing from more threads, and loses much where the cores are shared.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // 2)))
    say("starting ComfyUI with the pack in it")
    with ComfyServer(host, base, cpu=not has_cuda(host.python), models=_users_models(host, checkpoint)) as server:
        if serve:
            # First of all: the training can be watched there.
            result(f"ComfyUI:      {server.address}   (Ctrl-C ends it)")
        known = server.object_info()
        _check_checkpoint(known, checkpoint)
        watch = Watch(server)
        lora = _train(watch, known, checkpoint or CHECKPOINT)
        report = _compare(watch, lora, plan, checkpoint)
        result(f"LoRA:         {lora}")
        result(f"side by side: {report['picture']}")
        for line in report["numbers"]:
            result(line)
        while serve and server.running:
            time.sleep(1)
    return 0


def offer_demo_inputs(host, base):
    """Puts the demo's checkpoint, pictures and workflows where ComfyUI looks; the plan for the comparison."""
    say("making the demo's checkpoint and pictures ready")
    plan = _host_side(host, "prepare", {"folder": str(cache_root() / "models"), "seeds": SEEDS})
    models = base / "models" / "checkpoints"
    models.mkdir(parents=True, exist_ok=True)
    _link_or_copy(Path(plan["checkpoint"]), models / CHECKPOINT)
    place_pictures(base / "input", anew=True)
    saved = base / "user" / "default" / "workflows"
    saved.mkdir(parents=True, exist_ok=True)
    for workflow in WORKFLOWS.glob("*.json"):
        shutil.copy2(workflow, saved)
    return plan


def _link_or_copy(source, target):
    if target.exists() and target.samefile(source):
        return
    staging = target.with_name(f"{target.name}.{os.getpid()}.partial")
    staging.unlink(missing_ok=True)
    try:
        os.link(source, staging)
    except OSError:
        shutil.copy2(source, staging)
    staging.replace(target)


def _users_models(host, checkpoint):
    folder = host.comfyui / "models"
    return folder if checkpoint and folder.is_dir() else None


def _check_checkpoint(known, checkpoint):
    kind, options = (*known["CheckpointLoaderSimple"]["input"]["required"]["ckpt_name"], {})[:2]
    offered = kind if isinstance(kind, list) else options.get("options", [])
    if checkpoint and checkpoint not in offered:
        listing = "\n".join(f"  {name}" for name in offered)
        raise DevError(f"ComfyUI does not offer the checkpoint {checkpoint}. It offers:\n{listing}")


def _host_side(host, task, payload):
    """The JSON answer of a task that needs the host's packages."""
    command = [str(host.python), "-m", "devtools.hostside", task]
    environment = dict(os.environ, PYTHONUTF8="1")
    done = subprocess.run(
        command,
        input=json.dumps(payload),
        capture_output=True,
        cwd=ROOT,
        env=environment,
        encoding="utf-8",
        check=False,
    )
    if done.returncode:
        raise DevError(f"{' '.join(command)} failed:\n{done.stderr.strip()[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _train(watch, known, checkpoint):
    if not WORKFLOW.is_file():
        raise DevError(f"{WORKFLOW} is missing.")
    prompt = to_api(json.loads(WORKFLOW.read_text(encoding="utf-8")), known)
    for node in prompt.values():
        if node["class_type"] == "CheckpointLoaderSimple":
            node["inputs"]["ckpt_name"] = checkpoint
    record = watch.run(prompt, f"running {WORKFLOW.name}")
    lora = find_lora(record["outputs"], watch.server.base / "output")
    say(f"trained: {lora}")
    return lora


def find_lora(outputs, folder):
    """The LoRA file that the graph's outputs name, else the newest one below ComfyUI's output folder."""
    for line in (line.strip() for text in _texts(outputs) for line in text.splitlines()):
        words = line.split(" ") if line.endswith(".safetensors") else []
        for name in (" ".join(words[i:]) for i in range(len(words))):
            # A sentence that ends in a path may be longer than any name may be.
            with contextlib.suppress(OSError):
                for path in (Path(name), folder / name):
                    if path.is_file():
                        return path
    found = sorted(folder.rglob("*.safetensors"), key=lambda path: path.stat().st_mtime)
    found = [path for path in found if "checkpoints" not in path.parts]
    if not found:
        raise DevError(f"The workflow ended, but there is no LoRA file below {folder}.")
    return found[-1]


def _texts(value):
    """Every text in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _texts(one)


def _compare(watch, lora, plan, checkpoint):
    """Samples at the same seeds without and with the LoRA, as one picture with the training pictures."""
    base = watch.server.base
    shutil.copy2(lora, base / "models" / "loras" / LORA)
    prompts = plan["prompts"][: SEEDS_OF_OWN_MODEL if checkpoint else SEEDS]
    sampling = {**plan["sampling"], **(SAMPLING_OF_OWN_MODEL if checkpoint else {})}
    pictures = {}
    for name, file in (("base", None), ("lora", LORA)):
        graph = sampling_graph(prompts, sampling, checkpoint or CHECKPOINT, lora=file)
        title = f"sampling {len(prompts)} seeds {'with' if file else 'without'} the LoRA"
        outputs = watch.run(graph, title)["outputs"]
        saved = [outputs[f"save {seed}"]["images"][0] for seed in range(len(prompts))]
        pictures[name] = [str(base / "output" / one["subfolder"] / one["filename"]) for one in saved]
    job = {
        "training": str(base / "input" / FOLDER / "alpha"),
        "judged": checkpoint is None,
        "picture": str(lora.with_name(f"{lora.stem}-side-by-side.png")),
        **pictures,
    }
    return _host_side(watch.server.host, "compare", job)


def sampling_graph(prompts, sampling, checkpoint, *, lora=None):
    """A graph in API form that paints each prompt once, its place in the list being its seed."""
    graph = {
        "model": _node("CheckpointLoaderSimple", ckpt_name=checkpoint),
        "empty": _node("CLIPTextEncode", clip=["model", 1], text=""),
        "latent": _node("EmptyLatentImage", width=sampling["size"], height=sampling["size"], batch_size=1),
    }
    if lora:
        graph["lora"] = _node("LoraLoaderModelOnly", model=["model", 0], lora_name=lora, strength_model=1.0)
    inputs = {key: sampling[key] for key in ("steps", "cfg", "sampler_name", "scheduler")}
    inputs |= {
        "model": ["lora" if lora else "model", 0],
        "negative": ["empty", 0],
        "latent_image": ["latent", 0],
    }
    prefix = f"demo/{'lora' if lora else 'base'}"
    for seed, prompt in enumerate(prompts):
        graph[f"words {seed}"] = _node("CLIPTextEncode", clip=["model", 1], text=prompt)
        graph[f"sample {seed}"] = _node("KSampler", positive=[f"words {seed}", 0], seed=seed, denoise=1.0, **inputs)
        graph[f"decode {seed}"] = _node("VAEDecode", samples=[f"sample {seed}", 0], vae=["model", 2])
        graph[f"save {seed}"] = _node("SaveImage", images=[f"decode {seed}", 0], filename_prefix=f"{prefix}_{seed:02}")
    return graph


def _node(kind, **inputs):
    return {"class_type": kind, "inputs": inputs}


class Watch:
    """Runs graphs and says in the terminal what they do."""

    def __init__(self, server, *, every=5.0):
        self.server = server
        self.every = every
        self._said = ""
        self._next = 0.0

    def run(self, prompt, title):
        """The record of a finished graph; Ctrl-C first stops it in ComfyUI, so that training saves itself."""
        say(title)
        began = time.time()
        client_id = uuid.uuid4().hex
        stream = EventStream(self.server.port, client_id)
        prompt_id = self.server.submit(prompt, client_id=client_id)
        try:
            return self.server.wait(
                prompt_id, timeout=24 * 3600, on_poll=lambda: self._report(stream.events, prompt, began)
            )
        except KeyboardInterrupt:
            say("stopping; training saves a checkpoint to resume from")
            self.server.interrupt()
            self.server.wait(prompt_id, timeout=60, check=False)
            raise
        finally:
            stream.close()

    def _report(self, events, prompt, began):
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + self.every
        text = training_line(newest_metrics(self.server.base, began)) if self._trains(events, prompt) else None
        text = text or event_line(events, prompt)
        if text and text != self._said:
            self._said = text
            say(text)

    def _trains(self, events, prompt):
        node = running_node(events)
        return node is not None and prompt.get(node, {}).get("class_type") == "MLT_TrainLoRA"


def running_node(events):
    """The id of the node that runs now, or None."""
    for kind, data in reversed(events):
        if kind == "executing":
            return data.get("node")
    return None


def event_line(events, prompt):
    """What ComfyUI is doing: the node, and how far it has come."""
    node = running_node(events)
    if node is None:
        return None
    text = f"{prompt.get(node, {}).get('class_type', node)}"
    for kind, data in reversed(events):
        if kind == "executing":
            break
        if kind == "progress" and str(data.get("node")) == node:
            return f"{text}: {data['value']} of {data['max']}"
    return text


def newest_metrics(base, since):
    """The last whole line of the metrics file below `base` that was written to since `since`, or None."""
    files = [(path.stat().st_mtime, path) for path in base.rglob("metrics.jsonl")]
    files = [(changed, path) for changed, path in files if changed >= since]
    if not files:
        return None
    for line in reversed(max(files)[1].read_text(encoding="utf-8").splitlines()):
        try:
            values = json.loads(line)
        except ValueError:
            continue
        if "loss" in values:
            return values
    return None


def training_line(values):
    """One step's numbers as a line for the terminal, or None."""
    if not values:
        return None
    parts = [f"training: step {values['step']} of {values['total']}"]
    for key in ("loss", "inside", "outside"):
        if values.get(key) is not None:
            parts.append(f"{key} {values[key]:.4f}")
    if speed := values.get("steps_per_second"):
        minutes, seconds = divmod(round((values["total"] - values["step"]) / speed), 60)
        parts.append(f"{speed:.1f} steps/s, {minutes}:{seconds:02} left")
    return ", ".join(parts)
