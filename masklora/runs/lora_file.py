"""LoRA files: their metadata, their dtype, and a write that never replaces what is there.

How tensors are named in a file is decided by `adapters.keys`; here they are only cast and written.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import hashlib
import itertools
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from ..errors import RunError
from ..files import cannot_write, clear_leftovers, on_disk, write_new_bytes
from ..loss.leak import MEASURES
from ..settings import (
    DTYPES,
    TLORA,
    AdapterSettings,
    LossSettings,
    MaskTransform,
    OptimizerSettings,
    TrainSettings,
    check_choice,
)

NAMESPACE = "masklora."
FORMAT_VERSION = "1"
MODELSPEC_VERSION = "1.0.1"
LEGACY_HASH_START, LEGACY_HASH_LENGTH = 0x100000, 0x10000
_MAGNITUDES = (".dora_scale", ".lora_magnitude_vector")
_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class ModelLabels:
    """How tools name the base model.

    Attributes:
        base_version: kohya's name: sd_v1, sdxl_base_v1-0, sd3, flux1 …
        architecture: ModelSpec's name without `/lora`: stable-diffusion-xl-v1-base, flux-1-dev …
        implementation: ModelSpec's address of the reference implementation.
        prediction: epsilon, v or flow.
        name: file name of the base model, if it is known.
    """

    base_version: str
    architecture: str
    implementation: str = ""
    prediction: str = "epsilon"
    name: str = ""


@dataclass(frozen=True)
class LoraRecord:
    """Everything about a trained LoRA that its metadata tells.

    Attributes:
        name: output name without suffix.
        model: the base model.
        rank: of the adapters, resolved from the family's default.
        alpha: likewise.
        steps: finished.
        learning_rate: resolved.
        resolution: (width, height) of the training pictures' budget.
        title: for people; the name if empty.
        trigger: word that asks for the subject; may be empty.
        network_module: kohya's name of the algorithm's module.
        adapter: settings.
        loss: settings, every mask setting among them.
        optimizer: settings.
        train: settings.
        masks: the pixel transforms of the data set's masks.
        datasets: one JSON-able dict per data set: name, images, repeats, regularisation, mask source …
        tag_frequency: {data set: {tag: count}}.
        summary: of the run: coverage, loss inside and outside, see `metrics.summarise`.
        extra: further JSON-able values for our own namespace.
        started: seconds since 1970, 0 for unknown.
        finished: seconds since 1970.
    """

    name: str
    model: ModelLabels
    rank: int
    alpha: float
    steps: int
    learning_rate: float
    resolution: tuple[int, int]
    title: str = ""
    trigger: str = ""
    network_module: str = "networks.lora"
    adapter: AdapterSettings = field(default_factory=AdapterSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    masks: Sequence[MaskTransform] = ()
    datasets: Sequence[Mapping[str, Any]] = ()
    tag_frequency: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    summary: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    started: float = 0.0
    finished: float = 0.0

    def of_expert(self, expert: str) -> LoraRecord:
        """That of one of two models that were trained by turns: its name is told, and the numbers of its own steps."""
        own = self.summary.get("experts", {}).get(expert, {})
        return dataclasses.replace(self, summary={**self.summary, **own}, extra={**self.extra, "expert": expert})


def lora_metadata(record: LoraRecord, tensors: Mapping[str, Tensor] | None = None) -> dict[str, str]:
    """The metadata of a LoRA file, every value a string.

    Three vocabularies: kohya's `ss_*` and `sshs_*`, which web interfaces read, Stability's `modelspec.*`,
    and our own `masklora.*` with every mask and loss setting and what the mask did.

    Args:
        record: what to tell.
        tensors: the file's tensors as they will be written, for the two hashes; without them, none.

    Returns:
        A flat dict of strings. Unknown values are left out.
    """
    metadata = _kohya(record) | _modelspec(record) | _own(record)
    metadata = {key: value for key, value in metadata.items() if value != ""}
    if tensors is not None:
        full, legacy = model_hashes(tensors, metadata)
        metadata |= {"sshs_model_hash": full, "sshs_legacy_hash": legacy}
        metadata["modelspec.hash_sha256"] = f"0x{full}"
    return metadata


def _kohya(record: LoraRecord) -> dict[str, str]:
    train, optimizer, loss = record.train, record.optimizer, record.loss
    values: dict[str, Any] = {
        "ss_output_name": record.name,
        "ss_sd_model_name": record.model.name,
        "ss_base_model_version": record.model.base_version,
        "ss_v2": "False",
        "ss_network_module": record.network_module,
        "ss_network_dim": record.rank,
        "ss_network_alpha": f"{record.alpha:g}",
        "ss_network_args": json.dumps(_network_args(record.adapter)),
        "ss_resolution": str(tuple(record.resolution)),
        "ss_steps": record.steps,
        "ss_max_train_steps": record.steps,
        "ss_num_epochs": train.epochs or "",
        "ss_learning_rate": f"{record.learning_rate:g}",
        "ss_unet_lr": f"{record.learning_rate:g}",
        "ss_optimizer": optimizer.optimizer,
        "ss_lr_scheduler": optimizer.schedule,
        "ss_lr_warmup_steps": optimizer.warmup_steps,
        "ss_max_grad_norm": f"{optimizer.clip_norm:g}",
        "ss_seed": train.seed,
        "ss_total_batch_size": train.batch_size * train.gradient_accumulation,
        "ss_gradient_accumulation_steps": train.gradient_accumulation,
        "ss_gradient_checkpointing": str(train.checkpointing != "off"),
        "ss_noise_offset": f"{loss.noise_offset:g}" if loss.noise_offset else "",
        "ss_min_snr_gamma": f"{loss.snr_gamma:g}" if loss.timestep_weight.startswith("min-snr") else "",
        "ss_zero_terminal_snr": str(loss.zero_terminal_snr),
        "ss_num_train_images": _count(record.datasets, regularisation=False),
        "ss_num_reg_images": _count(record.datasets, regularisation=True),
        "ss_datasets": json.dumps([dict(d) for d in record.datasets]),
        "ss_tag_frequency": json.dumps({k: dict(v) for k, v in record.tag_frequency.items()}),
        "ss_training_started_at": record.started or "",
        "ss_training_finished_at": record.finished or "",
    }
    return {key: str(value) for key, value in values.items()}


def _network_args(adapter: AdapterSettings) -> dict[str, Any]:
    """What LyCORIS, whose names these are, would be told."""
    factor = {"factor": adapter.lokr_factor or -1} if adapter.algorithm == "lokr" else {}
    # The file of a T-LoRA is a plain one; how it was learned is in our own namespace.
    return {"algo": "lora" if adapter.algorithm == TLORA else adapter.algorithm, **factor}


def _count(datasets: Sequence[Mapping[str, Any]], *, regularisation: bool) -> int:
    matching = (d for d in datasets if bool(d.get("regularisation")) == regularisation)
    return sum(int(d.get("images", 0)) for d in matching)


def _modelspec(record: LoraRecord) -> dict[str, str]:
    moment = datetime.datetime.fromtimestamp(record.finished, tz=datetime.timezone.utc)
    return {
        "modelspec.sai_model_spec": MODELSPEC_VERSION,
        "modelspec.architecture": f"{record.model.architecture}/lora",
        "modelspec.implementation": record.model.implementation,
        "modelspec.title": record.title or record.name,
        "modelspec.date": moment.isoformat(timespec="seconds") if record.finished else "",
        "modelspec.resolution": "{}x{}".format(*record.resolution),
        "modelspec.prediction_type": record.model.prediction,
        "modelspec.trigger_phrase": record.trigger,
        "modelspec.usage_hint": f"Use the word {record.trigger}." if record.trigger else "",
    }


def _own(record: LoraRecord) -> dict[str, str]:
    values: dict[str, Any] = {
        "version": FORMAT_VERSION,
        "loss": dataclasses.asdict(record.loss),
        "masks": [dataclasses.asdict(m) for m in record.masks],
        "adapter": dataclasses.asdict(record.adapter),
        "optimizer": dataclasses.asdict(record.optimizer),
        "train": dataclasses.asdict(record.train),
        "summary": dict(record.summary),
        "leak": {name: record.summary[name] for name in MEASURES if record.summary.get(name) is not None} or "",
        **record.extra,
    }
    return {
        NAMESPACE + key: value if isinstance(value, str) else json.dumps(value, sort_keys=True)
        for key, value in values.items()
    }


def model_hashes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> tuple[str, str]:
    """The two hashes by which web interfaces recognise a LoRA whatever its other metadata.

    Args:
        tensors: as they will be written.
        metadata: only its `ss_*` part enters, since people edit the rest.

    Returns:
        SHA-256 of all tensor bytes (64 hex digits), and the older hash: 8 digits of the SHA-256 of 64 KiB
        from 1 MiB on, the same for all smaller files.
    """
    lasting = {key: value for key, value in metadata.items() if key.startswith("ss_")}
    data = safetensors.torch.save(on_disk(tensors), metadata=lasting)
    header = int.from_bytes(data[:8], "little")
    legacy = data[LEGACY_HASH_START : LEGACY_HASH_START + LEGACY_HASH_LENGTH]
    return hashlib.sha256(memoryview(data)[8 + header :]).hexdigest(), hashlib.sha256(legacy).hexdigest()[:8]


def tag_frequency(captions: Iterable[tuple[str, str]], *, separator: str = ",") -> dict[str, dict[str, int]]:
    """How often each tag stands in the captions of each data set.

    Args:
        captions: (name of the data set, caption).
        separator: between tags.
    """
    counts: dict[str, Counter[str]] = {}
    for dataset, caption in captions:
        tags = (tag.strip() for tag in caption.split(separator))
        counts.setdefault(dataset, Counter()).update(tag for tag in tags if tag)
    return {dataset: dict(counter.most_common()) for dataset, counter in counts.items()}


def cast_tensors(tensors: Mapping[str, Tensor], *, dtype: str) -> dict[str, Tensor]:
    """Detached, contiguous, unshared CPU copies in the file's dtype.

    Alphas (0-d) and DoRA's magnitudes stay float32: a scale that is rounded is wrong for all of a layer, and a
    magnitude carries the length of the whole weight, beside which the change is small.

    Args:
        tensors: of the LoRA, by their names in the file.
        dtype: float32, float16 or bfloat16.

    Raises:
        ConfigError: unknown dtype.
        RunError: a weight is not finite, or too large for float16; names it.
    """
    kind = _DTYPES[check_choice("dtype", dtype, DTYPES)]
    out: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        wanted = torch.float32 if tensor.ndim == 0 or name.endswith(_MAGNITUDES) else kind
        cast = tensor.detach().to("cpu", dtype=wanted, copy=True).contiguous()
        if not bool(torch.isfinite(cast).all()):
            finite = bool(torch.isfinite(tensor).all())
            why = f"is too large for {dtype}. Choose bfloat16 or float32" if finite else "is not finite"
            raise RunError(f"{name}: this weight {why}.")
        out[name] = cast
    return out


def write_lora(path: Path, tensors: Mapping[str, Tensor], *, metadata: Mapping[str, str], dtype: str) -> Path:
    """The path of the written LoRA file: `path`, or `<stem>_00001_.safetensors` … where that is taken.

    The file appears whole under its name or not at all, and never takes the place of another.

    Args:
        path: wanted place; the suffix .safetensors is added if it is missing.
        tensors: by their names in the file.
        metadata: strings, see `lora_metadata`; its hashes hold only if they were made from tensors of
            this dtype, see `cast_tensors`.
        dtype: float32, float16 or bfloat16.

    Raises:
        RunError: the folder cannot be written, the disk is full, or a weight does not fit the dtype.
    """
    if path.suffix != ".safetensors":
        path = path.with_name(path.name + ".safetensors")
    content = lora_bytes(cast_tensors(tensors, dtype=dtype), metadata)
    make_parents(path)
    for candidate in candidates(path):
        if not os.path.lexists(candidate):
            with contextlib.suppress(FileExistsError):
                write_new_bytes(candidate, content)
                return candidate
    raise AssertionError


def lora_bytes(ready: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """The content of a LoRA file of tensors that `cast_tensors` gave."""
    return safetensors.torch.save(dict(ready), metadata=dict(metadata))


def make_parents(path: Path) -> None:
    """Make the folder of a file that is about to be written, and clear what a killed writer left there.

    Raises:
        RunError: it cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error
    clear_leftovers(path.parent)


def candidates(path: Path) -> Iterator[Path]:
    """`path`, then `<stem>_00001_.safetensors` and so on: the names a file may get, in order."""
    yield path
    for number in itertools.count(1):
        yield path.with_name(f"{path.stem}_{number:05}_{path.suffix}")


def free_name(path: Path) -> Path:
    """The first of `candidates` that is not taken now."""
    return next(one for one in candidates(path) if not os.path.lexists(one))


def lora_model(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What ComfyUI's LORA_MODEL socket carries: detached, contiguous, unshared CPU tensors, alphas 0-d."""
    return on_disk(tensors)
