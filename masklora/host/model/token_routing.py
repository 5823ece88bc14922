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
from .token_attention import CROSS_MASK, KEY_MASK, KeyMask, TextMask, combined_masks, image_start, of_pictures

_OPTIONS = Slot("transformer_options")
_TokenBlocks = Sequence[tuple[nn.Module, Blocks]]


class PlannedNetwork:
    """A network whose tokens follow a plan; each call is one of its own, so that it may be repeated for backward.

    Args:
        network: Calls the host's network.
        blocks: The network's, each with what its family says of it.
        plan: Of the rows that the network is given.
        padding: (B, text tokens) bool, those of the text that the image's attention sees; None for all.
        filled: (B, text tokens) bool, False for what fills a text up to the longest one's length, which nothing sees;
            None where nothing does.
        references: How many tokens reference pictures have, which pass every block and are seen by all.
    """

    def __init__(
        self,
        network: Callable[..., Tensor],
        blocks: _TokenBlocks,
        *,
        plan: TokenPlan,
        padding: Tensor | None = None,
        filled: Tensor | None = None,
        references: int = 0,
    ) -> None:
        self.network, self.blocks, self.plan, self.padding, self.filled = network, blocks, plan, padding, filled
        self.references = references

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """What the network returns.

        Raises:
            FamilyError: It does not let its tokens follow the plan.
        """
        masks = _Masks(self.plan, padding=self.padding, filled=self.filled, references=self.references)
        ways = [_Way(one, tokens=self.plan.tokens, references=self.references) for one in self.plan.passages]
        with contextlib.ExitStack() as stack:
            number = 0
            for block, kind in self.blocks:
                routed = kind.image is not None
                way = next((w for w in ways if routed and w.passage.first <= number <= w.passage.last), None)
                stack.enter_context(_looking(block, kind, masks, None if way is None else way.passage.kept))
                if way is not None:
                    stack.enter_context(way.laid(block, kind, number))
                number += routed
            out = self.network(*args, **kwargs)
        masks.check_asked()
        return out


class _Masks:
    """The masks of one call of the network: blocks of one order that keep the same tokens share theirs."""

    def __init__(self, plan: TokenPlan, *, padding: Tensor | None, filled: Tensor | None, references: int) -> None:
        self.plan, self.filled, self.references = plan, filled, references
        self.text = padding if filled is None else filled if padding is None else padding & filled
        self._made: dict[Any, KeyMask | TextMask] = {}

    def of_tokens(self, kept: Tensor | None, kind: Blocks) -> KeyMask | TextMask | None:
        """What self-attention in such a block follows, of whose image tokens `kept` are left; None for nothing."""
        image, tokens = self.plan.visible, self.plan.tokens
        if kind.order and "image" not in kind.order:
            return self.of_text("text blocks")
        if not kind.order or (image is None and self.text is None):
            return None
        slot = id(kept), kind.order, kind.pad
        if slot not in self._made:
            pad = -tokens % kind.pad
            if kept is not None:
                tokens = kept.shape[1]
                image = None if image is None else image.gather(1, kept)
            self._made[slot] = KeyMask(
                tokens, image=image, text=self.text, order=kind.order, pad=pad, references=self.references
            )
        return self._made[slot]

    def of_text(self, asking: str) -> TextMask | None:
        """What attention to the text's sequence follows, one for each way of `asking`; None for nothing."""
        return None if self.filled is None else self._made.setdefault(asking, TextMask(self.filled))

    def check_asked(self) -> None:
        """Nothing if attention has asked for every mask that a block was given.

        Raises:
            FamilyError: It has not, so that the mask was without effect.
        """
        if not all(mask.asked for mask in self._made.values()):
            raise FamilyError(
                "attention_mask, text_padding_mask, batch_size: this version of ComfyUI does not hand the masks of "
                "tokens on to the model's attention. Switch both masks off and set batch_size to 1."
            )


@contextlib.contextmanager
def _looking(block: nn.Module, kind: Blocks, masks: _Masks, kept: Tensor | None) -> Iterator[None]:
    """Self-attention in `block` and what looks at the text's sequence follow their masks.

    The masks ride in the options of this block alone: elsewhere in the network a sequence may be as long by chance.
    """
    own, cross = masks.of_tokens(kept, kind), masks.of_text("cross-attention") if kind.cross else None
    if own is None and cross is None:
        yield
        return
    put = functools.partial(_with_options, change=lambda options: {**options, KEY_MASK: own, CROSS_MASK: cross})
    if kind.mask:
        put = functools.partial(_with_own_mask, kind=kind, mask=own)
    with replaced_forwards([block], put):
        yield


