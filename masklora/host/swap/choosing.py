"""Which blocks are swapped, and how many."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import comfy.model_management
import torch
from torch import nn

from ...findings import counted
from ..families import Blocks
from .block_swap import BlockSwap, block_bytes, slot_bytes
from .copies import copies_for

AS_MANY_AS_NEEDED = -1


def choose_swap(
    network: nn.Module, blocks: Sequence[tuple[nn.Module, Blocks]], asked: int, *, device: torch.device, needed: int
) -> tuple[BlockSwap, int, str]:
    """What the setting `swap_blocks` means for a network.

    Args:
        network: What is trained.
        blocks: Its blocks, each with what the family says of it.
        asked: The setting: a number of blocks, or as many as needed.
        device: Where it is trained.
        needed: Bytes that the training takes there without swap, weights included.

    Returns:
        The swap, the bytes that the device holds less by it, and a line about it.
    """
    copies = copies_for(device)
    if copies is None:
        return (
            BlockSwap(),
            0,
            f"swap_blocks: a training on the {device.type} computes in main memory; nothing is swapped.",
        )
    ordered = in_order(network, blocks)
    sizes = [block_bytes(block) for block in ordered]
    count = min(asked, len(ordered))
    if asked == AS_MANY_AS_NEEDED:
        count = blocks_to_swap(sizes, missing=needed - _room(device))
    chosen = [ordered[i] for i in spread(count, len(ordered))]
    saved = saved_bytes(sizes, count)
    return BlockSwap(chosen, device=device, copies=copies), saved, _line(asked, count, len(ordered), saved)


def _room(device: torch.device) -> int:
    """Bytes that are free on the device once ComfyUI has unloaded all models, without those that it keeps free."""
    management = comfy.model_management
    loaded = sum(one.model_loaded_memory() for one in management.current_loaded_models if one.device == device)
    return int(management.get_free_memory(device) + loaded - management.extra_reserved_memory())


def _line(asked: int, count: int, total: int, saved: int) -> str:
    blocks = f"{count} of the model's {counted(total, '[block|blocks]')}"
    if not count:
        return f"swap_blocks: there is room for all of the model's {counted(total, '[block|blocks]')}; none is swapped."
    line = f"swap_blocks: {blocks} wait in main memory, which takes {saved / 2**30:.2f} GiB from the device."
    return f"{line} It has no more than {total}." if asked > total else line


def in_order(network: nn.Module, blocks: Sequence[tuple[nn.Module, Blocks]]) -> list[nn.Module]:
    """The blocks that are in no other block, in the order in which the network most likely runs them.

    Kinds that take turns in the network are run as they stand there, others one after another as they are given.
    """
    inside = {id(m) for block, _ in blocks for m in block.modules() if m is not block}
    outer = {id(block): id(kind) for block, kind in blocks if id(block) not in inside}
    standing = [module for module in network.modules() if id(module) in outer]
    turns = sum(outer[id(a)] != outer[id(b)] for a, b in itertools.pairwise(standing))
    if turns >= len(set(outer.values())):
        return standing
    given = list(outer)
    return sorted(standing, key=lambda block: given.index(id(block)))


def spread(count: int, total: int) -> list[int]:
    """`count` of the numbers below `total`, evenly: others work while a block is brought."""
    return [(2 * i + 1) * total // (2 * count) for i in range(count)]


def blocks_to_swap(sizes: Sequence[int], missing: int) -> int:
    """How many blocks of these sizes, in their order, have to be swapped so that the device holds `missing` bytes less.

    All if that is not enough; the slots are reckoned with.
    """
    for count in range(len(sizes) + 1):
        if saved_bytes(sizes, count) >= missing:
            return count
    return len(sizes)


def saved_bytes(sizes: Sequence[int], count: int) -> int:
    """Bytes that the device holds less with `count` blocks swapped; of very few the slots take more than they save."""
    swapped = [sizes[i] for i in spread(count, len(sizes))]
    return sum(swapped) - slot_bytes(swapped)
