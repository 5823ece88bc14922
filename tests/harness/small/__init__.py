"""Small models of every family: one file each, with what ComfyUI detects it by and what its text encoder gives."""

import functools
import importlib
import pkgutil

from ..damage import ALL
from .small import Small


@functools.cache
def small_models() -> dict[str, Small]:
    """By name, in the order of their files; the first of a file has the family's own name."""
    found: dict[str, Small] = {}
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda module: module.name):
        found |= getattr(importlib.import_module(f"{__name__}.{module.name}"), "SMALL", {})
    return found


def tried() -> list[str]:
    """Names of those that a test goes through: one a family and none that takes long, or all where all tests run."""
    usual = [name for name, small in small_models().items() if small.family == name and not small.slow]
    return list(small_models()) if ALL else usual


def widely() -> list[str]:
    """Names of those that slow tests go through: one of each way that networks are built, or all where all tests run.

    U-Nets; joint blocks; double and single blocks; one stream; a text's own projection; clips.
    """
    return tried() if ALL else ["sd15", "sd3", "flux", "z_image", "qwen_image", "wan"]


__all__ = ["Small", "small_models", "tried", "widely"]
