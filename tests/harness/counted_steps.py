"""Steps counted in a process of their own: torch takes up a new device only before a process's first backward pass."""

import concurrent.futures
import contextlib
import multiprocessing
import runpy
from pathlib import Path
from unittest import mock

import torch

from benchmarks.full_size import Counting
from masklora.host.layers import recast
from masklora.host.swap.block_swap import BlockSwap
from masklora.training import objective

_CONFTEST = Path(__file__).resolve().parents[1] / "conftest.py"


class StepFailed(Exception):
    """What the step raised, with the name of its kind."""


class CountingProcess:
    """Counts steps one after another; close it at the end."""

    def __init__(self):
        self._pool = concurrent.futures.ProcessPoolExecutor(
            1, mp_context=multiprocessing.get_context("spawn"), initializer=runpy.run_path, initargs=(str(_CONFTEST),)
        )

    def step(self, case, *, fault=None, device=None):
        """The counts of one step of `case`; with the name of one of `FAULTS`, of a step with that in it."""
        return self._pool.submit(_step, case, fault, device).result()

    def close(self):
        self._pool.shutdown()


def _step(case, fault, device):
    try:
        with FAULTS[fault]() if fault else contextlib.nullcontext():
            training = Counting(case, device)
            with training.running():
                return training.step()
    except Exception as error:
        # Not every error of torch's can be sent to another process.
        raise StepFailed(f"{type(error).__name__}: {error}") from None


def _altered_weights(change):
    """The step with the weights of its timesteps changed."""
    plain = objective.timestep_weights
    return mock.patch.object(objective, "timestep_weights", lambda *args, **kwargs: change(plain(*args, **kwargs)))


def _kept_cast_copy():
    """A frozen layer that autograd keeps a cast copy of: a second model in memory."""

    def product(self, x):
        with recast.cast(self.module, dtype=x.dtype, device=x.device) as (weight, bias):
            self.kept = weight
            return torch.nn.functional.linear(x, weight, bias)

    return mock.patch.object(recast._RecastLinear, "product", product)


def _resident_block():
    """The first of the swapped blocks stays on the device, beside its place in a slot."""
    plain = BlockSwap._at_rest

    def at_rest(swap, index, places):
        return plain(swap, index, places) if index else contextlib.nullcontext()

    return mock.patch.object(BlockSwap, "_at_rest", at_rest)


FAULTS = {
    "a block that stays resident": _resident_block,
    "a tensor on the CPU": lambda: _altered_weights(lambda x: torch.ones(x.shape, device="cpu")),
    "a value that the host reads": lambda: _altered_weights(lambda x: x * float(x.sum().item())),
    "a tensor brought to the host": lambda: _altered_weights(lambda x: x.cpu().to(x.device)),
    "a kept cast copy": _kept_cast_copy,
}
