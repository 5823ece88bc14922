"""What a training step holds in memory at its most and how much it multiplies, counted on tensors without data.

The step is the model's own, with its adapters, in the session in which it will be trained; only blocks like one that
has passed before are stood in for. So one of each kind is counted, times its number, and the rest of the network as it
is. Nothing is loaded, no device is touched, and the network has its own tensors again at the end.
"""

from __future__ import annotations

import copy
import dataclasses
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import _disable_current_modes

from ...adapters import AdapterSet
from ...autograd.forwards import replaced_forwards
from ...loss.tokens import Passage, TokenPlan
from ...settings import PER_BLOCK
from ..model.blocks import find_blocks
from ..model.conditioning import mapped
from ..model.first_frame import in_place, with_first_frames
from ..model.trainable import TrainableModel
from ..references.conditions import with_references
from ..swap.block_swap import BlockSwap
from ..swap.copies import Copies
from ..swap.kept_inputs import KeptInputs
from .counts import Counts
from .hollow import NOWHERE, HollowCounts, without_data
from .kernels import KernelsOfAccelerators
from .standing_in import PassedBlocks

if TYPE_CHECKING:
    from ...dataset.geometry import Geometry

# Kinds of bytes, by what is going on when they are made; what is outside is told elsewhere, as the weights are.
OUTSIDE, ADAPTERS, INPUTS, KEPT, BACKWARD, WORK = "outside", "adapters", "inputs", "kept", "backward", "work"


@dataclass(frozen=True)
class StepShape:
    """The micro-batch whose step is counted.

    Attributes:
        texts: Conditioning of each sample, as a cache gives it; only its shapes count.
        geometry: Of all samples.
        grid: Latent rows and columns, of a clip with its frames before them.
        checkpointing: As in the settings.
        accumulates: Whether gradients of an earlier pass are there when a pass begins.
        captions: How many captions are kept on the device from step to step.
        routes: First and last block of each route, and how many image tokens pass these.
        stored: Dtype in which layers would store weights that now have 16 or 32 bits; None for their own.
        begins: Whether the samples are clips whose first frame the network is given.
        references: Latent rows and columns of each reference picture of a sample.
    """

    texts: tuple[dict[str, Any], ...]
    geometry: Geometry
    grid: tuple[int, ...]
    checkpointing: str
    accumulates: bool = False
    captions: int = 0
    routes: tuple[tuple[int, int, int], ...] = ()
    stored: torch.dtype | None = None
    begins: bool = False
    references: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class StepCount:
    """Bytes in use when most are, beside the weights and the optimizer's state; and FLOPs.

    Attributes:
        adapters: The trained tensors, float32.
        gradients: Theirs, as far as they are there by then.
        captions: Those that are kept on the device.
        kept: What backward needs, the copies of the adapters that are computed with, and the inputs.
        work: What one block's recomputing and backward take beside.
        forward_flops: Of one forward of the micro-batch.
        backward_flops: Of its backward, with what is recomputed there.
    """

    adapters: int
    gradients: int
    captions: int
    kept: int
    work: int
    forward_flops: int = 0
    backward_flops: int = 0

    @property
    def total(self) -> int:
        """All bytes."""
        return self.adapters + self.gradients + self.captions + self.kept + self.work


def count_step(trainable: TrainableModel, adapters: AdapterSet, shape: StepShape) -> StepCount:
    """The count of one forward and backward of `trainable` with `adapters`, which must be ejected."""
    counts = HollowCounts(begins=shape.begins)
    shadow = _shadow(trainable)
    passed = PassedBlocks(counts, per_block=shape.checkpointing in PER_BLOCK, keeping=shadow.inputs.keeping)
    blocks, kernels = [block for block, _ in find_blocks(shadow.network, shadow.family)], KernelsOfAccelerators(counts)
    owners = [trainable.model, shadow._sampling, trainable.network, *adapters.wrappers]
    empty = without_data(owners, counts, stored=shape.stored, kinds=(OUTSIDE, ADAPTERS))
    with torch.inference_mode(False), torch.enable_grad(), counts, empty:
        parameters = list(adapters.parameters().values())
        counts.making = BACKWARD
        for parameter in parameters if shape.accumulates else ():
            parameter.grad = torch.empty_like(parameter)
        with (
            replaced_forwards([shadow.network, *blocks], kernels.forward_of),
            shadow.session(adapters, checkpointing=shape.checkpointing),
            replaced_forwards(blocks, passed.forward_of),
        ):
            text, forward = _run(shadow, shape, counts, passed)
        numbers = sum(p.numel() for p in parameters) * 4
        del parameters
    highest = max([counts.at_peak, *passed.peaks(WORK)], key=lambda kinds: sum(kinds.values()))
    found, here = _by_kind(highest, numbers), len(shape.texts)
    return dataclasses.replace(
        found,
        captions=max(here, shape.captions) * text,
        kept=found.kept - here * text,
        forward_flops=forward,
        backward_flops=counts.flops + passed.flops() - forward,
    )


