"""LoRA files of ours in diffusers' own loaders: whether what they change there is what they change here."""

from __future__ import annotations

import contextlib
import inspect
import logging
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffusers
import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from masklora.adapters import Factors, to_comfyui
from masklora.host.exporting import LoraTensors, export_lora
from masklora.host.families import find_family
from masklora.host.model.layer_names import adaptable_layers, layer_names
from masklora.host.training import TrainedLora
from masklora.runs.lora_file import LoraRecord, ModelLabels
from masklora.settings import EXPORT_FORMATS, ExportSettings

from ..small import small_models
from .theirs import State, Theirs

# How far apart two changes of a weight may be, relative.
SAME = 1e-5
_RANK, _ALPHA = 4, 3.0
# Columns of a change's picture; see `_seen`.
_COLUMNS = 3
# What its pipelines say where a LoRA is of the network alone.
_NONE_FOR_THE_TEXT = "found with the prefix='text_encoder"


def apart_in_diffusers(name: str, theirs: Theirs, *, targets: str, file_format: str, folder: Path) -> float:
    """How far diffusers' change of the weights lies from ours, relative, in the layer where it is worst.

    Neither has weights of its own here, only the LoRA's.

    Args:
        name: Of the small model.
        theirs: What it is in diffusers.
        targets: The family's preset of layers.
        file_format: Of the file.
        folder: Where it is written.

    Raises:
        AdapterError: Such a file is not offered.
        AssertionError: diffusers leaves something over or lacks something, and says so or not.
    """
    small = small_models()[name]
    model = small.without_weights(theirs.wide or small.config)
    config = model.model_config.unet_config
    trained = _made_up(model, targets, theirs.lacks)
    settings = ExportSettings(format=file_format, dtype="float32")
    (file,) = export_lora(LoraTensors(trained), folder / f"{name} {targets} {file_format}.safetensors", settings)
    with torch.device("meta"):
        network = theirs.network(config).to_empty(device="cpu")
    known = network.state_dict().keys()
    ours = {path: value for path, value in _change_of_ours(theirs, trained.factors, config).items() if path in known}
    found = _change_in_diffusers(theirs, network, file)
    assert ours.keys() == found.keys(), f"{name}: {sorted(ours.keys() ^ found.keys())[:4]} …"
    return max(float((found[path] - ours[path]).norm() / ours[path].norm()) for path in ours)


def formats_in_diffusers(name: str, theirs: Theirs, folder: Path) -> list[str]:
    """The formats of our files of its usual layers that diffusers loads whole, with the same change of the weights."""
    formats = []
    for file_format in EXPORT_FORMATS:
        try:
            apart = apart_in_diffusers(name, theirs, targets="default", file_format=file_format, folder=folder)
        except Exception:
            # Its loaders refuse in as many ways as there are.
            continue
        if apart <= SAME:
            formats.append(file_format)
    return formats


def _made_up(model: Any, targets: str, but: str) -> TrainedLora:
    """A LoRA of random numbers for all layers of a BaseModel without weights, but for some."""
    network = model.diffusion_model
    family = find_family(type(model.model_config).__name__, network)
    names, generator = layer_names(model, family), torch.Generator().manual_seed(0)
    factors = {}
    for path in adaptable_layers(network):
        if re.fullmatch(family.targets[targets], path) and not re.fullmatch(but, path):
            out, *rest = network.get_submodule(path).weight.shape
            down = torch.randn(_RANK, *rest, generator=generator)
            factors[path] = Factors(down, torch.randn(out, _RANK, *[1] * len(rest[1:]), generator=generator), _ALPHA)
    labels = ModelLabels(base_version=family.base_model_version, architecture=family.architecture)
    record = LoraRecord("made up", labels, rank=_RANK, alpha=_ALPHA, steps=1, learning_rate=1.0, resolution=(64, 64))
    # There was no run.
    none: Any = None
    return TrainedLora(factors, to_comfyui(factors, names=names.kohya), names, record, result=none, plan=none)


def _change_in_diffusers(theirs: Theirs, network: nn.Module, file: Path) -> State:
    """How `file` changes those weights of a network of diffusers that it changes, by their names; see `_seen`."""
    pipeline = _pipeline_of(theirs, network)
    load = pipeline.load_lora_weights if theirs.pipeline else pipeline.load_lora_adapter
    with _complaints() as told:
        load(str(file.parent), weight_name=file.name, adapter_name="ours", low_cpu_mem_usage=True)
    told = [message for message in told if _NONE_FOR_THE_TEXT not in message]
    assert not told, "\n".join(told)
    change = {
        f"{name}.weight": _seen(layer.lora_A["ours"].weight, layer.lora_B["ours"].weight * layer.scaling["ours"])
        for name, layer in network.named_modules()
        if isinstance(layer, LoraLayer)
    }
    # A Wan that is shown a picture gets zeros where a LoRA of one that is not has nothing.
    return {path: value for path, value in change.items() if value.any()}


def _pipeline_of(theirs: Theirs, network: nn.Module) -> Any:
    """Its pipeline of nothing but the network, which is what loads LoRAs; the network itself where none does."""
    if not theirs.pipeline:
        return network
    made = getattr(diffusers, theirs.pipeline)
    if issubclass(made, diffusers.ModularPipeline):
        pipeline = made()
        parts = dict(network.named_children())
        pipeline.update_components(**(parts if "transformer" in parts else {"transformer": network}))
        return pipeline
    needed = [p.name for p in inspect.signature(made).parameters.values() if p.default is p.empty]
    part = "unet" if "unet" in needed else "transformer"
    return made(**{**dict.fromkeys(needed), part: network})


def _change_of_ours(theirs: Theirs, factors: dict[str, Factors], config: dict[str, Any]) -> State:
    """How the same LoRA changes ComfyUI's weights, under diffusers' names."""
    ours = {f"{path}.weight": _seen(f.down, f.up * (f.alpha / f.down.shape[0])) for path, f in factors.items()}
    return theirs.state(ours, config)


def _seen(down: Tensor, up: Tensor) -> Tensor:
    """Random views of a change, (out, 3): its product with numbers that depend on the layer's input width alone.

    Rows can be split and swapped in them as in the change itself, which is large where its factors are small.
    """
    width = down[0].numel()
    numbers = torch.randn(width, _COLUMNS, generator=torch.Generator().manual_seed(width))
    return up.detach().float().flatten(1) @ (down.detach().float().flatten(1) @ numbers)


@contextlib.contextmanager
def _complaints() -> Iterator[list[str]]:
    """What diffusers and PEFT warn of meanwhile."""
    told: list[str] = []

    class Heard(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.append(record.getMessage())

    logger, heard = logging.getLogger("diffusers"), Heard(logging.WARNING)
    logger.addHandler(heard)
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            yield told
            told.extend(str(w.message) for w in warned)
    finally:
        logger.removeHandler(heard)
