"""A real ComfyUI in a process of its own, with the pack in it, and its HTTP API."""

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from .console import DevError
from .recipe import ROOT

# What a user's installation of the pack consists of.
_FOLDERS_OF_PACK = ("nodes", "masklora", "web", "workflows", "subgraphs", "locales")
PACK_PARTS = ("__init__.py", "train.py", *_FOLDERS_OF_PACK, "pyproject.toml")
PACK_FOLDER = "masked-lora"
_IGNORED = shutil.ignore_patterns("__pycache__")
_FOLDERS = ("input", "output", "temp", "user", "models/checkpoints", "models/loras", "custom_nodes")


class ComfyError(DevError):
    """ComfyUI did not start, refused a graph, or failed while running it."""


def install_pack(custom_nodes: Path, *, demo=False):
    """Copies the pack, with its `demo` or as most users have it, into a `custom_nodes` folder in place of an older one.

    Links need rights on Windows.
    """
    target = custom_nodes / PACK_FOLDER
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for name in (*PACK_PARTS, *(["demo"] if demo else [])):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=_IGNORED)
        elif source.is_file():
            shutil.copy2(source, target / name)
    return target


def more_models(base: Path, models: Path):
    """A file in `base` by which ComfyUI offers those of the folder `models` beside its own."""
    listing = base / "more-models.yaml"
    places = {p.name: p.as_posix() for p in sorted(Path(models).iterdir()) if p.is_dir()}
    # JSON is YAML, and quotes every path.
    listing.write_text(json.dumps({"user": places}), encoding="utf-8")
    return listing


def free_port():
    """A port of this machine that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def has_cuda(python):
    """Whether the interpreter's torch can use a CUDA or ROCm device."""
    ask = "import torch, sys; sys.stdout.write(str(torch.cuda.is_available()))"
    done = subprocess.run([str(python), "-c", ask], capture_output=True, text=True, check=False)
    return done.stdout.strip() == "True"


