"""Adapters in a model, and their names in files."""

from .adapter_set import AdapterSet
from .changes import Change
from .lora_keys import Factors, Learned, from_file, from_weights, stem_aliases, to_comfyui, to_diffusers
from .targets import Layers, choose_layers, ranks_by_layer, select_targets

__all__ = [
    "AdapterSet",
    "Change",
    "Factors",
    "Layers",
    "Learned",
    "choose_layers",
    "from_file",
    "from_weights",
    "ranks_by_layer",
    "select_targets",
    "stem_aliases",
    "to_comfyui",
    "to_diffusers",
]
