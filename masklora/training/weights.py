"""The weights in training with all that moves them: exactly what a checkpoint holds."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import increment_version

from ..optimizers import optim
from ..runs.run import Checkpoint
from ..settings import OptimizerSettings
from .job import Trainable


class Weights:
    """A model's parameters, their optimizer, average, gradient scaler and random numbers, and the steps taken.

    Attributes:
        step: finished optimizer steps.
        taken: micro-batches that were learned in them, those of other processes among them.
        best: the lowest held-out loss so far, None before the first.
        updating: whether a step is changing the weights right now, so that they are not to be saved.
    """

    def __init__(
        self,
        model: Trainable,
        settings: OptimizerSettings,
        *,
        micros: int = 1,
        processes: int = 1,
        parts: Sequence[optim.Part] = (),
    ) -> None:
        """As a run begins, of `micros` micro-batches a step over all `processes`; `parts` have rates of their own.

        Raises:
            ConfigError: a setting is out of range, or there is nothing to train.
        """
        self.settings, self.params, self.parts = settings, model.params, tuple(parts)
        groups = optim.parameter_groups(model.params, settings, learning_rate=settings.learning_rate, parts=parts)
        self.optimizer = optim.make_optimizer(groups, settings)
        self.ema = optim.Ema(model.params, settings.ema_decay) if settings.ema_decay > 0 else None
        self.scaler = torch.amp.GradScaler(model.device.type) if model.grad_scaling else None
        self.step, self.taken, self.micros, self._alone = 0, 0, micros, micros // processes
        self.best: float | None = None
        self.updating = False
        self._gate = optim.StepGate(model.device)

    def begin(self) -> list[optim.Part]:
        """A step begins: the parts that end before it."""
        for part in self.parts:
            for name, parameter in self.params.items():
                if name.startswith(part.prefix):
                    parameter.requires_grad_(part.learns(self.step))
        return [part for part in self.parts if part.stop and self.step == part.stop]

    def backward(self, value: Tensor) -> None:
        """Add the gradient of a part of the loss, 0-d."""
        (self.scaler.scale(value) if self.scaler else value).backward()

    def clip(self) -> Tensor:
        """The norm of the gradient, 0-d on the device, before it is clipped as the settings ask."""
        if self.scaler:
            self.scaler.unscale_(self.optimizer)
        limit = self.settings.clip_norm if self.settings.clip_norm > 0 else float("inf")
        parameters = list(self.params.values())
        # A few launches on any accelerator; on the CPU one by one is as fast.
        return nn.utils.clip_grad_norm_(parameters, limit, foreach=self._gate.bad.device.type != "cpu")

    def observe(self, loss: Tensor, norm: Tensor) -> None:
        """Once one of these is not finite, no later step touches the weights; nobody waits for the device."""
        self._gate.observe(loss, *([] if self.scaler else [norm]))

    def update(self, total: int) -> float:
        """Take the step, of `total`: the learning rate of it. `settle` ends it."""
        self.updating = True
        rate = optim.apply_learning_rate(self.optimizer, self.step, total=total, settings=self.settings)
        self._gate.close(self.optimizer, scaled=self.scaler is not None)
        if self.scaler:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            self.optimizer.step()
        # Fused, 8-bit and Prodigy steps do not, and copies in the model's dtype are made anew by it.
        for parameter in self.params.values():
            if parameter.requires_grad:
                increment_version(parameter)
        self.drop_gradients()
        if self.ema:
            self.ema.update(self.step)
        self.step += 1
        self.taken += self.micros
        return rate

    def settle(self) -> None:
        """The step is over: the weights may be saved."""
        self.updating = False

    def drop_gradients(self) -> None:
        """Free the gradients."""
        self.optimizer.zero_grad(set_to_none=True)

    def result(self) -> dict[str, Tensor]:
        """What a person would use now; see `optim.result_weights`."""
        return optim.result_weights(self.params, self.optimizer, self.ema)

    @contextlib.contextmanager
    def wearing_result(self) -> Iterator[None]:
        """The context in which the model has the weights of `result`; afterwards those in training, bit for bit."""
        live = {name: p.detach().clone() for name, p in self.params.items()}
        try:
            optim.copy_named(self._data(), self.result())
            yield
        finally:
            optim.copy_named(self._data(), live)

    def state(self, adapter: dict[str, Tensor]) -> dict[str, Any]:
        """What going on needs beside `adapter`, which `result` gave: tensors and JSON-able values."""
        return {
            "step": self.step,
            "best": self.best,
            "optimizer": optim.optimizer_state(self.optimizer),
            "taken": self.taken,
            "scaler": self.scaler.state_dict() if self.scaler else None,
            "live": optim.live_weights(self.params, adapter),
        }

    def restore(self, checkpoint: Checkpoint) -> bool:
        """Go on from a checkpoint; False where the optimizer starts anew, because its state is not kept any more.

        Raises:
            RunError: the checkpoint belongs to another adapter or optimizer.
        """
        state = checkpoint.state
        with torch.no_grad():
            optim.copy_named(self._data(), checkpoint.adapter if state["live"] is None else state["live"])
        if state["optimizer"] is not None:
            optim.restore_optimizer(self.optimizer, state["optimizer"])
        if self.ema:
            self.ema.load(checkpoint.adapter)
        if self.scaler and state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        self.step, self.best = checkpoint.step, state["best"]
        # Earlier versions did not tell, and had one process.
        self.taken = state.get("taken", self.step * self._alone)
        return state["optimizer"] is not None

    def _data(self) -> dict[str, Tensor]:
        # Of one version with the parameters, which `data` is not.
        return {name: p.detach() for name, p in self.params.items()}
