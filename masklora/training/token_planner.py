"""The token plans of a run: from the masks of a micro-batch, and of all pictures of its size, to what tokens do."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..loss.tokens import (
    TokenModel,
    TokenPlan,
    acts_on_tokens,
    count_mask_tokens,
    describe_routes,
    parse_routes,
    plan_tokens,
    route_counts,
    token_cells,
    token_weights,
)
from ..settings import LossSettings
from .microbatch import Feed, MicroBatch


class TokenPlanner:
    """Plans micro-batches alike in every pass over them, and tells once for each size how many tokens are kept."""

    def __init__(self, model: TokenModel | None, *, feed: Feed | None = None, tell: Callable[[str], None]) -> None:
        """Plan for `model`; None plans nothing. Without a feed each batch's own largest mask decides the count."""
        self.model, self.feed, self.tell = model, feed, tell
        # Share of the tokens that each route keeps, by latent grid, for the run's summary.
        self.kept: dict[str, list[float]] = {}

    def __call__(
        self, batch: MicroBatch, w: Tensor, loss: LossSettings, *, progress: float, generator: torch.Generator
    ) -> TokenPlan | None:
        """The plan, or None where every token passes and is seen.

        Args:
            batch: from the feed.
            w: its effective weights (B, 1, [F,] h, w).
            loss: the settings that count this time.
            progress: share of the run that is done, in [0, 1).
            generator: the run's own.
        """
        if self.model is None or not acts_on_tokens(loss):
            return None
        most = self._most(batch, loss, self.model)
        masks = _shares(batch)
        plan = plan_tokens(masks, w, loss, model=self.model, most=most, progress=progress, generator=generator)
        if parse_routes(loss.routes) and progress < loss.route_until:
            self._note(batch, loss, most, self.model)
        return plan

    def passing(self, v: Tensor, plan: TokenPlan | None) -> Tensor:
        """The prior's weights `v` (B, 1, [F,] h, w), 0 on tokens that skip blocks: they are not to be compared."""
        skipped = None if plan is None else plan.skipped()
        if skipped is None or self.model is None:
            return v
        return v.masked_fill(token_cells(skipped, patch=self.model.patch, shape=v.shape), 0.0)

    def _most(self, batch: MicroBatch, loss: LossSettings, model: TokenModel) -> int:
        if loss.route_selection != "mask kept" or not parse_routes(loss.routes):
            return 0
        if self.feed is not None:
            return self.feed.most_mask_tokens(batch.grid, patch=model.patch)
        return int(count_mask_tokens(_shares(batch), patch=model.patch).max())

    def _note(self, batch: MicroBatch, loss: LossSettings, most: int, model: TokenModel) -> None:
        name = "×".join(map(str, batch.grid))
        if name in self.kept:
            return
        tokens = token_weights(batch.masks[:1], patch=model.patch).shape[1]
        counts = route_counts(loss, model=model, tokens=tokens, most=most)
        self.kept[name] = [count / tokens for _, count in counts]
        self.tell(describe_routes(counts, tokens=tokens))


def _shares(batch: MicroBatch) -> Tensor:
    """How much of each cell the mask covers, whatever reduction the loss has."""
    return batch.masks if batch.shares is None else batch.shares