@contextlib.contextmanager
def masks_for_texts(blocks: _TokenBlocks) -> Iterator[None]:
    """While it lasts, layers of `blocks` that look at the text's sequence follow the mask of the text.

    It must outlast the forward: a recomputed block looks at its texts again in backward.
    """
    layers = [block.get_submodule(path) for block, kind in blocks for path in kind.cross if not kind.mask]
    with replaced_forwards(layers, _of_text):
        yield


def _of_text(layer: nn.Module, inner: Forward) -> Forward:
    exchanged = _with_options(layer, inner, change=lambda options: {**options, KEY_MASK: options[CROSS_MASK]})

    def forward(*args: Any, **kwargs: Any) -> Any:
        masked = CROSS_MASK in (read_slot(layer, _OPTIONS, args, kwargs) or {})
        return exchanged(*args, **kwargs) if masked else inner(*args, **kwargs)

    return forward


def _with_own_mask(block: nn.Module, inner: Forward, *, kind: Blocks, mask: KeyMask) -> Forward:
    assert kind.image is not None
    slot = kind.image

    def forward(*args: Any, **kwargs: Any) -> Any:
        length = read_slot(block, slot, args, kwargs).shape[1]
        return inner(*args, **{**kwargs, kind.mask: combined_masks(mask.of(length, length), kwargs.get(kind.mask))})

    return forward


def _with_options(module: nn.Module, inner: Forward, *, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Forward:
    def forward(*args: Any, **kwargs: Any) -> Any:
        args, kwargs = with_slot(module, _OPTIONS, args, kwargs, change)
        return inner(*args, **kwargs)

    return forward


class _Way:
    """One route in one call of the network: what its first block leaves behind and its last one fetches."""

    def __init__(self, passage: Passage, *, tokens: int, references: int) -> None:
        self.passage, self.tokens, self.count = passage, tokens, passage.kept.shape[1]
        self.references = references
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
                assert kind.image is not None
                if first:
                    change = _of_samples(kind.image, lambda x: self._leave(x, kind))
                    args, kwargs = with_slot(block, kind.image, args, kwargs, change)
                args, kwargs = self._bounded(block, kind, args, kwargs)
                for slot in kind.rotary:
                    change = functools.partial(self._positions, kind=kind, slot=slot)
                    args, kwargs = with_slot(block, slot, args, kwargs, change)
                out = inner(*args, **kwargs)
                if not last:
                    return out
                return with_result(kind.result, out, _of_samples(kind.result, lambda x: self._rejoin(x, kind)))

            return forward

        with replaced_forwards([block], make):
            yield

    def _bounded(self, block: nn.Module, kind: Blocks, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict]:
        """The arguments with the bounds behind the image tokens moved up by as many as are left out."""
        for slot in kind.bounds:
            if read_slot(block, slot, args, kwargs) is not None:
                assert kind.image is not None
                given = read_slot(block, kind.image, args, kwargs).shape[1]
                end = self._start(given, self.count, kind, kind.image) + self.tokens
                change = functools.partial(_moved, end=end, by=self.tokens - self.count)
                args, kwargs = with_slot(block, slot, args, kwargs, change)
        return args, kwargs

    def _start(self, length: int, tokens: int, kind: Blocks, slot: Slot) -> int:
        order = kind.order if slot.joined else of_pictures(kind.order)
        sizes = {"tokens": tokens, "pad": -self.tokens % kind.pad, "references": self.references}
        start = image_start(order, length, **sizes)
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


def _moved(bounds: Any, *, end: int, by: int) -> Any:
    """Places of tokens, in lists or not: those from `end` on, where the image ended, lie so many further in front."""
    if isinstance(bounds, int):
        return bounds - by if bounds >= end else bounds
    return type(bounds)(_moved(one, end=end, by=by) for one in bounds)


def _of_samples(slot: Slot, change: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """`change`, which is of samples, for a slot in which lies a single one without an axis for it."""
    return change if slot.axis else lambda x: change(x[None])[0]


def _together(before: Tensor, image: Tensor, after: Tensor) -> Tensor:
    parts = [part for part in (before, image, after) if part.shape[1]]
    return torch.cat(parts, dim=1) if len(parts) > 1 else image
