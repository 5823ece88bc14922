"""Which tokens attention looks at: scaled dot-product attention with ours and the host's mask together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from comfy.ldm.modules.attention import attention_pytorch
from torch import Tensor

from ...errors import FamilyError

# Where the options that a block is given carry its `KeyMask` or `TextMask`.
KEY_MASK = "masked_lora_key_mask"
# Likewise for those of its layers that look at the text's sequence.
CROSS_MASK = "masked_lora_cross_mask"
_MASK_POSITION = 4


def part_sizes(
    order: Sequence[str], length: int, *, tokens: int, pad: int = 0, references: int = 0
) -> dict[str, int] | None:
    """How many tokens each part of a sequence of `length` tokens has; None where they do not fit into it.

    Args:
        order: Of the sequence's parts: "text", "image", "references", "pad".
        length: Of all of it; what is none of the others is text.
        tokens: How many image tokens there are.
        pad: How many fill the image up.
        references: How many tokens reference pictures have.
    """
    sizes = {"image": tokens, "pad": pad, "references": references}
    text = length - sum(sizes.get(part, 0) for part in order)
    if text < 0 or (text and "text" not in order):
        return None
    return {**sizes, "text": text}


def image_start(order: Sequence[str], length: int, **sizes: int) -> int | None:
    """Where the image tokens begin in a sequence; None where they do not fit into it; see `part_sizes`."""
    found = part_sizes(order, length, **sizes)
    return None if found is None else sum(found[part] for part in order[: order.index("image")])


def of_pictures(order: Sequence[str]) -> tuple[str, ...]:
    """The parts of a sequence that are pictures' tokens alone, in their order; the image where nothing is known."""
    return tuple(part for part in order if part in ("image", "references")) or ("image",)


class KeyMask:
    """The attention masks of one call of the network for one set of image tokens, made once for all its blocks.

    Args:
        tokens: How many image tokens there are.
        image: (B, tokens) bool, those that others see; None for all.
        text: (B, text tokens) bool, likewise.
        order: Parts of the sequence that self-attention looks at; see `Blocks`.
        pad: How many tokens fill the image up.
        references: How many tokens reference pictures have; they are seen by all.
    """

    def __init__(
        self,
        tokens: int,
        *,
        image: Tensor | None,
        text: Tensor | None,
        order: Sequence[str] = ("text", "image"),
        pad: int = 0,
        references: int = 0,
    ) -> None:
        self.tokens, self.image, self.text, self.order, self.pad = tokens, image, text, tuple(order), pad
        self.references = references
        self._made: dict[int, Tensor | None] = {}
        self.asked = False

    def of(self, queries: int, keys: int) -> Tensor | None:
        """(B, 1, length or 1, length) bool, True where a query (third axis) sees a key (last axis); None for all.

        Every token sees every visible one, and itself where image tokens are hidden, so that no row is empty.

        Args:
            queries: How many tokens look: the image tokens alone, or with the other parts.
            keys: How many are looked at; no self-attention, which follows no mask, where it is another number.

        Raises:
            FamilyError: The parts do not make up this length.
        """
        self.asked = True
        if queries != keys:
            return None
        if keys not in self._made:
            self._made[keys] = self._make(keys)
        return self._made[keys]

    def _make(self, length: int) -> Tensor | None:
        pictures = of_pictures(self.order)
        alone = length == self.tokens + (self.references if "references" in pictures else 0)
        order = pictures if alone else self.order
        sizes = part_sizes(order, length, tokens=self.tokens, pad=self.pad, references=self.references)
        others = 0 if sizes is None else sizes["text"]
        known = 0 if self.text is None else self.text.shape[1]
        if sizes is None or 0 < others < known:
            raise FamilyError(
                f"attention_mask, text_padding_mask: the model attends to {length} tokens, expected {self.tokens} of "
                f"the picture after {known} of the text. Switch both off for this model."
            )
        given = self.image if self.image is not None else (self.text if others else None)
        if given is None:
            return None
        seen = given.new_ones(len(given), length)
        if self.image is not None:
            start = sum(sizes[part] for part in order[: order.index("image")])
            seen[:, start : start + self.tokens] = self.image
        if self.text is not None and others:
            # Tokens that a model puts before the text are no padding.
            end = sum(sizes[part] for part in order[: order.index("text") + 1])
            seen[:, end - known : end] = self.text
        seen = seen[:, None, None, :]
        return seen if self.image is None else seen | torch.eye(length, dtype=torch.bool, device=seen.device)


class TextMask:
    """The mask of attention that looks at texts alone.

    Args:
        text: (B, text tokens) bool, those that are seen: at least one of each sample.
    """

    def __init__(self, text: Tensor) -> None:
        self.text, self.asked = text, False

    def of(self, queries: int, keys: int) -> Tensor:
        """(B, 1, 1, keys) bool, True for a key that is seen.

        Raises:
            FamilyError: It looks at another number of tokens.
        """
        self.asked = True
        if keys != self.text.shape[1]:
            raise FamilyError(
                f"batch_size: the model looks at {keys} tokens where the texts have {self.text.shape[1]}. The family's "
                "file does not fit this version of ComfyUI; set batch_size to 1 and use gradient_accumulation."
            )
        return self.text[:, None, None, :]


def pinned_attention(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Scaled dot-product attention whatever ComfyUI chose: others depend on free memory or have no backward.

    For `transformer_options["optimized_attention_override"]`. Where the options carry a mask, attention follows it,
    together with the mask that the block passes: ComfyUI's own functions take a boolean mask in
    different ways, and some add it to the scores as 0 and 1.
    """
    key_mask = (kwargs.get("transformer_options") or {}).get(KEY_MASK)
    if key_mask is None:
        return attention_pytorch(*args, **kwargs)
    axis = 2 if kwargs.get("skip_reshape") else 1
    ours = key_mask.of(args[0].shape[axis], args[1].shape[axis])
    positional = len(args) > _MASK_POSITION
    theirs = args[_MASK_POSITION] if positional else kwargs.get("mask")
    kwargs["mask"] = combined_masks(ours, theirs)
    return attention_pytorch(*args[:_MASK_POSITION], *args[_MASK_POSITION + 1 :], **kwargs)


def combined_masks(ours: Tensor | None, theirs: Tensor | None) -> Tensor | None:
    """One mask that hides what either hides, (B, 1 or heads, L, L); None for none.

    Args:
        ours: (B, 1, L or 1, L) bool, True where a query sees a key.
        theirs: (L, L), (B, L, L) or (B, heads, L, L); bool likewise, or a float that is added to the scores.

    Returns:
        Bool, or float if theirs is. A query to which nothing would be left follows theirs alone: softmax over
        nothing is no number. What theirs hides by a number, be it the lowest, is something: softmax takes it.
    """
    if ours is None or theirs is None:
        return theirs if ours is None else ours
    theirs = theirs[None] if theirs.ndim == 2 else theirs
    theirs = theirs[:, None] if theirs.ndim == 3 else theirs
    if theirs.dtype == torch.bool:
        both = ours & theirs
        return torch.where(both.any(dim=-1, keepdim=True), both, theirs)
    left = (ours & ~theirs.isneginf()).any(dim=-1, keepdim=True)
    return theirs.masked_fill(~ours & left, float("-inf"))