def _by_kind(kinds: dict[str, int], numbers: int) -> StepCount:
    """Of what backward made as much are gradients as there are to be; the rest is a block's work."""
    made = kinds.get(BACKWARD, 0)
    gradients = min(made, numbers)
    kept = kinds.get(KEPT, 0) + kinds.get(INPUTS, 0)
    return StepCount(numbers, gradients, 0, kept, made - gradients + kinds.get(WORK, 0))


def _run(shadow: TrainableModel, shape: StepShape, counts: Counts, passed: PassedBlocks) -> tuple[int, int]:
    """Forward and backward; returns the bytes of one caption on the device, and the FLOPs of the forward."""
    samples, sample = len(shape.texts), (shadow.channels, *shape.grid)
    # Torch hides from a count what is done to tensors of inference mode.
    texts = [mapped(text, lambda t: t.clone() if t.is_inference() else t) for text in shape.texts]
    counts.making, before = INPUTS, counts.total
    conditioning = shadow.collate(texts, [shape.geometry] * samples, sample)
    text = (counts.total - before) // samples
    if shape.references:
        shown = [torch.empty(samples, shadow.channels, *sides, device=NOWHERE) for sides in shape.references]
        conditioning = with_references(shadow, conditioning, shown)
    if shape.begins:
        conditioning = with_first_frames(shadow, conditioning, torch.empty(samples, *sample, device=NOWHERE))
    noisy, u = torch.empty(samples, *sample, device=NOWHERE), torch.empty(samples, device=NOWHERE)
    noisy, conditioning = in_place(noisy, conditioning)
    tokens = _plan(shadow, shape)
    with shadow.autograd_scope():
        counts.making = KEPT
        value = shadow.denoise(noisy, u, conditioning, tokens=tokens).square().mean()
        forward = counts.flops + passed.flops()
        counts.making = BACKWARD
        value.backward()
    return text, forward


def _plan(shadow: TrainableModel, shape: StepShape) -> TokenPlan | None:
    if not shape.routes:
        return None
    samples = len(shape.texts)
    passages = (
        Passage(first, last, torch.empty(samples, kept, dtype=torch.int64, device=NOWHERE))
        for first, last, kept in shape.routes
    )
    return TokenPlan(shadow.tokens_of(shape.grid), tuple(passages))


def _shadow(trainable: TrainableModel) -> TrainableModel:
    """The same model where tensors without data are: on no device of anybody's."""
    shadow = copy.copy(trainable)
    shadow.device, shadow.swap, shadow.inputs = NOWHERE, BlockSwap(), KeptInputs(NOWHERE, _NoCopies())
    shadow._kept = OrderedDict()
    return shadow


class _NoCopies(Copies):
    """Main memory without data, which is not counted, and copies that cost nothing."""

    def host(self, size: int) -> torch.Tensor:
        """(size,) uint8."""
        with _disable_current_modes():
            return torch.empty(size, dtype=torch.uint8, device=NOWHERE)

    def give_back(self, memory: torch.Tensor) -> None:
        """It is gone with the last that holds it."""

    def record(self) -> None:
        """Nothing lags behind."""

    def copy(self, pairs: Sequence[tuple[torch.Tensor, torch.Tensor]], *, after: None) -> None:
        """There is nothing to copy."""

    def wait(self, mark: None) -> None:
        """Likewise."""

    def settle(self) -> None:
        """Likewise."""
