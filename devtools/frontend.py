"""The newest web frontend that the pack is tested with, beside the one that ComfyUI 0.30 brings."""

import hashlib
import os
import shutil
import zipfile

from .build import run_pip
from .console import DevError
from .lock import exclusive
from .recipe import cache_root

PACKAGE = "comfyui-frontend-package"
VERSION = "1.58.1"
FILE = f"comfyui_frontend_package-{VERSION}-py3-none-any.whl"
SHA256 = "37912597537a731a8f421179618a736c24184c5bdbfa327f38b2fb7c291852d9"
_STATIC = "comfyui_frontend_package/static"


def newest_frontend(python):
    """The folder for ComfyUI's `--front-end-root`, downloaded with the pip of `python` the first time.

    Raises `DevError` where it cannot be had.
    """
    folder = cache_root() / "frontends" / VERSION
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with exclusive(folder.with_suffix(".lock")):
            if not folder.is_dir():
                _unpack(_downloaded(python), folder)
    return folder


def _downloaded(python):
    place = cache_root() / "downloads"
    wheel = place / FILE
    if not wheel.is_file():
        staging = place / f"partial-{os.getpid()}"
        wanted = f"{PACKAGE}=={VERSION}"
        try:
            run_pip(
                python,
                ["download", "--no-deps", "--dest", str(staging), wanted],
                what=f"the web frontend {wanted}",
                hint=f"put {FILE} (sha256 {SHA256}) into {place}",
            )
            (staging / FILE).replace(wheel)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    if (found := hashlib.sha256(wheel.read_bytes()).hexdigest()) != SHA256:
        raise DevError(f"{wheel} is not the expected file: its sha256 is {found}, expected {SHA256}. Delete it.")
    return wheel


def _unpack(wheel, folder):
    staging = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
    try:
        with zipfile.ZipFile(wheel) as source:
            source.extractall(staging, [name for name in source.namelist() if name.startswith(f"{_STATIC}/")])
        (staging / _STATIC).replace(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
