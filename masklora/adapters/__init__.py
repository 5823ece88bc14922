"""LoRA modules in a model, and their names in files."""

from .adapter_set import AdapterSet, select_targets
from .lora_keys import Factors, from_file, stem_aliases, to_comfyui, to_diffusers

__all__ = [
    "AdapterSet",
    "Factors",
    "from_file",
    "select_targets",
    "stem_aliases",
    "to_comfyui",
    "to_diffusers",
]
