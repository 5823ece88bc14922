"""Ranks that are open by noise level: at high noise, where place and background are learned, fewer take part.

Source: Soboleva et al. 2025, T-LoRA, arXiv 2507.05964, equation of the timestep-dependent rank; without its orthogonal
initialisation. There the mask acts at sampling too, which no loader of LoRA files does: here it acts in training only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import ConfigError
from ..settings import TLORA, AdapterSettings

# Of layers of so many ranks the first so many take part.
Opening = tuple[tuple[int, int], ...]


def least_rank(settings: AdapterSettings) -> int:
    """How many ranks are open at the highest noise level; 0 where levels open none.

    Args:
        settings: Whose rank is resolved.

    Raises:
        ConfigError: It is more than the rank.
    """
    if settings.algorithm != TLORA:
        return 0
    if settings.least_rank > settings.rank:
        raise ConfigError(
            f"least_rank: expected at most the rank, {settings.rank}, got {settings.least_rank}. Lower it, or raise "
            "rank; 0 is half of the rank."
        )
    return settings.least_rank or -(-settings.rank // 2)


def open_ranks(level: float, *, rank: int, least: int) -> int:
    """How many of `rank` ranks take part at a noise level: all of them at 0, `least` at 1, linear in between.

    Args:
        level: u in [0, 1].
        rank: of the layer, at least 1.
        least: at least 1; a layer of fewer ranks always has all of its own.
    """
    least = min(least, rank)
    # Rounded first: levels are float32, in which 1 − u is not quite what it is meant to be.
    return least + math.floor(round((1.0 - level) * (rank - least), 5))


def opening_at(level: float, *, ranks: Sequence[int], least: int) -> Opening | None:
    """How many ranks are open of layers of each of these; None where that is all of all."""
    found = tuple((rank, open_ranks(level, rank=rank, least=least)) for rank in ranks)
    return None if all(rank == count for rank, count in found) else found


def parted(rows: Sequence[int], openings: Sequence[Opening | None]) -> Iterator[list[int]]:
    """`rows` of a batch as those of samples that have the same ranks open, each in their order."""
    for opening in dict.fromkeys(openings[row] for row in rows):
        yield [row for row in rows if openings[row] == opening]


class Opened(torch.autograd.Function):
    """Copies of A whose closed ranks are 0, so that their products are and B learns nothing of them; nor does A.

    It keeps no tensors, so backward may repeat.
    """

    @staticmethod
    def forward(ctx: Any, closed: Sequence[Sequence[slice]], *downs: Tensor) -> tuple[Tensor, ...]:
        """Of each of `downs`, (all rows, in[, kh, kw]), the rows of its `closed` slices are 0."""
        ctx.set_materialize_grads(False)
        ctx.closed = closed
        copies = [torch.empty_like(down) for down in downs]
        torch._foreach_copy_(copies, list(downs))
        _close(copies, closed)
        return tuple(copies)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """Exactly 0 in the closed rows."""
        copies = [None if grad is None else grad.clone() for grad in grads]
        there = [(copy, rows) for copy, rows in zip(copies, ctx.closed, strict=True) if copy is not None]
        _close([copy for copy, _ in there], [rows for _, rows in there])
        return None, *copies


def _close(tensors: Sequence[Tensor], closed: Sequence[Sequence[slice]]) -> None:
    parts = [tensor[rows] for tensor, each in zip(tensors, closed, strict=True) for rows in each]
    if parts:
        torch._foreach_zero_(parts)
