"""The model families that can be trained; a new one is a file in this folder with a `FAMILY` in it."""

import functools
import importlib
import pkgutil

from torch import nn

from ...errors import FamilyError
from .family import (
    FAMILY_GUIDANCE,
    Blocks,
    Defaults,
    DiffusersNames,
    Family,
    Note,
    References,
    Resolved,
    Slot,
    attention_and_mlp,
    family_fault,
    with_defaults,
)
from .generic import generic_family


@functools.cache
def families() -> tuple[Family, ...]:
    """Every family in this folder, by name; read once.

    Raises:
        FamilyError: A file cannot be read, says something that cannot be, or two claim the same model configuration;
            names the files.
    """
    found: dict[str, Family] = {}
    owners: dict[str, str] = {}
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda module: module.name):
        family = _read(module.name)
        if family is None:
            continue
        for config in (*family.configs, f"name {family.name}"):
            if config in owners:
                raise FamilyError(f"families: {module.name}.py and {owners[config]}.py both claim {config}.")
            owners[config] = module.name
        found[family.name] = family
    return tuple(found.values())


def _read(name: str) -> Family | None:
    """The family in a file of this folder; None where it only helps others."""
    try:
        module = importlib.import_module(f"{__name__}.{name}")
    except Exception as error:
        raise FamilyError(
            f"families: {name}.py cannot be read: {type(error).__name__}: {error}. Correct this file or take it away."
        ) from error
    family = getattr(module, "FAMILY", None)
    if family is None and not any(isinstance(value, Family) for value in vars(module).values()):
        return None
    fault = family_fault(family)
    if fault:
        raise FamilyError(f"families: {name}.py {fault}. Correct this file or take it away.")
    return family


def find_family(config: str, network: nn.Module, *, unknown: bool = False) -> Family:
    """The family to which a model belongs.

    Args:
        config: Class name of ComfyUI's model configuration.
        network: The diffusion network.
        unknown: Whether a model of no known family is taken as `generic_family` makes one.

    Raises:
        FamilyError: If it belongs to none; the message lists those that are known, and how to train it nevertheless.
    """
    for family in families():
        if config in family.configs:
            return family
    if unknown:
        return generic_family(config, network)
    known = ", ".join(f.title for f in families())
    raise FamilyError(
        f"model: this pack does not know {config}. Connect a MODEL of one of these families: {known}. Or switch on "
        "unknown_model in Train Masked LoRA: it is then trained with targets and defaults that no one has tried for it."
    )


__all__ = [
    "FAMILY_GUIDANCE",
    "Blocks",
    "Defaults",
    "DiffusersNames",
    "Family",
    "Note",
    "References",
    "Resolved",
    "Slot",
    "attention_and_mlp",
    "families",
    "find_family",
    "generic_family",
    "with_defaults",
]
