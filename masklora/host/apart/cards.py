"""How many processes may train together on this machine."""

from __future__ import annotations

import os
from dataclasses import dataclass

import comfy.model_management
import torch


@dataclass(frozen=True)
class Choices:
    """What a person may choose.

    Attributes:
        cards: that torch sees; 0 where this ComfyUI computes on the CPU, or on what is no CUDA or ROCm card.
        most: processes.
        usual: how many without a choice.
    """

    cards: int
    most: int
    usual: int


def choices() -> Choices:
    """Of this machine and this ComfyUI, which may see fewer cards than there are."""
    device = comfy.model_management.get_torch_device().type
    if device == "cuda":
        cards = torch.cuda.device_count()
        return Choices(cards, cards, cards)
    # Together they send by way of main memory, but each takes a card of its own only where it is CUDA's.
    return Choices(0, (os.cpu_count() or 1) if device == "cpu" else 1, 1)
