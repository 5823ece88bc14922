"""Where masks meet the tokens of a transformer: which tokens skip blocks, and which are seen by the others.

Token routing (TREAD, arXiv 2501.04765) lets a share of the image tokens skip a run of blocks: the blocks have less to
do, and at the run's end the tokens rejoin as they were. With a mask it is known which tokens can be spared. Everything
here is pure; the host moves the tokens.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ConfigError

if TYPE_CHECKING:
    from ..settings import TokenSettings

# Kept tokens come in multiples of this, so that kernels meet few shapes and full tiles.
KEPT_MULTIPLE = 16
# A token belongs to the mask if the mean of its cells lies above.
MASK_TOKEN = 0.5
_EXAMPLE = "such as 0.75: 2..-3"
_PART = re.compile(r"(-?(?:\d*\.?\d+|\d+\.))\s*:\s*(-?\d+)\s*\.\.\s*(-?\d+)")


@dataclass(frozen=True)
class Route:
    """One run of blocks that some tokens skip.

    Attributes:
        drop: share of the tokens that skip it, 0 to 1; of which tokens, the selection says.
        first: number of its first block, from 0; negative numbers count from the last block, −1.
        last: number of its last block, likewise.
    """

    drop: float
    first: int
    last: int


@dataclass(frozen=True)
class TokenModel:
    """What of a model's tokens must be known to plan with them.

    Attributes:
        patch: latent cells per token along each side.
        blocks: how many blocks the tokens pass.
        title: of the model, for people.
    """

    patch: int
    blocks: int
    title: str = "the model"


@dataclass(frozen=True, eq=False)
class Passage:
    """A route in one micro-batch.

    Attributes:
        first: number of its first block, from 0.
        last: number of its last block.
        kept: (B, K) int64, ascending in each row: the image tokens that pass its blocks.
    """

    first: int
    last: int
    kept: Tensor


@dataclass(frozen=True, eq=False)
class TokenPlan:
    """What the tokens of one micro-batch do, the same in every pass over it.

    Attributes:
        tokens: how many image tokens a sample has.
        passages: the routes; empty on an unrouted step.
        visible: (B, tokens) bool, image tokens that others see; None for all.
        text_padding: whether padded text tokens are hidden too; the conditioning tells which they are.
    """

    tokens: int
    passages: tuple[Passage, ...] = ()
    visible: Tensor | None = None
    text_padding: bool = False

    def rows(self, rows: Sequence[int]) -> TokenPlan:
        """The plan of some samples of the batch."""
        at = list(rows)
        return dataclasses.replace(
            self,
            passages=tuple(dataclasses.replace(p, kept=p.kept[at]) for p in self.passages),
            visible=None if self.visible is None else self.visible[at],
        )

    def whole(self) -> TokenPlan | None:
        """The plan without routes and with every image token seen; None where nothing is left of it."""
        return TokenPlan(self.tokens, text_padding=True) if self.text_padding else None

    def skipped(self) -> Tensor | None:
        """Image tokens that skip any block, (B, tokens) bool; None where there is no route."""
        if not self.passages:
            return None
        kept = [passage.kept for passage in self.passages]
        everyone = torch.ones(len(kept[0]), self.tokens, dtype=torch.bool, device=kept[0].device)
        return functools.reduce(torch.logical_or, (everyone.scatter(1, k, False) for k in kept))


@functools.lru_cache(maxsize=32)
def parse_routes(text: str) -> tuple[Route, ...]:
    """The routes in the text of the widget: `0.75: 2..-3; 0.5: 4..8`, empty for none.

    Raises:
        ConfigError: a part is no route, drops less than nothing or more than everything, ends before it begins or
            overlaps another one. What only the number of blocks decides, `resolve_routes` tells.
    """
    routes = []
    for part in filter(None, (p.strip() for p in text.split(";"))):
        found = _PART.fullmatch(part)
        if not found:
            raise ConfigError(
                f"routes: {part!r} is no route. Write the share of the tokens that skip, a colon, and the first and "
                f"the last block, {_EXAMPLE}; several apart by ;."
            )
        route = Route(float(found[1]), int(found[2]), int(found[3]))
        if not 0 <= route.drop <= 1:
            raise ConfigError(f"routes: {part!r} drops {route.drop:g}, expected a share from 0 to 1, {_EXAMPLE}.")
        if (route.first < 0) == (route.last < 0):
            _refuse_reversed(route, part)
        routes.append(route)
    for sign in (False, True):
        _refuse_overlap([r for r in routes if (r.first < 0) == (r.last < 0) == sign])
    return tuple(routes)


def resolve_routes(routes: Sequence[Route], *, blocks: int, title: str) -> tuple[Route, ...]:
    """The routes in the order of the blocks, which are counted from 0.

    Args:
        routes: as the widget has them.
        blocks: how many the model has.
        title: of the model, for people.

    Raises:
        ConfigError: a route reaches beyond the blocks, ends before it begins or overlaps another one.
    """
    out = []
    for route in routes:
        text = _text(route)
        for number in (route.first, route.last):
            if not -blocks <= number < blocks:
                raise ConfigError(
                    f"routes: {text!r} names block {number}, but {title} has {blocks} blocks, 0 to {blocks - 1} or "
                    f"-{blocks} to -1. Name one of these, {_EXAMPLE}."
                )
        placed = Route(route.drop, route.first % blocks, route.last % blocks)
        _refuse_reversed(placed, text)
        out.append(placed)
    _refuse_overlap(out)
    return tuple(sorted(out, key=lambda route: route.first))


def token_weights(w: Tensor, *, patch: int) -> Tensor:
    """The mean weight of every token's cells, (B, tokens).

    Args:
        w: (B, 1, [F,] h, w) on the latent grid.
        patch: latent cells per token along each side; a token at the border may have fewer.
    """
    return _per_token(w, lambda cells: F.avg_pool2d(cells, patch, ceil_mode=True, count_include_pad=False))


def visible_tokens(w: Tensor, *, patch: int) -> Tensor:
    """Image tokens that others may look at, (B, tokens) bool: those with any weight in any cell.

    Args:
        w: the effective weight (B, 1, [F,] h, w), after floor and probability, before the outside share. A floor
            above 0 therefore hides nothing.
        patch: latent cells per token along each side.

    Returns:
        All of a sample without any weight: with every key hidden attention would have nothing to look at.
    """
    seen = _per_token(w, lambda cells: F.max_pool2d(cells, patch, ceil_mode=True)) > 0
    return seen | ~seen.any(dim=1, keepdim=True)


def token_cells(tokens: Tensor, *, patch: int, shape: Sequence[int]) -> Tensor:
    """A value per token spread over its cells, of the shape (B, 1, [F,] h, w) given.

    Args:
        tokens: (B, tokens).
        patch: latent cells per token along each side.
        shape: of the weights.
    """
    h, w = shape[-2:]
    grid = tokens.reshape(*shape[:-2], -(-h // patch), -(-w // patch))
    return grid.repeat_interleave(patch, -2).repeat_interleave(patch, -1)[..., :h, :w]


def count_mask_tokens(masks: Tensor, *, patch: int) -> Tensor:
    """How many tokens of each sample belong to its mask, (B,) int64; masks (B, 1, [F,] h, w)."""
    return (token_weights(masks, patch=patch) > MASK_TOKEN).sum(dim=1)


def kept_count(tokens: int, drop: float, *, never: int = 0) -> int:
    """How many tokens pass the blocks of a route: one number for all samples of a size.

    Args:
        tokens: image tokens of a sample.
        drop: share that skips.
        never: tokens that are never dropped; the share is of the others.

    Returns:
        Rounded up to a multiple of `KEPT_MULTIPLE`, at least one such, and never more than there are.
    """
    wanted = max(1.0, never + (1.0 - drop) * (tokens - never))
    return min(tokens, KEPT_MULTIPLE * math.ceil(round(wanted / KEPT_MULTIPLE, 6)))


def choose_kept(belongs: Tensor, chances: Tensor, *, count: int, selection: str) -> Tensor:
    """The tokens that pass, (B, count) int64, ascending, so that keeping all of them is the identity.

    Args:
        belongs: (B, tokens) bool, tokens of the mask.
        chances: (B, tokens) random in [0, 1); the largest stay.
        count: how many pass.
        selection: `random`, or `mask kept` and `mask-aware`, where the mask's tokens come before all others. The two
            differ in the count.
    """
    order = chances if selection == "random" else chances + belongs
    return order.topk(count, dim=1).indices.sort(dim=1).values


def acts_on_tokens(settings: TokenSettings) -> bool:
    """Whether any setting lets tokens skip blocks or hides them."""
    return settings.attention_mask or settings.text_padding_mask or bool(parse_routes(settings.routes))


def plan_tokens(
    masks: Tensor,
    w: Tensor,
    settings: TokenSettings,
    *,
    model: TokenModel,
    most: int,
    progress: float,
    generator: torch.Generator | None = None,
) -> TokenPlan | None:
    """What the tokens of a micro-batch do; None where all pass every block and see each other.

    Every route of a step ranks the tokens alike, so a route that drops less keeps all that one that drops more keeps.

    Args:
        masks: the mask on the latent grid, before the latent transforms, (B, 1, [F,] h, w): decides who skips.
        w: the effective weight, likewise: decides who is seen.
        settings: `routes`, `route_selection`, `route_until`, `attention_mask` and `text_padding_mask`.
        model: patch and number of blocks.
        most: mask tokens of the largest mask of this size; with `mask kept` all samples keep as many as it needs.
        progress: share of the run that is done, in [0, 1).
        generator: the run's own; asked only if some token is dropped.

    Raises:
        ConfigError: a route does not fit the model.
    """
    belongs = token_weights(masks, patch=model.patch) > MASK_TOKEN
    tokens = belongs.shape[1]
    passages: tuple[Passage, ...] = ()
    if progress < settings.route_until:
        counts = route_counts(settings, model=model, tokens=tokens, most=most)
        counts = [(route, count) for route, count in counts if count < tokens]
        if counts:
            chances = torch.rand(belongs.shape, generator=generator, device=belongs.device)
            choose = functools.partial(choose_kept, belongs, chances, selection=settings.route_selection)
            by_count = {count: choose(count=count) for _, count in counts}
            passages = tuple(Passage(route.first, route.last, by_count[count]) for route, count in counts)
    visible = visible_tokens(w, patch=model.patch) if settings.attention_mask else None
    # One look at the device: without a mask attention is faster.
    visible = None if visible is None or bool(visible.all()) else visible
    if not passages and visible is None and not settings.text_padding_mask:
        return None
    return TokenPlan(tokens, passages, visible, settings.text_padding_mask)


def route_counts(settings: TokenSettings, *, model: TokenModel, tokens: int, most: int) -> list[tuple[Route, int]]:
    """The settings' routes in the order of the blocks, each with the number of tokens that it keeps.

    Args:
        settings: `routes` and `route_selection`.
        model: number of blocks.
        tokens: image tokens of a sample.
        most: mask tokens of the largest mask of this size.

    Raises:
        ConfigError: a route does not fit the model.
    """
    routes = resolve_routes(parse_routes(settings.routes), blocks=model.blocks, title=model.title)
    never = most if settings.route_selection == "mask kept" else 0
    return [(route, kept_count(tokens, route.drop, never=never)) for route in routes]


def describe_routes(counts: Sequence[tuple[Route, int]], *, tokens: int) -> str:
    """A line for people on how many tokens each route keeps, and why that may be all of them."""
    parts = (f"{100 * n / tokens:.0f} % of {tokens} tokens kept in blocks {r.first} to {r.last}" for r, n in counts)
    line = "token routing: " + ", ".join(parts)
    if any(count == tokens and route.drop > 0 for route, count in counts):
        line += (
            ". Nothing is saved where all are kept: with mask kept a picture whose mask covers everything, or that has "
            "none, keeps every token of its size. Set route_selection to mask-aware to drop some of them too"
        )
    return line + "."


def _per_token(w: Tensor, pool: Callable[[Tensor], Tensor]) -> Tensor:
    flat = w.reshape(-1, 1, *w.shape[-2:])
    return pool(flat).reshape(w.shape[0], -1)


def _text(route: Route) -> str:
    return f"{route.drop:g}: {route.first}..{route.last}"


def _refuse_reversed(route: Route, text: str) -> None:
    if route.last < route.first:
        raise ConfigError(f"routes: {text!r} ends before it begins. Write the first block first, {_EXAMPLE}.")


def _refuse_overlap(routes: Sequence[Route]) -> None:
    ordered = sorted(routes, key=lambda route: route.first)
    for one, other in itertools.pairwise(ordered):
        if other.first <= one.last:
            raise ConfigError(
                f"routes: {_text(one)!r} and {_text(other)!r} overlap. Let one end before the other begins, such as "
                "0.75: 2..5; 0.5: 6..8."
            )
