"""Finds the ComfyUI and the interpreter that every command uses."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from .build import built_host
from .console import DevError, say
from .recipe import ROOT, interpreter_of

_ENVIRONMENTS = ("venv", ".venv")
_PROBE = (
    "import importlib.util, json, sys;"
    "sys.stdout.write(json.dumps([n for n in sys.argv[1:] if importlib.util.find_spec(n) is None]))"
)
COMFYUI_NEEDS = ("torch", "aiohttp")
PACK_NEEDS = ("peft", "cv2", "safetensors")
OPTIMIZERS = ("prodigyopt", "schedulefree", "lion_pytorch", "pytorch_optimizer")
TESTS_NEED = (
    *("pytest", "xdist", "pytest_timeout", "pytest_rerunfailures", "ruff", "playwright", "skimage", "diffusers"),
    *OPTIMIZERS,
)


@dataclass(frozen=True)
class Host:
    """An interpreter and the ComfyUI folder it runs; `frontend` is the folder of a page other than ComfyUI's own."""

    python: Path
    comfyui: Path
    origin: str
    frontend: Path | None = None

    def as_json(self):
        """One line of JSON."""
        return json.dumps({"python": str(self.python), "comfyui": str(self.comfyui), "origin": self.origin})

    def missing(self, modules):
        """Those of `modules` that the interpreter cannot find."""
        return missing_modules(self.python, modules)


def find_host(given=None):
    """The host: the one given, else the ComfyUI that the pack lies in, else one built in the cache folder."""
    given = given or os.environ.get("COMFYUI_PATH")
    if given:
        folder = Path(given).expanduser().resolve()
        if not is_comfyui(folder):
            raise DevError(f"{given} is not a ComfyUI folder: expected main.py and comfy/ in it.")
        return Host(interpreter_for(folder), folder, "given")
    around = ROOT.parent.parent
    if ROOT.parent.name == "custom_nodes" and is_comfyui(around):
        return Host(interpreter_for(around), around, "around the pack")
    python, folder = built_host()
    return Host(python, folder, "built")


def is_comfyui(folder: Path):
    """Whether `folder` looks like a ComfyUI checkout."""
    return (folder / "main.py").is_file() and (folder / "comfy").is_dir()


def interpreter_for(comfyui: Path):
    """The interpreter of a ComfyUI folder: its own environment's, else the one running if it has torch."""
    embedded = [comfyui / "python_embeded", comfyui.parent / "python_embeded"]
    candidates = [interpreter_of(comfyui / name) for name in _ENVIRONMENTS]
    candidates += [place / "python.exe" for place in embedded]
    for python in candidates:
        if python.is_file():
            return python
    current = Path(sys.executable)
    if lacking := missing_modules(current, COMFYUI_NEEDS):
        raise DevError(
            f"No interpreter for {comfyui}: it has no venv, .venv or python_embeded folder, and {current} "
            f"lacks {', '.join(lacking)}. Run dev.py with the interpreter that starts this ComfyUI."
        )
    return current


def missing_modules(python: Path, modules):
    """Those of `modules` that `python` cannot find, asked in its own process."""
    done = subprocess.run([str(python), "-c", _PROBE, *modules], capture_output=True, text=True, check=False)
    if done.returncode:
        raise DevError(f"{python} does not run:\n{done.stderr.strip()}")
    return json.loads(done.stdout)


def require(host: Host, modules, *, file):
    """Raises when the host lacks `modules`; nothing is installed into an environment that is not ours."""
    if lacking := host.missing(modules):
        raise DevError(
            f"{host.python} lacks {', '.join(lacking)}. Install them with:\n"
            f"  {host.python} -m pip install -r {ROOT / file}"
        )
    say(f"using {host.comfyui} with {host.python}")
