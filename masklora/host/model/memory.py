"""How much memory a training will take, told before it starts, and how much is in use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import comfy.model_management
import psutil
import torch

from ...settings import OptimizerSettings
from .blocks import block_width
from .trainable import TrainableModel

_STATE_BYTES = {"adamw8bit": 2, "adafactor": 1, "lion": 4, "prodigy": 16, "schedule-free adamw": 8}
# Tensors of a block's input size that autograd keeps per block without checkpointing (counted on SDXL and Flux).
_KEPT_PER_BLOCK = 30
_WORK_PER_BLOCK = 34
# Where no block is known.
_USUAL_WIDTH = 1024


@dataclass(frozen=True)
class MemoryPlan:
    """Predicted peak memory of a training, in bytes."""

    weights: int
    adapters: int
    activations: int
    free: int
    device: str

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.adapters + self.activations

    def to_text(self) -> str:
        """For people, in GiB, with advice if it does not fit."""
        parts = f"weights {_gib(self.weights)}, adapters and optimizer {_gib(self.adapters)}, "
        text = f"Memory plan for {self.device}: {parts}activations about {_gib(self.activations)} = {_gib(self.total)}"
        if self.device.startswith("cpu"):
            return text + "."
        text += f"; {_gib(self.free)} free."
        if self.total > self.free:
            text += (
                " It does not fit at once: ComfyUI will keep part of the weights in main memory, which is slower. "
                "Lower the resolution or batch size, or load the model in fp8."
            )
        return text


def plan_memory(
    trainable: TrainableModel,
    parameters: dict[str, torch.Tensor],
    *,
    optimizer: OptimizerSettings,
    checkpointing: str,
    grid: tuple[int, int],
    batch: int,
) -> MemoryPlan:
    """The plan for one training.

    Args:
        trainable: The model.
        parameters: The adapters' tensors.
        optimizer: Decides the bytes of optimizer state per trainable number.
        checkpointing: As in the settings.
        grid: Largest latent grid (h, w).
        batch: Samples per micro-batch.
    """
    numbers = sum(p.numel() for p in parameters.values())
    ema = 4 if optimizer.ema_decay > 0 else 0
    adapters = numbers * (8 + _STATE_BYTES.get(optimizer.optimizer, 8) + ema)
    unit, blocks = _block_input(trainable, grid=grid, batch=batch)
    kept = {"off": _KEPT_PER_BLOCK * blocks, "per block": blocks, "whole model": _KEPT_PER_BLOCK * blocks}
    activations = unit * (kept[checkpointing] + _WORK_PER_BLOCK)
    free = comfy.model_management.get_free_memory(trainable.device)
    return MemoryPlan(trainable.patcher.model_size(), adapters, activations, int(free), str(trainable.device))


def memory_use(device: torch.device) -> dict[str, Any]:
    """Bytes in use and in all: of the device, or of this process where the device is the CPU; no waiting for it."""
    if device.type == "cpu":
        used, total = psutil.Process().memory_info().rss, psutil.virtual_memory().total
    else:
        total = comfy.model_management.get_total_memory(device)
        used = total - comfy.model_management.get_free_memory(device)
    return {"device": device.type, "used": int(used), "total": int(total)}


def _block_input(trainable: TrainableModel, *, grid: tuple[int, int], batch: int) -> tuple[int, int]:
    """Bytes of one block's input, and the number of blocks."""
    blocks = [block for block, _ in trainable.blocks]
    _, rows, columns = trainable.family.patch
    cells = (grid[0] // rows) * (grid[1] // columns)
    width = next(filter(None, map(block_width, blocks)), _USUAL_WIDTH)
    return batch * cells * width * trainable.dtype.itemsize, len(blocks)


def _gib(value: int) -> str:
    return f"{value / 2**30:.2f} GiB"
