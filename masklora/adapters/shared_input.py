"""Adapters that are given one tensor, as those of an attention's q, k and v: their A are multiplied in one product.

Names tell which layers may be. Whether they are is seen at each call: a layer that comes with another tensor takes the
product anew. Nothing is learned from call to call, so a run that goes on from a checkpoint rounds as one that never
stopped.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..autograd.forwards import Forward

# Layers with names that are alike but for this are given one tensor: to_q, to_k, to_v; w1q, w1k, w1v; gate, up.
_ALIKE = (
    (re.compile(r"(?<![a-z])(w?\d?)(query|key|value|q|k|v)(?![a-z])"), r"\1*"),
    (re.compile(r"^(gate|up)(?=_proj$|$)"), "*"),
    (re.compile(r"^(w|linear_)[13]$"), r"\1*"),
    (re.compile(r"^c_fc[12]$"), "*"),
)


# The query of what looks at another sequence is given its own.
_CROSS = ((re.compile(r"(?<![a-z])(w?\d?)(key|value|k|v)(?![a-z])"), r"\1*"),)


def alike(paths: Mapping[str, int], *, cross: Collection[str] = ()) -> list[list[str]]:
    """Which layers of one module are named as those that are given one tensor.

    Args:
        paths: of linear layers, each with its number of input features.
        cross: paths of modules that look at another sequence.

    Returns:
        Two or more paths each, in the given order.
    """
    found: defaultdict[tuple, list[str]] = defaultdict(list)
    for path, features in paths.items():
        parent, _, name = path.rpartition(".")
        for pattern, common in _CROSS if parent in cross else _ALIKE:
            name, hits = pattern.subn(common, name, count=1)
            if hits:
                found[parent, name, features].append(path)
                break
    return [group for group in found.values() if len(group) > 1]


class SharedInput:
    """Layers of one module that may be given one tensor.

    Attributes:
        rows: those of each layer's A in the stack.
        stack: (all rows, in), their A one below the other while `Cast` has made them.
    """

    def __init__(self, downs: Sequence[nn.Module]) -> None:
        """Of what PEFT has as A of each."""
        self._downs = tuple(downs)
        ends = list(itertools.accumulate(len(down) for down in self.downs))
        self.rows = [slice(end - len(down), end) for end, down in zip(ends, self.downs, strict=True)]
        self.stack: Tensor | None = None
        self._open = False
        self._seen: tuple[Tensor, int, bool] | None = None
        self._passed: Tensor | None = None
        self._hidden: dict[int, Tensor] = {}

    @property
    def downs(self) -> list[Tensor]:
        """A of each."""
        return [down.weight for down in self._downs]  # type: ignore[misc]

    @contextlib.contextmanager
    def called(self) -> Iterator[None]:
        """While the module that has the layers runs; what they share does not outlast it."""
        self._open = True
        try:
            yield
        finally:
            self._open = False
            self._forget()

    def shares(self, x: Tensor) -> bool:
        """Whether layers that are given `x` now can share its product."""
        return self._open and self.stack is not None and self.stack.dtype == x.dtype and not x.is_inference()

    def give(self, x: Tensor, passed: Tensor, hidden: Sequence[Tensor], *, number: int) -> None:
        """Keep what the first layer made of `x` for the others.

        Args:
            x: As that layer was given it.
            passed: Its rows, for the next: gradients come back through them.
            hidden: (n, rank) of each of the others.
            number: The first layer's own.
        """
        self._seen, self._passed = self._state(x), passed
        others = (i for i in range(len(self.rows)) if i != number)
        self._hidden = dict(zip(others, hidden, strict=True))

    def take(self, number: int, x: Tensor) -> tuple[Tensor, Tensor] | None:
        """Rows of `x` and their product with the A of this layer, once; None if it was not made of this very tensor."""
        known, state = self._seen, self._state(x)
        if known is None or known[0] is not x or known[1:] != state[1:] or number not in self._hidden:
            return None
        assert self._passed is not None
        taken = self._passed, self._hidden.pop(number)
        if not self._hidden:
            self._forget()
        return taken

    def pass_on(self, passed: Tensor) -> None:
        """Rows of the tensor, for the next layer if there is one."""
        if self._hidden:
            self._passed = passed

    def _forget(self) -> None:
        self._seen = self._passed = None
        self._hidden = {}

    @staticmethod
    def _state(x: Tensor) -> tuple[Tensor, int, bool]:
        return x, x._version, torch.is_grad_enabled()


def calling(groups: Mapping[nn.Module, Iterable[SharedInput]]) -> Callable[[nn.Module, Forward], Forward]:
    """The forward of a module that has groups of layers; for `replaced_forwards`."""

    def make(module: nn.Module, inner: Forward) -> Forward:
        own = tuple(groups[module])

        def forward(*args: Any, **kwargs: Any) -> Any:
            with contextlib.ExitStack() as stack:
                for group in own:
                    stack.enter_context(group.called())
                return inner(*args, **kwargs)

        return forward

    return make
