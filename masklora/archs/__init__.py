"""The model families that can be trained; add a file and one line here for a new one."""

from ..errors import FamilyError
from .family import Family, Resolved, TokenLayout, check_tokens, resolve
from .flux import FLUX
from .sd3 import SD3
from .sd15 import SD15
from .sdxl import SDXL

FAMILIES: tuple[Family, ...] = (SD15, SDXL, SD3, FLUX)


def find_family(config: str) -> Family:
    """The family to which ComfyUI's model configuration `config` (a class name) belongs.

    Raises:
        FamilyError: If it belongs to none; the message lists those that can be trained.
    """
    for family in FAMILIES:
        if config in family.configs:
            return family
    known = ", ".join(f.title for f in FAMILIES)
    raise FamilyError(f"model: {config} cannot be trained yet. Connect a MODEL of one of these families: {known}.")


__all__ = ["FAMILIES", "Family", "Resolved", "TokenLayout", "check_tokens", "find_family", "resolve"]
