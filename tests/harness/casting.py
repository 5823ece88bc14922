"""A small model whose weights are stored in one type and used in another, under adapters that are no zeros."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from masklora.dataset.geometry import Geometry
from masklora.host.layers import recast
from masklora.host.model.trainable import TrainableModel
from masklora.settings import AdapterSettings

from .models import small_model, small_side, small_text


class CastRun:
    """One sample through a MODEL of `family` that computes in `dtype`, and with `quantised` in low precision."""

    def __init__(
        self,
        family: str,
        model: Any,
        *,
        dtype: torch.dtype = torch.float32,
        quantised: bool = False,
        **adapter: Any,
    ) -> None:
        self.family, self.trainable = family, TrainableModel(model, dtype=dtype)
        self.mode = "per block"
        self.compiler: Any = None
        self.trainable.quantised = quantised
        self.network: nn.Module = self.trainable.network
        self.adapters = self.trainable.make_adapters(AdapterSettings(rank=4, alpha=4.0, **adapter), seed=0)
        self.parameters = list(self.adapters.parameters().values())
        generator = torch.Generator().manual_seed(2)
        for p in self.parameters:
            # B, and whatever else makes the change zero at first.
            if not p.any():
                p.data.normal_(0.0, 0.02, generator=generator)
        side = small_side(self.trainable.family)
        self.noisy = torch.randn(1, self.trainable.channels, side, side, generator=generator)

    def predict(self) -> Tensor:
        """The network's answer, with the adapters within a session only."""
        square = Geometry(source=(64, 64), resized=(64, 64), crop=(0, 0, 64, 64))
        text = self.trainable.collate([small_text(self.family, tokens=77)], [square], self.noisy.shape[1:])
        return self.trainable.denoise(self.noisy, torch.tensor([0.4]), text)

    def session(self) -> contextlib.AbstractContextManager:
        """As its `mode` of checkpointing and its `compiler` have it."""
        return self.trainable.session(self.adapters, checkpointing=self.mode, compiler=self.compiler)

    def step(self, goal: Tensor | None = None) -> Tensor:
        """The mean square of the answer, or of what it is off the goal, whose gradients are added to the adapters'."""
        with self.trainable.autograd_scope():
            out = self.predict()
            loss = (out if goal is None else out - goal).square().mean()
            loss.backward()
        return loss.detach()

    def train(self, steps: int = 2) -> list[Tensor]:
        """Losses and gradients of each step, and what was learned."""
        seen = []
        with self._learning(1e-3) as learn:
            for _ in range(steps):
                loss = self.step()
                seen += [loss, *(p.grad.clone() for p in self.parameters if p.grad is not None)]
                learn()
        return [*seen, *(p.detach().clone() for p in self.parameters)]

    def losses_to_a_goal(self, steps: int = 4) -> list[float]:
        """Of each step of a training towards noise."""
        goal, losses = torch.randn(self.noisy.shape, generator=torch.Generator().manual_seed(3)), []
        with self._learning(5e-3) as learn:
            for _ in range(steps):
                losses.append(float(self.step(goal)))
                learn()
        return losses

    @contextlib.contextmanager
    def _learning(self, rate: float) -> Iterator[Callable[[], None]]:
        optimizer = torch.optim.AdamW(self.parameters, lr=rate)

        def learn() -> None:
            optimizer.step()
            optimizer.zero_grad()

        with self.session():
            yield learn

    def gradients(self, mode: str, compiler: Any = None) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The answer and the adapters' gradients of its mean square, with checkpointing `mode`."""
        with (
            self.trainable.session(self.adapters, checkpointing=mode, compiler=compiler),
            self.trainable.autograd_scope(),
        ):
            out = self.predict()
            # The last block of Qwen-Image makes text tokens that nothing reads.
            grads = torch.autograd.grad(out.square().mean(), self.parameters, materialize_grads=True)
        return out.detach(), grads


def equal(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> bool:
    """Whether both hold the same tensors, bit for bit."""
    return len(found) == len(wanted) and all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


@contextlib.contextmanager
def hollow_calls() -> Iterator[list[int]]:
    """A one for each layer that is repeated without its values."""
    calls: list[int] = []
    linear, convolution = recast._HollowLinear.product, recast._HollowConv2d.forward
    with (
        mock.patch.object(recast._HollowLinear, "product", lambda *a: calls.append(1) or linear(*a)),
        mock.patch.object(recast._HollowConv2d, "forward", staticmethod(lambda *a: calls.append(1) or convolution(*a))),
    ):
        yield calls


def cast_run(
    dtype: torch.dtype, mode: str, change: Callable[[nn.Module], object] | None = None
) -> tuple[Tensor, tuple[Tensor, ...], nn.Module]:
    """Prediction, gradients of the adapters and the network of a Flux stored in `dtype` and used in float32.

    `change` is given the network before the session.
    """
    run = CastRun("flux", small_model("flux", dtype=dtype))
    if change is not None:
        change(run.network)
    return *run.gradients(mode), run.network
