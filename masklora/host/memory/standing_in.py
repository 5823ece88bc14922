"""Blocks that are not run because one like them has been: what they hold and compute is known from that one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...autograd.containers import Form, take_apart
from ...autograd.forwards import Forward
from ...autograd.recompute import Keeping, trained_parameters
from .counts import Counts


@dataclass
class _Kind:
    """What a block of one kind did when it passed: what it gave back, and its bytes beside those that were there.

    Attributes:
        results: Shape, strides and dtype of the tensors in what it gave back, and what holds them.
        kept: Bytes that stay until its backward, beside its results.
        bytes: Most that its forward and its backward took.
        flops: Of its forward and its backward.
    """

    results: list[tuple[torch.Size, tuple[int, ...], torch.dtype]] = dataclasses.field(default_factory=list)
    form: Form | None = None
    kept: int = 0
    bytes: list[int] = dataclasses.field(default_factory=lambda: [0, 0])
    flops: list[int] = dataclasses.field(default_factory=lambda: [0, 0])

    def fresh(self, device: torch.device) -> list[Tensor]:
        """Tensors like its results."""
        return [
            torch.empty_strided(shape, strides, dtype=dtype, device=device) for shape, strides, dtype in self.results
        ]


class PassedBlocks:
    """The kinds of blocks that have passed so far, and what was in use when others like them did.

    Args:
        counts: Counts the blocks that are run.
        per_block: Whether blocks are recomputed one by one, so that their backward is theirs alone.
        keeping: The context in which their inputs are saved.
    """

    def __init__(self, counts: Counts, *, per_block: bool, keeping: Keeping) -> None:
        self.counts, self.per_block, self._keeping = counts, per_block, keeping
        self._kinds: dict[Any, _Kind] = {}
        self._moments: list[tuple[dict[str, int], _Kind, bool]] = []

    def peaks(self, kind: str) -> list[dict[str, int]]:
        """Bytes in use at the moments when a block was stood in for, with what it would have taken, as of this kind."""
        return [{**live, kind: live.get(kind, 0) + done.bytes[back]} for live, done, back in self._moments]

    def flops(self) -> int:
        """Of all blocks that were stood in for."""
        return sum(kind.flops[back] for _, kind, back in self._moments)

    def observe(self, kind: _Kind, *, back: bool) -> None:
        """A block of this kind is stood in for now."""
        self._moments.append((dict(self.counts.live), kind, back))

    def forward_of(self, block: nn.Module, inner: Forward) -> Forward:
        """The forward of `block`: its own where none like it has passed yet, else what stands in for it."""

        def forward(*args: Any, **kwargs: Any) -> Any:
            given = take_apart({**dict(enumerate(args)), **kwargs}, matters=lambda t: False)[0]
            key = _likeness(block, given)
            if key not in self._kinds:
                kind = self._kinds[key] = _Kind()
                return self._own(kind, inner, given, args, kwargs)
            kind = self._kinds[key]
            assert kind.form is not None
            self.observe(kind, back=False)
            if not torch.is_grad_enabled():
                return kind.form.filled(kind.fresh(self.counts.device))
            with self._keeping(given):
                out = _StandIn.apply(self, kind, *given, *trained_parameters(block))
            return kind.form.filled(out)

        return forward

    def _own(self, kind: _Kind, inner: Forward, given: Sequence[Tensor], args: tuple, kwargs: dict[str, Any]) -> Any:
        # Of the inputs as they are before the block writes to them.
        makers = [t.grad_fn for t in given if t.grad_fn is not None]
        before, flops = self.counts.begin(), self.counts.flops
        out = inner(*args, **kwargs)
        kind.bytes[0], kind.flops[0] = self.counts.highest - before, self.counts.flops - flops
        tensors, kind.form = take_apart(out, shared=False)
        kind.results = [(t.shape, t.stride(), t.dtype) for t in tensors]
        nodes = [t.grad_fn for t in tensors if t.grad_fn is not None]
        if not self.per_block:
            held = sum(t.numel() * t.element_size() for t in tensors)
            kind.kept = max(0, self.counts.total - before - held)
            _measure_between(nodes, makers, kind, self.counts)
        elif nodes:
            _measure_node(nodes[0], kind, self.counts)
        return out


def _measure_node(node: Any, kind: _Kind, counts: Counts) -> None:
    """Backward of a block that is one node."""
    at_start: list[tuple[int, int]] = []

    def start(grads: Any) -> None:
        # What it keeps elsewhere is brought back first, as it is for those that are stood in for.
        getattr(node, "saved_tensors", ())
        at_start.append((counts.begin(), counts.flops))

    def end(inputs: Any, outputs: Any) -> None:
        before, flops = at_start.pop()
        kind.bytes[1], kind.flops[1] = counts.highest - before, counts.flops - flops

    node.register_prehook(start)
    node.register_hook(end)


def _measure_between(nodes: Sequence[Any], makers: Sequence[Any], kind: _Kind, counts: Counts) -> None:
    """FLOPs of a backward from the first node of the results to the first one that made an input."""
    at_start: list[int] = []

    def start(grads: Any) -> None:
        at_start.append(counts.flops)

    def end(grads: Any) -> None:
        if at_start and not kind.flops[1]:
            kind.flops[1] = counts.flops - at_start[0]

    for node in nodes:
        node.register_prehook(start)
    for node in makers:
        node.register_prehook(end)


def _likeness(block: nn.Module, given: Sequence[Tensor]) -> Any:
    """Equal for blocks that do the same work with the same bytes."""
    own = tuple((name, p.shape, p.dtype, p.requires_grad) for name, p in block.named_parameters())
    tensors = tuple((t.shape, t.stride(), t.dtype, t.requires_grad) for t in given)
    return type(block), own, tensors, torch.is_grad_enabled()


class _StandIn(torch.autograd.Function):
    """Holds what a block would until backward, and gives results and gradients of the block's shapes."""

    @staticmethod
    def forward(ctx: Any, passed: PassedBlocks, kind: _Kind, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.passed, ctx.kind, device = passed, kind, passed.counts.device
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(torch.empty(kind.kept, dtype=torch.uint8, device=device), *tensors)
        return tuple(kind.fresh(device))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        tensors = ctx.saved_tensors[1:]
        ctx.passed.observe(ctx.kind, back=True)
        wanted = ctx.needs_input_grad[2:]
        return None, None, *(torch.empty_like(t) if w else None for t, w in zip(tensors, wanted, strict=True))
