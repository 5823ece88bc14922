"""Layer names of other tools for a loaded model, from ComfyUI's own map of LoRA keys."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import comfy.lora
import comfy.utils
import torch

from ...adapters.layers import is_linear
from ...adapters.lora_keys import Slice, stem_aliases
from ..families import DiffusersNames, Family

_PREFIX, _WEIGHT = "diffusion_model.", ".weight"
_DIFFUSERS = "transformer."


@dataclass(frozen=True)
class LayerNames:
    """Names of one model's layers.

    Attributes:
        kohya: Module path → stem, where kohya's tools use diffusers' names (SD 1.5); else empty.
        diffusers: Module path → layers in it as diffusers' loaders know them; empty where they know none.
        diffusers_prefix: What stands before such a name in a file.
        aliases: Every stem of a LoRA file that stands for a whole layer → module path.
    """

    kohya: dict[str, str]
    diffusers: dict[str, list[Slice]]
    diffusers_prefix: str
    aliases: dict[str, str]


def adaptable_layers(network: torch.nn.Module) -> list[str]:
    """Paths of the layers that may be adapted."""
    return [
        path for path, module in network.named_modules() if is_linear(module) or isinstance(module, torch.nn.Conv2d)
    ]


def layer_names(model: Any, family: Family) -> LayerNames:
    """The names in other tools of the layers of ComfyUI's BaseModel `model`, which belongs to `family`."""
    # Its values are keys of weights, or such a key with the rows of a part.
    known = comfy.lora.model_lora_keys_unet(model, {})
    paths = adaptable_layers(model.diffusion_model)
    loaded = family.diffusers
    slices = _transformer_slices(known, model, loaded.preferred if loaded else "")
    unet = {
        name.removesuffix(_WEIGHT): path.removesuffix(_WEIGHT)
        for name, path in comfy.utils.unet_to_diffusers(model.model_config.unet_config).items()
        if name.endswith(_WEIGHT)
    }
    whole = unet or {parts[0][0]: path for path, parts in slices.items() if len(parts) == 1 and not parts[0][2]}
    adaptable = set(paths)
    aliases = {stem: _path(key) for stem, key in known.items() if isinstance(key, str) and _path(key) in adaptable}
    return LayerNames(
        kohya={path: name for name, path in unet.items()} if family.kohya_as_diffusers else {},
        diffusers=_loaded_by_diffusers(slices, paths, loaded) if loaded else {},
        diffusers_prefix=loaded.prefix if loaded else "",
        aliases=aliases | stem_aliases(paths, diffusers=whole),
    )


def _loaded_by_diffusers(
    slices: dict[str, list[Slice]], paths: list[str], loaded: DiffusersNames
) -> dict[str, list[Slice]]:
    """The names of the layers that diffusers' loaders take."""
    own: dict[str, list[Slice]] = {path: [(path, 0, 0)] for path in paths}
    names = own if f"{loaded.prefix}." == _PREFIX else slices
    return {path: parts for path, parts in names.items() if re.fullmatch(loaded.layers, path)}


def _path(key: str) -> str:
    return key.removeprefix(_PREFIX).removesuffix(_WEIGHT)


def _transformer_slices(known: dict[str, Any], model: Any, preferred: str) -> dict[str, list[Slice]]:
    """Diffusers layers by module path: parts of ours where these make up all of it, else one name of the whole.

    ComfyUI's table has second names for the same rows, of other models than this one too.
    """
    named: dict[str, list[Slice]] = {}
    for name, target in known.items():
        if not name.startswith(_DIFFUSERS):
            continue
        key, place = (target[0], target[1]) if isinstance(target, tuple) else (target, (0, 0, 0))
        if place is None:
            continue  # diffusers stores this layer rearranged: no LoRA of ours fits it
        named.setdefault(_path(key), []).append((name.removeprefix(_DIFFUSERS), place[1], place[2]))
    weights = model.state_dict()
    out = {}
    for path, names in named.items():
        names.sort(key=lambda part: not re.fullmatch(preferred, part[0]))
        parts: list[Slice] = []
        for part in names:
            if part[2] and not any(_overlap(part, other) for other in parts):
                parts.append(part)
        weight = weights.get(f"{_PREFIX}{path}{_WEIGHT}")
        if weight is not None and sum(part[2] for part in parts) == weight.shape[0]:
            out[path] = parts
        elif whole := [part for part in names if not part[2]]:
            out[path] = whole[:1]
    return out


def _overlap(one: Slice, other: Slice) -> bool:
    return one[1] < other[1] + other[2] and other[1] < one[1] + one[2]
