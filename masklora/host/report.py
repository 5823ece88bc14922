"""What somebody who helps with a run must know of it, as text: versions, card, settings, warnings, the last error.

Nothing in it tells who or where somebody is, or what their pictures show: of settings only numbers and choices are
told, and sentences go through `anonymous`.
"""

from __future__ import annotations

import dataclasses
import functools
import getpass
import importlib.metadata
import platform
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import comfy.model_management
import comfyui_version
import folder_paths
import psutil
import torch

from .. import settings as settings_module
from ..documents import fits, read_document
from ..loss.presets import PRESETS
from ..runs.graph import read_graph
from ..runs.history import PastRun, read_run, run_name
from ..runs.record import NAME as RECORD
from ..runs.told import read_told
from ..settings import AdapterSettings, CacheSettings, LossSettings, OptimizerSettings, TrainSettings
from ..showings.sources import read_sources
from .anonymous import anonymous
from .memory.cards import card_memory, card_name, in_bytes
from .paths import allowed_roots

_PACKAGES = {"page": "comfyui-frontend-package", "peft": "peft", "numpy": "numpy"}
_PARTS = {
    "train": TrainSettings,
    "optimizer": OptimizerSettings,
    "adapter": AdapterSettings,
    "loss": LossSettings,
}
_OWN = "(own)"


def run_report(folder: Path) -> str:
    """The report on the run in `folder`, a few dozen lines.

    Raises:
        OSError: The run's settings cannot be read.
    """
    run, record = read_run(folder), _record(folder)
    secrets = set(_secrets(folder, run, record))
    told = [f"- {one['level']}: {anonymous(one['text'], secrets)}" for one in run.notes]
    return "\n".join(
        [
            "Masked LoRA report",
            *_machine(),
            "",
            *_outcome(folder, run),
            *_settings(record),
            *(["", "Told at the start:", *told] if told else []),
            *(["", f"Last error: {anonymous(run.failed, secrets)}"] if run.failed else []),
        ]
    )


def _machine() -> list[str]:
    device = comfy.model_management.get_torch_device()
    versions = {
        "masked-lora": _pack_version(),
        "ComfyUI": comfyui_version.__version__,
        **{name: _version(package) for name, package in _PACKAGES.items()},
        "torch": torch.__version__,
        "CUDA": torch.version.cuda,
        "HIP": getattr(torch.version, "hip", None),
        "Python": platform.python_version(),
    }
    # What follows the number is whatever somebody called their kernel.
    release = re.match(r"[\d.]*", platform.release())
    system = f"{platform.system()} {release[0] if release else ''}".strip()
    memory = in_bytes(psutil.virtual_memory().total)
    card = card_name(device) + (f", {in_bytes(card_memory(device))}" if card_memory(device) else "")
    return [
        "Versions: " + ", ".join(f"{name} {version}" for name, version in versions.items() if version),
        f"System: {system}, {platform.machine()}, {psutil.cpu_count()} cores, {memory}",
        f"Card: {card}",
    ]


def _outcome(folder: Path, run: PastRun) -> list[str]:
    identity = read_document(folder / "settings.json") or {}
    total = "" if run.total is None else f" of {run.total}"
    family, dtype = (re.sub(r"[^\w. -]", "", str(identity.get(key, "?"))) for key in ("family", "dtype"))
    numbers = {k: v for k, v in run.summary.items() if fits(v, float)}
    summary = [f"Numbers: {', '.join(f'{key} {value:.4g}' for key, value in numbers.items())}"] if numbers else []
    steps = ", ".join(map(str, run.checkpoints)) or "none"
    return [f"Run: {run.state}, step {run.step}{total}, family {family}, {dtype}", f"Checkpoints: {steps}", *summary]


def _settings(record: dict[str, Any]) -> list[str]:
    """What is not at its default, part by part; then the data sets."""
    kinds = {**_PARTS, "cache": CacheSettings}
    given = {**record, **(record.get("extra") if isinstance(record.get("extra"), dict) else {})}
    lines = []
    for part, kind in kinds.items():
        values = given.get(part)
        if isinstance(values, dict):
            usual = dataclasses.asdict(kind())
            changed = {k: v for k, v in _harmless(values).items() if k in usual and _listed(usual[k]) != values[k]}
            lines.append(f"{part}: {_words(changed) or 'all at their defaults'}")
    sets = record.get("datasets")
    for number, one in enumerate(sets if isinstance(sets, list) else [], 1):
        if isinstance(one, dict):
            kept = {key: one.get(key) for key in ("images", "num_repeats", "regularisation", "settings")}
            lines.append(f"data set {number}: {_words(_harmless(kept))}")
    return lines


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _words(values: dict[str, Any]) -> str:
    each = ((k, f"({_words(v)})" if isinstance(v, dict) else v) for k, v in values.items() if v not in ("", None))
    return ", ".join(f"{key} {value}" for key, value in each)


def _harmless(value: Any) -> Any:
    """Numbers and choices as they are; of any other text only that there is one."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, str):
        return value if value in _choices() else _OWN
    if isinstance(value, (list, tuple)):
        return [_harmless(one) for one in value]
    return {key: _harmless(one) for key, one in value.items() if key.isidentifier()}


@functools.cache
def _choices() -> frozenset[str]:
    """Every text that a setting offers by itself."""
    kinds = [one for one in vars(settings_module).values() if isinstance(one, type) and dataclasses.is_dataclass(one)]
    fields = [field for kind in kinds for field in dataclasses.fields(kind)]
    offered = {one for field in fields for one in field.metadata.get("choices", ())}
    return frozenset(offered | {f.default for f in fields if isinstance(f.default, str)} | set(PRESETS) | {""})


def _record(folder: Path) -> dict[str, Any]:
    return (read_document(folder / RECORD, {"record": dict}) or {"record": {}})["record"]


def _secrets(folder: Path, run: PastRun, record: dict[str, Any]) -> Iterator[str]:
    """What is somebody's own of what stands in sentences about the run."""
    yield from (run.label, run.name, run_name(folder), folder.name, *read_told(folder).names)
    yield from (Path.home().name, platform.node(), _user())
    roots = [folder_paths.base_path, folder_paths.models_dir, *map(str, allowed_roots()), str(Path.home())]
    yield from sorted(roots, key=len, reverse=True)
    for source in read_sources(folder):
        yield from (source.name, source.sample, source.file, Path(source.file).name, Path(source.file).stem)
    tags = record.get("tag_frequency")
    yield from (tag for counts in _dicts(tags) for tag in counts)
    prompt = (read_graph(folder) or {}).get("prompt")
    widgets = [one.get("inputs") for one in _dicts(prompt)]
    texts = _texts([record.get("trigger"), record.get("datasets"), widgets])
    yield from (one for one in texts if len(one) > 2 and one not in _choices())


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [one for one in value.values() if isinstance(one, dict)] if isinstance(value, dict) else []


def _texts(value: Any) -> Iterator[str]:
    """All texts in JSON, and of several lines each line too."""
    if isinstance(value, str):
        yield value
        yield from value.splitlines()
    elif isinstance(value, dict):
        yield from (text for one in value.values() for text in _texts(one))
    elif isinstance(value, list):
        yield from (text for one in value for text in _texts(one))


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return ""


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _pack_version() -> str:
    try:
        text = (Path(__file__).resolve().parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    except OSError:
        return "?"
    found = re.search(r'^version = "([\w.+-]+)"', text, re.MULTILINE)
    return found[1] if found else "?"
