"""Token routing and key masks in ComfyUI's own network: both last for one call of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..archs import TokenLayout
from ..archs.family import BlockTokens
from ..errors import FamilyError
from ..tokens import Passage, TokenPlan
from .token_attention import KEY_MASK, KeyMask


def token_blocks(network: nn.Module, layout: TokenLayout) -> list[nn.Module]:
    """The blocks that the image tokens pass, in that order."""
    modules = list(network.modules())
    return [m for name in layout.blocks for m in modules if type(m).__name__ == name]


class PlannedNetwork:
    """A network whose tokens follow a plan; each call is one of its own, so that it may be repeated for backward.

    Args:
        network: The host's.
        blocks: From `token_blocks`.
        layout: The family's.
        plan: Of the rows that the network is given.
        text: (B, text tokens) bool, those that others see; None for all.
    """

    def __init__(
        self,
        network: nn.Module,
        blocks: Sequence[nn.Module],
        *,
        layout: TokenLayout,
        plan: TokenPlan,
        text: Tensor | None,
    ) -> None:
        self.network, self.blocks, self.layout, self.plan, self.text = network, blocks, layout, plan, text

    def __call__(self, *args: Any, transformer_options: dict[str, Any], **kwargs: Any) -> Tensor:
        """What the network returns."""
        masks: dict[int, KeyMask | None] = {}
        options = {**transformer_options, KEY_MASK: self._key_mask(None)}
        with contextlib.ExitStack() as stack:
            for passage in self.plan.passages:
                # Routes that keep the same tokens share their masks.
                slot = id(passage.kept)
                if slot not in masks:
                    masks[slot] = self._key_mask(passage.kept)
                way = _Way(passage, self.layout, tokens=self.plan.tokens, key_mask=masks[slot])
                stack.enter_context(way.laid(self.blocks[passage.first : passage.last + 1]))
            return self.network(*args, transformer_options=options, **kwargs)

    def _key_mask(self, kept: Tensor | None) -> KeyMask | None:
        image, tokens = self.plan.visible, self.plan.tokens
        if image is None and self.text is None:
            return None
        if kept is not None:
            tokens = kept.shape[1]
            image = None if image is None else image.gather(1, kept)
        return KeyMask(tokens, image=image, text=self.text)


class _Way:
    """One route in one call of the network: what its first block leaves behind and its last one fetches."""

    def __init__(self, passage: Passage, layout: TokenLayout, *, tokens: int, key_mask: KeyMask | None) -> None:
        self.layout, self.tokens, self.key_mask = layout, tokens, key_mask
        self.count = passage.kept.shape[1]
        start = tokens * torch.arange(len(passage.kept), device=passage.kept.device)
        self.kept, self.flat = passage.kept, (passage.kept + start[:, None]).flatten()
        self.behind: Tensor | None = None
        self.rotary: Tensor | None = None

    @contextlib.contextmanager
    def laid(self, blocks: Sequence[nn.Module]) -> Iterator[None]:
        """While it lasts these blocks are given the kept tokens only; what they do by themselves stays as it is."""
        before = [(block, block.__dict__.get("forward")) for block in blocks]
        try:
            for number, block in enumerate(blocks):
                ends = number == 0, number == len(blocks) - 1
                block.forward = self._forward(block.forward, self.layout.blocks[type(block).__name__], ends)  # type: ignore[method-assign]
            yield
        finally:
            for block, forward in before:
                if forward is None:
                    block.__dict__.pop("forward", None)
                else:
                    block.forward = forward  # type: ignore[method-assign]

    def _forward(self, inner: Callable[..., Any], where: BlockTokens, ends: tuple[bool, bool]) -> Callable[..., Any]:
        first, last = ends

        def forward(*args: Any, **kwargs: Any) -> Any:
            if first:
                args, kwargs = _replaced(args, kwargs, where.argument, lambda x: self._leave(x, where))
            if self.layout.rotary is not None:
                kwargs[self.layout.rotary] = self._positions(kwargs[self.layout.rotary])
            kwargs["transformer_options"] = {**kwargs["transformer_options"], KEY_MASK: self.key_mask}
            out = inner(*args, **kwargs)
            if not last:
                return out
            if where.result is None:
                return self._rejoin(out, where)
            return tuple(self._rejoin(x, where) if i == where.result else x for i, x in enumerate(out))

        return forward

    def _leave(self, x: Tensor, where: BlockTokens) -> Tensor:
        text = x.shape[1] - self.tokens
        if text < 0 or (text > 0 and not where.joined):
            raise FamilyError(
                f"routes: the model has {x.shape[1]} tokens where {self.tokens} of the picture were expected. "
                "Empty routes for this model."
            )
        self.behind = x[:, text:]
        kept = self.behind.reshape(-1, x.shape[2]).index_select(0, self.flat).view(len(x), self.count, -1)
        return torch.cat([x[:, :text], kept], dim=1) if text else kept

    def _rejoin(self, x: Tensor, where: BlockTokens) -> Tensor:
        behind, self.behind = self.behind, None
        assert behind is not None
        text = x.shape[1] - self.count
        kept = x[:, text:].reshape(-1, x.shape[2])
        whole = behind.reshape(-1, x.shape[2]).index_copy(0, self.flat, kept).view(len(x), self.tokens, -1)
        return torch.cat([x[:, :text], whole], dim=1) if text else whole

    def _positions(self, table: Tensor) -> Tensor:
        if self.rotary is None:
            axis = self.layout.rotary_axis
            text, image = table.split([table.shape[axis] - self.tokens, self.tokens], dim=axis)
            shape = [1] * table.ndim
            shape[0], shape[axis] = self.kept.shape
            rows = torch.take_along_dim(image, self.kept.view(shape), dim=axis)
            self.rotary = torch.cat([text.expand(len(rows), *text.shape[1:]), rows], dim=axis)
        return self.rotary


def _replaced(args: tuple, kwargs: dict[str, Any], place: int | str, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(place, str):
        return args, {**kwargs, place: change(kwargs[place])}
    return (*args[:place], change(args[place]), *args[place + 1 :]), kwargs
