"""The model families that can be trained; a new one is a file in this folder with a `FAMILY` in it."""

import functools
import importlib
import pkgutil

from ..errors import FamilyError
from .family import (
    FAMILY_GUIDANCE,
    Blocks,
    Defaults,
    Family,
    Resolved,
    Slot,
    attention_and_mlp,
    check_tokens,
    resolve,
)


@functools.cache
def families() -> tuple[Family, ...]:
    """Every family in this folder, by name; read once.

    Raises:
        FamilyError: Two claim the same model configuration; names both files.
    """
    found: dict[str, Family] = {}
    owners: dict[str, str] = {}
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda module: module.name):
        family = getattr(importlib.import_module(f"{__name__}.{module.name}"), "FAMILY", None)
        if family is None:
            continue
        for config in (*family.configs, f"name {family.name}"):
            if config in owners:
                raise FamilyError(f"families: {module.name}.py and {owners[config]}.py both claim {config}.")
            owners[config] = module.name
        found[family.name] = family
    return tuple(found.values())


def find_family(config: str) -> Family:
    """The family to which ComfyUI's model configuration `config` (a class name) belongs.

    Raises:
        FamilyError: If it belongs to none; the message lists those that can be trained.
    """
    for family in families():
        if config in family.configs:
            return family
    known = ", ".join(f.title for f in families())
    raise FamilyError(f"model: {config} cannot be trained yet. Connect a MODEL of one of these families: {known}.")


__all__ = [
    "FAMILY_GUIDANCE",
    "Blocks",
    "Defaults",
    "Family",
    "Resolved",
    "Slot",
    "attention_and_mlp",
    "check_tokens",
    "families",
    "find_family",
    "resolve",
]
