"""What makes a training smaller: each change is counted like the training itself."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from ...cache.crops import MASKED
from ...dataset.geometry import Geometry
from ...loss.tokens import route_counts
from ...settings import OFFLOADED, PER_BLOCK, LossSettings
from ..model.trainable import TrainableModel
from ..swap.block_swap import block_bytes
from ..swap.choosing import blocks_to_swap, in_order, saved_bytes
from .plan import NEARLY, MemoryPlan, Training, plan_memory, wide_weights

# Of the outside of the mask three quarters skip all blocks but the first and the last two; the help page's example.
_ROUTE, _LEAST_BLOCKS = "0.75: 2..-3", 6
_SMALLER = (1024, 768, 512, 384, 256)
# Less than this share of the peak is not worth a change.
_LEAST_SAVING = 0.01
# How the names of tensors begin that are as large as the rank.
_RANKED = ("lora_", "hada_", "lokr_w2_")


@dataclass(frozen=True)
class Remedy:
    """A change that makes a training smaller.

    Attributes:
        text: What to change, with its widget.
        saving: Bytes.
        widget: Name of the widget or node.
        work: FLOPs of a step beside those that it has now.
    """

    text: str
    saving: int
    widget: str
    work: float = 1.0


def remedies_for(training: Training, plan: MemoryPlan) -> list[Remedy]:
    """What makes this training smaller than its `plan`, that which costs least first; nothing where it has a fault."""
    if plan.fault:
        return []
    ways: tuple[Callable[[Training, MemoryPlan], Remedy | None], ...] = (
        _checkpointing,
        _offloaded,
        _single_samples,
        _masked_crop,
        _routes,
        _float8,
        _swap,
        _lower_rank,
        _no_full_layers,
        _smaller_pictures,
    )
    found = [way(training, plan) for way in ways]
    return [one for one in found if one is not None and one.saving >= _LEAST_SAVING * plan.total]


def _counted(training: Training, plan: MemoryPlan, text: str, widget: str, **changes: object) -> Remedy:
    """What it saves to change the step in this way."""
    step = dataclasses.replace(training.step, **changes)  # type: ignore[arg-type]
    # Both with all weights on the device, where `plan` may be without those of swapped blocks.
    now, less = plan_memory(training), plan_memory(dataclasses.replace(training, step=step))
    weights = (now.weights - less.weights) * plan.weights // max(1, now.weights)
    samples = len(step.texts) / len(training.step.texts)
    work = less.flops / plan.flops / samples if plan.flops else 1.0
    return Remedy(text, weights + (now.total - now.weights) - (less.total - less.weights), widget, work)


def _checkpointing(training: Training, plan: MemoryPlan) -> Remedy | None:
    if training.step.checkpointing in PER_BLOCK:
        return None
    return _counted(training, plan, "checkpointing per block", "checkpointing", checkpointing=PER_BLOCK[0])


def _offloaded(training: Training, plan: MemoryPlan) -> Remedy | None:
    if training.step.checkpointing != PER_BLOCK[0] or not training.copies:
        return None
    return _counted(training, plan, f'checkpointing "{OFFLOADED}"', "checkpointing", checkpointing=OFFLOADED)


def _single_samples(training: Training, plan: MemoryPlan) -> Remedy | None:
    batch = len(training.step.texts)
    if batch == 1:
        return None
    steps = batch * training.settings.train.gradient_accumulation
    changes = {"texts": training.step.texts[:1], "accumulates": True}
    return _counted(training, plan, f"batch_size 1 with gradient_accumulation {steps}", "batch_size", **changes)


def _masked_crop(training: Training, plan: MemoryPlan) -> Remedy | None:
    if training.masks is None or training.cropped:
        return None
    sides = _sides(training, training.masks)
    text = f'crop "{MASKED}" in Cache Dataset, with masks of {training.masks:.0%},'
    return _counted(training, plan, text, "crop", **sides)


def _routes(training: Training, plan: MemoryPlan) -> Remedy | None:
    blocks = len(training.trainable.token_blocks)
    if training.masks is None or training.settings.loss.routes.strip() or blocks < _LEAST_BLOCKS:
        return None
    loss = dataclasses.replace(training.settings.loss, routes=_ROUTE, route_selection="mask kept")
    routes = passing(training.trainable, loss, grid=training.step.grid, masks=training.masks)
    text = f'routes "{_ROUTE}" in Masked Loss, with masks of {training.masks:.0%},'
    return _counted(training, plan, text, "routes", routes=routes)


def passing(
    trainable: TrainableModel, loss: LossSettings, *, grid: tuple[int, ...], masks: float | None
) -> tuple[tuple[int, int, int], ...]:
    """First and last block of the routes that last for a whole run, and how many image tokens pass these."""
    if not loss.routes.strip() or loss.route_until < 1:
        return ()
    tokens = trainable.tokens_of(grid)
    most = math.ceil(tokens * (1.0 if masks is None else masks))
    found = route_counts(loss, model=trainable.token_model(), tokens=tokens, most=most)
    return tuple((route.first, route.last, count) for route, count in found if count < tokens)


def _float8(training: Training, plan: MemoryPlan) -> Remedy | None:
    # DoRA reads weights as they are and takes no such ones.
    if not wide_weights(training.trainable) or training.settings.adapter.algorithm == "dora":
        return None
    text = "weight_dtype fp8_e4m3fn in Load Diffusion Model"
    return _counted(training, plan, text, "model", stored=torch.float8_e4m3fn)


def _swap(training: Training, plan: MemoryPlan) -> Remedy | None:
    """As many blocks as make it fit; half of them where nothing is lacking."""
    trainable, settings = training.trainable, training.settings
    if training.step.checkpointing not in PER_BLOCK or settings.train.swap_blocks or not training.copies:
        return None
    sizes = [block_bytes(block) for block in in_order(trainable.network, trainable.blocks)]
    lacking = plan.total - int(NEARLY * plan.card) if plan.card else 0
    count = blocks_to_swap(sizes, missing=lacking) if lacking > 0 else len(sizes) // 2
    return Remedy(f"swap_blocks {count}, of {len(sizes)},", saved_bytes(sizes, count), "swap_blocks")


def _lower_rank(training: Training, plan: MemoryPlan) -> Remedy | None:
    adapter = training.settings.adapter
    rank = adapter.rank
    if rank < 2 or adapter.rank_by_layer.strip():
        return None
    sizes = {name: p.numel() for name, p in training.adapters.parameters().items()}
    # Of a LoKr, and of layers that are learned in full, some is as large at any rank.
    ranked = {name: size for name, size in sizes.items() if name.rpartition(".")[2].startswith(_RANKED)}
    numbers, factors = (sum(s for n, s in ranked.items() if start in n) for start in ("", ".lora_"))
    copied = training.trainable.dtype.itemsize if training.trainable.dtype != torch.float32 else 0
    share = plan.trained * numbers // sum(sizes.values())
    saving = (share + copied * factors) * (rank - rank // 2) // rank
    return Remedy(f"rank {rank // 2}", saving, "rank")


def _no_full_layers(training: Training, plan: MemoryPlan) -> Remedy | None:
    sizes = {name: p.numel() for name, p in training.adapters.parameters().items()}
    full = sum(size for name, size in sizes.items() if name.endswith((".diff", ".diff_b")))
    return Remedy("full_layers empty", plan.trained * full // sum(sizes.values()), "full_layers") if full else None


def _smaller_pictures(training: Training, plan: MemoryPlan) -> Remedy | None:
    stride, (*_, rows, columns) = training.trainable.stride, training.step.grid
    side = math.sqrt(rows * columns) * stride
    smaller = next((s for s in _SMALLER if s <= 0.9 * side), None)
    if smaller is None:
        return None
    return _counted(training, plan, f"resolution {smaller}", "resolution", **_sides(training, (smaller / side) ** 2))


def _sides(training: Training, share: float) -> dict[str, object]:
    """Pictures of the same shape with this share of the area, as the model takes them."""
    trainable, factor = training.trainable, math.sqrt(min(1.0, share))
    *frames, rows, columns = training.step.grid
    units = zip((rows, columns), trainable.family.patch[1:], strict=True)
    rows, columns = (max(trainable.family.least, unit * max(1, round(side * factor / unit))) for side, unit in units)
    size = columns * trainable.stride, rows * trainable.stride
    return {"grid": (*frames, rows, columns), "geometry": Geometry(source=size, resized=size, crop=(0, 0, *size))}
