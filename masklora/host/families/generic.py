"""A family made from the network itself, for models that this pack does not know."""

from __future__ import annotations

import re

from torch import nn

from ...adapters.layers import is_linear
from ...errors import FamilyError
from .family import Blocks, Defaults, Family, attention_and_mlp

# What tells the blocks of the time and the text, not the picture: layers that trainers leave alone.
_MODULATION = r"(?!.*(mod|norm|ada|time|emb))"
_ATTENTION = r".*attn|.*attention"


def generic_family(config: str, network: nn.Module) -> Family:
    """A family for a network about which only its modules are known.

    Its targets are the linear layers of the blocks that it repeats, its modulation left out; those with "attn" or
    "attention" in their path are its attention. Blocks are taken to write to their inputs, which costs a copy of
    each; how tokens pass them is not known, so no setting may act on them.

    Args:
        config: Name of ComfyUI's model configuration.
        network: The diffusion network.

    Raises:
        FamilyError: It repeats no blocks.
    """
    lists = _repeated(network)
    if not lists:
        raise FamilyError(f"model: {config} repeats no blocks that could be trained. Connect another MODEL.")
    inside = rf"({'|'.join(map(re.escape, lists))})\.\d+\."
    attention = rf"{inside}{_MODULATION}({_ATTENTION}).*"
    targets = attention_and_mlp(attention, rf"{inside}{_MODULATION}.*")
    return Family(
        name="unknown",
        title=config,
        configs={config: 0.0},
        blocks=tuple(Blocks(path=rf"{re.escape(path)}\.\d+") for path in lists),
        targets=targets,
        architecture=config.lower(),
        base_model_version=config.lower(),
        predictions=("epsilon", "v", "flow"),
        patch=_patch(network),
        mutates=True,
        defaults=Defaults(
            learning_rate=1e-4,
            rank=16,
            alpha=16.0,
            steps=2000,
            timestep_sampling="uniform",
            source="none: what most families of this pack begin with",
        ),
    )


def _repeated(network: nn.Module) -> list[str]:
    """Paths of the outermost lists of blocks of one class with linear layers in them, where one list has two or more.

    A list of containers, as U-Nets have, is looked into: what is called and repeated is in them.
    """
    lists = {path: module for path, module in network.named_modules() if isinstance(module, nn.ModuleList)}
    alike = {path: {type(block) for block in blocks} for path, blocks in lists.items()}
    kinds = {kind for path, (kind, *others) in alike.items() if len(lists[path]) > 1 and not others}
    found: list[str] = []
    for path, blocks in lists.items():
        (kind, *others) = alike[path]
        is_inside = any(path.startswith(f"{p}.") for p in found)
        if others or is_inside or kind not in kinds or issubclass(kind, nn.Sequential):
            continue
        if any(is_linear(layer) for layer in blocks[0].modules()):
            found.append(path)
    return found


def _patch(network: nn.Module) -> tuple[int, int, int]:
    given = getattr(network, "patch_size", 1)
    if isinstance(given, (tuple, list)):
        sides = [int(side) for side in given]
        return (1, 1, *sides)[-3:]  # type: ignore[return-value]
    return (1, int(given), int(given)) if isinstance(given, int) else (1, 1, 1)