class ComfyServer:
    """A running ComfyUI with its own base folder; a context manager.

    `models` is a further `models` folder whose files it offers beside those under `base`; `packs` are folders of
    further custom nodes, which it copies; with `demo` the pack's demo lies beside it. The pack is this repository's, or
    that of an `archive` as the registry holds it.
    """

    def __init__(self, host, base: Path, *, cpu=True, models=None, packs=(), arguments=(), demo=False, archive=None):
        self.host = host
        self.base = Path(base)
        self.cpu = cpu
        self.port = free_port()
        self.demo = demo
        self.archive = archive
        self.models = models
        self.packs = [Path(pack) for pack in packs]
        self.arguments = list(arguments)
        self.log = self.base / "comfyui.log"
        self.process = None

    @property
    def address(self):
        """The page's address."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def running(self):
        """Whether the process was started and has not ended."""
        return self.process is not None and self.process.poll() is None

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_error):
        self.stop()

    def start(self, timeout=240):
        """Copies the pack, starts ComfyUI and returns when it answers."""
        for name in _FOLDERS:
            (self.base / name).mkdir(parents=True, exist_ok=True)
        if self.archive:
            shutil.unpack_archive(self.archive, self.base / "custom_nodes" / PACK_FOLDER)
        else:
            install_pack(self.base / "custom_nodes", demo=self.demo)
        for pack in self.packs:
            shutil.copytree(pack, self.base / "custom_nodes" / pack.name, dirs_exist_ok=True, ignore=_IGNORED)
        environment = dict(os.environ, PYTHONUTF8="1", PYTHONUNBUFFERED="1")
        environment.pop("PYTHONSAFEPATH", None)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self._command(), cwd=self.base, env=environment, stdout=log, stderr=subprocess.STDOUT
            )
        self._wait_until_it_answers(timeout)

    def _command(self):
        command = [str(self.host.python), str(self.host.comfyui / "main.py")]
        command += ["--base-directory", str(self.base), "--port", str(self.port), "--disable-auto-launch"]
        command += ["--database-url", "sqlite:///:memory:", "--disable-api-nodes"]
        command += ["--disable-all-custom-nodes", "--whitelist-custom-nodes", PACK_FOLDER]
        command += [pack.name for pack in self.packs]
        if self.cpu:
            command.append("--cpu")
        if self.host.frontend:
            command += ["--front-end-root", str(self.host.frontend)]
        if self.models:
            command += ["--extra-model-paths-config", str(more_models(self.base, self.models))]
        return command + self.arguments

    def _wait_until_it_answers(self, timeout):
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if not self.running:
                raise ComfyError(f"ComfyUI ended while starting. Its log, {self.log}:\n{self.log_tail()}")
            try:
                self.get("/system_stats", timeout=5)
                return
            except OSError:
                time.sleep(0.25)
        raise ComfyError(f"ComfyUI did not answer within {timeout} s. {self.log}:\n{self.log_tail()}")

    def stop(self):
        """Ends ComfyUI and waits for it."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def log_tail(self, lines=60):
        """The last lines of ComfyUI's own log."""
        try:
            text = self.log.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-lines:])

    def get(self, path, *, timeout=60):
        """The JSON that a GET of `path` answers."""
        return json.loads(self._open(path, None, timeout) or b"null")

    def post(self, path, payload, *, timeout=60):
        """The JSON that a POST of `payload` answers."""
        return json.loads(self._open(path, json.dumps(payload).encode(), timeout) or b"null")

    def _open(self, path, body, timeout):
        request = urllib.request.Request(self.address + path, data=body)
        if body is not None:
            request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return answer.read()

    def picture(self, entry):
        """The bytes of one `{"filename", "subfolder", "type"}` entry of a node's output."""
        query = {key: entry.get(key, "") for key in ("filename", "subfolder", "type")}
        return self._open("/view?" + urllib.parse.urlencode(query), None, 60)

    def object_info(self):
        """Every node's schema as the page sees it."""
        return self.get("/object_info")

    def submit(self, prompt, *, client_id="dev"):
        """Queues a graph in API form; returns its id. A refusal names every node and input it concerns."""
        try:
            return self.post("/prompt", {"prompt": prompt, "client_id": client_id})["prompt_id"]
        except urllib.error.HTTPError as error:
            text = error.read().decode("utf-8", "replace")
            raise ComfyError(f"ComfyUI refused the graph: {describe_refusal(text)}") from error

    def interrupt(self):
        """Asks the running graph to stop."""
        self.post("/interrupt", {})

    def empty_queue(self, *, timeout=120):
        """Takes all that waits out of the queue, stops what runs, and waits until it has stopped."""
        deadline = time.monotonic() + timeout
        while self.running and any(self.get("/queue").values()):
            if time.monotonic() > deadline:
                raise ComfyError(f"what runs did not stop within {timeout} s:\n{self.log_tail(20)}")
            self.post("/queue", {"clear": True})
            self.interrupt()
            time.sleep(0.25)

    def history(self, prompt_id):
        """The finished graph's record, or None while it waits or runs."""
        return self.get(f"/history/{prompt_id}").get(prompt_id)

    def wait(self, prompt_id, *, timeout=600, every=0.25, on_poll=None, check=True):
        """The record of a graph once it has ended; raises with the node's own message if it failed."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if not self.running:
                raise ComfyError(f"ComfyUI ended while running the graph:\n{self.log_tail()}")
            record = self.history(prompt_id)
            if record is not None:
                if check and record["status"]["status_str"] != "success":
                    raise ComfyError(describe_failure(record) + f"\nThe log is {self.log}")
                return record
            if on_poll:
                on_poll()
            time.sleep(every)
        raise ComfyError(f"the graph did not finish within {timeout} s:\n{self.log_tail(20)}")

    def run(self, prompt, **options):
        """Submits a graph and returns the outputs of its nodes by node id."""
        return self.wait(self.submit(prompt), **options)["outputs"]


def describe_refusal(text):
    """ComfyUI's answer to a graph it does not accept, in one paragraph."""
    try:
        answer = json.loads(text)
    except ValueError:
        return text
    lines = [answer.get("error", {}).get("message", "")]
    for node, problem in (answer.get("node_errors") or {}).items():
        for error in problem.get("errors", ()):
            where = f"node {node} ({problem.get('class_type')})"
            lines.append(f"  {where}: {error['message']} {error.get('details', '')}")
    return "\n".join(lines)


def describe_failure(record):
    """Which node of a graph failed, and with what message."""
    for kind, data in record["status"].get("messages", ()):
        if kind == "execution_error":
            return f"{data['node_type']} (node {data['node_id']}): {data['exception_message'].strip()}"
        if kind == "execution_interrupted":
            return f"{data['node_type']} (node {data['node_id']}) was interrupted"
    return f"the graph failed: {record['status']}"
