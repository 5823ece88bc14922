"""Token routing and key masks in ComfyUI's own network: both last for one call of it."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...autograd.forwards import Forward, replaced_forwards
from ...errors import FamilyError
from ...loss.tokens import Passage, TokenPlan
from ..families import Blocks, Slot
from .blocks import read_slot, with_result, with_slot
from .token_attention import KEY_MASK, KeyMask, combined_masks, image_start

_OPTIONS = Slot("transformer_options")
_TokenBlocks = Sequence[tuple[nn.Module, Blocks]]


class PlannedNetwork:
    """A network whose tokens follow a plan; each call is one of its own, so that it may be repeated for backward.

    Args:
        network: Calls the host's network.
        blocks: The network's, each with what its family says of it.
        plan: Of the rows that the network is given.
        text: (B, text tokens) bool, those that others see; None for all.
    """

    def __init__(
        self, network: Callable[..., Tensor], blocks: _TokenBlocks, *, plan: TokenPlan, text: Tensor | None
    ) -> None:
        self.network, self.blocks, self.plan, self.text = network, blocks, plan, text

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """What the network returns."""
        masks = functools.cache(self._key_mask)
        ways = [_Way(passage, tokens=self.plan.tokens) for passage in self.plan.passages]
        with contextlib.ExitStack() as stack:
            number = 0
            for block, kind in self.blocks:
                routed = kind.image is not None
                way = next((w for w in ways if routed and w.passage.first <= number <= w.passage.last), None)
                if "image" in kind.order:
                    # Routes that keep the same tokens share their masks, and so do blocks of one order.
                    mask = masks(None if way is None else way.passage.kept, kind.order, kind.pad)
                    stack.enter_context(_looking(block, kind, mask))
                if way is not None:
                    stack.enter_context(way.laid(block, kind, number))
                number += routed
            return self.network(*args, **kwargs)

    def _key_mask(self, kept: Tensor | None, order: tuple[str, ...], multiple: int) -> KeyMask | None:
        image, tokens = self.plan.visible, self.plan.tokens
        if image is None and self.text is None:
            return None
        pad = -tokens % multiple
        if kept is not None:
            tokens = kept.shape[1]
            image = None if image is None else image.gather(1, kept)
        return KeyMask(tokens, image=image, text=self.text, order=order, pad=pad)


@contextlib.contextmanager
def _looking(block: nn.Module, kind: Blocks, mask: KeyMask | None) -> Iterator[None]:
    """Self-attention in `block` follows `mask`, and what looks at another sequence follows none.

    The mask rides in the options of this block alone: elsewhere in the network a sequence may be as long by chance.
    """
    if mask is None:
        yield
        return
    with contextlib.ExitStack() as stack:
        for path in kind.cross:
            layer = block.get_submodule(path)
            stack.enter_context(replaced_forwards([layer], functools.partial(_with_mask, mask=None)))
        put = functools.partial(_with_own_mask, kind=kind) if kind.mask else _with_mask
        stack.enter_context(replaced_forwards([block], functools.partial(put, mask=mask)))
        yield


def _with_own_mask(block: nn.Module, inner: Forward, *, kind: Blocks, mask: KeyMask) -> Forward:
    assert kind.image is not None
    slot = kind.image

    def forward(*args: Any, **kwargs: Any) -> Any:
        length = read_slot(block, slot, args, kwargs).shape[1]
        return inner(*args, **{**kwargs, kind.mask: combined_masks(mask.of(length), kwargs.get(kind.mask))})

    return forward


def _with_mask(module: nn.Module, inner: Forward, *, mask: KeyMask | None) -> Forward:
    def forward(*args: Any, **kwargs: Any) -> Any:
        args, kwargs = with_slot(module, _OPTIONS, args, kwargs, lambda options: {**options, KEY_MASK: mask})
        return inner(*args, **kwargs)

    return forward


class _Way:
    """One route in one call of the network: what its first block leaves behind and its last one fetches."""

    def __init__(self, passage: Passage, *, tokens: int) -> None:
        self.passage, self.tokens, self.count = passage, tokens, passage.kept.shape[1]
        start = tokens * torch.arange(len(passage.kept), device=passage.kept.device)
        self.kept, self.flat = passage.kept, (passage.kept + start[:, None]).flatten()
        self.behind: Tensor | None = None
        self.grid: tuple[int, ...] = ()
        self.tables: dict[tuple[Slot, tuple[str, ...], int], Tensor] = {}

    @contextlib.contextmanager
    def laid(self, block: nn.Module, kind: Blocks, number: int) -> Iterator[None]:
        """While it lasts this block is given the kept tokens only; what it does by itself stays as it is."""
        first, last = number == self.passage.first, number == self.passage.last

        def make(_: nn.Module, inner: Forward) -> Forward:
            def forward(*args: Any, **kwargs: Any) -> Any:
                if first:
                    assert kind.image is not None
                    args, kwargs = with_slot(block, kind.image, args, kwargs, lambda x: self._leave(x, kind))
                for slot in kind.rotary:
                    change = functools.partial(self._positions, kind=kind, slot=slot)
                    args, kwargs = with_slot(block, slot, args, kwargs, change)
                out = inner(*args, **kwargs)
                return with_result(kind.result, out, lambda x: self._rejoin(x, kind)) if last else out

            return forward

        with replaced_forwards([block], make):
            yield

    def _start(self, length: int, tokens: int, kind: Blocks, slot: Slot) -> int:
        order = kind.order if slot.joined else ("image",)
        start = image_start(order, length, tokens=tokens, pad=-self.tokens % kind.pad)
        if start is None:
            raise FamilyError(
                f"routes: the model has {length} tokens where {tokens} of the picture were expected. "
                "Empty routes for this model."
            )
        return start

    def _leave(self, x: Tensor, kind: Blocks) -> Tensor:
        assert kind.image is not None
        # Frames, rows and columns in axes of their own, or all tokens in one.
        x, self.grid = x.flatten(1, -2), tuple(x.shape[1:-1])
        start = self._start(x.shape[1], self.tokens, kind, kind.image)
        before, self.behind, after = x.split([start, self.tokens, x.shape[1] - start - self.tokens], dim=1)
        kept = self.behind.reshape(-1, x.shape[2]).index_select(0, self.flat).view(len(x), self.count, -1)
        return _together(before, kept, after).view(len(x), *[1] * (len(self.grid) - 1), -1, x.shape[2])

    def _rejoin(self, x: Tensor, kind: Blocks) -> Tensor:
        behind, self.behind = self.behind, None
        assert behind is not None
        x = x.flatten(1, -2)
        start = self._start(x.shape[1], self.count, kind, kind.result)
        before, kept, after = x.split([start, self.count, x.shape[1] - start - self.count], dim=1)
        flat, kept = behind.reshape(-1, x.shape[2]), kept.reshape(-1, x.shape[2])
        out = _together(before, flat.index_copy(0, self.flat, kept).view(len(x), self.tokens, -1), after)
        return out.unflatten(1, self.grid) if len(self.grid) > 1 else out

    def _positions(self, table: Tensor, *, kind: Blocks, slot: Slot) -> Tensor:
        known = slot, kind.order, kind.pad
        if known not in self.tables:
            axis, length = slot.axis, table.shape[slot.axis]
            start = self._start(length, self.tokens, kind, slot)
            before, image, after = table.split([start, self.tokens, length - start - self.tokens], dim=axis)
            shape = [1] * table.ndim
            shape[0], shape[axis] = self.kept.shape
            rows = torch.take_along_dim(image, self.kept.view(shape), dim=axis)
            others = [part.expand(len(rows), *part.shape[1:]) for part in (before, after)]
            self.tables[known] = torch.cat([others[0], rows, others[1]], dim=axis)
        return self.tables[known]


def _together(before: Tensor, image: Tensor, after: Tensor) -> Tensor:
    parts = [part for part in (before, image, after) if part.shape[1]]
    return torch.cat(parts, dim=1) if len(parts) > 1 else image
